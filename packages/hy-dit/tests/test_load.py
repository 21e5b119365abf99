import dataclasses
import json

import pytest
import torch
from hy_dit import DiT, DiTConfig, load_dit
from hy_dit.layout import DIFFUSERS, from_diffusers_config, to_diffusers_config
from hy_dit.load import open_dit
from hy_weights import CheckpointError, unallocated, write_model
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


@pytest.mark.parametrize("preset", ["hunyuan-video", "hunyuan-video-cfgdistill"])
def test_the_released_sizes_are_read_off_the_weights(tmp_path, preset):
    """In a few kilobytes: every tensor repeats one number."""
    with unallocated():
        state = DiT(DiTConfig.preset(preset)).state_dict()
    repeated = {key: torch.ones(1, dtype=torch.bfloat16).expand(value.shape) for key, value in state.items()}
    torch.save({"module": repeated}, tmp_path / "mp_rank_00_model_states.pt")
    stored = open_dit(tmp_path / "mp_rank_00_model_states.pt")
    assert stored.config == DiTConfig.preset(preset)
    assert stored.layout == "released key names"


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


COMFYUI = {
    "img_in.proj": "img_in.proj",
    "txt_in.input_embedder": "txt_in.input_embedder",
    "txt_in.t_embedder.mlp.0": "txt_in.t_embedder.in_layer",
    "txt_in.t_embedder.mlp.2": "txt_in.t_embedder.out_layer",
    "txt_in.c_embedder.linear_1": "txt_in.c_embedder.in_layer",
    "txt_in.c_embedder.linear_2": "txt_in.c_embedder.out_layer",
    "time_in.mlp.0": "time_in.in_layer",
    "time_in.mlp.2": "time_in.out_layer",
    "guidance_in.mlp.0": "guidance_in.in_layer",
    "guidance_in.mlp.2": "guidance_in.out_layer",
    "vector_in.in_layer": "vector_in.in_layer",
    "vector_in.out_layer": "vector_in.out_layer",
    "final_layer.linear": "final_layer.linear",
    "final_layer.adaLN_modulation.1": "final_layer.adaLN_modulation.1",
}
COMFYUI_BLOCKS = {
    "txt_in.individual_token_refiner.blocks": {
        "norm1": "norm1",
        "norm2": "norm2",
        "self_attn_qkv": "self_attn.qkv",
        "self_attn_proj": "self_attn.proj",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.2",
        "adaLN_modulation.1": "adaLN_modulation.1",
    },
    "double_blocks": {
        f"{stream}_{ours}": f"{stream}_{theirs}"
        for stream in ("img", "txt")
        for ours, theirs in {
            "mod.linear": "mod.lin",
            "attn_qkv": "attn.qkv",
            "attn_q_norm": "attn.norm.query_norm",
            "attn_k_norm": "attn.norm.key_norm",
            "attn_proj": "attn.proj",
            "mlp.fc1": "mlp.0",
            "mlp.fc2": "mlp.2",
        }.items()
    },
    "single_blocks": {
        "linear1": "linear1",
        "linear2": "linear2",
        "q_norm": "norm.query_norm",
        "k_norm": "norm.key_norm",
        "modulation.linear": "modulation.lin",
    },
}


def in_comfyui_names(dit: DiT, prefix: str, norm: str) -> dict[str, torch.Tensor]:
    """Written out name by name, from what ComfyUI calls its modules."""
    names = dict(COMFYUI)
    for stack, layers in COMFYUI_BLOCKS.items():
        names |= {f"{stack}.{n}.{ours}": f"{stack}.{n}.{theirs}" for n in range(2) for ours, theirs in layers.items()}
    theirs = {}
    for key, value in dit.state_dict().items():
        layer, kind = key.rsplit(".", 1)
        name = f"{names[layer]}.{kind}"
        theirs[prefix + (name.replace("_norm.weight", f"_norm.{norm}"))] = value
    return theirs


