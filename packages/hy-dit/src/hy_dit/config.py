"""The sizes of a transformer, checked once, and the presets by name (paper sections 4.2 and 4.4)."""

from dataclasses import dataclass, replace

from hy_dit.errors import DiTConfigError
from hy_dit.t2x.config import T2X_SIZES


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTConfig:
    """Everything that fixes the shapes of a `DiT`.

    Attributes:
        in_channels: channels of the latent that comes in.
        out_channels: channels of the velocity that goes out.
        width: channels of a token.
        heads: attention heads; each has `width / heads` channels.
        mlp_ratio: hidden width of the blocks' MLPs over `width`. The refiner's is always 4.
        double_blocks: dual-stream blocks, where video and text have their own weights.
        single_blocks: single-stream blocks, which follow.
        rope_axes: channels of a head rotated by time, height and width; even, and together `width / heads`.
        rope_theta: base of the rotary wavelengths.
        patch: latent frames, rows and columns that make one token.
        text_width: channels of the text encoder's token states.
        pooled_width: channels of the pooled text vector.
        guidance_embed: whether the model takes a guidance scale (guidance-distilled weights do).

    Raises:
        DiTConfigError: names the field, its value and what would be right.
    """

    in_channels: int
    out_channels: int
    width: int
    heads: int
    mlp_ratio: float
    double_blocks: int
    single_blocks: int
    rope_axes: tuple[int, int, int]
    rope_theta: float
    patch: tuple[int, int, int]
    text_width: int
    pooled_width: int
    guidance_embed: bool

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "width", "heads", "text_width", "pooled_width"):
            self._require_whole(name, getattr(self, name), least=1)
        for name in ("double_blocks", "single_blocks"):
            self._require_whole(name, getattr(self, name), least=0)
        for name in ("rope_axes", "patch"):
            axes = getattr(self, name)
            if not isinstance(axes, tuple) or len(axes) != 3:
                raise DiTConfigError(f"{name} must be a tuple of three numbers (time, height, width), found {axes!r}")
            for size in axes:
                self._require_whole(name, size, least=1)
        for name in ("mlp_ratio", "rope_theta"):
            if not getattr(self, name) > 0:
                raise DiTConfigError(f"{name} must be above 0, found {getattr(self, name)!r}")
        if self.width % self.heads:
            raise DiTConfigError(f"width must be a multiple of heads, found width {self.width} and heads {self.heads}")
        if any(axis % 2 for axis in self.rope_axes) or sum(self.rope_axes) != self.head_width:
            raise DiTConfigError(
                f"rope_axes must be even and sum to width / heads = {self.head_width}, "
                f"found {self.rope_axes} with sum {sum(self.rope_axes)}"
            )

    @staticmethod
    def _require_whole(name: str, value: object, least: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise DiTConfigError(f"{name} must be a whole number of at least {least}, found {value!r}")

    @property
    def head_width(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    @property
    def mlp_width(self) -> int:
        """Hidden channels of the blocks' MLPs."""
        return int(self.width * self.mlp_ratio)

    @classmethod
    def preset(cls, name: str) -> "DiTConfig":
        """Look a configuration up.

        Args:
            name: "tiny" (9 M parameters, trains on two CPU cores), "hunyuan-video" (13 B, takes no guidance scale)
                or "hunyuan-video-cfgdistill" (13 B, guidance-distilled: the released weights).

        Raises:
            DiTConfigError: no such preset; lists those there are. The scaling-law family is another network with a
                configuration of its own, `T2XConfig`.
        """
        if name in T2X_SIZES:
            raise DiTConfigError(f"{name!r} is a size of DiT-T2X, another network: T2XConfig.preset({name!r}), for T2X")
        if name not in _PRESETS:
            raise DiTConfigError(f"no preset {name!r}; there are {', '.join(_PRESETS)}")
        return _PRESETS[name]


_HUNYUAN_VIDEO = DiTConfig(
    in_channels=16,
    out_channels=16,
    width=3072,
    heads=24,
    mlp_ratio=4.0,
    double_blocks=20,
    single_blocks=40,
    rope_axes=(16, 56, 56),
    rope_theta=256.0,
    patch=(1, 2, 2),
    text_width=4096,
    pooled_width=768,
    guidance_embed=False,
)

_PRESETS = {
    "tiny": replace(
        _HUNYUAN_VIDEO,
        width=256,
        heads=4,
        double_blocks=2,
        single_blocks=3,
        rope_axes=(16, 24, 24),
        text_width=256,
        pooled_width=256,
    ),
    "hunyuan-video": _HUNYUAN_VIDEO,
    "hunyuan-video-cfgdistill": replace(_HUNYUAN_VIDEO, guidance_embed=True),
}
