import json
import os
import time

import pytest
import torch
from hy_weights import CheckpointError, digest, folder_digest, tensors_sha256


@pytest.fixture(autouse=True)
def memory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hyvideo" / "digests"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    contents = {
        "model-1.safetensors": "one",
        "model-2.safetensors": "two",
        "model.safetensors.index.json": "{}",
        "config.json": '{"width": 8}',
        "tokenizer.json": "{}",
        "merges.txt": "a b",
        "README.md": "a model",
        "manifest.json": "{}",
        "pytorch_model.bin": "pickled",
        "sub/config.json": "{}",
    }
    for name, text in contents.items():
        (folder / name).write_text(text)
        os.utime(folder / name, (time.time() - 100,) * 2)
    return folder


@pytest.fixture
def hashed(monkeypatch):
    """The files that were read."""
    names, original = [], digest.file_sha256

    def counting(file, meter=None):
        names.append(file.name)
        return original(file, meter)

    monkeypatch.setattr(digest, "file_sha256", counting)
    return names


DECIDING = [
    "model-1.safetensors",
    "model-2.safetensors",
    "config.json",
    "merges.txt",
    "model.safetensors.index.json",
    "tokenizer.json",
]


@pytest.mark.parametrize("name", DECIDING)
def test_each_file_that_decides_a_model_counts(folder, name):
    before = folder_digest(folder)
    assert folder_digest(str(folder)) == before
    text = (folder / name).read_text()
    (folder / name).write_text(text[:-1] + chr(ord(text[-1]) ^ 1))
    changed = folder_digest(folder)
    assert changed != before
    (folder / name).rename(folder / f"x{name}")
    assert folder_digest(folder) not in (before, changed)


@pytest.mark.parametrize("name", ["README.md", "manifest.json", "pytorch_model.bin", "sub/config.json"])
def test_what_decides_nothing_does_not_count(folder, name):
    before = folder_digest(folder)
    (folder / name).write_text("other")
    assert folder_digest(folder) == before


def test_pickled_weights_count_where_there_are_no_others(folder):
    for file in folder.glob("*.safetensors"):
        file.unlink()
    before = folder_digest(folder)
    (folder / "pytorch_model.bin").write_text("other")
    assert folder_digest(folder) != before


def test_a_single_file_is_a_model_whatever_its_name(folder):
    before = folder_digest(folder / "model-1.safetensors")
    (folder / "model-1.safetensors").rename(folder / "renamed.safetensors")
    assert folder_digest(folder / "renamed.safetensors") == before
    assert folder_digest(folder / "model-2.safetensors") != before


def test_the_same_files_elsewhere_are_the_same_model(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert folder_digest(tmp_path / "link") == folder_digest(folder)


def test_a_file_is_read_once_and_remembered_between_processes(folder, hashed, memory, monkeypatch):
    monkeypatch.setattr(digest, "_SETTLED", -1)
    first = folder_digest(folder)
    assert sorted(hashed) == sorted(DECIDING)
    assert len(list(memory.glob("*.json"))) == len(DECIDING)
    hashed.clear()
    assert folder_digest(folder) == first
    assert hashed == []


def test_a_file_of_the_same_size_and_time_is_read_again_when_it_was_replaced(folder, hashed, monkeypatch):
    monkeypatch.setattr(digest, "_SETTLED", -1)
    file = folder / "model-1.safetensors"
    before, state = folder_digest(folder), file.stat()
    hashed.clear()
    time.sleep(0.02)
    file.write_text("eno")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert folder_digest(folder) != before
    assert hashed == ["model-1.safetensors"]


def test_a_file_that_changed_just_now_is_not_remembered(folder, hashed):
    (folder / "config.json").write_text("{}")
    folder_digest(folder)
    hashed.clear()
    folder_digest(folder)
    assert hashed == ["config.json"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"file": 1, "sha256": 2}', "\x00"])
def test_a_damaged_memory_is_read_over(folder, memory, text, monkeypatch):
    monkeypatch.setattr(digest, "_SETTLED", -1)
    first = folder_digest(folder)
    for note in memory.glob("*.json"):
        note.write_text(text)
    assert folder_digest(folder) == first
    assert json.loads(next(memory.glob("*.json")).read_text())["sha256"]


def test_without_a_place_to_remember_it_still_answers(folder, tmp_path, monkeypatch):
    expected = folder_digest(folder)
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert folder_digest(folder) == expected


def test_progress_is_shown_after_a_while_only(folder, monkeypatch):
    calls = []
    folder_digest(folder, lambda done, total: calls.append((done, total)))
    assert calls == []
    monkeypatch.setattr(digest, "_PATIENCE", -1)
    folder_digest(folder, lambda done, total: calls.append((done, total)))
    total = sum((folder / name).stat().st_size for name in DECIDING)
    assert calls[-1] == (total, total)
    assert len(calls) == len(DECIDING)


def test_what_holds_no_model_is_named(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"absent: no such file or folder"):
        folder_digest(tmp_path / "absent")
    (folder / "sub" / "config.json").rename(folder / "sub" / "README.md")
    with pytest.raises(CheckpointError, match=r"sub: holds no file of a model"):
        folder_digest(folder / "sub")


def test_a_tokenizers_folder_needs_no_weights(folder):
    assert folder_digest(folder / "sub") != folder_digest(folder)


def test_tensors_differ_by_name_dtype_shape_and_bytes():
    zeros = torch.zeros(2, 3)
    values = [
        {"x": zeros},
        {"y": zeros},
        {"x": zeros.bfloat16()},
        {"x": zeros.reshape(3, 2)},
        {"x": -zeros},
        {"x": zeros, "y": zeros},
        {"x": torch.zeros(())},
        {},
    ]
    assert len({tensors_sha256(value) for value in values}) == len(values)
    assert tensors_sha256({"a": zeros, "b": -zeros}) == tensors_sha256({"b": -zeros, "a": zeros.clone()})
    strided = torch.randn(4, 4)
    assert tensors_sha256({"x": strided.T}) == tensors_sha256({"x": strided.T.contiguous()})
