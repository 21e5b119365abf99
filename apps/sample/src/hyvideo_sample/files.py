"""Sample files: their names, the check of their place before hours are spent, and the settings inside them.

Shapes: T frames, H height, W width, C channels (red, green, blue).
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hy_data import read_settings, write_video
from hy_data.files import require_place, staged
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from hyvideo_sample.record import Record, record_from
from hyvideo_sample.settings import SampleError, Settings

_PNG_KEY = "Comment"
_SLUG_LENGTH = 40


def suffix(settings: Settings) -> str:
    """The ending of a sample's file: a single frame is a picture."""
    return ".png" if settings.frames == 1 else ".mp4"


def slug(prompt: str) -> str:
    """The prompt's beginning as a part of a file name; letters of every language stay."""
    words = re.sub(r"\W+", "-", prompt.lower())[:_SLUG_LENGTH].strip("-")
    return words or "sample"


def check_place(path: Path, settings: Settings, *, overwrite: bool) -> None:
    """Refuse a place that the sample could not be written to.

    Raises:
        SampleError: the ending is unknown or does not fit.
        CannotWrite: the file exists already, or its folder takes no files.
    """
    if path.suffix.lower() not in (".mp4", ".png"):
        raise SampleError(f"{path}: a sample is written as .mp4, or as .png if it has one frame; name such a file")
    if path.suffix.lower() == ".png" and settings.frames != 1:
        raise SampleError(f"{path}: a .png holds one frame, not {settings.frames}; use .mp4 or --frames 1")
    require_place(path, overwrite=overwrite)


def write_sample(path: Path, frames_THWC: npt.NDArray[np.uint8], record: Record) -> None:
    """Write a video or a picture with its record inside; it appears under its name only when it is whole.

    Raises:
        CannotWrite: the place is forbidden or full.
    """
    stored = record.stored()
    if path.suffix.lower() == ".mp4":
        write_video(path, frames_THWC, record.settings.fps, metadata=stored)
        return
    text = PngInfo()
    text.add_itxt(_PNG_KEY, json.dumps(stored, ensure_ascii=False))
    with staged(path) as stage:
        Image.fromarray(frames_THWC[0]).save(stage, format="png", pnginfo=text)


def read_record(path: Path) -> Record:
    """Read back what `write_sample` stored.

    Raises:
        SampleError: the file is no sample, or a newer version's.
        DataError: the file is no video, or carries no settings.
    """
    return record_from(_png_settings(path) if path.suffix.lower() == ".png" else read_settings(path), path)


def _png_settings(path: Path) -> Mapping[str, Any]:
    try:
        with Image.open(path, formats=["png"]) as picture:
            stored = json.loads(picture.info.get(_PNG_KEY, ""))
    except FileNotFoundError as error:
        raise SampleError(f"{path} does not exist; give a video or picture that `hyvideo sample` wrote") from error
    except UnidentifiedImageError as error:
        raise SampleError(f"{path} is no PNG picture that can be read") from error
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise SampleError(f"{path} carries no settings; only pictures that `hyvideo sample` wrote do")
    return stored
