import pytest
import torch
from hy_weights import CheckpointError, read_config, read_tensors, staged, verify, write_model


def test_a_model_round_trips_bit_for_bit(tmp_path):
    tensors = {"w": torch.randn(3, 4), "b": torch.randn(4).bfloat16(), "n": torch.tensor(3)}
    write_model(tmp_path / "model", tensors, {"width": 4, "axes": (1, 2)}, {"steps": 7})
    read = read_tensors(tmp_path / "model")
    assert all(torch.equal(read[key], value) and read[key].dtype == value.dtype for key, value in tensors.items())
    assert read_config(tmp_path / "model") == {"width": 4, "axes": [1, 2]}
    manifest = verify(tmp_path / "model")
    assert manifest["provenance"] == {"steps": 7}
    assert manifest["config"] == {"width": 4, "axes": [1, 2]}
    assert sorted(manifest["files"]) == ["config.json", "model.safetensors"]


def test_shared_and_transposed_tensors_are_stored_apart(tmp_path):
    weight = torch.randn(3, 4, requires_grad=True)
    write_model(tmp_path / "model", {"a": weight, "b": weight, "c": weight.T, "d": weight[1:]}, {})
    read = read_tensors(tmp_path / "model")
    assert torch.equal(read["a"], weight)
    assert torch.equal(read["b"], weight)
    assert torch.equal(read["c"], weight.T)
    assert torch.equal(read["d"], weight[1:])


def test_weights_that_are_not_finite_are_not_published(tmp_path):
    with pytest.raises(CheckpointError, match="'w' holds NaN"):
        write_model(tmp_path / "model", {"w": torch.tensor([1.0, float("nan")])}, {})
    assert list(tmp_path.iterdir()) == []


def test_models_inside_a_staged_folder_are_all_verified(tmp_path):
    with staged(tmp_path / "checkpoint") as inside:
        write_model(inside / "vae", {"w": torch.ones(2)}, {})
        write_model(inside / "dit", {"w": torch.ones(3)}, {})
    assert "vae/model.safetensors" in verify(tmp_path / "checkpoint")["files"]
    verify(tmp_path / "checkpoint" / "dit")


def test_files_are_as_open_as_their_folder(tmp_path):
    write_model(tmp_path / "model", {"w": torch.ones(2)}, {})
    folder_mode = (tmp_path / "model").stat().st_mode
    for file in (tmp_path / "model").iterdir():
        assert file.stat().st_mode & 0o777 == folder_mode & 0o666


def test_a_full_disk_is_an_error_with_the_place(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hy_weights.writing.save_file", full)
    with pytest.raises(CheckpointError, match=r"model: can't be written .*No space left"):
        write_model(tmp_path / "model", {"w": torch.ones(2)}, {})
    assert list(tmp_path.iterdir()) == []
