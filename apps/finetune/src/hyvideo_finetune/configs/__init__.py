"""Recipes of fine-tuning."""

from pathlib import Path


def folder() -> Path:
    """Return the folder of the recipes."""
    return Path(__file__).parent
