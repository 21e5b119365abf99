from pathlib import Path

import pytest
from hy_weights import LoRAError
from hy_weights.lora.spelling import lora_with_strength


@pytest.mark.parametrize(
    ("text", "file", "strength"),
    [
        ("look.safetensors", "look.safetensors", 1.0),
        ("look.safetensors=-0.5", "look.safetensors", -0.5),
        ("a=b.safetensors", "a=b.safetensors", 1.0),
        ("a=b.safetensors=2", "a=b.safetensors", 2.0),
    ],
)
def test_a_file_and_its_strength(text, file, strength):
    assert lora_with_strength(text) == (Path(file), strength)


@pytest.mark.parametrize("strength", ["nan", "inf"])
def test_a_strength_is_finite(strength):
    with pytest.raises(LoRAError, match="finite"):
        lora_with_strength(f"look.safetensors={strength}")
