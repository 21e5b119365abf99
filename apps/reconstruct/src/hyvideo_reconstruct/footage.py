"""What is reconstructed: the frames of a video or a picture, at the size that is asked for.

Shapes: T frames, H height, W width, C channels (red, green, blue).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hy_data import fit, iter_frames, probe
from hy_data.buckets import resize
from PIL import Image, ImageOps, UnidentifiedImageError

from hyvideo_reconstruct.cli import FRAMES, Request
from hyvideo_reconstruct.errors import ReconstructError

_PICTURES = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_MOST_SIDE = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Footage:
    """A video or picture that is there, and what of it will be read.

    Attributes:
        path: where it is.
        picture_HWC: the picture, if it is one, as it is stored.
        fps: frames per second; 1 for a picture.
        start: number of the first frame that is read.
        frames: how many are read.
        left: how many the file has after those.
        height: of a frame when it is read, in pixels.
        width: the same.
        crops: whether frames are cropped to the aspect of that size.
    """

    path: Path
    picture_HWC: npt.NDArray[np.uint8] | None
    fps: Fraction
    start: int
    frames: int
    left: int
    height: int
    width: int
    crops: bool

    @property
    def is_picture(self) -> bool:
        """Whether it is a single picture."""
        return self.picture_HWC is not None

    def read(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Read the frames one after another, (H, W, 3) uint8.

        Raises:
            DataError: the video breaks off.
        """
        shape = fit if self.crops else resize
        frames: Iterable[npt.NDArray[np.uint8]]
        if self.picture_HWC is not None:
            frames = [self.picture_HWC]
        else:
            frames = iter_frames(self.path, start=self.start, stop=self.start + self.frames)
        for frame_HWC in frames:
            yield shape(frame_HWC[None], self.height, self.width)[0]


def find_footage(request: Request) -> Footage:
    """Look at a file and work out what of it is read; frames are not.

    Raises:
        ReconstructError: it does not exist, is a damaged picture, or has no such frames.
        DataError: it is neither a picture nor a video.
    """
    path = request.source
    if not path.is_file():
        raise ReconstructError(f"{path}: no such file; give a video or a picture")
    picture_HWC = _picture(path)
    if picture_HWC is not None:
        height, width = picture_HWC.shape[:2]
        there, fps = 1, Fraction(1)
    else:
        info = probe(path)
        width, height, there, fps = info.width, info.height, info.frames, info.fps
    if request.start >= there:
        raise ReconstructError(f"{path} has {there} frames; --start {request.start} is behind the last, {there - 1}")
    frames = min(request.frames or FRAMES, there - request.start)
    width, height = _size(width, height, request)
    return Footage(
        path=path,
        picture_HWC=picture_HWC,
        fps=fps,
        start=request.start,
        frames=frames,
        left=there - request.start - frames,
        height=height,
        width=width,
        crops=request.size is not None,
    )


def _size(width: int, height: int, request: Request) -> tuple[int, int]:
    if request.size:
        width, height = request.size
    elif request.short_side:
        scale = request.short_side / min(width, height)
        width, height = round(width * scale), round(height * scale)
    if not 8 <= min(width, height) <= max(width, height) <= _MOST_SIDE:
        raise ReconstructError(f"{request.source}: {width}x{height} pixels; sides of 8 to {_MOST_SIDE} are taken")
    return width, height


def _picture(path: Path) -> npt.NDArray[np.uint8] | None:
    """The picture, upright, (H, W, 3); None if the file is none."""
    try:
        with Image.open(path, formats=_PICTURES) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except UnidentifiedImageError:
        return None
    except Exception as error:  # what Pillow raises for a damaged file depends on where the damage is
        raise ReconstructError(f"{path}: the picture is damaged ({error})") from error
