import json

import pytest
from hy_weights import CheckpointError
from hy_weights.lora.alpha import PeftConfig, peft_metadata, read_peft_config


def test_without_an_alpha_the_scale_is_one():
    assert PeftConfig({}, "there").alpha("a.b", 7) == 7


def test_a_pattern_fits_a_whole_name_or_its_end():
    config = PeftConfig({"lora_alpha": 4, "alpha_pattern": {"to_q": 1, "^proj_out": 2, r"blocks\.\d+\.fc": 3}}, "there")
    assert config.alpha("blocks.0.to_q", 8) == 1
    assert config.alpha("blocks.0.into_q", 8) == 4
    assert config.alpha("proj_out", 8) == 2
    assert config.alpha("blocks.0.proj_out", 8) == 4
    assert config.alpha("blocks.12.fc", 8) == 3


def test_rank_stabilised_scales_divide_by_the_root_of_the_rank():
    config = PeftConfig({"lora_alpha": 6, "use_rslora": True}, "there")
    assert config.alpha("a", 9) / 9 == pytest.approx(6 / 3)


def test_what_is_written_gives_each_layer_its_alpha_and_rank():
    ranks, alphas = {"a.out": 4, "out": 8, "b": 4}, {"a.out": 4.0, "out": 1.0, "b": 4.0}
    text = peft_metadata(ranks, alphas)
    config = read_peft_config(None, {"lora_adapter_metadata": text}, False)  # type: ignore[arg-type]
    assert {name: config.alpha(name, 99) for name in alphas} == alphas
    values = json.loads(text)
    assert values["transformer.r"] == 4
    assert values["transformer.rank_pattern"] == {"^out": 8}
    assert values["transformer.target_modules"] == ["a.out", "b", "out"]


@pytest.mark.parametrize(
    "text", ["not JSON", "[1]", '{"transformer.lora_alpha": "many"}', '{"alpha_pattern": {"(": 1}}']
)
def test_a_damaged_configuration_is_refused(text, tmp_path):
    with pytest.raises(CheckpointError, match=r"lora\.safetensors: .*(not a JSON object|not a configuration of PEFT)"):
        read_peft_config(tmp_path / "lora.safetensors", {"lora_adapter_metadata": text}, False)


def test_the_file_beside_counts_for_keys_of_peft_alone(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 5}')
    assert read_peft_config(tmp_path / "x.safetensors", {}, True).alpha("a", 2) == 5
    assert read_peft_config(tmp_path / "x.safetensors", {}, False).alpha("a", 2) == 2
