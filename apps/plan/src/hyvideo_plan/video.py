"""The sizes of a video, checked."""

from dataclasses import dataclass

from hyvideo_plan.errors import PlanError

PIXEL_STEP = 16
"""Pixels per token along each side: 8 by the VAE, 2 by the transformer's patch."""

FRAME_STEP = 4
"""Frames per latent frame after the first, which stands alone."""

_VAE_STEP = 8


MOST_PIXELS, MOST_FRAMES = 4096, 4001
"""Far above what these models make; what lies beyond is a slip of the keyboard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """How large a clip is, in pixels and frames; one frame is an image.

    Raises:
        PlanError: names the size, and the nearest that would be right.
    """

    width: int
    height: int
    frames: int

    def __post_init__(self) -> None:
        for name in ("width", "height", "frames"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.width > MOST_PIXELS or self.height > MOST_PIXELS or self.frames > MOST_FRAMES:
            most = f"{MOST_PIXELS} pixels a side and {MOST_FRAMES} frames"
            raise PlanError(f"size is {self} with {self.frames} frames; this plans up to {most}")
        near = [max(round(side / PIXEL_STEP), 1) * PIXEL_STEP for side in (self.width, self.height)]
        if near != [self.width, self.height]:
            right = "{}x{} is the nearest".format(*near)
            raise PlanError(f"size is {self}; both sides must be multiples of {PIXEL_STEP}: {right}")
        fewer = (self.frames - 1) // FRAME_STEP * FRAME_STEP + 1
        if self.frames != fewer:
            nearest = f"{fewer} and {fewer + FRAME_STEP} are the nearest"
            raise PlanError(f"frames is {self.frames}; the VAE takes {FRAME_STEP}n+1 frames: {nearest}")

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def latent_grid(self) -> tuple[int, int, int]:
        """Frames, height and width of the latent."""
        return (self.frames - 1) // FRAME_STEP + 1, self.height // _VAE_STEP, self.width // _VAE_STEP

    @property
    def tokens(self) -> int:
        """Tokens that the transformer sees, with its patch of (1, 2, 2)."""
        frames, height, width = self.latent_grid
        return frames * (height // 2) * (width // 2)
