"""What makes the captions that are missing.

Shapes: T frames, H height, W width, C channels.
"""

import inspect
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from hy_data import read_video
from hy_data.samples import decode_picture
from hy_plugins import HyError, Plugins

from hyvideo_finetune.errors import FinetuneError
from hyvideo_finetune.prepare.folder import Describe
from hyvideo_finetune.prepare.reading import is_picture


def describer(name: str | None, options: Mapping[str, Any]) -> Describe | None:
    """Make a captioner that describes files.

    Args:
        name: a component of kind `captioner`; None: there is none.
        options: its constructor's arguments.

    Raises:
        UnknownComponent: there is no such captioner.
        FinetuneError: it can't be made with these options.
    """
    if name is None:
        if options:
            raise FinetuneError(f"--captioner-option {next(iter(options))} is given, but no --captioner")
        return None
    captioner = _made(name, options)

    def describe(file: Path) -> str:
        if is_picture(file):
            frames_THWC, fps = decode_picture(file.read_bytes()), Fraction(1)
        else:
            clip = read_video(file)
            frames_THWC, fps = clip.frames_THWC, clip.fps
        sample = {"frames_THWC": frames_THWC, "fps": fps, "key": file.stem, "source": str(file), "start": 0, "shot": 1}
        return str(captioner.caption(sample)["short"])

    return describe


def _made(name: str, options: Mapping[str, Any]) -> Any:
    target = Plugins().load("captioner", name)
    signature = inspect.signature(target)
    try:
        signature.bind(**options)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "none"
        raise FinetuneError(f"captioner '{name}': {error}; its options are {known}") from error
    try:
        return target(**options)
    except HyError:
        raise
    except (TypeError, ValueError) as error:
        raise FinetuneError(f"captioner '{name}' refuses its options: {error}") from error
