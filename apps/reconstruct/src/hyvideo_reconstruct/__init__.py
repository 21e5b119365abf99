"""Show what an autoencoder keeps of a video: input and reconstruction side by side, with PSNR."""
