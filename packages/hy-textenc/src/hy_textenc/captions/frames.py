"""The frames of a clip that a model is shown.

Shapes: T frames, H height, W width, C channels (red, green, blue).
"""

import base64
import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from hy_textenc.captions.errors import CaptionError

ImageFormat = Literal["jpeg", "png"]


def clip_name(sample: Mapping[str, Any]) -> str:
    """What a clip is called in messages: its key, or its file and first frame there."""
    if sample.get("key"):
        return f"clip {sample['key']}"
    return f"{sample['source']} from frame {sample.get('start', 0)}" if sample.get("source") else "a clip"


def pictures(sample: Mapping[str, Any], count: int, side: int) -> list[Image.Image]:
    """Choose frames of a clip, evenly spread from the first to the last, and shrink them.

    Args:
        sample: `frames_THWC`, uint8 RGB of shape (T, H, W, 3).
        count: how many at most.
        side: length of the longer side in pixels; larger frames are shrunk to it.

    Raises:
        CaptionError: there are no such frames; names the clip.
    """
    frames_THWC = sample.get("frames_THWC")
    if not isinstance(frames_THWC, np.ndarray) or not _is_video(frames_THWC):
        found = f"{frames_THWC.shape} of {frames_THWC.dtype}" if isinstance(frames_THWC, np.ndarray) else frames_THWC
        told = "it must be uint8 of shape (T, H, W, 3), at least one frame"
        raise CaptionError(told, field="frames_THWC", found=found, source=clip_name(sample))
    last = len(frames_THWC) - 1
    chosen = np.linspace(0, last, min(count, last + 1)).round().astype(int)
    made = [Image.fromarray(frames_THWC[number]) for number in chosen]
    for picture in made:
        picture.thumbnail((side, side), Image.Resampling.BICUBIC)
    return made


def _is_video(frames_THWC: npt.NDArray[Any]) -> bool:
    shape = frames_THWC.shape
    return len(shape) == 4 and shape[3] == 3 and 0 not in shape and frames_THWC.dtype == np.uint8


def data_url(picture: Image.Image, image_format: ImageFormat) -> str:
    """A picture as a `data:` URL."""
    content = io.BytesIO()
    picture.save(content, image_format, **({"quality": 90} if image_format == "jpeg" else {}))
    return f"data:image/{image_format};base64,{base64.b64encode(content.getvalue()).decode()}"
