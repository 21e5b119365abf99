"""A VAE folder loads as it was written, and a wrong one says what is wrong."""

import json
import re
from dataclasses import asdict

import pytest
import torch
from hy_vae3d import VAE3D, VAE3DConfig, load_vae
from hy_vae3d.layout import from_diffusers_config, to_diffusers_config
from hy_weights import CheckpointError, unallocated, write_model
from safetensors.torch import save_file

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4, scaling_factor=0.5)


def test_a_written_vae_loads_bit_for_bit(tmp_path):
    vae = VAE3D(SMALL)
    write_model(tmp_path / "vae", vae.state_dict(), asdict(SMALL))
    loaded = load_vae(tmp_path / "vae")
    assert loaded.config == SMALL
    assert not loaded.training
    for key, value in vae.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_half_precision_files_compute_in_float32_unless_told_otherwise(tmp_path):
    write_model(tmp_path / "vae", VAE3D(SMALL).bfloat16().state_dict(), asdict(SMALL))
    assert load_vae(tmp_path / "vae").quant_conv.weight.dtype == torch.float32
    assert load_vae(tmp_path / "vae", dtype=torch.bfloat16).quant_conv.weight.dtype == torch.bfloat16


def test_a_missing_key_is_listed(tmp_path):
    tensors = VAE3D(SMALL).state_dict()
    del tensors["decoder.conv_in.conv.bias"]
    write_model(tmp_path / "vae", tensors, asdict(SMALL))
    with pytest.raises(CheckpointError, match=r"1 missing: decoder\.conv_in\.conv\.bias"):
        load_vae(tmp_path / "vae")


def same(vae, state):
    loaded = vae.state_dict()
    return loaded.keys() == state.keys() and all(torch.equal(loaded[key], value) for key, value in state.items())


def random_state(config=SMALL):
    return {key: torch.randn_like(value) for key, value in VAE3D(config).state_dict().items()}


TENCENT = {
    "_class_name": "AutoencoderKLCausal3D",
    "act_fn": "silu",
    "block_out_channels": [8, 8, 8, 8],
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 256,
    "sample_tsize": 64,
    "scaling_factor": 0.5,
    "time_compression_ratio": 4,
    "mid_block_add_attention": True,
}


@pytest.mark.parametrize("wrapper", [None, "state_dict"])
@pytest.mark.parametrize("prefix", ["", "vae."])
def test_tencents_folder_loads(tmp_path, wrapper, prefix):
    state = random_state()
    stored = {prefix + key: value for key, value in state.items()}
    torch.save({wrapper: stored} if wrapper else stored, tmp_path / "pytorch_model.pt")
    (tmp_path / "config.json").write_text(json.dumps(TENCENT))
    loaded = load_vae(tmp_path)
    assert loaded.config == SMALL
    assert same(loaded, state)


def released_state():
    """The released sizes in a few kilobytes: every tensor repeats one number."""
    with unallocated():
        vae = VAE3D(VAE3DConfig.preset("hunyuan-video"))
    return {key: torch.full((1,), 0.5).expand(value.shape) for key, value in vae.state_dict().items()}


def test_a_bare_file_of_the_released_sizes_needs_no_configuration(tmp_path):
    torch.save(released_state(), tmp_path / "pytorch_model.pt")
    loaded = load_vae(tmp_path / "pytorch_model.pt")
    assert loaded.config == VAE3DConfig.preset("hunyuan-video")
    assert loaded.decoder.conv_out.conv.weight.eq(0.5).all()


def test_a_bare_file_of_other_sizes_is_refused(tmp_path):
    save_file(random_state(), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"don't tell their norm_groups and scaling_factor .* give a folder with"):
        load_vae(tmp_path / "w.safetensors")


