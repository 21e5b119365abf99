"""Captions by measurement: what can be said of a clip from its pixels, without a model.

A stand-in for the paper's captioning model (section 3) where none can be had: it knows light, colour and motion, and
nothing of what is seen. Same clip, same words.

Shapes: T frames, H height, W width, C channels (red, green, blue), N pixels of all frames.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from hy_plugins import HyError

from hy_data.buckets import resize

_FLOW_WIDTH = 160
_FLOW_LEAST = 32  # with fewer rows than this OpenCV's estimator crashes the process
_FLOW_PAIRS = 12
_TEXTURE = 80.0
_STANDING = 0.25
_CAMERA_STANDS = 0.25
_HUES = ((8, "red"), (22, "orange"), (35, "yellow"), (85, "green"), (100, "cyan"), (130, "blue"), (155, "purple"))
"""Upper ends of OpenCV's hues (0 to 179) and their names; what lies beyond is red again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """How a clip moves, in frame widths per second, seen at pixels with texture: flat ones tell nothing.

    Attributes:
        right: speed of the picture's bulk to the right, the median over pixels and time.
        down: the same, downwards.
        rest: how fast pixels move against that bulk, on average.
        standing: share of the pixels that stay where they are, in [0, 1].
    """

    right: float
    down: float
    rest: float
    standing: float


class MeasuredCaptioner:
    """Describes brightness, main colour and motion in one sentence.

    The direction is the camera's: when the picture's bulk drifts right, the camera moves left. Where a quarter of the
    textured pixels stay in place, the camera stands still whatever passes before it.

    Args:
        dark: mean brightness below which a scene is dark, 0 to 255.
        bright: mean brightness above which it is bright.
        grey: mean saturation below which it is grey, 0 to 255.
        still: speed below which a camera stands still, in frame widths per second.
        fast: speed above which a movement is fast, in frame widths per second; slow is below a third of it.
    """

    def __init__(
        self, *, dark: float = 70.0, bright: float = 140.0, grey: float = 45.0, still: float = 0.03, fast: float = 0.3
    ) -> None:
        """Keep the thresholds."""
        self.dark = dark
        self.bright = bright
        self.grey = grey
        self.still = still
        self.fast = fast

    def caption(self, sample: Mapping[str, Any]) -> Mapping[str, Any]:
        """Describe a clip.

        Args:
            sample: `frames_THWC`, uint8 RGB of shape (T, H, W, 3); `fps`, frames per second (25 where absent); `shot`,
                a number to begin the sentence with (left out where absent).

        Returns:
            `short`, the sentence; `light`, `colour` and `motion`, its parts; `measured`, the numbers behind them.
        """
        frames_THWC = sample["frames_THWC"]
        hsv_THWC = _hsv(frames_THWC)
        brightness, saturation = float(hsv_THWC[..., 2].mean()), float(hsv_THWC[..., 1].mean())
        motion = measure_motion(frames_THWC, float(sample.get("fps", 25)))
        light = "dark" if brightness < self.dark else "bright" if brightness > self.bright else "dim"
        colour = "grey" if saturation < self.grey else _main_hue(hsv_THWC)
        parts = [f"shot {sample['shot']}"] if "shot" in sample else []
        parts += [f"a {light}, {colour} scene"]
        if len(frames_THWC) > 1:
            parts.append(self._motion(motion))
        return {
            "short": ", ".join(parts),
            "light": light,
            "colour": colour,
            "motion": self._motion(motion) if len(frames_THWC) > 1 else "",
            "measured": {
                "brightness": round(brightness, 1),
                "saturation": round(saturation, 1),
                "right": round(motion.right, 4),
                "down": round(motion.down, 4),
                "rest": round(motion.rest, 4),
                "standing": round(motion.standing, 4),
            },
        }

    def _motion(self, motion: Motion) -> str:
        """The half of the sentence about motion."""
        speed = float(np.hypot(motion.right, motion.down))
        if speed < self.still or motion.standing > _CAMERA_STANDS:
            things_move = max(speed, motion.rest) > self.still
            return "the camera stands still" + (" and things move" if things_move else "")
        if abs(motion.right) >= abs(motion.down):
            direction = "left" if motion.right > 0 else "right"
        else:
            direction = "up" if motion.down > 0 else "down"
        pace = " fast" if speed > self.fast else " slowly" if speed < self.fast / 3 else ""
        return f"the camera moves {direction}{pace}"


def measure_motion(frames_THWC: npt.NDArray[np.uint8], fps: float) -> Motion:
    """Measure motion by dense optical flow (DIS) between neighbours, at most twelve pairs spread over the clip.

    Args:
        frames_THWC: uint8 RGB of shape (T, H, W, 3).
        fps: frames per second.

    Returns:
        the motion; none for a single frame, or frames without texture.
    """
    height, width = frames_THWC.shape[1:3]
    small = (max(round(height * _FLOW_WIDTH / width), _FLOW_LEAST), _FLOW_WIDTH)
    firsts = np.linspace(0, len(frames_THWC) - 2, min(_FLOW_PAIRS, len(frames_THWC) - 1)).round().astype(int)
    flows = [_textured_flow(resize(frames_THWC[first : first + 2], *small)) for first in firsts]
    flow_N2 = np.concatenate(flows) if flows else np.empty((0, 2), np.float32)
    if len(flow_N2) == 0:
        return Motion(right=0.0, down=0.0, rest=0.0, standing=1.0)
    right, down = np.median(flow_N2, axis=0)
    rest = np.linalg.norm(flow_N2 - (right, down), axis=1).mean()
    standing = np.mean(np.linalg.norm(flow_N2, axis=1) < _STANDING)
    per_second = fps / _FLOW_WIDTH
    return Motion(
        right=float(right) * per_second,
        down=float(down) * per_second,
        rest=float(rest) * per_second,
        standing=float(standing),
    )


def _textured_flow(pair_THWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Flow between two frames in pixels, at the pixels with texture: shape (pixels, 2), rightwards and downwards."""
    before_HW, after_HW = (cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY) for frame_HWC in pair_THWC)
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow_HW2 = estimator.calc(before_HW, after_HW, np.zeros((*before_HW.shape, 2), np.float32))
    slopes = (cv2.Sobel(before_HW, cv2.CV_32F, 1, 0), cv2.Sobel(before_HW, cv2.CV_32F, 0, 1))
    return np.asarray(flow_HW2, np.float32)[np.hypot(*slopes) > _TEXTURE]


