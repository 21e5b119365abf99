"""Tensors out of every form of checkpoint, and out of files that are none."""

import json
import os
from contextlib import contextmanager

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
        (
            {"weight_map": {"a": "part.safetensors", "z": "part.safetensors"}},
            "part.safetensors: does not hold what the index places there: z",
        ),
        ({"weight_map": {"a": "gone.safetensors"}}, "files that it names are not beside it: gone.safetensors"),
        ({"weight_map": {"a": "weights.bin"}}, r"in 'weights\.bin', which is no file of \.safetensors"),
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


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "one.safetensors")
    save_file({"a": torch.zeros(1), "b": torch.ones(1)}, tmp_path / "two.safetensors")
    places = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(places))
    with pytest.raises(CheckpointError, match=r"two\.safetensors: holds what the index does not place there: a"):
        read_tensors(tmp_path)


def test_the_only_file_of_a_folder_is_its_checkpoint_whatever_its_name(tmp_path):
    tensors = {"w": torch.randn(3)}
    torch.save({"state_dict": tensors}, tmp_path / "pytorch_model.pt")
    (tmp_path / "notes.txt").write_text("mine")
    assert same(read_tensors(tmp_path), tensors)


def test_of_several_files_a_usual_name_decides_or_nothing_does(tmp_path):
    tensors = {"w": torch.randn(3)}
    save_file({"v": torch.zeros(1)}, tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    torch.save(tensors, tmp_path / "b.pt")
    with pytest.raises(
        CheckpointError, match=r"several checkpoints; name the one .*: b\.pt, diffusion_pytorch_model\.fp16"
    ):
        read_tensors(tmp_path)
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    assert same(read_tensors(tmp_path), tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"several checkpoints; .* model\.safetensors, diffusion_pytorch_model\."):
        read_tensors(tmp_path)


def test_a_folder_of_folders_names_them(tmp_path):
    for part in ("vae", "transformer"):
        (tmp_path / part).mkdir()
    with pytest.raises(CheckpointError, match=r"holds neither .*; name one of its folders: transformer, vae$"):
        read_tensors(tmp_path)


def test_links_are_followed_and_broken_ones_named(tmp_path):
    """Hub caches hold nothing but links."""
    tensors = {"a": torch.randn(3), "b": torch.randn(2)}
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    folder.mkdir()
    for key, value in tensors.items():
        save_file({key: value}, blobs / key)
        (folder / f"{key}.safetensors").symlink_to(blobs / key)
    (blobs / "index").write_text(json.dumps({"weight_map": {key: f"{key}.safetensors" for key in tensors}}))
    (folder / "model.safetensors.index.json").symlink_to(blobs / "index")
    assert same(read_tensors(folder), tensors)
    (blobs / "a").unlink()
    with pytest.raises(CheckpointError, match=r"index\.json: files that it names are not beside it: a\.safetensors"):
        read_tensors(folder)


def test_what_a_file_is_its_contents_tell_not_its_name(tmp_path):
    tensors = {"w": torch.randn(3)}
    save_file(tensors, tmp_path / "plain.pt")
    torch.save(tensors, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("plain.pt", "old.pt"):
        assert same(read_tensors(tmp_path / name), tensors)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_bomb_in_disguise_does_not_run_either(tmp_path, zipped):
    trace = tmp_path / "it-ran"
    for name, message in (("bomb.pt", "not opened"), ("bomb.safetensors", r"written by torch\.save .* rename it")):
        torch.save({"extra": Bomb(trace)}, tmp_path / name, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match=message):
            read_tensors(tmp_path / name)
    assert not trace.exists()


HEADERS = {
    "a terabyte of header": (2**40, b"{}"),
    "a header that ends too early": (64, b"{}"),
    "no JSON": (8, b"not json"),
    "a tensor beyond the end": (None, b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
    "a shape that does not fit its bytes": (None, b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'),
    "two tensors in one place": (
        None,
        b'{"v":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    ),
    "a tensor twice": (
        None,
        b'{"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"w":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}',
    ),
    "an unknown dtype": (None, b'{"w":{"dtype":"Q7","shape":[1],"data_offsets":[0,4]}}'),
}


@pytest.mark.parametrize(("length", "header"), HEADERS.values(), ids=list(HEADERS))
def test_a_header_that_lies_is_refused(tmp_path, length, header):
    size = len(header) if length is None else length
    (tmp_path / "w.safetensors").write_bytes(size.to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match=r"w\.safetensors: damaged or truncated"):
        read_tensors(tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", [7, None])
def test_names_that_are_no_words_are_no_state_dict(tmp_path, name):
    torch.save({name: torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: not a state dict"):
        read_tensors(tmp_path / "other.pt")


@pytest.mark.parametrize("value", [torch.ones(2, 2).to_sparse(), torch.ones(2, device="meta")])
def test_tensors_without_plain_numbers_are_refused(tmp_path, value):
    torch.save({"w": value}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: "):
        read_tensors(tmp_path / "other.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_pickle_is_refused_in_one_line_wherever_the_damage_is(tmp_path, zipped):
    tensors = {"a": torch.randn(3), "b": torch.randn(2)}
    torch.save({"module": tensors}, tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    whole, file = (tmp_path / "whole.pt").read_bytes(), tmp_path / "w.pt"
    messages = []
    for place in range(min(len(whole), 700)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 21]) + whole[place + 1 :])
        with suppress_and_keep(messages):
            read_tensors(file)
    assert len(messages) > 100
    assert all(str(file) in message and "\n" not in message for message in messages)


@contextmanager
def suppress_and_keep(messages):
    """Some damage is in numbers, where nobody can see it; any other must be a CheckpointError."""
    try:
        yield
    except CheckpointError as error:
        messages.append(str(error))


@pytest.mark.parametrize(("content", "message"), [(b"", "it is empty"), (b"no checkpoint", "wasn't written by torch")])
def test_a_pickle_that_is_none_says_so(tmp_path, content, message):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"w\.pt: damaged or truncated.*{message}"):
        read_tensors(tmp_path / "w.pt")
