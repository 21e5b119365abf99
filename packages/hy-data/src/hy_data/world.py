"""The procedural world: one coloured shape that moves over a plain background, with a caption that says so.

It is the ground truth of the small end of this project: made on the fly, never the same twice, exactly described by its
caption, and scored without learning by `hy_data.analyser`. The paper has no such thing; it stands in for the paper's
footage where a small model is trained on a CPU.

Shapes: T frames, H height, W width, C channels (red, green, blue).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import numpy.typing as npt

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (230, 25, 25),
    "green": (25, 230, 25),
    "blue": (25, 25, 230),
    "yellow": (230, 230, 25),
    "magenta": (230, 25, 230),
    "cyan": (25, 230, 230),
}
SHAPES = ("circle", "square", "triangle")
MOTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
"""Direction of each motion as (x, y); y grows downwards."""
BACKGROUNDS = ("black", "grey", "white", "grey gradient")

TRIPLES = tuple(product(COLOURS, SHAPES, MOTIONS))
"""All 90 combinations of colour, shape and motion."""
HELD_OUT = TRIPLES[3::7]
"""The 13 combinations that training never shows; every pair of their attributes is still seen in the other 77."""

REFERENCE_SIDE = 48
RADIUS_RANGE = (8.0, 12.0)
TRAVEL_RANGE = (14.0, 22.0)
_SIDE_NORMAL = math.sqrt(3) / 2

Split = Literal["train", "held-out", "all"]
Palette = Mapping[str, tuple[int, int, int]]
"""Names of colours, and what they are in red, green and blue, 0 to 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One clip of the world, as numbers; lengths are in pixels of the rendered frame.

    Attributes:
        colour: a key of the world's palette.
        shape: one of SHAPES; all shapes of one radius have the same area.
        motion: a key of MOTIONS.
        background: one of BACKGROUNDS.
        radius: radius of the circle of the object's area.
        start_x: x of the object's centroid in the first frame.
        start_y: y of the object's centroid in the first frame; grows downwards.
        travel: distance covered from the first frame to the last; 0 when still.
        slope: angle of the grey gradient in radians; no matter for plain backgrounds.
    """

    colour: str
    shape: str
    motion: str
    background: str
    radius: float
    start_x: float
    start_y: float
    travel: float
    slope: float

    def caption(self, *, moving: bool = True) -> str:
        """Describe the scene in one sentence; `moving=False` leaves the motion out, as a still picture asks for."""
        motion = "" if not moving else " stays still" if self.motion == "still" else f" moves {self.motion}"
        return f"a {self.colour} {self.shape}{motion} on a {self.background} background"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldClip:
    """A rendered scene: uint8 RGB frames, the sentence that describes them, and the truth behind both."""

    frames_THWC: npt.NDArray[np.uint8]
    caption: str
    scene: Scene


class World:
    """An endless, seeded supply of clips; clip `i` is the same on every machine, whatever was asked for before.

    Object size and travel follow the shorter side of the frame: radius 8 to 12 and travel 14 to 22 pixels at 48.

    Args:
        size: frame height and width in pixels, at least 16 each.
        frames: frames per clip, at least 1; one frame gives a still picture whose caption names no motion.
        split: "train" leaves the held-out combinations away, "held-out" draws only them.
        seed: another seed is another supply.
        palette: other colours of the objects than COLOURS, for a look that a model has not seen; with split "all".

    Raises:
        ValueError: for sizes, frame counts or splits outside these ranges.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int] = (48, 48),
        frames: int = 9,
        split: Split = "train",
        seed: int = 0,
        palette: Palette | None = None,
    ) -> None:
        """Remember the settings; nothing is rendered yet."""
        if min(size) < 16 or frames < 1:
            raise ValueError(
                f"the world needs a size of at least 16x16 and one frame, got size {size} and {frames} frames"
            )
        choices = {"train": tuple(t for t in TRIPLES if t not in HELD_OUT), "held-out": HELD_OUT, "all": TRIPLES}
        if split not in choices:
            raise ValueError(f"split must be one of {', '.join(choices)}, got {split!r}")
        if palette is not None and split != "all":
            raise ValueError(f"a palette of its own has no split: give split='all', not {split!r}")
        self.height, self.width = size
        self.frames = frames
        self.seed = seed
        self.palette = COLOURS if palette is None else palette
        self._triples = choices[split] if palette is None else tuple(product(palette, SHAPES, MOTIONS))

    def scene(self, index: int) -> Scene:
        """Draw scene number `index`: uniform attributes, and a place where the object stays inside the frame."""
        rng = np.random.default_rng((self.seed, index))
        colour, shape, motion = self._triples[rng.integers(len(self._triples))]
        unit = min(self.height, self.width) / REFERENCE_SIDE
        radius = rng.uniform(*RADIUS_RANGE) * unit
        left, right, top, bottom = _extent(shape, radius)
        direction_x, direction_y = MOTIONS[motion]
        along = self.width - left - right if direction_x else self.height - top - bottom
        low, high = (limit * unit for limit in TRAVEL_RANGE)
        travel = rng.uniform(low, max(low, min(high, along))) if motion != "still" else 0.0
        back_x, ahead_x = travel * (direction_x < 0), travel * (direction_x > 0)
        back_y, ahead_y = travel * (direction_y < 0), travel * (direction_y > 0)
        return Scene(
            colour=colour,
            shape=shape,
            motion=motion,
            background=BACKGROUNDS[rng.integers(len(BACKGROUNDS))],
            radius=radius,
            start_x=rng.uniform(left + back_x, self.width - right - ahead_x),
            start_y=rng.uniform(top + back_y, self.height - bottom - ahead_y),
            travel=travel,
            slope=rng.uniform(0.0, 2 * math.pi),
        )

    def clip(self, index: int) -> WorldClip:
        """Render scene number `index`.

        Returns:
            frames of shape (frames, height, width, 3), uint8, with the caption and the scene.
        """
        scene = self.scene(index)
        return WorldClip(frames_THWC=self.render(scene), caption=scene.caption(moving=self.frames > 1), scene=scene)

    def render(self, scene: Scene) -> npt.NDArray[np.uint8]:
        """Draw a scene, anti-aliased: a pixel takes the object's colour by the share of it that the object covers.

        Returns:
            frames of shape (frames, height, width, 3), uint8.
        """
        progress_T = (
            np.linspace(0.0, 1.0, self.frames, dtype=np.float32) if self.frames > 1 else np.zeros(1, np.float32)
        )
        direction_x, direction_y = MOTIONS[scene.motion]
        centre_x_T = scene.start_x + direction_x * scene.travel * progress_T
        centre_y_T = scene.start_y + direction_y * scene.travel * progress_T
        cover_THW = coverage(scene.shape, scene.radius, centre_x_T, centre_y_T, (self.height, self.width))
        back_HW = _background(scene.background, scene.slope, (self.height, self.width))
        frames_THWC = np.empty((self.frames, self.height, self.width, 3), np.uint8)
        for channel, value in enumerate(self.palette[scene.colour]):
            frames_THWC[..., channel] = back_HW + cover_THW * (value - back_HW) + 0.5
        return frames_THWC


