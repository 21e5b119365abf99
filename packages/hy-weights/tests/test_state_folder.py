"""A state is written whole, from where its tensors are, and read back; a torn one is refused."""

import hashlib
import json
import os
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hy_weights import CheckpointError, flatten_state, read_manifest, read_state, write_state

STATE = {
    "weights": OrderedDict(a=torch.arange(6.0).reshape(2, 3).bfloat16(), b=torch.tensor([torch.inf, torch.nan])),
    "steps": 3,
    "betas": (0.9, 0.99),
    "moments": {0: torch.randn(4)},
    "random": torch.arange(4, dtype=torch.uint8),
    "part": torch.arange(12).reshape(3, 4).T[1:],
}


@pytest.fixture
def folder(tmp_path):
    write_state(tmp_path / "step-1", *flatten_state(STATE), {"step": 1})
    return tmp_path / "step-1"


def test_a_state_comes_back(folder):
    back = read_state(folder)
    assert list(back) == list(STATE)
    assert back["steps"] == 3
    assert back["betas"] == (0.9, 0.99)
    assert type(back["weights"]) is OrderedDict
    assert torch.equal(back["weights"]["a"], STATE["weights"]["a"])
    assert back["weights"]["b"].isnan().tolist() == [False, True]
    assert torch.equal(back["moments"][0], STATE["moments"][0])
    assert torch.equal(back["part"], STATE["part"])
    assert back["random"].dtype == torch.uint8


def test_the_hash_that_was_taken_while_writing_is_the_files(folder):
    manifest = read_manifest(folder)
    assert manifest["provenance"] == {"step": 1}
    assert sorted(manifest["files"]) == ["state.json", "state.safetensors"]
    for name, told in manifest["files"].items():
        assert told["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_nothing_that_was_read_depends_on_the_file(folder):
    tensors = read_state(folder)["moments"]
    with (folder / "state.safetensors").open("r+b") as file:
        file.write(b"\0" * (folder / "state.safetensors").stat().st_size)
    assert torch.equal(tensors[0], STATE["moments"][0])


def test_what_is_mapped_is_the_file(folder):
    one, other = read_state(folder, mapped=True), read_state(folder, mapped=True)
    assert torch.equal(one["moments"][0], STATE["moments"][0])
    one["moments"][0].zero_()  # in this mapping only
    assert torch.equal(read_state(folder)["moments"][0], STATE["moments"][0])
    size = (folder / "state.safetensors").stat().st_size
    (folder / "state.safetensors").write_bytes(b"\0" * size)
    assert not other["part"].any()


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("how", ["cut", "flip", "remove"])
def test_a_torn_one_is_refused_by_name(folder, name, how):
    file = folder / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "remove":
        file.unlink()
    else:
        file.write_bytes(content if how == "flip" else content[:-1])
    with pytest.raises(CheckpointError, match=rf"step-1: .*{name} is (changed|missing)"):
        read_state(folder)


def test_without_a_manifest_it_is_none(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"step-1: no manifest\.json"):
        read_state(folder)


def test_another_format_is_refused(folder):
    (folder / "state.json").write_text(json.dumps({"format": "hyvideo-state/9", "state": {}}))
    with pytest.raises(CheckpointError, match="expected format 'hyvideo-state/1'"):
        read_state(folder, check=False)


def test_a_full_disk_leaves_the_older_one(folder, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"step-1: can't be written .*No space left"):
            write_state(folder, *flatten_state({"steps": 4}), {})
    assert read_state(folder)["steps"] == 3
    assert [path.name for path in folder.parent.iterdir()] == ["step-1"]


def test_what_safetensors_cannot_hold_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"'phase' is of torch\.complex64"):
        write_state(tmp_path / "x", {"$tensor": "phase"}, {"phase": torch.zeros(1, dtype=torch.complex64)}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document, tensors: tensors.pop("weights.a"), "not there: weights.a; and for these it does not: none"),
        (lambda document, tensors: document.pop("moments"), "not there: none; and for these it does not: moments.0"),
        (lambda document, tensors: tensors.update(b=tensors.pop("array")), "not there: array; .* does not: b"),
    ],
)
def test_a_document_of_another_state_is_refused(tmp_path, change, message):
    document, tensors = flatten_state({**STATE, "array": np.arange(3)})
    change(document, tensors)
    with pytest.raises(CheckpointError, match=f"x: document and tensors are not of one state, .*{message}"):
        write_state(tmp_path / "x", document, tensors, {})
    assert not list(tmp_path.iterdir())


def test_arrays_hold_on_to_no_file(tmp_path):
    write_state(tmp_path / "x", *flatten_state({"array": np.arange(3)}), {})
    array = read_state(tmp_path / "x", mapped=True)["array"]
    file = tmp_path / "x" / "state.safetensors"
    file.write_bytes(b"\0" * file.stat().st_size)
    assert array.tolist() == [0, 1, 2]
