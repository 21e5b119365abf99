import json

import pytest
import torch
from hy_weights import CheckpointError, LoRA, LoRAError, read_lora, write_lora
from hy_weights.lora.factors import Factors
from hy_weights.lora.writing import STYLES
from safetensors import safe_open
from safetensors.torch import load_file


@pytest.fixture
def file(tmp_path):
    return tmp_path / "deep" / "lora.safetensors"


def metadata_of(file):
    with safe_open(file, framework="pt") as opened:
        return opened.metadata()


@pytest.mark.parametrize("source", STYLES)
@pytest.mark.parametrize("target", STYLES)
def test_any_style_through_any_other_is_the_same(file, names, lora, same, source, target):
    write_lora(file, lora, names, style=source)
    write_lora(file, read_lora(file, names), names, style=target)
    assert same(read_lora(file, names), lora)


def test_comfy_keys(file, names, lora):
    layers = {"blocks.0.proj": lora.layers["blocks.0.proj"], "last": lora.layers["last"]}
    layers["last"] = Factors(layers["last"].down, layers["last"].up, 3.0)
    write_lora(file, LoRA(layers), names, style="comfy")
    proj = "diffusion_model.blocks.0.proj"
    assert sorted(load_file(file)) == [
        f"{proj}.alpha",
        f"{proj}.lora_A.weight",
        f"{proj}.lora_B.weight",
        "diffusion_model.final.lora_A.weight",
        "diffusion_model.final.lora_B.weight",
    ], "alpha where it is not the rank; ComfyUI's own name where it knows no other"


def test_kohya_keys(file, names, lora):
    write_lora(file, LoRA({"blocks.0.qkv_mlp": lora.layers["blocks.0.qkv_mlp"]}), names, style="kohya")
    stored = load_file(file)
    assert sorted(stored) == [
        f"lora_unet_blocks_0_qkv_mlp.{end}" for end in ("alpha", "lora_down.weight", "lora_up.weight")
    ]
    assert stored["lora_unet_blocks_0_qkv_mlp.alpha"].item() == 6


def test_diffusers_keys(file, names, lora):
    write_lora(file, LoRA({"blocks.0.qkv_mlp": lora.layers["blocks.0.qkv_mlp"]}), names, style="diffusers")
    assert sorted(load_file(file)) == sorted(
        f"transformer.their_blocks.0.{part}.lora_{side}.weight" for part in ("q", "k", "v", "mlp") for side in "AB"
    )
    assert json.loads(metadata_of(file)["lora_adapter_metadata"])["transformer.lora_alpha"] == 6


def test_the_metadata_says_what_it_is(file, names, lora):
    write_lora(file, lora, names, style="diffusers", metadata={"base_model_sha256": "ab12", "steps": 400})
    write_lora(file, read_lora(file, names), names, style="kohya", metadata={"dataset_sha256": "cd34"})
    assert metadata_of(file) == {
        "format": "pt",
        "author": "me",
        "rank": "3",
        "alpha": "6",
        "base_model_sha256": "ab12",
        "steps": "400",
        "dataset_sha256": "cd34",
    }


def test_factors_are_cast_and_alphas_are_not(file, names, lora):
    layers = {"last": Factors(lora.layers["last"].down, lora.layers["last"].up, 0.3)}
    write_lora(file, LoRA(layers), names, style="kohya", dtype=torch.bfloat16)
    found = read_lora(file, names).layers["last"]
    assert found.down.dtype == found.up.dtype == torch.bfloat16
    assert found.alpha == pytest.approx(0.3, rel=1e-7)


def test_what_can_not_be_written_leaves_the_older_file(file, names, lora, same):
    write_lora(file, lora, names)
    broken = LoRA({"last": Factors(torch.full((1, 6), torch.nan), torch.ones(12, 1), 1.0)})
    with pytest.raises(CheckpointError, match="NaN"):
        write_lora(file, broken, names)
    assert same(read_lora(file, names), lora)
    assert list(file.parent.iterdir()) == [file]


def test_a_place_that_can_not_be_written_is_named(tmp_path, names, lora):
    (tmp_path / "lora.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"lora.safetensors: can't be written"):
        write_lora(tmp_path / "lora.safetensors", lora, names)


def test_what_makes_no_sense_is_refused(tmp_path, names, lora):
    with pytest.raises(LoRAError, match="no LoRA key style 'ours'; there are comfy, diffusers, kohya"):
        write_lora(tmp_path / "x.safetensors", lora, names, style="ours")
    with pytest.raises(LoRAError, match=r"x.pt: a LoRA is written as .safetensors"):
        write_lora(tmp_path / "x.pt", lora, names)
    with pytest.raises(LoRAError, match="the model has no layer 'first'"):
        write_lora(tmp_path / "x.safetensors", LoRA({"first": lora.layers["last"]}), names)
    with pytest.raises(LoRAError, match="this LoRA changes no layer"):
        write_lora(tmp_path / "x.safetensors", LoRA({}), names)
    assert list(tmp_path.iterdir()) == []
