"""What is described: the clips of shards or the videos of a folder, each read when its turn comes.

Shapes: T frames, H height, W width, C channels (red, green, blue).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hy_data import DataError, StoredClip, iter_frames, probe
from hy_data.index import index_shard
from hy_data.shards import shard_paths

from hyvideo_caption.errors import CaptionCommandError

_VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One clip, not read yet.

    Attributes:
        key: its name, unique within the source.
        load: reads it, as captioners take it: `frames_THWC`, `fps`, `key`, `source`, `start`.
    """

    key: str
    load: Callable[[], Mapping[str, Any]]


def find_clips(source: Path, frames: int) -> tuple[list[Clip], list[str]]:
    """List the clips of a source, and what of it can't be read.

    Args:
        source: a folder with shards, a folder with videos at any depth, or a video.
        frames: how many frames of a video are read at most.

    Returns:
        the clips in order, and a message for each shard that is damaged.

    Raises:
        CaptionCommandError: there is nothing of the kind.
    """
    if not source.exists():
        raise CaptionCommandError(f"{source}: no such file or folder; name a folder with shards or videos, or a video")
    if source.is_file():
        return [_video(source, source.name, frames)], []
    if has_shards(source):
        return _of_shards(source)
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in _VIDEOS and path.is_file())
    seen = [path for path in found if not any(part.startswith(".") for part in path.relative_to(source).parts)]
    if not seen:
        raise CaptionCommandError(f"{source} holds neither shards nor videos ({', '.join(_VIDEOS)})")
    return [_video(path, path.relative_to(source).as_posix(), frames) for path in seen], []


def has_shards(folder: Path) -> bool:
    """Whether a folder holds shards."""
    try:
        return bool(shard_paths(folder))
    except DataError:
        return False


def _of_shards(folder: Path) -> tuple[list[Clip], list[str]]:
    clips: list[Clip] = []
    faults: list[str] = []
    for path in shard_paths(folder):
        found = index_shard(path)
        clips += [Clip(key=stored.key, load=partial(_stored_sample, stored)) for stored in found.clips]
        faults += map(str, found.faults)
    return clips, faults


def _stored_sample(stored: StoredClip) -> Mapping[str, Any]:
    clip = stored.load()
    return {
        "frames_THWC": clip.frames_THWC,
        "fps": clip.fps,
        "key": clip.key,
        "source": clip.source,
        "start": clip.start,
    }


def _video(path: Path, key: str, frames: int) -> Clip:
    return Clip(key=key, load=partial(_video_sample, path, key, frames))


def _video_sample(path: Path, key: str, frames: int) -> Mapping[str, Any]:
    fps = probe(path).fps
    frames_THWC = np.stack(list(iter_frames(path, stop=frames)))
    return {"frames_THWC": frames_THWC, "fps": fps, "key": key, "source": str(path), "start": 0}
