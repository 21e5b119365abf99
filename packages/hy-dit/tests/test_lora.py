"""LoRAs for the transformer: names, sizes, and the same velocity merged and inserted.

Shapes: B batch, C channels, T H W latent frames/height/width.
"""

import copy

import pytest
import torch
from hy_dit import LORA_TARGETS, DiT, DiTConfig, load_lora, save_lora
from hy_dit.lora import layer_names
from hy_weights import (
    CheckpointError,
    LoRA,
    insert_lora,
    inserted_lora,
    lora_parameters,
    merge_loras,
    new_lora,
    remove_lora,
    set_lora_strength,
)
from safetensors.torch import load_file, save_file
from torch.utils.checkpoint import checkpoint


@pytest.fixture
def dit(make_dit):
    return make_dit(guidance_embed=True)


@pytest.fixture
def run(make_text):
    """Call a transformer, always on the same inputs."""
    text = make_text(3, 5)
    latent_BCTHW, timestep_B, guidance_B = torch.randn(2, 4, 2, 4, 6), torch.rand(2) * 1000, torch.rand(2) * 1000
    return lambda dit: dit(latent_BCTHW, timestep_B, text, guidance_B)


def draw_lora(dit, targets=("*",), rank=3, alpha=1.5) -> LoRA:
    lora = new_lora(dit, targets, rank=rank, alpha=alpha)
    for factors in lora.layers.values():
        factors.up.normal_(std=0.3)
    return lora


def test_every_matrix_of_the_model_can_be_changed(dit):
    matrices = {name.removesuffix(".weight") for name, value in dit.named_parameters() if value.ndim > 1}
    assert set(layer_names(dit).shapes) == matrices


@pytest.mark.parametrize("preset", ["tiny", "hunyuan-video-cfgdistill"])
def test_no_name_means_two_layers(preset):
    with torch.device("meta"):
        names = layer_names(DiT(DiTConfig.preset(preset)))
    spelled = {}
    for layer in names.shapes:
        for name in (
            layer,
            names.comfy[layer],
            *names.parts(layer),
            *(a for a, to in names.aliases.items() if to == layer),
        ):
            spelled.setdefault(name.replace(".", "_"), set()).add(layer)
            assert names.find(name).layer == layer
            assert names.find("lora_unet_" + name.replace(".", "_")).layer == layer
    assert {name: layers for name, layers in spelled.items() if len(layers) > 1} == {}


COMFY = {
    "double_blocks.1.img_attn.qkv": "double_blocks.1.img_attn_qkv",
    "double_blocks.1.txt_attn.proj": "double_blocks.1.txt_attn_proj",
    "double_blocks.0.img_mod.lin": "double_blocks.0.img_mod.linear",
    "double_blocks.0.txt_mlp.0": "double_blocks.0.txt_mlp.fc1",
    "double_blocks.0.img_mlp.2": "double_blocks.0.img_mlp.fc2",
    "single_blocks.1.modulation.lin": "single_blocks.1.modulation.linear",
    "single_blocks.1.linear1": "single_blocks.1.linear1",
    "txt_in.individual_token_refiner.blocks.1.self_attn.qkv": "txt_in.individual_token_refiner.blocks.1.self_attn_qkv",
    "txt_in.individual_token_refiner.blocks.0.mlp.0": "txt_in.individual_token_refiner.blocks.0.mlp.fc1",
    "txt_in.t_embedder.in_layer": "txt_in.t_embedder.mlp.0",
    "txt_in.c_embedder.out_layer": "txt_in.c_embedder.linear_2",
    "time_in.out_layer": "time_in.mlp.2",
    "guidance_in.in_layer": "guidance_in.mlp.0",
    "vector_in.in_layer": "vector_in.in_layer",
    "final_layer.adaLN_modulation.1": "final_layer.adaLN_modulation.1",
}


