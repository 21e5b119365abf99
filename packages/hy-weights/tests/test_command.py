import pytest
import torch
from hy_weights import CheckpointError, write_model
from hy_weights.command import main


@pytest.fixture
def model(tmp_path):
    write_model(tmp_path / "model", {"w": torch.ones(2, 3), "b": torch.ones(4).bfloat16()}, {"width": 8}, {"steps": 9})
    return tmp_path / "model"


def test_a_whole_folder_is_described(model, capsys):
    assert main([str(model)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["model.safetensors", "184", "ok"] in lines
    assert ["weights", "model.safetensors", "2", "tensors,", "10", "numbers,", "bfloat16,", "float32"] in lines
    assert ["config", "width", "8"] in lines
    assert ["provenance", "steps", "9"] in lines
    assert [str(model), "is", "whole."] in lines


def test_a_torn_folder_shows_its_files_and_fails(model, capsys):
    (model / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json is changed"):
        main([str(model)])
    assert ["config.json", "changed"] in [line.split()[::2] for line in capsys.readouterr().out.splitlines()]


def test_bad_arguments_say_so(tmp_path, capsys):
    with pytest.raises(CheckpointError, match="no such folder"):
        main([str(tmp_path / "nothing")])
    with pytest.raises(CheckpointError, match=r"no manifest\.json"):
        main([str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "hyvideo verify" in capsys.readouterr().err
