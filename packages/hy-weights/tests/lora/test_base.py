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
