import json
from dataclasses import dataclass

import pytest
import torch
from hy_weights import CheckpointError, read_config, read_config_as, read_tensors
from safetensors.torch import save_file


@dataclass(frozen=True)
class Config:
    width: int
    channels: tuple[int, ...]
    scale: float = 1.0

    def __post_init__(self):
        if self.width % 2:
            raise ValueError(f"width must be even, not {self.width}")


def write_config(folder, text):
    (folder / "config.json").write_text(text)


def test_tensors_come_back_from_a_file_and_from_its_folder(tmp_path):
    tensors = {
        "a.weight": torch.randn(2, 3),
        "b": torch.arange(4),
        "half": torch.randn(5).bfloat16(),
        "empty": torch.zeros(0),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors", str(tmp_path)):
        read = read_tensors(path)
        assert read.keys() == tensors.keys()
        assert all(torch.equal(read[key], tensors[key]) and read[key].dtype == tensors[key].dtype for key in tensors)


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


def test_what_is_missing_or_not_safetensors_is_said(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such file"):
        read_tensors(tmp_path)
    pickled = tmp_path / "model.pt"
    torch.save({"w": torch.ones(1)}, pickled)
    with pytest.raises(CheckpointError, match=r"model\.pt: not a \.safetensors file"):
        read_tensors(pickled)


def test_config_becomes_the_dataclass_with_tuples_and_defaults(tmp_path):
    write_config(tmp_path, '{"width": 8, "channels": [1, 2]}')
    assert read_config(tmp_path) == {"width": 8, "channels": [1, 2]}
    assert read_config_as(tmp_path, Config) == Config(width=8, channels=(1, 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"width": 8}', r"config\.json: missing key 'channels'; Config has the keys channels, scale, width"),
        ('{"width": 8, "channels": [], "wdith": 1}', r"config\.json: unknown key 'wdith'"),
        ('{"width": 7, "channels": []}', r"config\.json: not a valid Config \(width must be even, not 7\)"),
        ('{"width": 8,', r"config\.json: not valid JSON"),
        ("[1]", r"config\.json: expected a JSON object, found list"),
    ],
)
def test_a_bad_config_names_file_and_key(tmp_path, text, message):
    write_config(tmp_path, text)
    with pytest.raises(CheckpointError, match=message):
        read_config_as(tmp_path, Config)


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json: can't be read"):
        read_config(tmp_path)
    write_config(tmp_path, json.dumps({}))
    assert read_config(tmp_path) == {}


def test_errors_end_a_command_with_code_2():
    assert CheckpointError("x").exit_code == 2
