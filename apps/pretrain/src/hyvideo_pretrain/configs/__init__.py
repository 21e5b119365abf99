"""Complete recipes for `hyvideo pretrain fit --config dit/NAME`, one YAML file each."""

from pathlib import Path


def folder() -> Path:
    """Return the folder of the recipes."""
    return Path(__file__).parent
