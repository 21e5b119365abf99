import dataclasses
import json

import pytest
import torch
from hy_dit import DiT, load_dit
from hy_dit.layout import DIFFUSERS, from_diffusers_config, to_diffusers_config
from hy_weights import CheckpointError, write_model
from safetensors.torch import save_file

WIDE_HEADS = {"width": 256, "heads": 2, "rope_axes": (16, 56, 56)}


@pytest.fixture
def folder(make_dit, tmp_path):
    """Write a model folder."""

    def write(**changes):
        dit = make_dit(**changes)
        write_model(tmp_path / "model", dit.state_dict(), dataclasses.asdict(dit.config))
        return dit, tmp_path / "model"

    return write


def same(one: DiT, other: DiT) -> bool:
    state = other.state_dict()
    return all(torch.equal(value, state[key]) for key, value in one.state_dict().items())


def test_a_folder_loads(folder):
    dit, path = folder()
    loaded = load_dit(path)
    assert loaded.config == dit.config
    assert same(loaded, dit)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance_embed": True},
        {"double_blocks": 0, "mlp_ratio": 2.5},
        {"single_blocks": 0},
        {"patch": (2, 1, 3), "out_channels": 7},
        {"single_blocks": 11, "width": 128, "heads": 1},
    ],
)
def test_of_a_bare_file_the_sizes_are_read_off_the_weights(folder, changes):
    dit, path = folder(**(WIDE_HEADS | changes))
    (path / "config.json").unlink()
    loaded = load_dit(path / "model.safetensors")
    assert loaded.config == dit.config
    assert same(loaded, dit)


@pytest.mark.parametrize("wrapper", ["module", "ema"])
def test_a_released_pickle_loads(make_dit, tmp_path, wrapper):
    dit = make_dit(**WIDE_HEADS, guidance_embed=True)
    torch.save({wrapper: dit.state_dict()}, tmp_path / "mp_rank_00_model_states.pt")
    loaded = load_dit(tmp_path / "mp_rank_00_model_states.pt")
    assert loaded.config == dit.config
    assert same(loaded, dit)


def in_diffusers_layout(dit: DiT) -> dict[str, torch.Tensor]:
    view = DIFFUSERS.from_ours(dit.state_dict(), dit.config.width)
    return {key: view[key].contiguous() for key in view}


def test_diffusers_layout_and_back_is_bit_identical(make_dit):
    dit = make_dit(guidance_embed=True, mlp_ratio=2.5)
    theirs = in_diffusers_layout(dit)
    ours = DIFFUSERS.to_ours(theirs)
    assert ours.keys() == dit.state_dict().keys()
    assert all(torch.equal(ours[key], value) for key, value in dit.state_dict().items())
    assert all(ours.outline(key).shape == value.shape for key, value in dit.state_dict().items())
    assert from_diffusers_config(to_diffusers_config(dit.config), "there") == dit.config


def test_a_diffusers_folder_and_its_bare_file_load(make_dit, tmp_path):
    dit = make_dit(**WIDE_HEADS)
    save_file(in_diffusers_layout(dit), tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(to_diffusers_config(dit.config)))
    for path in (tmp_path, tmp_path / "diffusion_pytorch_model.safetensors"):
        loaded = load_dit(path)
        assert loaded.config == dit.config
        assert same(loaded, dit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "WanTransformer3DModel"}, "is of diffusers' WanTransformer3DModel; expected Hunyuan"),
        (
            {"image_condition_type": "token_replace"},
            "image_condition_type is 'token_replace'; this .* None",
        ),
        ({"rope_theta": 0.0}, "not a valid configuration of Hunyuan"),
    ],
)
def test_a_diffusers_configuration_of_something_else_is_refused(make_dit, change, message):
    with pytest.raises(CheckpointError, match=message):
        from_diffusers_config(to_diffusers_config(make_dit().config) | change, "there")


def test_a_diffusers_configuration_without_a_key_is_refused(make_dit):
    values = to_diffusers_config(make_dit().config)
    del values["patch_size_t"]
    with pytest.raises(CheckpointError, match="there: has no 'patch_size_t'"):
        from_diffusers_config(values, "there")


def test_a_part_of_a_joint_projection_that_is_missing_is_named(make_dit):
    theirs = in_diffusers_layout(make_dit())
    del theirs["transformer_blocks.0.attn.to_k.weight"]
    with pytest.raises(CheckpointError, match=r"are missing: transformer_blocks.0.attn.to_k.weight$"):
        DIFFUSERS.to_ours(theirs)


def test_weights_keep_their_dtype_unless_one_is_given(make_dit, tmp_path):
    dit = make_dit().bfloat16()
    dit.final_layer.linear.float()  # as in the released checkpoint
    write_model(tmp_path / "model", dit.state_dict(), dataclasses.asdict(dit.config))
    assert {parameter.dtype for parameter in load_dit(tmp_path / "model").parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in load_dit(tmp_path / "model", torch.float32).parameters()} == {
        torch.float32
    }
    assert load_dit(tmp_path / "model", device="meta").img_in.proj.weight.is_meta


def test_narrow_heads_of_a_bare_file_are_refused(folder):
    _, path = folder()
    with pytest.raises(CheckpointError, match=r"16 channels per head don't tell .* config.json has rope_axes"):
        load_dit(path / "model.safetensors")


def test_another_model_is_refused_by_its_keys(tmp_path):
    write_model(tmp_path / "model", {"decoder.weight": torch.ones(2, 2)}, {})
    with pytest.raises(CheckpointError, match="not a HunyuanVideo transformer: no known layout"):
        load_dit(tmp_path / "model" / "model.safetensors")


def test_a_flat_patch_projection_is_refused(make_dit, tmp_path):
    state = make_dit(**WIDE_HEADS).state_dict()
    state["img_in.proj.weight"] = state["img_in.proj.weight"].flatten(1)
    write_model(tmp_path / "model", state, {})
    with pytest.raises(CheckpointError, match=r"img_in.proj.weight is of shape \[256, 16\], expected .* rank 5"):
        load_dit(tmp_path / "model" / "model.safetensors")


def test_shapes_that_contradict_each_other_are_refused(make_dit, tmp_path):
    state = make_dit(**WIDE_HEADS).state_dict()
    state["double_blocks.0.img_attn_q_norm.weight"] = torch.ones(128)
    state["img_in.proj.weight"] = torch.ones(200, 4, 1, 2, 2)
    write_model(tmp_path / "model", state, {})
    with pytest.raises(CheckpointError, match=r"contradict each other \(width|contradict each other \(rope_axes"):
        load_dit(tmp_path / "model" / "model.safetensors")


def test_missing_and_unexpected_weights_are_listed(folder):
    dit, path = folder(**WIDE_HEADS)
    state = dit.state_dict()
    state["single_blocks.1.extra"] = state.pop("single_blocks.1.q_norm.weight")
    write_model(path, state, dataclasses.asdict(dit.config))
    with pytest.raises(CheckpointError, match=r"missing: single_blocks.1.q_norm.weight.* unexpected: .*extra"):
        load_dit(path)


def test_a_config_that_makes_no_model_names_the_file(folder):
    dit, path = folder()
    config = dataclasses.asdict(dit.config) | {"heads": 3}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config.json: not a valid DiTConfig \(width must be a multiple"):
        load_dit(path)