def in_comfyui_names(state):
    """As in the files that ComfyUI repackages: decoder stages counted backwards, projections as convolutions."""
    theirs = {}
    for key, value in state.items():
        half, _, rest = key.partition(".")
        if found := re.fullmatch(r"(down|up)_blocks\.(\d)\.(.*)", rest):
            way, stage, rest = found.groups()
            stage = int(stage) if way == "down" else 3 - int(stage)
            rest = rest.replace(f"{way}samplers.0", f"{way}sample").replace("resnets", "block")
            rest = f"{way}.{stage}.{rest.replace('conv_shortcut', 'nin_shortcut')}"
        elif rest.startswith("mid_block.resnets."):
            number, rest = int(rest[18]), rest[20:]
            rest = f"mid.block_{number + 1}.{rest}"
        elif rest.startswith("mid_block.attentions.0."):
            name, kind = rest.removeprefix("mid_block.attentions.0.").rsplit(".", 1)
            short = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}[name]
            rest = f"mid.attn_1.{short}.{kind}"
            value = value[..., None, None, None] if value.ndim == 2 else value
        elif rest.startswith("conv_norm_out"):
            rest = rest.replace("conv_norm_out", "norm_out")
        theirs[f"{half}.{rest}"] = value.contiguous()
    return theirs


def test_a_file_in_comfyuis_names_loads(tmp_path):
    config = VAE3DConfig(latent_channels=4, channels=(4, 8, 12, 16), layers_per_block=2, norm_groups=2)
    state = random_state(config)
    theirs = in_comfyui_names(state)
    names = {"encoder.down.1.block.0.nin_shortcut.conv.bias", "decoder.up.3.upsample.conv.conv.bias"}
    assert names | {"decoder.norm_out.weight", "encoder.mid.attn_1.proj_out.weight", "quant_conv.bias"} <= theirs.keys()
    save_file(theirs, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(asdict(config)))
    assert same(load_vae(tmp_path), state)
    theirs["decoder.mid.attn_1.q.weight"] = torch.ones(16, 16, 3, 3, 3)
    save_file(theirs, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"wrong shape: decoder.mid_block.attentions.0.to_q.weight"):
        load_vae(tmp_path)


def test_a_bare_file_of_comfyui_of_the_released_sizes_loads(tmp_path):
    torch.save({key: value for key, value in in_comfyui_names_lazily(released_state()).items()}, tmp_path / "vae.pt")
    assert load_vae(tmp_path / "vae.pt").config == VAE3DConfig.preset("hunyuan-video")


def in_comfyui_names_lazily(state):
    names = in_comfyui_names({key: torch.empty(0) for key in state})
    return dict(zip(names, state.values(), strict=True))


def test_diffusers_folders_load_and_their_configuration_comes_back(tmp_path):
    state = random_state()
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(to_diffusers_config(SMALL)))
    loaded = load_vae(tmp_path)
    assert loaded.config == SMALL
    assert same(loaded, state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "AutoencoderKLWan"}, "is of AutoencoderKLWan; expected AutoencoderKLHunyuanVideo or Auto"),
        ({"temporal_compression_ratio": 8}, "temporal_compression_ratio is 8; this VAE has 4"),
        ({"out_channels": 4}, "out_channels is 4; this VAE has 3"),
        ({"act_fn": "gelu"}, "act_fn is 'gelu'"),
        ({"block_out_channels": [8, 8]}, "not a valid configuration .* four stages"),
        ({"block_out_channels": 8}, "not a valid configuration"),
    ],
)
def test_a_configuration_of_something_else_is_refused(change, message):
    with pytest.raises(CheckpointError, match=message):
        from_diffusers_config(to_diffusers_config(SMALL) | change, "there")


def test_a_configuration_without_a_key_is_refused():
    with pytest.raises(CheckpointError, match="there: has no 'norm_num_groups'"):
        from_diffusers_config({key: v for key, v in TENCENT.items() if key != "norm_num_groups"}, "there")


@pytest.mark.parametrize("key", ["decoder.conv_in.weight", "decoder.mid_block.attentions.0.to_q.weight", "x"])
def test_another_model_is_refused_by_its_keys(tmp_path, key):
    save_file({key: torch.ones(2, 2)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="not a HunyuanVideo VAE"):
        load_vae(tmp_path / "w.safetensors")


def test_what_is_not_finite_is_refused(tmp_path):
    state = random_state()
    state["quant_conv.bias"][0] = float("nan")
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(asdict(SMALL)))
    with pytest.raises(CheckpointError, match=r"tensor 'quant_conv.bias' holds NaN"):
        load_vae(tmp_path)


def test_the_vae_of_a_whole_pipeline_is_found(tmp_path):
    state = random_state()
    write_model(tmp_path / "pipeline" / "vae", state, asdict(SMALL))
    assert same(load_vae(tmp_path / "pipeline"), state)
