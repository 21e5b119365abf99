"""HunyuanVideo's dual-to-single-stream diffusion transformer."""
