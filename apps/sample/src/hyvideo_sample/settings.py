"""What a sample is made from: every value that decides its pixels, beside the model's weights."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hy_plugins import HyError

FRAME_STEP = 4
"""Frames per latent frame after the first, which stands alone."""

PIXEL_STEP = 16
"""Pixels per token along each side: 8 by the VAE, 2 by the transformer's patch."""

_VAE_STEP = 8
_RANGES = {  # beyond these lies a slip of the finger, not a video
    "seed": (0, 2**32 - 1),  # torch's generator uses 32 bits: larger seeds would only repeat smaller ones
    "steps": (1, 10_000),
    "shift": (0.01, 1000),
    "guidance": (0, 1000),
    "true_cfg": (0, 1000),
    "guidance_low": (0, 1),
    "guidance_high": (0, 1),
    "guidance_rescale": (0, 1),
    "width": (PIXEL_STEP, 16_384),
    "height": (PIXEL_STEP, 16_384),
    "frames": (1, 16_385),
    "fps": (0.1, 1000),
}
_CHOICES = {
    "schedule": ("shifted", "linear-quadratic"),
    "noise_source": ("counter", "diffusers", "released"),
    "dtype": ("float32", "bfloat16", "float16"),
    "device": ("auto", "cpu", "cuda"),
    "tiling": ("auto", "on", "off"),
}
_OR = {"shift": ", or auto"}


class SampleError(HyError, ValueError):
    """A sample that can't be made as asked; the message says what is wrong and what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything about one sample but its model; the values are checked here, wherever they come from.

    Attributes:
        prompt: what the video shows.
        original: the prompt as it was given, if it was rewritten.
        negative: what it must not show.
        seed: of the noise that sampling starts from.
        noise_source: how the seed draws it, see `hyvideo_sample.noise.draw_noise`.
        noise: SHA-256 of that noise, if it was given; empty if the seed draws it.
        sampler: a component of kind `sampler`.
        steps: of the sampler; each calls the transformer once, or as often as the sampler needs.
        schedule: of the noise levels: the released one, `shifted`, or `linear-quadratic`, which has no shift.
        shift: of the noise levels (paper section 5.1); more gives more steps to high noise; `auto` is the paper's
            for the number of steps.
        guidance: strength of the prompt; 1 is none. A model that has learned its guidance takes it as an input.
        true_cfg: strength against the negative prompt, of a model that has learned its guidance; 1 is none.
        guidance_low: the lowest noise level, 0 to 1, at which the null or negative prompt is computed too.
        guidance_high: the highest one.
        guidance_rescale: how far, 0 to 1, the guided velocity is brought back to the spread of the prompt's own.
        width: in pixels, a multiple of 16.
        height: in pixels, a multiple of 16.
        frames: 4n+1; one is a picture.
        fps: frames per second.
        dtype: number format of the weights and of the arithmetic.
        device: where it is computed; `auto` takes CUDA when it is there.
        tiling: whether the VAE decodes in overlapping tiles; `auto` where the whole video does not fit in memory.

    Raises:
        SampleError: names the value, and what it must be.
    """

    prompt: str = ""
    original: str = ""
    negative: str = ""
    seed: int = 0
    noise_source: str = "counter"
    noise: str = ""
    sampler: str = "euler"
    steps: int = 30
    schedule: str = "shifted"
    shift: float | Literal["auto"] = 7.0
    guidance: float = 6.0
    true_cfg: float = 1.0
    guidance_low: float = 0.0
    guidance_high: float = 1.0
    guidance_rescale: float = 0.0
    width: int = 64
    height: int = 64
    frames: int = 17
    fps: float = 24.0
    dtype: str = "float32"
    device: str = "auto"
    tiling: str = "auto"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field.name, field.type, getattr(self, field.name)))
        if self.guidance_low > self.guidance_high:
            limits = f"{self.guidance_low} to {self.guidance_high}"
            raise SampleError(f"the guidance interval is {limits}; give the lower noise level first")
        near_frames = (self.frames - 1) // FRAME_STEP * FRAME_STEP + 1
        if self.frames != near_frames:
            nearest = f"{near_frames} and {near_frames + FRAME_STEP} are the nearest"
            raise SampleError(f"frames is {self.frames}; the VAE takes {FRAME_STEP}n+1 frames: {nearest}")
        near_size = [max(round(side / PIXEL_STEP), 1) * PIXEL_STEP for side in (self.width, self.height)]
        if near_size != [self.width, self.height]:
            nearest = "{}x{} is the nearest".format(*near_size)
            raise SampleError(f"size is {self.size}; both sides must be multiples of {PIXEL_STEP}: {nearest}")

    @property
    def size(self) -> str:
        """Width and height, as a person writes them."""
        return f"{self.width}x{self.height}"

    @property
    def latent_grid(self) -> tuple[int, int, int]:
        """Frames, height and width of the latent."""
        return (self.frames - 1) // FRAME_STEP + 1, self.height // _VAE_STEP, self.width // _VAE_STEP


def settings_from(values: Mapping[str, Any], source: object) -> Settings:
    """Make settings of values from a file.

    Args:
        values: by name; the others have their defaults.
        source: the file; it opens every error message.

    Raises:
        SampleError: a name is unknown, or a value is refused.
    """
    names = [field.name for field in dataclasses.fields(Settings)]
    if unknown := sorted(values.keys() - set(names)):
        raise SampleError(f"{source}: unknown setting {', '.join(unknown)}; there are {', '.join(names)}")
    try:
        return Settings(**values)
    except SampleError as error:
        raise SampleError(f"{source}: {error}") from error


def _checked(name: str, kind: Any, value: Any) -> Any:
    """Give the value in its own type, or refuse it."""
    if name == "shift" and value == "auto":
        return value
    return _text(name, value) if kind is str else _number(name, int if kind is int else float, value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise SampleError(f"{name} is {value!r}; it must be text")
    if value not in _CHOICES.get(name, (value,)):
        raise SampleError(f"{name} is {value!r}; it must be one of {', '.join(_CHOICES[name])}")
    if value != value.encode(errors="ignore").decode():
        raise SampleError(f"{name} is {value!r}, which holds bytes that are not UTF-8 text")
    return value


def _number(name: str, kind: type[int] | type[float], value: Any) -> float:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if not numeric or (kind is int and value != value // 1):  # 16.0 is whole: some writers of YAML and JSON make it so
        raise SampleError(
            f"{name} is {value!r}; it must be a {'whole ' if kind is int else ''}number{_OR.get(name, '')}"
        )
    low, high = _RANGES[name]
    if not low <= value <= high:
        raise SampleError(f"{name} is {value}; it must be from {low} to {high}")
    return kind(value)
