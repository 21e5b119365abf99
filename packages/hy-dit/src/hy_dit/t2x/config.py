"""The sizes of the DiT-T2X family (section 4.4).

The paper gives the smallest and the largest of seven sizes, 92 million and 6.6 billion parameters, and no widths or
depths. These are ours:

| preset | width | depth | heads | parameters |
|---|---|---|---|---|
| t2x-92m | 640 | 13 | 5 | 92,333,120 |
| t2x-189m | 768 | 19 | 6 | 188,942,400 |
| t2x-384m | 1024 | 22 | 8 | 384,624,704 |
| t2x-783m | 1280 | 29 | 10 | 783,072,832 |
| t2x-1.6b | 1536 | 41 | 12 | 1,579,409,984 |
| t2x-3.3b | 2048 | 48 | 16 | 3,274,262,592 |
| t2x-6.6b | 2560 | 62 | 20 | 6,581,256,768 |

Counted is every parameter of the transformer, the projections of latent, time and text included; the text encoder and
the VAE are not. Each size is about 2.04 times the one before, so that they lie evenly on the logarithmic axes that the
laws are fitted on. A head has 128 channels, as in the 13 B model, which this family sizes: the same rotary axes, and
widths that are multiples of 128. From 1.6 B on, heads divide by 4, for sharding. Width over depth stays between 37 and
49 (13 B: 3072 / 60 = 51), so that size is the only thing that varies.
"""

from dataclasses import dataclass

from hy_dit.errors import DiTConfigError

HEAD_WIDTH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class T2XConfig:
    """Everything that fixes the shapes of a `T2X`; the family's sizes differ by `width` and `depth` alone.

    Attributes:
        width: channels of a token; a multiple of 128, the channels of an attention head.
        depth: blocks.
        in_channels: channels of the latent that comes in.
        out_channels: channels of the prediction that goes out.
        mlp_ratio: hidden width of the blocks' MLPs over `width`.
        rope_axes: channels of a head rotated by time, height and width; even, and together 128.
        rope_theta: base of the rotary wavelengths.
        patch: latent frames, rows and columns that make one token.
        text_width: channels of the text encoder's token states; T5-XXL has 4096.

    Raises:
        DiTConfigError: names the field, its value and what would be right.
    """

    width: int
    depth: int
    in_channels: int = 16
    out_channels: int = 16
    mlp_ratio: float = 4.0
    rope_axes: tuple[int, int, int] = (16, 56, 56)
    rope_theta: float = 256.0
    patch: tuple[int, int, int] = (1, 2, 2)
    text_width: int = 4096

    def __post_init__(self) -> None:
        for name in ("width", "depth", "in_channels", "out_channels", "text_width"):
            _require_whole(name, getattr(self, name))
        for name in ("rope_axes", "patch"):
            axes = getattr(self, name)
            if not isinstance(axes, tuple) or len(axes) != 3:
                raise DiTConfigError(f"{name} must be a tuple of three numbers (time, height, width), found {axes!r}")
            for size in axes:
                _require_whole(name, size)
        for name in ("mlp_ratio", "rope_theta"):
            if not getattr(self, name) > 0:
                raise DiTConfigError(f"{name} must be above 0, found {getattr(self, name)!r}")
        if self.width % HEAD_WIDTH:
            raise DiTConfigError(f"width must be a multiple of {HEAD_WIDTH}, a head's channels, found {self.width}")
        if any(axis % 2 for axis in self.rope_axes) or sum(self.rope_axes) != HEAD_WIDTH:
            raise DiTConfigError(
                f"rope_axes must be even and sum to {HEAD_WIDTH}, found {self.rope_axes} with sum {sum(self.rope_axes)}"
            )

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.width // HEAD_WIDTH

    @property
    def mlp_width(self) -> int:
        """Hidden channels of the blocks' MLPs."""
        return int(self.width * self.mlp_ratio)

    @classmethod
    def preset(cls, name: str) -> "T2XConfig":
        """Look a size of the family up.

        Args:
            name: one of `T2X_SIZES`: "t2x-92m" to "t2x-6.6b".

        Raises:
            DiTConfigError: no such size; lists those there are.
        """
        if name not in T2X_SIZES:
            raise DiTConfigError(f"no preset {name!r}; there are {', '.join(T2X_SIZES)}")
        return T2X_SIZES[name]


def _require_whole(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DiTConfigError(f"{name} must be a whole number of at least 1, found {value!r}")


T2X_SIZES = {
    "t2x-92m": T2XConfig(width=640, depth=13),
    "t2x-189m": T2XConfig(width=768, depth=19),
    "t2x-384m": T2XConfig(width=1024, depth=22),
    "t2x-783m": T2XConfig(width=1280, depth=29),
    "t2x-1.6b": T2XConfig(width=1536, depth=41),
    "t2x-3.3b": T2XConfig(width=2048, depth=48),
    "t2x-6.6b": T2XConfig(width=2560, depth=62),
}
"""The seven sizes by name, smallest first."""
