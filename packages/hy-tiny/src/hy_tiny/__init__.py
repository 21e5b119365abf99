"""Trained weights of the CPU-size twin of HunyuanVideo, and the recipes that made them."""
