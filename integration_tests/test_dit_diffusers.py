"""Our transformer against diffusers' HunyuanVideoTransformer3DModel: same weights, fresh shapes, same velocity.

Shapes: B batch, C channels, T H W latent frames/height/width, S text tokens, D width.
"""

import dataclasses
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel  # pyright: ignore[reportPrivateImportUsage]
from hy_dit import DiT, DiTConfig, load_dit
from hy_dit.layout import DIFFUSERS, to_diffusers_config
from hy_plugins import TextTokens
from torch import Tensor

TOLERANCE = 2e-5


def make_pair(config: DiTConfig) -> tuple[DiT, HunyuanVideoTransformer3DModel]:
    """Both models, with the same weights: random everywhere, and of a size that keeps the velocity near 1."""
    dit = DiT(config)
    with torch.no_grad():
        for parameter in dit.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.8 * parameter.flatten(1).shape[1] ** -0.5)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    values = {key: value for key, value in to_diffusers_config(config).items() if key != "_class_name"}
    other = HunyuanVideoTransformer3DModel(**values)
    other.load_state_dict(dict(DIFFUSERS.from_ours(dit.state_dict(), config.width)), strict=True)
    return dit, other


def make_inputs(
    config: DiTConfig, size: tuple[int, int, int], lengths: list[int], columns: int
) -> tuple[Tensor, Tensor, TextTokens, Tensor | None]:
    batch = len(lengths)
    mask_BS = torch.arange(columns) < torch.tensor(lengths)[:, None]
    tokens_BSD = torch.randn(batch, columns, config.text_width)
    text = TextTokens(tokens_BSD, mask_BS, torch.randn(batch, config.pooled_width))
    # Not more: at 6,000 the last bit of a float32 exponential, in which processors differ, is worth up to 2e-5 itself.
    guidance_B = torch.rand(batch) * 3000 if config.guidance_embed else None
    return torch.randn(batch, config.in_channels, *size), torch.rand(batch) * 1000, text, guidance_B


def both(
    models: tuple[DiT, HunyuanVideoTransformer3DModel], inputs: tuple[Tensor, Tensor, TextTokens, Tensor | None]
) -> tuple[Tensor, Tensor]:
    """Velocities of ours and of theirs."""
    latent_BCTHW, timestep_B, text, guidance_B = inputs
    with torch.no_grad():
        ours = models[0](latent_BCTHW, timestep_B, text, guidance_B)
        (theirs,) = models[1](
            hidden_states=latent_BCTHW,
            timestep=timestep_B,
            encoder_hidden_states=text.tokens_BSD,
            encoder_attention_mask=text.mask_BS,
            pooled_projections=text.pooled_BD,
            guidance=guidance_B,
            return_dict=False,
        )
    return ours, theirs


SMALL = DiTConfig(
    in_channels=4,
    out_channels=4,
    width=48,
    heads=2,
    mlp_ratio=4.0,
    double_blocks=2,
    single_blocks=2,
    rope_axes=(4, 8, 12),
    rope_theta=256.0,
    patch=(1, 2, 2),
    text_width=20,
    pooled_width=10,
    guidance_embed=False,
)

CASES = {
    "odd numbers of tokens": ({}, (3, 10, 14), [5, 5, 5], 5),
    "texts of different lengths": ({}, (2, 6, 4), [1, 9, 4], 9),
    "padding that all texts share": ({}, (2, 6, 4), [3, 3], 40),
    "padding of both kinds": ({"guidance_embed": True}, (5, 4, 6), [2, 11, 7], 32),
    "one frame": ({}, (1, 10, 6), [3, 6], 8),
    "one frame, one token": ({"guidance_embed": True}, (1, 2, 2), [1], 1),
    "guidance": ({"guidance_embed": True}, (4, 6, 6), [8], 8),
    "many heads, one block each": ({"heads": 6, "rope_axes": (4, 2, 2), "double_blocks": 1}, (3, 6, 10), [4, 7], 7),
    "a narrow MLP, whose refiner keeps its own": ({"mlp_ratio": 2.5, "single_blocks": 3}, (2, 4, 6), [6, 2], 8),
    "other channels out, patches of frames": ({"out_channels": 7, "patch": (2, 2, 2)}, (6, 4, 6), [6, 2], 8),
    "another theta": ({"rope_theta": 10000.0}, (9, 4, 4), [5], 5),
}


