import dataclasses
import math

import pytest
import torch
from hy_dit import T2X, DiTInputError, T2XConfig, load_t2x
from hy_dit.attention import attention
from hy_plugins import TextTokens
from hy_plugins.testing import BackboneContract
from hy_weights import write_model

SIZES = {"width": 128, "depth": 2, "in_channels": 4, "out_channels": 4, "mlp_ratio": 2.0, "text_width": 16}


def make(**changes):
    """Noise on every weight, so that nothing starts shut."""
    model = T2X(T2XConfig(**(SIZES | changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def make_inputs(*lengths, columns=None, shape=(4, 2, 4, 6)):
    columns = columns or max(lengths)
    mask_BS = torch.arange(columns) < torch.tensor(lengths)[:, None]
    text = TextTokens(torch.randn(len(lengths), columns, 16), mask_BS)
    return torch.randn(len(lengths), *shape), torch.linspace(10, 900, len(lengths)), text


class TestT2X(BackboneContract):
    def make(self):
        return T2X(T2XConfig(**SIZES))


def test_what_padding_holds_changes_nothing_and_an_empty_text_is_finite():
    model, (latent_BCTHW, timestep_B, text) = make(), make_inputs(2, 4, 0, columns=5)
    tokens_BSD = torch.where(text.mask_BS[..., None], text.tokens_BSD, float("nan"))
    velocity_BCTHW = model(latent_BCTHW, timestep_B, text)
    assert velocity_BCTHW.isfinite().all()
    assert torch.equal(
        model(latent_BCTHW, timestep_B, dataclasses.replace(text, tokens_BSD=tokens_BSD)), velocity_BCTHW
    )


def test_padding_columns_are_as_if_they_were_not_there():
    model, (latent_BCTHW, timestep_B, text) = make(), make_inputs(2, 3, columns=7)
    cut = TextTokens(text.tokens_BSD[:, :3], text.mask_BS[:, :3])
    torch.testing.assert_close(model(latent_BCTHW, timestep_B, cut), model(latent_BCTHW, timestep_B, text))


def test_each_text_token_counts_and_their_order_does_not():
    model, (latent_BCTHW, timestep_B, text) = make(), make_inputs(4)
    velocity_BCTHW = model(latent_BCTHW, timestep_B, text)
    for column in range(4):
        tokens_BSD = text.tokens_BSD.clone()
        tokens_BSD[:, column] += 1
        changed = model(latent_BCTHW, timestep_B, dataclasses.replace(text, tokens_BSD=tokens_BSD))
        assert not torch.allclose(changed, velocity_BCTHW, atol=1e-4)
    turned = dataclasses.replace(text, tokens_BSD=text.tokens_BSD.flip(1))
    torch.testing.assert_close(model(latent_BCTHW, timestep_B, turned), velocity_BCTHW)


def test_an_empty_text_is_like_one_zero_token():
    model, (latent_BCTHW, timestep_B, _) = make(), make_inputs(1)
    empty = TextTokens(torch.randn(1, 3, 16), torch.zeros(1, 3, dtype=torch.bool))
    zero = TextTokens(torch.zeros(1, 1, 16), torch.ones(1, 1, dtype=torch.bool))
    torch.testing.assert_close(model(latent_BCTHW, timestep_B, empty), model(latent_BCTHW, timestep_B, zero))


def test_positions_matter_along_every_axis():
    model, (_, timestep_B, text) = make(), make_inputs(3)
    latent_BCTHW = torch.randn(1, 4, 4, 8, 8)
    velocity_BCTHW = model(latent_BCTHW, timestep_B, text)
    for axis, step in ((2, 1), (3, 2), (4, 2)):
        order = torch.arange(latent_BCTHW.shape[axis]).view(-1, step)[torch.tensor([1, 0, 3, 2])].flatten()
        moved = model(latent_BCTHW.index_select(axis, order), timestep_B, text)
        assert not torch.allclose(moved, velocity_BCTHW.index_select(axis, order), atol=1e-3)


def test_the_video_attends_through_the_models_function_and_never_to_the_text():
    calls = []

    def spy(q_BNLK, k_BNLK, v_BNLK, mask_BL):
        calls.append((k_BNLK.shape[2], mask_BL))
        return attention(q_BNLK, k_BNLK, v_BNLK, mask_BL)

    model, inputs = make(), make_inputs(3, 5)
    model.attention = spy
    model(*inputs)
    assert calls == [(12, None)] * 2


def test_a_new_model_predicts_zero_and_every_block_starts_as_nothing():
    model, inputs = T2X(T2XConfig(**SIZES)), make_inputs(2, 3)
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, args, out: seen.append(torch.equal(args[0], out)))
    assert not model(*inputs).any()
    assert seen == [True, True]


@pytest.mark.parametrize("autocast", [False, True])
def test_it_learns_and_every_parameter_takes_part(autocast):
    torch.manual_seed(0)
    model, inputs = T2X(T2XConfig(**SIZES)), make_inputs(2, 0, columns=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    target_BCTHW = torch.randn_like(inputs[0])
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            velocity_BCTHW = model(*inputs)
        losses.append((velocity_BCTHW.float() - target_BCTHW).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    torch.testing.assert_close(losses[0], target_BCTHW.square().mean())
    assert losses[-1] < 0.7 * losses[0]
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


def test_time_modulates_each_block_by_the_shared_projection_and_its_own_table():
    model, inputs = make(), make_inputs(3)
    velocity_BCTHW = model(*inputs)
    for block in range(2):
        for sublayer in range(2):
            for part in range(3):
                other = make()
                other.load_state_dict(model.state_dict())
                with torch.no_grad():
                    other.blocks[block].table[sublayer, part] += 0.5
                assert not torch.allclose(other(*inputs), velocity_BCTHW, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_the_whole_call_compiles_to_one_graph():
    model, inputs = make(), make_inputs(2, 0, columns=3)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs), model(*inputs))


def test_names_and_shapes_of_the_state_dict_stay():
    shapes = {name: tuple(value.shape) for name, value in make(depth=1).state_dict().items()}
    assert shapes == {
        "img_in.proj.weight": (128, 4, 1, 2, 2),
        "img_in.proj.bias": (128,),
        "txt_in.0.weight": (128, 16),
        "txt_in.0.bias": (128,),
        "txt_in.2.weight": (128, 128),
        "txt_in.2.bias": (128,),
        "time_in.mlp.0.weight": (128, 256),
        "time_in.mlp.0.bias": (128,),
        "time_in.mlp.2.weight": (128, 128),
        "time_in.mlp.2.bias": (128,),
        "modulation.linear.weight": (768, 128),
        "modulation.linear.bias": (768,),
        "blocks.0.table": (2, 3, 128),
        "blocks.0.self_attn.qkv.weight": (384, 128),
        "blocks.0.self_attn.qkv.bias": (384,),
        "blocks.0.self_attn.q_norm.weight": (128,),
        "blocks.0.self_attn.k_norm.weight": (128,),
        "blocks.0.self_attn.proj.weight": (128, 128),
        "blocks.0.self_attn.proj.bias": (128,),
        "blocks.0.cross_attn.q.weight": (128, 128),
        "blocks.0.cross_attn.q.bias": (128,),
        "blocks.0.cross_attn.kv.weight": (256, 128),
        "blocks.0.cross_attn.kv.bias": (256,),
        "blocks.0.cross_attn.q_norm.weight": (128,),
        "blocks.0.cross_attn.k_norm.weight": (128,),
        "blocks.0.cross_attn.proj.weight": (128, 128),
        "blocks.0.cross_attn.proj.bias": (128,),
        "blocks.0.mlp.fc1.weight": (256, 128),
        "blocks.0.mlp.fc1.bias": (256,),
        "blocks.0.mlp.fc2.weight": (128, 256),
        "blocks.0.mlp.fc2.bias": (128,),
        "final_layer.adaLN_modulation.1.weight": (256, 128),
        "final_layer.adaLN_modulation.1.bias": (256,),
        "final_layer.linear.weight": (16, 128),
        "final_layer.linear.bias": (16,),
    }


def test_fresh_weights_are_drawn_as_said():
    state = T2X(T2XConfig(**(SIZES | {"text_width": 128}))).state_dict()
    for name, value in state.items():
        shut = ("modulation", "table", "final_layer", "cross_attn.proj")
        if any(part in name for part in shut) or name.endswith("bias"):
            assert not value.any(), name
        elif value.ndim == 1:
            assert torch.equal(value, torch.ones_like(value)), name
        elif "time_in" in name:
            torch.testing.assert_close(value.std(), torch.tensor(0.02), rtol=0.05, atol=0)
        else:
            bound = math.sqrt(6 / sum(value.flatten(1).shape))
            assert 0.95 * bound < value.abs().max() <= bound, name


def test_a_folder_gives_the_model_back(tmp_path):
    model, inputs = make(), make_inputs(2)
    write_model(tmp_path / "t2x", model.state_dict(), dataclasses.asdict(model.config))
    loaded = load_t2x(tmp_path / "t2x")
    assert loaded.config == model.config
    torch.testing.assert_close(loaded(*inputs), model(*inputs))
    assert load_t2x(tmp_path / "t2x", dtype=torch.bfloat16).img_in.proj.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"guidance_B": torch.tensor([6000.0])}, "DiT-T2X has no guidance embedding"),
        ({"latent_BCTHW": torch.randn(1, 4, 2, 3, 6)}, "latent's height is 3; it must be a multiple of the patch's 2"),
        ({"latent_BCTHW": torch.randn(1, 5, 2, 4, 6)}, "latent has 5 channels; this model takes 4"),
        ({"timestep_B": torch.tensor([1.0, 2.0])}, r"timestep_B must hold one number per sample, shape \[1\]"),
        ({"text": TextTokens(torch.randn(1, 2, 8), torch.ones(1, 2, dtype=torch.bool))}, "has width 8; .* reads 16"),
        ({"text": TextTokens(torch.randn(1, 2, 16), torch.ones(1, 2))}, "text.mask_BS must be bool"),
    ],
)
def test_inputs_that_do_not_fit_are_named(wrong, message):
    latent_BCTHW, timestep_B, text = make_inputs(2)
    with pytest.raises(DiTInputError, match=message):
        make()(**({"latent_BCTHW": latent_BCTHW, "timestep_B": timestep_B, "text": text} | wrong))
