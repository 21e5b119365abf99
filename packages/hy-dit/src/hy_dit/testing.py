"""What a condition's author runs beside `hy_plugins.testing.ConditionContract`: in a real backbone, small and random.

Shapes: B batch (that of what is prepared), C channels, T H W latent frames/height/width, L video tokens, S text tokens,
D width.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from hy_plugins.types import Contribution, TextTokens
from torch import Tensor, nn

from hy_dit.conditions import Prepared
from hy_dit.config import DiTConfig
from hy_dit.model import DiT

CONFIG = DiTConfig(
    in_channels=4,
    out_channels=4,
    width=32,
    heads=2,
    mlp_ratio=4.0,
    double_blocks=2,
    single_blocks=2,
    rope_axes=(4, 6, 6),
    rope_theta=256.0,
    patch=(1, 2, 2),
    text_width=16,
    pooled_width=8,
    guidance_embed=False,
)
"""The backbone of the two assertions; `ConditionContract.host` describes the same sizes."""

LATENT_SHAPE = (2, 4, 3, 4, 4)
"""Of the latent that conditions are given: B, C, T, H, W, as in `ConditionContract`."""

_STEPS = 30
_RATE = 0.03


def assert_noop_at_init(condition: nn.Module, batch: Mapping[str, Tensor], config: DiTConfig = CONFIG) -> None:
    """Assert that an untrained condition changes no bit of the velocity, kept or dropped.

    Clean, known tokens (site 6) are a fact and no weight: for a condition that sets them, the same is asserted with an
    empty mask, of everything else that it does.

    Args:
        condition: A fresh one; it is not changed.
        batch: What its `prepare` reads, for two clips with latents of `LATENT_SHAPE`.
        config: Of the backbone.

    Raises:
        AssertionError: Says what differs.
    """
    dit, inputs = _random(config), _inputs(config)
    with torch.no_grad(), one_thread():
        without = dit(**inputs)
        dit.conditions.install("tested", condition if not _knows(condition, dit) else _NothingKnown(condition))
        kept = dit.conditions.prepare(batch)
        for what, prepared in (("kept", kept), ("dropped", dit.conditions.null(kept))):
            velocity_BCTHW = dit(**inputs, conditions=prepared)
            worst = float((velocity_BCTHW - without).abs().max())
            assert torch.equal(velocity_BCTHW, without), f"untrained and {what}, it changes the velocity by {worst:.2g}"


def assert_learns(condition: nn.Module, batch: Mapping[str, Tensor], config: DiTConfig = CONFIG) -> None:
    """Assert that training reaches every weight of a condition, and that the velocity then follows it.

    The backbone is frozen and two clips, alike but for the condition, are to get two different velocities.

    Args:
        condition: A fresh one; it is trained.
        batch: What its `prepare` reads, for two different clips with latents of `LATENT_SHAPE`.
        config: Of the backbone.

    Raises:
        AssertionError: Names the weights that stay as they are (a zero behind the host's zero gate never learns), or
            says that the loss does not fall.
    """
    dit, inputs = _random(config).requires_grad_(False), _inputs(config)
    inputs = {name: _alike(value) for name, value in inputs.items()}
    dit.conditions.install("tested", condition)
    weights = {name: weight for name, weight in dit.conditions["tested"].named_parameters() if weight.requires_grad}
    assert weights, "neither the condition nor its place in the backbone has a weight to train"
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    target_BCTHW = dit(**inputs) + 0.3 * _draw(2, config.out_channels, 1, 1, 1, seed=7)
    optimizer = torch.optim.Adam(weights.values(), lr=_RATE)
    losses: list[float] = []
    for _ in range(_STEPS):
        velocity_BCTHW = dit(**inputs, conditions=dit.conditions.prepare(batch))
        loss = (velocity_BCTHW - target_BCTHW).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    stuck = [name for name, weight in weights.items() if torch.equal(weight, before[name])]
    assert not stuck, f"{_STEPS} steps leave these weights as they were: {', '.join(stuck)}"
    _assert_followed(dit, inputs, batch)
    assert losses[-1] < 0.98 * losses[0], f"the loss does not fall: {losses[0]:.4g}, then {losses[-1]:.4g}"


def _assert_followed(dit: DiT, inputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        kept = dit.conditions.prepare(batch)
        velocity_BCTHW = dit(**inputs, conditions=kept)
        dropped_BCTHW = dit(**inputs, conditions=dit.conditions.null(kept))
    assert not torch.equal(velocity_BCTHW, dropped_BCTHW), "trained, it makes no difference whether it is dropped"
    first, second = velocity_BCTHW
    assert not torch.equal(first, second), "trained, two clips that differ by the condition get the same velocity"


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: several may share a sum out in another way each time, and round it differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _NothingKnown(nn.Module):
    """The same condition, of which no token is known."""

    def __init__(self, condition: Any) -> None:
        super().__init__()
        self.condition = condition
        self.batch_keys = condition.batch_keys
        self.plan, self.prepare, self.null = condition.plan, condition.prepare, condition.null
        self.block_delta = condition.block_delta

    def contribute(self, prepared: Prepared, t_B: Tensor) -> Contribution:
        given = self.condition.contribute(prepared, t_B)
        if given.token_time is None:
            return given
        nothing_BL = torch.zeros_like(given.token_time.known_mask_BL)
        return replace(given, token_time=replace(given.token_time, known_mask_BL=nothing_BL))


def _knows(condition: Any, dit: DiT) -> bool:
    return condition.plan(dit.host_spec).sets_token_time


def _random(config: DiTConfig) -> DiT:
    """A backbone whose weights are random everywhere: of a fresh one the velocity is zero, whatever happens inside."""
    generator = torch.Generator().manual_seed(0)
    dit = DiT(config).eval()
    with torch.no_grad():
        for weight in dit.parameters():
            weight.normal_(std=0.8 * weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.2, generator=generator)
    return dit


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _inputs(config: DiTConfig) -> dict[str, Any]:
    """Arguments of a call, with texts of three and of five tokens."""
    text = TextTokens(
        _draw(2, 5, config.text_width, seed=1),
        torch.tensor([[True] * 3 + [False] * 2, [True] * 5]),
        _draw(2, config.pooled_width, seed=2),
    )
    guidance = {"guidance_B": torch.tensor([6000.0, 1000.0])} if config.guidance_embed else {}
    return {
        "latent_BCTHW": _draw(2, config.in_channels, *LATENT_SHAPE[2:], seed=3),
        "timestep_B": torch.tensor([900.0, 100.0]),
        "text": text,
        **guidance,
    }


def _alike(value: Any) -> Any:
    """Give the first clip's input to both."""
    if isinstance(value, TextTokens):
        assert value.pooled_BD is not None
        return TextTokens(_alike(value.tokens_BSD), _alike(value.mask_BS), _alike(value.pooled_BD))
    return value[:1].expand_as(value)