@pytest.mark.parametrize(("theirs", "ours"), COMFY.items())
def test_names_inside_comfyui_are_understood(dit, theirs, ours):
    names = layer_names(dit)
    assert names.find(f"diffusion_model.{theirs}") == (ours, None)
    assert names.find(f"lora_unet_{theirs.replace('.', '_')}") == (ours, None)


def test_the_usual_targets_are_attention_and_mlps_of_every_block(dit):
    lora = new_lora(dit, LORA_TARGETS, rank=2)
    double = ("attn_qkv", "attn_proj", "mlp.fc1", "mlp.fc2")
    assert set(lora.layers) == {
        *(f"double_blocks.{i}.{stream}_{name}" for i in (0, 1) for stream in ("img", "txt") for name in double),
        *(f"single_blocks.{i}.linear{n}" for i in (0, 1) for n in (1, 2)),
    }


@pytest.mark.parametrize("style", ["comfy", "diffusers", "kohya"])
def test_what_is_saved_in_any_style_is_loaded_bit_for_bit(dit, tmp_path, style):
    lora = draw_lora(dit)
    save_lora(tmp_path / "lora.safetensors", lora, dit, style=style, metadata={"steps": 9})
    loaded = load_lora(tmp_path / "lora.safetensors", dit)
    assert loaded.metadata["steps"] == "9"
    assert list(loaded.layers) == [name for name in layer_names(dit).shapes if name != "img_in.proj"]
    for layer, factors in lora.layers.items():
        assert torch.equal(loaded.layers[layer].down, factors.down)
        assert torch.equal(loaded.layers[layer].up, factors.up)
        assert loaded.layers[layer].alpha == 1.5


def test_factors_are_saved_in_the_dtype_asked_for(dit, tmp_path):
    save_lora(tmp_path / "lora.safetensors", draw_lora(dit), dit, dtype=torch.bfloat16)
    loaded = load_lora(tmp_path / "lora.safetensors", dit)
    assert {factors.up.dtype for factors in loaded.layers.values()} == {torch.bfloat16}


def test_the_released_trainers_file_counts_its_alpha(dit, tmp_path):
    lora = draw_lora(dit, ["single_blocks.*.linear1", "final_layer.linear"])
    save_lora(tmp_path / "kohya.safetensors", lora, dit, style="kohya")
    renamed = {
        key.replace("lora_unet_", "Hunyuan_video_I2V_lora_"): value
        for key, value in load_file(tmp_path / "kohya.safetensors").items()
    }
    assert "Hunyuan_video_I2V_lora_single_blocks_0_linear1.lora_down.weight" in renamed
    save_file(renamed, tmp_path / "lora.safetensors")
    loaded = load_lora(tmp_path / "lora.safetensors", dit)
    assert {factors.scale for factors in loaded.layers.values()} == {0.5}


def test_merged_and_inserted_give_the_same_velocity(dit, run):
    plain = run(dit)
    one, two = draw_lora(dit), draw_lora(dit, LORA_TARGETS, rank=1, alpha=2.0)
    with merge_loras(dit, [(one, 0.5), (two, -1.0)]):
        merged = run(dit)
    assert torch.equal(run(dit), plain)
    insert_lora(dit, one, "one", strength=0.5)
    insert_lora(dit, two, "two", strength=-1.0)
    inserted = run(dit)
    assert (inserted - plain).std() > 0.05 * plain.std()
    torch.testing.assert_close(inserted, merged, atol=2e-5 * plain.abs().max().item(), rtol=0)
    remove_lora(dit, "one")
    remove_lora(dit, "two")
    assert torch.equal(run(dit), plain)


def test_a_new_lora_leaves_the_velocity_as_it_is_and_trains(dit, run):
    plain = run(dit)
    dit.requires_grad_(False)
    insert_lora(dit, new_lora(dit, ["*"], rank=2))
    assert torch.equal(run(dit), plain)
    for _ in range(2):  # of fresh factors only `up` has a gradient
        run(dit).square().mean().backward()
        with torch.no_grad():
            for parameter in lora_parameters(dit):
                parameter -= 1e-3 * parameter.grad
    assert all(parameter.grad.abs().max() > 0 for parameter in lora_parameters(dit))
    assert all(parameter.grad is None for name, parameter in dit.named_parameters() if "adapters" not in name)


