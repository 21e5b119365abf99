"""What each kind of component must do: structural, nothing to inherit.

A target is called with plain keyword arguments and returns an object that follows its kind's protocol; the target of a
`command` or a `model` is itself the function. Shapes: B batch, C channels, T H W frames/height/width, L video tokens,
D width, S text tokens. Pixels are in [-1, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Mapping, Sequence

    from torch import Generator, Tensor

    from hy_plugins.types import ConditionPlan, Contribution, HostSpec, TextTokens, TokenSlice, Verdict

PosteriorT = TypeVar("PosteriorT", bound="Posterior", covariant=True)
PreparedT = TypeVar("PreparedT", bound="Mapping[str, Tensor]")


class Posterior(Protocol):
    """The distribution of latents that an autoencoder gives."""

    @property
    def mean(self) -> Tensor:
        """Mean, BCTHW."""
        ...

    @property
    def logvar(self) -> Tensor:
        """Log of the variance, BCTHW."""
        ...

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Draw latents, BCTHW."""
        ...

    def mode(self) -> Tensor:
        """The most likely latents, BCTHW."""
        ...


@runtime_checkable
class Autoencoder(Protocol[PosteriorT]):
    """Video to latents and back (paper section 4.1)."""

    @property
    def compression(self) -> tuple[int, int, int]:
        """Frames, rows and columns of pixels per latent."""
        ...

    @property
    def latent_channels(self) -> int:
        """Channels of the latent."""
        ...

    @property
    def scaling_factor(self) -> float:
        """What raw latents are multiplied with before the backbone sees them."""
        ...

    def encode(self, video_BCTHW: Tensor) -> PosteriorT:
        """Pixels in [-1, 1] to raw latents; T is `compression[0] * n + 1`."""
        ...

    def decode(self, latent_BCTHW: Tensor) -> Tensor:
        """Raw (unscaled) latents to video_BCTHW."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Prompts to token states (paper section 4.3)."""

    def encode(self, prompts: Sequence[str]) -> TextTokens:
        """Encode B prompts; the mask is True at real tokens, padding is on the right."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """The network that predicts the velocity (paper section 4.2); it is called, as a module is, never by `forward`.

    `__call__` is an attribute here as it is in nn.Module: jsonargparse takes a protocol with such a method for a factory.
    """

    __call__: Callable[..., Tensor]

    def forward(
        self, latent_BCTHW: Tensor, timestep_B: Tensor, text: TextTokens, guidance_B: Tensor | None = None
    ) -> Tensor:
        """Return velocity_BCTHW. `timestep_B` is 0..1000 (1000 is noise), `guidance_B` the scale x 1000."""
        ...


@runtime_checkable
class Condition(Protocol[PreparedT]):
    """Something besides text that steers the video; an nn.Module in practice. The backbone owns every site."""

    batch_keys: tuple[str, ...]

    def plan(self, host: HostSpec) -> ConditionPlan:
        """Where this condition enters. Pure: the same host gives the same plan."""
        ...

    def prepare(self, batch: Mapping[str, Tensor]) -> PreparedT:
        """Run encoders, once per clip, on the batch's `batch_keys`. Each tensor's first axis is B."""
        ...

    def null(self, prepared: PreparedT) -> PreparedT:
        """The dropped condition, same keys, shapes and dtypes: the host mixes the two sample by sample."""
        ...

    def contribute(self, prepared: PreparedT, t_B: Tensor) -> Contribution:
        """What enters at this step; `t_B` is 0..1000."""
        ...

    def block_delta(
        self, block_id: int, video_BLD: Tensor, where: TokenSlice, prepared: PreparedT
    ) -> tuple[Tensor, Tensor | None]:
        """Residual delta_BLD after a block of `plan.block_ids`, and query_mask_BL (None: all tokens)."""
        ...


@runtime_checkable
class Path(Protocol):
    """How data becomes noise in training (paper section 4.5)."""

    def sample(self, latent_BCTHW: Tensor, noise_BCTHW: Tensor, sigma_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return (noisy_BCTHW, target_BCTHW) at `sigma_B` in [0, 1], where 1 is noise."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """How noise becomes data."""

    def sample(self, velocity: Callable[[Tensor, Tensor], Tensor], noise_BCTHW: Tensor, sigmas: Tensor) -> Tensor:
        """Follow `velocity(x_BCTHW, sigma)` along `sigmas` (steps + 1 values, 1 to 0) to latent_BCTHW."""
        ...


@runtime_checkable
class Filter(Protocol):
    """A curation rule: pure and picklable."""

    reads: tuple[str, ...]

    def keep(self, sample: Mapping[str, Any]) -> Verdict:
        """Judge a clip from the columns in `reads` (`frames_THWC` is uint8)."""
        ...


@runtime_checkable
class Captioner(Protocol):
    """A clip to a structured caption."""

    def caption(self, sample: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a JSON-ready mapping; its key `short` is always there. `sample` is as for a filter."""
        ...


@runtime_checkable
class Rewriter(Protocol):
    """A user's prompt to the style of the training captions (paper section 4.6)."""

    def rewrite(self, prompt: str) -> str:
        """Return the better prompt."""
        ...


@runtime_checkable
class ParallelPlan(Protocol):
    """How a backbone is split over devices: data keyed by module path, where `*` stands for an index."""

    tensor: Mapping[str, str]
    blocks: tuple[str, ...]


@runtime_checkable
class Command(Protocol):
    """`hyvideo <name> …`."""

    def __call__(self, argv: Sequence[str]) -> int:
        """Run with the arguments after the name; return the exit code."""
        ...


@runtime_checkable
class Model(Protocol):
    """A bundled checkpoint."""

    def __call__(self) -> pathlib.Path:
        """Return its folder."""
        ...


KINDS: Mapping[str, type] = {
    "condition": Condition,
    "backbone": Backbone,
    "autoencoder": Autoencoder,
    "text_encoder": TextEncoder,
    "path": Path,
    "sampler": Sampler,
    "filter": Filter,
    "captioner": Captioner,
    "rewriter": Rewriter,
    "parallel_plan": ParallelPlan,
    "command": Command,
    "model": Model,
}
"""The kinds known to this version, and the protocol of each."""
