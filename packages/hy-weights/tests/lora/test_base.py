import pytest
import torch
from hy_weights import LoRA, LoRAError, base_metadata, require_base, write_model


@pytest.fixture
def base(tmp_path):
    write_model(tmp_path / "base", {"weight": torch.ones(2)}, {})
    return tmp_path / "base"


def test_a_lora_fits_the_base_it_names_wherever_that_lies(base, tmp_path):
    told = base_metadata(base, "hf://org/name")
    assert told["base"] == "hf://org/name"
    moved = base.rename(tmp_path / "moved")
    require_base(LoRA({}, told), moved, "look.safetensors")


def test_a_lora_that_tells_no_base_is_taken(base):
    require_base(LoRA({}), base, "look.safetensors")


def test_another_base_is_refused_by_name(base, tmp_path):
    told = base_metadata(base)
    write_model(tmp_path / "other", {"weight": torch.zeros(2)}, {})
    message = (
        rf"look was trained on {base} with SHA-256 {told['base_sha256'][:12]}…; {tmp_path / 'other'} has .*any-base"
    )
    with pytest.raises(LoRAError, match=message):
        require_base(LoRA({}, told), tmp_path / "other", "look")


def test_what_was_merged_into_the_base_is_told_by_its_content(base, tmp_path):
    write_model(tmp_path / "look", {"weight": torch.ones(1)}, {})
    told = base_metadata(base, merged={str(tmp_path / "look"): 0.5})
    assert told["merged"] == f"{tmp_path / 'look'}=0.5"
    moved = (tmp_path / "look").rename(tmp_path / "moved look")
    assert base_metadata(base, merged={str(moved): 0.5})["merged_sha256"] == told["merged_sha256"]
    require_base(LoRA({}, told), base, "mine", {str(moved): 0.5})


def test_a_lora_on_a_base_with_others_merged_is_refused_on_that_base_without(base, tmp_path):
    for name, value in (("look", 1.0), ("other", 2.0)):
        write_model(tmp_path / name, {"weight": torch.full((1,), value)}, {})
    lora = LoRA({}, base_metadata(base, merged={str(tmp_path / "look"): 0.5}))
    for merged in (None, {str(tmp_path / "look"): 0.4}, {str(tmp_path / "other"): 0.5}):
        with pytest.raises(LoRAError, match=r"mine was trained on .*look=0\.5, which .* is without.*any_base: true"):
            require_base(lora, base, "mine", merged)


def test_merging_more_than_a_lora_was_trained_with_is_meant(base, tmp_path):
    write_model(tmp_path / "look", {"weight": torch.ones(1)}, {})
    require_base(LoRA({}, base_metadata(base)), base, "mine", {str(tmp_path / "look"): 0.5})