def test_the_state_dict_of_a_plain_model_loads_under_adapters(dit, make_dit, run):
    other = make_dit(guidance_embed=True)
    insert_lora(dit, draw_lora(dit))
    lacking = dit.load_state_dict(other.state_dict(), strict=False)
    assert not lacking.unexpected_keys
    assert all(".adapters.default." in key for key in lacking.missing_keys)
    remove_lora(dit)
    assert torch.equal(run(dit), run(other))


def test_each_block_compiles_as_one_graph(dit, run):
    insert_lora(dit, draw_lora(dit))
    expected = {}
    for strength in (0.5, 1.0):
        set_lora_strength(dit, "default", strength)
        expected[strength] = run(dit)
    for block in (*dit.double_blocks, *dit.single_blocks):
        block.compile(backend="eager", fullgraph=True)
    for strength, velocity_BCTHW in expected.items():
        set_lora_strength(dit, "default", strength)
        torch.testing.assert_close(run(dit), velocity_BCTHW, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected[0.5], expected[1.0], atol=1e-2)


def test_recomputed_blocks_give_the_same_gradients(dit, run):
    insert_lora(dit, draw_lora(dit))
    dit.requires_grad_(False)
    for parameter in lora_parameters(dit):
        parameter.requires_grad_(True)
    run(dit).square().mean().backward()
    expected = [parameter.grad.clone() for parameter in lora_parameters(dit)]
    dit.zero_grad()
    for block in (*dit.double_blocks, *dit.single_blocks):
        forward = block.forward
        block.forward = lambda *inputs, forward=forward: checkpoint(forward, *inputs, use_reentrant=False)
    run(dit).square().mean().backward()
    for parameter, gradient in zip(lora_parameters(dit), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_weights_in_bfloat16_take_a_lora_both_ways(dit, run):
    lora = draw_lora(dit, LORA_TARGETS)
    expected = copy.deepcopy(dit)
    merge_loras(expected, [(lora, 1.0)])
    dit.bfloat16()
    before = copy.deepcopy(dit.state_dict())
    with merge_loras(dit, [(lora, 1.0)]):
        merged = run(dit)
    assert all(torch.equal(value, before[key]) for key, value in dit.state_dict().items())
    insert_lora(dit, lora)
    inserted = run(dit)
    goal = run(expected)
    for velocity_BCTHW in (merged, inserted):
        assert (velocity_BCTHW - goal).norm() < 0.2 * goal.norm()
    assert inserted_lora(dit).layers["single_blocks.0.linear1"].up.dtype == torch.float32


def test_a_lora_for_the_large_model_says_so(tmp_path):
    with torch.device("meta"):
        large = DiT(DiTConfig.preset("hunyuan-video"))
        tiny = DiT(DiTConfig.preset("tiny"))
    lora = draw_lora(large, ["double_blocks.?.img_attn_proj"], rank=1)
    save_lora(tmp_path / "lora.safetensors", lora, large)
    with pytest.raises(CheckpointError, match="made for a model of width 3072; this one has 256"):
        load_lora(tmp_path / "lora.safetensors", tiny)


def test_a_lora_with_guidance_for_a_model_without_is_loaded_on_request(dit, make_dit, tmp_path):
    save_lora(tmp_path / "lora.safetensors", draw_lora(dit), dit, style="kohya")
    plain = make_dit()
    with pytest.raises(CheckpointError, match=r"Keys for no layer of this model \(6\): 'lora_unet_guidance_in_mlp_0"):
        load_lora(tmp_path / "lora.safetensors", plain)
    loaded = load_lora(tmp_path / "lora.safetensors", plain, allow_unmatched=True)
    assert len(loaded.unmatched) == 6
    assert loaded.layers.keys() < layer_names(dit).shapes.keys()
