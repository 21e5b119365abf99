"""What autoencoders are compared on: the images and videos of a folder, at the sizes of the paper's table 1.

Shapes: T frames, H height, W width, C channels (red, green, blue).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hy_data import DataError, fit, iter_frames
from PIL import Image, ImageOps

IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
VIDEOS = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".y4m"}


class LeftOut(Exception):
    """An item that can't be used, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What every item is brought to.

    Attributes:
        image: side of the square images, in pixels.
        width: of the videos.
        height: of the videos.
        frames: of the videos, from their first on.
    """

    image: int = 256
    width: int = 640
    height: int = 360
    frames: int = 33


def find_items(folder: Path) -> dict[str, list[Path]]:
    """List a folder's images and videos, those of its folders included, sorted; told apart by their endings."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        "images": [file for file in files if file.suffix.lower() in IMAGES],
        "videos": [file for file in files if file.suffix.lower() in VIDEOS],
    }


def read_item(file: Path, sizes: Sizes) -> npt.NDArray[np.uint8]:
    """Read an image as one frame, or a video's first frames, (T, H, W, 3) uint8.

    An image's shorter side is resized (Lanczos, antialiased), a video is resized by area averaging; what then lies
    over the wanted size is cut off evenly on both sides.

    Raises:
        LeftOut: it can't be read, or is too short.
    """
    return _image(file, sizes.image)[None] if file.suffix.lower() in IMAGES else _clip(file, sizes)


def _image(file: Path, side: int) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(file) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except Exception as error:  # what Pillow raises for a damaged file depends on where the damage is
        raise LeftOut(f"not an image that can be read ({error})") from error
    return np.array(ImageOps.fit(upright, (side, side), Image.Resampling.LANCZOS))


def _clip(file: Path, sizes: Sizes) -> npt.NDArray[np.uint8]:
    try:
        frames = [fit(frame_HWC[None], sizes.height, sizes.width)[0] for frame_HWC in _first(file, sizes.frames)]
    except DataError as error:
        raise LeftOut(str(error)) from error
    if len(frames) < sizes.frames:
        raise LeftOut(f"{len(frames)} frames, fewer than {sizes.frames}")
    return np.stack(frames)


def _first(file: Path, count: int) -> Iterator[npt.NDArray[np.uint8]]:
    return iter_frames(file, stop=count)