@pytest.mark.parametrize("norm", ["scale", "weight"])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "model.model.", "diffusion_model."])
def test_comfyui_files_load(make_dit, tmp_path, prefix, norm):
    dit = make_dit(**WIDE_HEADS, guidance_embed=True)
    save_file(in_comfyui_names(dit, prefix, norm), tmp_path / "repackaged.safetensors")
    loaded = load_dit(tmp_path / "repackaged.safetensors")
    assert loaded.config == dit.config
    assert same(loaded, dit)


@pytest.mark.parametrize("prefix", ["module.", "model.diffusion_model.", "transformer.", "_orig_mod."])
def test_a_prefix_before_released_or_diffusers_names_goes(make_dit, tmp_path, prefix):
    dit = make_dit(**WIDE_HEADS)
    for name, state in (("ours", dit.state_dict()), ("theirs", in_diffusers_layout(dit))):
        save_file({prefix + key: value for key, value in state.items()}, tmp_path / f"{name}.safetensors")
        loaded = load_dit(tmp_path / f"{name}.safetensors")
        assert loaded.config == dit.config
        assert same(loaded, dit)


def test_what_a_repackaged_file_lacks_or_has_too_many_is_listed(make_dit, tmp_path):
    theirs = in_comfyui_names(make_dit(**WIDE_HEADS), "model.model.", "scale")
    del theirs["model.model.double_blocks.1.txt_mlp.2.bias"]
    theirs["vae.decoder.conv_in.weight"] = torch.ones(1)
    save_file(theirs, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: double_blocks.1.txt_mlp.fc2.bias; .*unexpected: vae.decoder"):
        load_dit(tmp_path / "w.safetensors")


def test_unknown_keys_beside_diffusers_are_listed_too(make_dit, tmp_path):
    dit = make_dit(**WIDE_HEADS)
    save_file({**in_diffusers_layout(dit), "image_embedder.weight": torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"unexpected: image_embedder.weight"):
        load_dit(tmp_path / "w.safetensors")


def test_two_keys_for_one_weight_are_refused(make_dit, tmp_path):
    theirs = in_comfyui_names(make_dit(**WIDE_HEADS), "", "scale")
    theirs["single_blocks.0.norm.query_norm.weight"] = theirs["single_blocks.0.norm.query_norm.scale"].clone()
    save_file(theirs, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"are both 'single_blocks.0.q_norm.weight'; one is too many"):
        load_dit(tmp_path / "w.safetensors")


def test_the_transformer_of_a_whole_pipeline_is_found(make_dit, tmp_path):
    dit = make_dit()
    write_model(tmp_path / "pipeline" / "dit", dit.state_dict(), dataclasses.asdict(dit.config))
    assert same(load_dit(tmp_path / "pipeline"), dit)


def test_a_hub_id_is_asked_for_with_its_scheme():
    with pytest.raises(CheckpointError, match=r"^hf://org: a hub id is hf://org/name"):
        load_dit("hf://org")
    with pytest.raises(CheckpointError, match="org/name: no such file or folder"):
        load_dit("org/name")


def test_weights_that_are_not_finite_are_refused(folder):
    dit, path = folder()
    state = {key: value.clone() for key, value in dit.state_dict().items()}
    state["time_in.mlp.0.bias"][3] = float("inf")
    save_file(state, path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"tensor 'time_in.mlp.0.bias' holds NaN or infinity"):
        load_dit(path)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float8_e5m2, torch.bool])
def test_numbers_that_are_no_weights_are_refused(folder, dtype):
    dit, path = folder()
    state = dit.state_dict()
    state["single_blocks.0.linear1.weight"] = state["single_blocks.0.linear1.weight"].to(dtype)
    save_file(state, path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"wrong dtype: single_blocks.0.linear1.weight \(expected torch.float32"):
        load_dit(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_floats_are_kept(folder, dtype):
    dit, path = folder()
    write_model(path, dit.to(dtype).state_dict(), dataclasses.asdict(dit.config))
    assert load_dit(path).final_layer.linear.weight.dtype == dtype


def test_a_config_that_contradicts_the_weights_lists_them(folder):
    dit, path = folder()
    config = dataclasses.asdict(dit.config) | {"text_width": 13}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError, match=r"wrong shape: txt_in.c_embedder.linear_1.weight \(expected \[32, 13\], f"
    ):
        load_dit(path)
