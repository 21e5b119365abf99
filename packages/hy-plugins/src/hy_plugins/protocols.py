"""What each kind of component must do, one class per kind (kind `text_encoder` is `TextEncoder`): nothing to inherit.

The target of a component is called with plain keyword arguments and gives an object that follows its kind's protocol;
the target of a `command` or a `model` is itself that object. Copy the annotations: jsonargparse compares them too.
Where method names alone tell, `isinstance` works.
Shapes: B batch, C channels, T H W frames/height/width, L video tokens, D width. Pixels are in [-1, 1].
"""
# ruff: noqa: D102 - a class documents its methods together

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
    """The distribution of latents that an autoencoder gives; all are BCTHW."""

    @property
    def mean(self) -> Tensor: ...
    @property
    def logvar(self) -> Tensor: ...
    def sample(self, generator: Generator | None = None) -> Tensor: ...
    def mode(self) -> Tensor: ...


@runtime_checkable
class Autoencoder(Protocol[PosteriorT]):
    """Pixels of 1 + n * compression[0] frames to raw latents of 1 + n, and back (paper section 4.1).

    `compression` is pixels per latent along T, H, W. Raw latents times `scaling_factor` are what a backbone sees.
    """

    @property
    def compression(self) -> tuple[int, int, int]: ...
    @property
    def latent_channels(self) -> int: ...
    @property
    def scaling_factor(self) -> float: ...
    def encode(self, video_BCTHW: Tensor) -> PosteriorT: ...
    def decode(self, latent_BCTHW: Tensor) -> Tensor: ...


@runtime_checkable
class TextEncoder(Protocol):
    """Prompts to token states, padded on the right (paper section 4.3)."""

    def encode(self, prompts: Sequence[str]) -> TextTokens: ...


class Backbone(Protocol):
    """The network that predicts velocity_BCTHW (paper section 4.2).

    `timestep_B` is 0..1000 (1000 is noise), `guidance_B` the scale x 1000. Call it, never its `forward`. `__call__` is
    an attribute, as in nn.Module: jsonargparse would take a protocol with such a method for one of factories.
    """

    __call__: Callable[..., Tensor]

    def forward(
        self, latent_BCTHW: Tensor, timestep_B: Tensor, text: TextTokens, guidance_B: Tensor | None = None
    ) -> Tensor: ...


@runtime_checkable
class Condition(Protocol[PreparedT]):
    """Something besides text that steers the video, an nn.Module in practice (paper sections 7.2, 7.3).

    `plan` is pure. `prepare` runs encoders, once per clip, on `batch_keys`; its tensors all begin with axis B. `null`
    keeps their shapes and dtypes: the host mixes dropped and kept samples. `contribute` runs once per step, `t_B` is
    0..1000. `block_delta` runs after each block of the plan: delta_BLD and query_mask_BL (None: all tokens).
    """

    @property
    def batch_keys(self) -> tuple[str, ...]: ...
    def plan(self, host: HostSpec) -> ConditionPlan: ...
    def prepare(self, batch: Mapping[str, Tensor]) -> PreparedT: ...
    def null(self, prepared: PreparedT) -> PreparedT: ...
    def contribute(self, prepared: PreparedT, t_B: Tensor) -> Contribution: ...
    def block_delta(
        self, block_id: int, video_BLD: Tensor, where: TokenSlice, prepared: PreparedT
    ) -> tuple[Tensor, Tensor | None]: ...


class Path(Protocol):
    """How data becomes noise in training: (noisy_BCTHW, target_BCTHW) at sigma 0..1, 1 is noise (paper section 4.5)."""

    def sample(self, latent_BCTHW: Tensor, noise_BCTHW: Tensor, sigma_B: Tensor) -> tuple[Tensor, Tensor]: ...


class Sampler(Protocol):
    """How noise becomes data: along `sigmas` (steps + 1 of them, 1 to 0) by `velocity(x_BCTHW, sigma)`."""

    def sample(self, velocity: Callable[[Tensor, Tensor], Tensor], noise_BCTHW: Tensor, sigmas: Tensor) -> Tensor: ...


@runtime_checkable
class Filter(Protocol):
    """A curation rule: pure, picklable, reads only its `reads` of a sample, `frames_THWC` uint8 (paper section 3)."""

    @property
    def reads(self) -> tuple[str, ...]: ...
    def keep(self, sample: Mapping[str, Any]) -> Verdict: ...


@runtime_checkable
class Captioner(Protocol):
    """A sample to a structured caption, ready for JSON, with at least the key `short` (paper section 3)."""

    def caption(self, sample: Mapping[str, Any]) -> Mapping[str, Any]: ...


@runtime_checkable
class Rewriter(Protocol):
    """A user's prompt to one like the training captions (paper section 4.6)."""

    def rewrite(self, prompt: str) -> str: ...


class ParallelPlan(Protocol):
    """How a backbone is split over devices, by module path, where `*` is any index.

    `tensor` maps to "colwise", "rowwise" or "replicated"; `blocks` are the units of sharding, recompute and offload.
    """

    @property
    def tensor(self) -> Mapping[str, str]: ...
    @property
    def blocks(self) -> tuple[str, ...]: ...


class Command(Protocol):
    """`hyvideo <name> argv…`; returns the exit code."""

    def __call__(self, argv: Sequence[str]) -> int: ...


class Model(Protocol):
    """A bundled checkpoint; returns its folder."""

    def __call__(self) -> pathlib.Path: ...