def _hsv(frames_THWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Hue, saturation and value of at most twelve frames, small."""
    chosen = np.linspace(0, len(frames_THWC) - 1, min(_FLOW_PAIRS, len(frames_THWC))).round().astype(int)
    small_THWC = resize(frames_THWC[chosen], 32, 48)
    return np.stack([cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2HSV) for frame_HWC in small_THWC]).astype(np.uint8)


def _main_hue(hsv_THWC: npt.NDArray[np.uint8]) -> str:
    """Name of the hue with the most colour to it: pixels count by saturation times value."""
    weight = hsv_THWC[..., 1].astype(np.float64) * hsv_THWC[..., 2]
    totals: dict[str, float] = {}
    lower = 0
    for upper, name in (*_HUES, (180, "red")):
        inside = (hsv_THWC[..., 0] >= lower) & (hsv_THWC[..., 0] < upper)
        totals[name] = totals.get(name, 0.0) + float(weight[inside].sum())
        lower = upper
    return max(totals, key=lambda name: totals[name])


def short_caption(captions: Mapping[str, Any], variant: int) -> str:
    """The caption `short` of a structured caption, whichever variant is asked for."""
    return str(captions["short"])


def variants_of(caption: Callable[..., str]) -> int:
    """How many captions a function makes of a clip: `caption.variants`, or 1 where it does not say."""
    return getattr(caption, "variants", 1)


def captions_of(
    described: Iterable[Mapping[str, Any]], caption: Callable[[Mapping[str, Any], int], str]
) -> Iterator[str]:
    """Make all captions of clips.

    Args:
        described: the structured caption of each. What `caption` refuses with a `HyError` is left out.
        caption: makes the text of a structured caption and the number of a variant.
    """
    for captions in described:
        for number in range(variants_of(caption)):
            with suppress(HyError):
                yield caption(captions, number)
