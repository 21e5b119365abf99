"""Trained weights of the CPU-size twin of HunyuanVideo, and the recipes that made them."""

from pathlib import Path


def vae_folder() -> Path:
    """Return the folder of the tiny VAE, for `hy_vae3d.load_vae`."""
    return Path(__file__).parent / "weights" / "vae"
