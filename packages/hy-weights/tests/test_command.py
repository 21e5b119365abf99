import pytest
import torch
from hy_weights import CheckpointError, flatten_state, write_model, write_state
from hy_weights.command import main
from safetensors.torch import save_file


@pytest.fixture
def model(tmp_path):
    write_model(tmp_path / "model", {"w": torch.ones(2, 3), "b": torch.ones(4).bfloat16()}, {"width": 8}, {"steps": 9})
    return tmp_path / "model"


def test_a_whole_folder_is_described(model, capsys):
    assert main([str(model)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["model.safetensors", "184", "ok"] in lines
    assert ["weights", "model", "2", "tensors,", "10", "numbers,", "bfloat16,", "float32"] in lines
    assert ["config", "width", "8"] in lines
    assert ["provenance", "steps", "9"] in lines
    assert [str(model), "is", "whole."] in lines


def test_a_torn_folder_shows_its_files_and_fails(model, capsys):
    (model / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json is changed"):
        main([str(model)])
    assert ["config.json", "changed"] in [line.split()[::2] for line in capsys.readouterr().out.splitlines()]


def test_bad_arguments_say_so(tmp_path, capsys):
    with pytest.raises(CheckpointError, match="no such file or folder"):
        main([str(tmp_path / "nothing")])
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        main([str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "hyvideo verify" in capsys.readouterr().err


def test_a_single_file_is_described(tmp_path, capsys):
    torch.save({"module": {"w": torch.ones(2, 3).half(), "n": torch.ones(4).long()}}, tmp_path / "w.pt")
    assert main([str(tmp_path / "w.pt")]) == 0
    out = capsys.readouterr().out
    assert "2 tensors, 10 numbers, float16, int64" in out
    assert "sound; it has no manifest.json" in out


def test_every_checkpoint_beneath_a_folder_is_described(tmp_path, capsys):
    for part in ("vae", "transformer"):
        (tmp_path / part).mkdir()
        save_file({part: torch.ones(3)}, tmp_path / part / "diffusion_pytorch_model.safetensors")
    assert main([str(tmp_path)]) == 0
    lines = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert ["weights", "vae", "1"] in lines
    assert ["weights", "transformer", "1"] in lines


def test_a_damaged_or_poisoned_file_fails_after_what_can_be_said_of_it(tmp_path, capsys):
    save_file({"good": torch.ones(2), "bad": torch.tensor([1.0, float("nan")])}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"w\.safetensors: tensor 'bad' holds NaN"):
        main([str(tmp_path / "w.safetensors")])
    assert "2 tensors, 4 numbers" in capsys.readouterr().out
    (tmp_path / "w.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        main([str(tmp_path / "w.safetensors")])


def test_of_a_folder_with_several_checkpoints_each_is_described(tmp_path, capsys):
    for name in ("one", "two"):
        save_file({name: torch.ones(3)}, tmp_path / f"{name}.safetensors")
    assert main([str(tmp_path)]) == 0
    lines = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert ["weights", "one.safetensors", "1"] in lines
    assert ["weights", "two.safetensors", "1"] in lines


@pytest.mark.parametrize(("down", "up"), [("lora_down", "lora_up"), ("lora_A", "lora_B")])
def test_a_lora_is_called_one(tmp_path, capsys, down, up):
    factors = {f"a.{down}.weight": torch.ones(4, 9), f"a.{up}.weight": torch.ones(7, 4), "a.alpha": torch.tensor(2.0)}
    more = {f"b.{down}.weight": torch.ones(2, 9), f"b.{up}.weight": torch.ones(7, 2)}
    save_file(factors | more, tmp_path / "lora.safetensors")
    assert main([str(tmp_path / "lora.safetensors")]) == 0
    assert "a LoRA of 2 layers, rank 2, 4\n" in capsys.readouterr().out
    save_file(factors | {"c.weight": torch.ones(1)}, tmp_path / "mixed.safetensors")
    assert main([str(tmp_path / "mixed.safetensors")]) == 0
    assert "LoRA" not in capsys.readouterr().out


def save(folder, step):
    write_state(folder / f"step-{step}", *flatten_state({"w": torch.ones(3), "best": torch.inf}), {"step": step})


def test_a_training_checkpoint_is_told_whole_from_torn(tmp_path, capsys):
    save(tmp_path, 7)
    assert main([str(tmp_path / "step-7")]) == 0
    out = capsys.readouterr().out
    assert ["state.safetensors", "ok"] in [line.split()[::2] for line in out.splitlines()]
    assert ["provenance", "step", "7"] in [line.split() for line in out.splitlines()]
    assert "step-7 is whole." in out
    (tmp_path / "step-7" / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"state\.json is changed"):
        main([str(tmp_path / "step-7")])


def test_of_a_runs_folder_every_checkpoint_is_told(tmp_path, capsys):
    for step in (1, 2, 3):
        save(tmp_path, step)
    (tmp_path / "latest").symlink_to("step-3")
    (tmp_path / "step-1").rename(tmp_path / ".step-1.staging-01234567")
    assert main([str(tmp_path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["checkpoint", "also", "step", "bytes", "state"] in rows
    assert [(row[0], row[-1]) for row in rows[1:3]] == [("step-2", "whole"), ("step-3", "whole")]
    assert rows[2][1:3] == ["latest", "3"]
    assert rows[-1][-2:] == ["is", "whole."]
    (tmp_path / "step-2" / "state.safetensors").write_bytes(b"")
    (tmp_path / "step-3" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="torn checkpoints: step-2, step-3"):
        main([str(tmp_path)])
    out = capsys.readouterr().out
    assert "torn: does not match its manifest.json: state.safetensors is changed" in out
    assert "torn: no manifest.json" in out


def test_models_beside_a_runs_checkpoints_are_described_too(tmp_path, capsys):
    save(tmp_path / "run", 1)
    write_model(tmp_path / "run" / "model", {"w": torch.ones(2)}, {})
    assert main([str(tmp_path / "run")]) == 0
    lines = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert ["weights", "model", "1"] in lines
    assert ["weights", "step-1", "2"] not in lines