@pytest.mark.parametrize(("changes", "size", "lengths", "columns"), CASES.values(), ids=list(CASES))
def test_the_velocity_is_the_same(changes, size, lengths, columns):
    torch.manual_seed(len(lengths) + columns)
    config = dataclasses.replace(SMALL, **changes)
    ours, theirs = both(make_pair(config), make_inputs(config, size, lengths, columns))
    assert 0.3 < theirs.std() < 3
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_the_velocity_is_the_same_on_random_shapes(seed):
    torch.manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, ()))

    heads, axes = draw(1, 4), (2 * draw(1, 4), 2 * draw(1, 4), 2 * draw(1, 4))
    config = dataclasses.replace(
        SMALL,
        heads=heads,
        rope_axes=axes,
        width=heads * sum(axes),
        double_blocks=draw(1, 3),
        single_blocks=draw(1, 3),
        text_width=draw(5, 40),
        pooled_width=draw(5, 40),
        guidance_embed=bool(draw(0, 1)),
    )
    columns = draw(2, 30)
    lengths = [draw(1, columns) for _ in range(draw(1, 4))]
    size = (draw(1, 6), 2 * draw(1, 6), 2 * draw(1, 6))
    ours, theirs = both(make_pair(config), make_inputs(config, size, lengths, columns))
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("autocast", [False, True], ids=["bfloat16 weights", "autocast"])
def test_bfloat16_is_as_close_to_float32_as_theirs(autocast):
    """Each seed's error is a draw; over several, ours may not be larger than diffusers'."""
    errors = {"ours": 0.0, "theirs": 0.0}
    config = dataclasses.replace(SMALL, guidance_embed=True)
    for seed in range(4):
        torch.manual_seed(seed)
        models, inputs = make_pair(config), make_inputs(config, (3, 6, 8), [5, 9], 12)
        exact, _ = both(models, inputs)
        dtype = torch.float32 if autocast else torch.bfloat16
        pair: Any = models
        dit, other = pair[0].to(dtype), pair[1].to(dtype)
        latent_BCTHW, timestep_B, text, guidance_B = inputs
        text = text.to(dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            ours, theirs = both((dit, other), (latent_BCTHW.to(dtype), timestep_B, text, guidance_B))
        errors["ours"] += float((ours.float() - exact).square().mean())
        errors["theirs"] += float((theirs.float() - exact).square().mean())
    assert 0 < errors["ours"] <= 1.1 * errors["theirs"]


def test_the_guidance_scale_of_the_released_pipeline_is_rounded_before_it_is_multiplied():
    """In bfloat16 a scale of 6 becomes 6,016; a model that is given that number is their model in bfloat16."""
    scale = torch.tensor([6.0], dtype=torch.bfloat16)
    assert float(scale * 1000) == 6016


def test_gradients_are_the_same():
    torch.manual_seed(0)
    dit, other = make_pair(SMALL)
    latent_BCTHW, timestep_B, text, _ = make_inputs(SMALL, (2, 4, 6), [3, 5], 12)
    dit(latent_BCTHW, timestep_B, text).square().mean().backward()
    (velocity_BCTHW,) = other(
        latent_BCTHW, timestep_B, text.tokens_BSD, text.mask_BS, text.pooled_BD, return_dict=False
    )
    velocity_BCTHW.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in dit.named_parameters() if parameter.grad is not None}
    expected = {name: parameter.grad for name, parameter in other.named_parameters()}
    for name, gradient in DIFFUSERS.from_ours(gradients, SMALL.width).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("shard", ["10GB", "100KB"])
def test_a_folder_that_diffusers_saved_loads(tmp_path, shard):
    torch.manual_seed(0)
    dit, other = make_pair(dataclasses.replace(SMALL, guidance_embed=True))
    other.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) == 1) == (shard == "10GB")
    loaded = load_dit(tmp_path)
    assert loaded.config == dit.config
    for key, value in dit.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
