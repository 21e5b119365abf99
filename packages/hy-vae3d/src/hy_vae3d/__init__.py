"""HunyuanVideo's causal 3D VAE: encode, decode, train."""
