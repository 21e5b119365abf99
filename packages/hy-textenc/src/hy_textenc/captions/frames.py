"""The frames of a clip that a model is shown.

Shapes: T frames, H height, W width, C channels (red, green, blue).
"""

import base64
import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
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
    shape = np.shape(frames_THWC) if isinstance(frames_THWC, np.ndarray) else None
    if shape is None or len(shape) != 4 or shape[3] != 3 or 0 in shape or frames_THWC.dtype != np.uint8:
        found = f"{shape} of {frames_THWC.dtype}" if isinstance(frames_THWC, np.ndarray) else frames_THWC
        told = "it must be uint8 of shape (T, H, W, 3), at least one frame"
        raise CaptionError(told, field="frames_THWC", found=found, source=clip_name(sample))
    chosen = np.linspace(0, shape[0] - 1, min(count, shape[0])).round().astype(int)
    made = [Image.fromarray(frames_THWC[number]) for number in chosen]
    for picture in made:
        picture.thumbnail((side, side), Image.Resampling.BICUBIC)
    return made


def data_url(picture: Image.Image, image_format: ImageFormat) -> str:
    """A picture as a `data:` URL."""
    content = io.BytesIO()
    picture.save(content, image_format, **({"quality": 90} if image_format == "jpeg" else {}))
    return f"data:image/{image_format};base64,{base64.b64encode(content.getvalue()).decode()}"
