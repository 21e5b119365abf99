"""Our transformer against diffusers' HunyuanVideoTransformer3DModel: same weights, fresh shapes, same velocity.

Shapes: B batch, C channels, T H W latent frames/height/width, S text tokens, D width.
"""

import dataclasses

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel  # pyright: ignore[reportPrivateImportUsage]
from hy_dit import DiT, DiTConfig
from hy_plugins import TextTokens
from torch import Tensor

TOLERANCE = 2e-5

RENAMED = {
    "img_in.proj": "x_embedder.proj",
    "txt_in.input_embedder": "context_embedder.proj_in",
    "txt_in.t_embedder.mlp.0": "context_embedder.time_text_embed.timestep_embedder.linear_1",
    "txt_in.t_embedder.mlp.2": "context_embedder.time_text_embed.timestep_embedder.linear_2",
    "txt_in.c_embedder.linear_1": "context_embedder.time_text_embed.text_embedder.linear_1",
    "txt_in.c_embedder.linear_2": "context_embedder.time_text_embed.text_embedder.linear_2",
    "time_in.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "time_in.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "guidance_in.mlp.0": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.mlp.2": "time_text_embed.guidance_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
}

STACKS = {
    "txt_in.individual_token_refiner.blocks": "context_embedder.token_refiner.refiner_blocks",
    "double_blocks": "transformer_blocks",
    "single_blocks": "single_transformer_blocks",
}

RENAMED_IN_BLOCKS = {
    "norm1": "norm1",
    "norm2": "norm2",
    "self_attn_proj": "attn.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "adaLN_modulation.1": "norm_out.linear",
    "img_mod.linear": "norm1.linear",
    "txt_mod.linear": "norm1_context.linear",
    "img_attn_q_norm": "attn.norm_q",
    "img_attn_k_norm": "attn.norm_k",
    "txt_attn_q_norm": "attn.norm_added_q",
    "txt_attn_k_norm": "attn.norm_added_k",
    "img_attn_proj": "attn.to_out.0",
    "txt_attn_proj": "attn.to_add_out",
    "img_mlp.fc1": "ff.net.0.proj",
    "img_mlp.fc2": "ff.net.2",
    "txt_mlp.fc1": "ff_context.net.0.proj",
    "txt_mlp.fc2": "ff_context.net.2",
    "modulation.linear": "norm.linear",
    "q_norm": "attn.norm_q",
    "k_norm": "attn.norm_k",
    "linear2": "proj_out",
}

SPLIT_IN_BLOCKS = {
    "self_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
}


def to_diffusers(state: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """The same weights under diffusers' names; joint projections are split, the final layer's halves swapped."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        name, _, kind = key.rpartition(".")
        stack = next((stack for stack in STACKS if name.startswith(stack + ".")), None)
        if name == "final_layer.adaLN_modulation.1":
            renamed[f"norm_out.linear.{kind}"] = torch.cat(list(reversed(value.chunk(2))))
        elif stack is None:
            renamed[f"{RENAMED[name]}.{kind}"] = value
        else:
            index, _, part = name.removeprefix(stack + ".").partition(".")
            block = f"{STACKS[stack]}.{index}"
            if part in SPLIT_IN_BLOCKS:
                rows = [width, width, width, value.shape[0] - 3 * width][: len(SPLIT_IN_BLOCKS[part])]
                for target, slice_ in zip(SPLIT_IN_BLOCKS[part], value.split(rows), strict=True):
                    renamed[f"{block}.{target}.{kind}"] = slice_
            else:
                renamed[f"{block}.{RENAMED_IN_BLOCKS[part]}.{kind}"] = value
    return renamed


def make_pair(config: DiTConfig) -> tuple[DiT, HunyuanVideoTransformer3DModel]:
    """Both models, with the same weights: random everywhere, and of a size that keeps the velocity near 1."""
    dit = DiT(config)
    with torch.no_grad():
        for parameter in dit.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.8 * parameter.flatten(1).shape[1] ** -0.5)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    other = HunyuanVideoTransformer3DModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        num_attention_heads=config.heads,
        attention_head_dim=config.width // config.heads,
        num_layers=config.double_blocks,
        num_single_layers=config.single_blocks,
        mlp_ratio=config.mlp_ratio,
        patch_size=config.patch[1],
        patch_size_t=config.patch[0],
        guidance_embeds=config.guidance_embed,
        text_embed_dim=config.text_width,
        pooled_projection_dim=config.pooled_width,
        rope_theta=config.rope_theta,
        rope_axes_dim=config.rope_axes,
    )
    other.load_state_dict(to_diffusers(dit.state_dict(), config.width), strict=True)
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
    for name, gradient in to_diffusers(gradients, SMALL.width).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3, msg=name)
