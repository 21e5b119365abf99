"""Tensors out of every form of checkpoint, and out of files that are none."""

import json
import os

import pytest
import torch
from hy_weights import CheckpointError, StoredTensors, read_tensors
from safetensors.torch import save_file


def same(read, tensors):
    return read.keys() == tensors.keys() and all(
        torch.equal(read[key], tensors[key]) and read[key].dtype == tensors[key].dtype for key in tensors
    )


def test_tensors_come_back_from_a_file_and_from_its_folder(tmp_path):
    tensors = {
        "a.weight": torch.randn(2, 3),
        "b": torch.arange(4),
        "half": torch.randn(5).bfloat16(),
        "empty": torch.zeros(0),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors", str(tmp_path)):
        assert same(read_tensors(path), tensors)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_truncated_file_is_refused_by_name(tmp_path, keep):
    file = tmp_path / "model.safetensors"
    save_file({"w": torch.randn(16)}, file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged or truncated"):
        read_tensors(tmp_path)


def test_a_damaged_header_is_refused(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"w": torch.randn(16)}, file)
    damaged = bytearray(file.read_bytes())
    damaged[0:8] = b"\xff" * 8
    file.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="can't be read as safetensors"):
        read_tensors(file)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64])
def test_a_tensor_that_is_not_finite_is_named(tmp_path, dtype):
    bad = torch.ones(3, 3)
    bad[1, 2] = float("nan")
    save_file({"good": torch.ones(2), "layer.bad": bad.to(dtype)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"w\.safetensors: tensor 'layer\.bad' holds NaN or infinity"):
        read_tensors(tmp_path / "w.safetensors")


@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
def test_infinity_is_refused(tmp_path, value):
    save_file({"w": torch.tensor([0.0, value, 1.0])}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="'w' holds NaN or infinity"):
        read_tensors(tmp_path / "w.safetensors")


def test_what_is_missing_or_something_else_is_said(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds neither model\.safetensors nor diffusion_pytorch"):
        read_tensors(tmp_path)
    with pytest.raises(CheckpointError, match=r"none: no such file or folder"):
        read_tensors(tmp_path / "none")
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"weights\.bin: weights are read from \.safetensors, \.pt and \.pth"):
        read_tensors(tmp_path / "weights.bin")


def test_diffusers_folders_in_one_file_and_in_several(tmp_path):
    first, second = {"a": torch.randn(3)}, {"b": torch.randn(2, 2)}
    one, many = tmp_path / "one", tmp_path / "many"
    one.mkdir()
    many.mkdir()
    save_file(first | second, one / "diffusion_pytorch_model.safetensors")
    names = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    save_file(first, many / names[0])
    save_file(second, many / names[1])
    index = many / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"a": names[0], "b": names[1]}}))
    for path in (one, many, index):
        assert same(read_tensors(path), first | second)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "part.safetensors", "z": "part.safetensors"}}, "says that it holds 'z', but it does not"),
        ({"weight_map": {"a": "gone.safetensors"}}, r"gone\.safetensors: no such file, though the index"),
        ({"weight_map": {"a": "../part.safetensors"}}, "outside its own folder"),
        ({"tensors": {}}, "has no 'weight_map'"),
    ],
)
def test_an_index_that_does_not_fit_its_files_is_refused(tmp_path, index, message):
    save_file({"a": torch.ones(1)}, tmp_path / "part.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=message):
        read_tensors(tmp_path)


@pytest.mark.parametrize("wrapper", [None, "module", "ema", "state_dict"])
def test_pickled_state_dicts_as_released(tmp_path, wrapper):
    tensors = {"a.weight": torch.randn(2, 3).bfloat16(), "b": torch.arange(4)}
    torch.save({wrapper: tensors, "step": 3} if wrapper else tensors, tmp_path / "mp_rank_00_model_states.pt")
    assert same(read_tensors(tmp_path / "mp_rank_00_model_states.pt"), tensors)


class Bomb:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_a_pickle_bomb_does_not_run(tmp_path):
    trace = tmp_path / "it-ran"
    torch.save({"module": {"w": torch.ones(1)}, "extra": Bomb(trace)}, tmp_path / "bomb.pt")
    with pytest.raises(CheckpointError, match=r"bomb\.pt: holds more than tensors.*not opened"):
        read_tensors(tmp_path / "bomb.pt")
    assert not trace.exists()


@pytest.mark.parametrize("content", [[1, 2], {"w": 3.0}, {"module": [torch.ones(1)]}])
def test_a_pickle_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: not a state dict"):
        read_tensors(tmp_path / "other.pt")


@pytest.mark.parametrize("keep", [0, 10, 300, -1])
def test_a_truncated_pickle_is_refused(tmp_path, keep):
    file = tmp_path / "cut.pt"
    torch.save({"w": torch.randn(64)}, file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"cut\.pt: "):
        read_tensors(file)


def test_nothing_is_read_before_it_is_used(tmp_path):
    tensors = {"a": torch.randn(4), "b": torch.full((2,), float("nan"))}
    save_file(tensors, tmp_path / "w.safetensors")
    stored = StoredTensors(tmp_path / "w.safetensors")
    assert list(stored) == ["a", "b"]
    assert len(stored) == 2
    assert torch.equal(stored["a"], tensors["a"])
