import json

import pytest
import torch
from hy_weights import CheckpointError, LoRA, read_lora
from safetensors.torch import save_file

PROJ, JOINT = "blocks.0.proj", "blocks.1.qkv_mlp"

KEYS = {
    "kohya": ("lora_unet_blocks_0_proj", "lora_unet_blocks_1_qkv_mlp", "lora_down", "lora_up"),
    "the released I2V trainer": (
        "Hunyuan_video_I2V_lora_blocks_0_proj",
        "Hunyuan_video_I2V_lora_blocks_1_qkv_mlp",
        "lora_down",
        "lora_up",
    ),
    "ComfyUI": ("diffusion_model.blocks.0.proj", "diffusion_model.blocks.1.qkv_mlp", "lora_A", "lora_B"),
    "ComfyUI's own name": ("diffusion_model.blocks.0.other_proj", "lora_unet_blocks_1_qkv_mlp", "lora_A", "lora_B"),
    "bare": (PROJ, JOINT, "lora_A", "lora_B"),
    "original names after diffusers' prefix": (f"transformer.{PROJ}", f"transformer.{JOINT}", "lora_A", "lora_B"),
    "PEFT": (f"base_model.model.{PROJ}", f"base_model.model.{JOINT}", "lora_A", "lora_B"),
    "PEFT with the adapter's name": (PROJ, JOINT, "lora_A.default", "lora_B.default"),
    "old diffusers": (PROJ, JOINT, "lora.down", "lora.up"),
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "lora.safetensors"


@pytest.mark.parametrize("alpha", [True, False], ids=["alpha", "no alpha"])
@pytest.mark.parametrize("style", KEYS.values(), ids=list(KEYS))
def test_every_key_style_is_read(file, names, lora, same, style, alpha):
    *spellings, down, up = style
    tensors = {}
    for layer, spelling in zip((PROJ, JOINT), spellings, strict=True):
        factors = lora.layers[layer]
        tensors |= {f"{spelling}.{down}.weight": factors.down, f"{spelling}.{up}.weight": factors.up}
        if alpha:
            tensors[f"{spelling}.alpha"] = torch.tensor(factors.alpha)
    save_file(tensors, file, metadata={"steps": "7"})
    found = read_lora(file, names)
    assert found.metadata["steps"] == "7"
    assert [factors.scale for factors in found.layers.values()] == [2.0 if alpha else 1.0] * 2
    if alpha:
        assert same(found, LoRA({layer: lora.layers[layer] for layer in (PROJ, JOINT)}))


def parts_of(factors) -> dict[str, torch.Tensor]:
    """Some parts of the joint layer, as diffusers keys them."""
    tensors = {}
    for name, rows in {"q": slice(0, 6), "mlp": slice(18, 30)}.items():
        tensors[f"transformer.their_blocks.1.{name}.lora_A.weight"] = factors.down
        tensors[f"transformer.their_blocks.1.{name}.lora_B.weight"] = factors.up[rows].contiguous()
    return {key: value.clone() for key, value in tensors.items()}


def test_parts_become_our_joint_layer(file, names, lora):
    factors = lora.layers[JOINT]
    save_file(parts_of(factors), file, metadata={"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 6})})
    found = read_lora(file, names)
    assert found.layers[JOINT].alpha == 6
    assert torch.equal(found.layers[JOINT].up[:6], factors.up[:6])
    assert torch.equal(found.layers[JOINT].up[18:], factors.up[18:])
    assert not found.layers[JOINT].up[6:18].any()


def test_alpha_beside_the_layer_counts_before_that_of_the_metadata(file, names, lora):
    tensors = parts_of(lora.layers[JOINT])
    tensors |= {f"transformer.their_blocks.1.{name}.alpha": torch.tensor(1.5) for name in ("q", "mlp")}
    save_file(tensors, file, metadata={"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 6})})
    assert read_lora(file, names).layers[JOINT].alpha == 1.5


@pytest.mark.parametrize("name", ["pytorch_lora_weights.safetensors", "adapter_model.safetensors"])
def test_a_folder_of_diffusers_or_peft_is_read(tmp_path, names, lora, name):
    factors = lora.layers[PROJ]
    save_file({f"{PROJ}.lora_A.weight": factors.down, f"{PROJ}.lora_B.weight": factors.up}, tmp_path / name)
    assert torch.equal(read_lora(tmp_path, names).layers[PROJ].down, factors.down)


def test_a_folder_without_a_lora_is_refused(tmp_path, names):
    with pytest.raises(CheckpointError, match="a LoRA's folder holds one of pytorch_lora_weights"):
        read_lora(tmp_path, names)


def test_a_pickle_is_read_without_being_executed(tmp_path, names, lora):
    factors = lora.layers[PROJ]
    torch.save({f"{PROJ}.lora_A.weight": factors.down, f"{PROJ}.lora_B.weight": factors.up}, tmp_path / "lora.pt")
    assert torch.equal(read_lora(tmp_path / "lora.pt", names).layers[PROJ].up, factors.up)


@pytest.fixture
def pair(lora):
    """The keys of a LoRA on one layer."""
    factors = lora.layers[PROJ]
    return {f"{PROJ}.lora_A.weight": factors.down, f"{PROJ}.lora_B.weight": factors.up}


def without(tensors, key):
    return {name: value for name, value in tensors.items() if name != key}


def changed(key, value):
    return lambda tensors: tensors | {key: value}


WRONG = {
    "no up": (
        lambda tensors: without(tensors, f"{PROJ}.lora_B.weight"),
        r"Layers that are wrong \(1\): .*proj has no lora_up",
    ),
    "no down": (lambda tensors: without(tensors, f"{PROJ}.lora_A.weight"), r"proj has no lora_down"),
    "alpha alone": (lambda tensors: tensors | {"last.alpha": torch.ones(())}, r"last has no lora_down and no lora_up"),
    "ranks": (
        changed(f"{PROJ}.lora_A.weight", torch.ones(2, 30)),
        r"ranks that differ: lora_down \[2, 30\], lora_up \[6, 3\]",
    ),
    "a vector": (changed(f"{PROJ}.lora_A.weight", torch.ones(3)), r"ranks that differ: lora_down \[3\]"),
    "rank 0": (
        lambda _: {f"{PROJ}.lora_A.weight": torch.ones(0, 30), f"{PROJ}.lora_B.weight": torch.ones(6, 0)},
        r"ranks that differ",
    ),
    "rows": (
        changed(f"{PROJ}.lora_B.weight", torch.ones(7, 3)),
        r"changes a weight of shape \[7, 30\], the model's is \[6, 30\]",
    ),
    "columns": (
        changed(f"{PROJ}.lora_A.weight", torch.ones(3, 31)),
        r"changes a weight of shape \[6, 31\], the model's is \[6, 30\]",
    ),
    "integers": (changed(f"{PROJ}.lora_A.weight", torch.ones(3, 30).int()), r"is of torch.int32 .*floating-point"),
    "alphas": (changed(f"{PROJ}.alpha", torch.ones(2)), r"alpha of shape \[2\], expected one number"),
    "alpha 0": (changed(f"{PROJ}.alpha", torch.zeros(())), r"proj has an alpha of 0, with which it changes nothing"),
    "no rows": (changed(f"{PROJ}.lora_B.weight", torch.ones(0, 3)), r"changes a weight of shape \[0, 30\]"),
    "NaN": (changed(f"{PROJ}.lora_A.weight", torch.full((3, 30), torch.nan)), r"lora_A.weight' holds NaN"),
    "an unknown layer": (
        changed("diffusion_model.blocks.0.prpj.lora_A.weight", torch.ones(3, 30)),
        r"Keys for no layer of this model \(1\): .*prpj.lora_A.weight' \(did you mean 'blocks.0.proj'\?\)",
    ),
    "a block too many": (changed("lora_unet_blocks_2_proj.alpha", torch.ones(())), r"'lora_unet_blocks_2_proj.alpha'"),
    "a bias": (changed(f"{PROJ}.lora_B.bias", torch.ones(6)), r"no layer of this model \(1\): '.*lora_B.bias'"),
    "LoKr": (changed(f"{PROJ}.lokr_w1", torch.ones(2, 2)), r"holds LoKr; only plain LoRA is read"),
    "DoRA": (changed(f"{PROJ}.dora_scale", torch.ones(6)), r"holds DoRA; only plain LoRA is read"),
    "a whole model": (lambda _: {f"{PROJ}.weight": torch.ones(6, 30)}, r"holds no LoRA, whose keys end in .lora_A"),
    "nothing": (lambda _: {}, r"holds no LoRA, .*it is empty"),
    "one layer twice": (
        changed(f"diffusion_model.{PROJ}.lora_A.weight", torch.ones(3, 30)),
        r"is there twice, under two names of blocks.0.proj",
    ),
    "whole and in parts": (
        lambda tensors: (
            tensors
            | {"their_blocks.0.out.lora_A.weight": torch.ones(3, 30)}
            | {"their_blocks.0.out.lora_B.weight": torch.ones(6, 3)}
        ),
        r"holds blocks.0.proj twice, under our name and as .*their_blocks.0.out",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=list(WRONG))
def test_what_is_wrong_is_said(file, names, pair, change, message):
    save_file(change(pair), file)
    with pytest.raises(CheckpointError, match=rf"lora\.safetensors: .*{message}"):
        read_lora(file, names)


def test_a_truncated_file_is_refused(file, names, pair):
    save_file(pair, file)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        read_lora(file, names)


def test_a_lora_for_another_width_says_which(file, wider_names, pair, lora):
    layers = {"blocks.0.qkv_mlp": lora.layers["blocks.0.qkv_mlp"], "blocks.7.qkv_mlp": lora.layers[JOINT]}
    for layer, factors in layers.items():
        pair |= {f"{layer}.lora_A.weight": factors.down, f"{layer}.lora_B.weight": factors.up}
    save_file({key: value.clone() for key, value in pair.items()}, file)
    message = (
        r"The LoRA was made for a model of width 6; this one has 12\. "
        r"Keys for no layer of this model \(2\): .*\. Layers that are wrong \(2\): "
    )
    with pytest.raises(CheckpointError, match=message):
        read_lora(file, wider_names)


def test_unmatched_keys_are_left_out_where_that_is_allowed(file, names, pair):
    extra = {"text_encoder.q.lora_A.weight": torch.ones(2, 2), f"{PROJ}.lora_B.bias": torch.ones(6)}
    save_file(pair | extra, file)
    found = read_lora(file, names, allow_unmatched=True)
    assert list(found.layers) == [PROJ]
    assert sorted(found.unmatched) == sorted(extra)
    save_file(extra, file)
    with pytest.raises(CheckpointError, match=r"Keys for no layer of this model \(2\)"):
        read_lora(file, names, allow_unmatched=True)
