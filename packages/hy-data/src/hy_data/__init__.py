"""Video files in, training shards out: reading, shots, buckets, shards and the procedural world.

The names below are imported when first used: listing this package's plugin must stay quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hy_data.video import Clip, VideoInfo, encode_video, iter_frames, probe, read_settings, read_video, write_video
    from hy_data.world import World, WorldClip

__all__ = [
    "Clip",
    "VideoInfo",
    "World",
    "WorldClip",
    "encode_video",
    "iter_frames",
    "probe",
    "read_settings",
    "read_video",
    "write_video",
]

_HOME = {
    "Clip": "hy_data.video",
    "VideoInfo": "hy_data.video",
    "World": "hy_data.world",
    "WorldClip": "hy_data.world",
    "encode_video": "hy_data.video",
    "iter_frames": "hy_data.video",
    "probe": "hy_data.video",
    "read_settings": "hy_data.video",
    "read_video": "hy_data.video",
    "write_video": "hy_data.video",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