def coverage(
    shape: str,
    radius: float,
    centre_x_T: npt.NDArray[np.float32],
    centre_y_T: npt.NDArray[np.float32],
    size: tuple[int, int],
) -> npt.NDArray[np.float32]:
    """Share of each pixel that an object covers, for one object centre per frame.

    Args:
        shape: one of SHAPES.
        radius: radius of the circle of the object's area, in pixels.
        centre_x_T: x of the centroid in each frame, in pixels; a pixel's own centre lies at a half.
        centre_y_T: y of the centroid in each frame.
        size: frame height and width.

    Returns:
        shares in [0, 1] of shape (T, H, W), float32.
    """
    height, width = size
    x_TW = (np.arange(width, dtype=np.float32) + 0.5)[None, :] - centre_x_T[:, None].astype(np.float32)
    y_TH = (np.arange(height, dtype=np.float32) + 0.5)[None, :] - centre_y_T[:, None].astype(np.float32)
    x_T1W, y_TH1 = x_TW[:, None, :], y_TH[:, :, None]
    if shape == "circle":
        outside_THW = np.sqrt(x_T1W * x_T1W + y_TH1 * y_TH1) - np.float32(radius)
    elif shape == "square":
        outside_THW = np.maximum(np.abs(x_T1W), np.abs(y_TH1)) - np.float32(_half_side(radius))
    else:
        sides_THW = np.float32(_SIDE_NORMAL) * np.abs(x_T1W) - np.float32(0.5) * y_TH1
        outside_THW = np.maximum(sides_THW, y_TH1) - np.float32(_inradius(radius))
    return np.clip(np.float32(0.5) - outside_THW, 0.0, 1.0)


def _half_side(radius: float) -> float:
    """Half the side of the square of area pi r^2."""
    return radius * math.sqrt(math.pi) / 2


def _inradius(radius: float) -> float:
    """Distance from the centroid to a side of the equilateral triangle of area pi r^2."""
    return radius * math.sqrt(math.pi / (3 * math.sqrt(3)))


def _extent(shape: str, radius: float) -> tuple[float, float, float, float]:
    """How far the object reaches left, right, up and down from its centroid."""
    if shape == "triangle":
        inner = _inradius(radius)
        return math.sqrt(3) * inner, math.sqrt(3) * inner, 2 * inner, inner
    reach = radius if shape == "circle" else _half_side(radius)
    return reach, reach, reach, reach


def _background(name: str, slope: float, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Grey levels of a background, shape (H, W), in 0..255; the gradient runs from dark to light grey along `slope`."""
    height, width = size
    if name != "grey gradient":
        return np.full((height, width), {"black": 12.0, "grey": 128.0, "white": 243.0}[name], np.float32)
    x_W = np.linspace(-0.5, 0.5, width, dtype=np.float32) * math.cos(slope)
    y_H = np.linspace(-0.5, 0.5, height, dtype=np.float32) * math.sin(slope)
    reach = (abs(math.cos(slope)) + abs(math.sin(slope))) / 2
    return (128.0 + 80.0 * (x_W[None, :] + y_H[:, None]) / reach).astype(np.float32)
