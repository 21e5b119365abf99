import json

import pytest
from hy_weights import CheckpointError, file_states, read_manifest, verify, write_manifest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "config.json").write_text('{"width": 8}')
    (tmp_path / "sub" / "data.bin").write_bytes(b"hello")
    write_manifest(tmp_path, {"steps": 10, "by": "a test"})
    return tmp_path


def test_a_manifest_says_what_there_is_and_how_it_came_to_be(folder):
    manifest = verify(folder)
    assert manifest == read_manifest(folder)
    assert manifest["files"]["sub/data.bin"] == {
        "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        "size": 5,
    }
    assert sorted(manifest["files"]) == ["config.json", "sub/data.bin"]
    assert manifest["config"] == {"width": 8}
    assert manifest["provenance"] == {"steps": 10, "by": "a test"}
    assert manifest["packages"].keys() >= {"python", "torch", "hy-weights"}


def test_a_second_manifest_does_not_list_the_first(folder):
    write_manifest(folder)
    assert sorted(verify(folder)["files"]) == ["config.json", "sub/data.bin"]


def test_progress_counts_every_byte(folder):
    seen = []
    file_states(folder, lambda done, total: seen.append((done, total)))
    assert seen == [(12, 17), (17, 17)]


@pytest.mark.parametrize(
    ("contents", "state"), [(b"hellO", "changed"), (b"hell", "changed"), (b"", "changed"), (None, "missing")]
)
def test_a_changed_or_missing_file_is_named(folder, contents, state):
    file = folder / "sub" / "data.bin"
    if contents is None:
        file.unlink()
    else:
        file.write_bytes(contents)
    with pytest.raises(CheckpointError, match=rf"does not match its manifest\.json: sub/data\.bin is {state}$"):
        verify(folder)


def test_a_file_nobody_listed_is_shown_but_no_error(folder):
    (folder / "notes.txt").write_text("mine")
    verify(folder)
    assert [(file.path, file.state) for file in file_states(folder)] == [
        ("config.json", "ok"),
        ("sub/data.bin", "ok"),
        ("notes.txt", "not listed"),
    ]


def test_no_manifest_is_not_whole(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"no manifest\.json; not a published folder"):
        verify(folder)


@pytest.mark.parametrize(
    "text",
    ['{"name": "a web app"}', '{"format": "hyvideo-manifest/1"}', '{"format": "other/1", "files": {}}', "{", "[]"],
)
def test_a_manifest_of_another_kind_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        verify(folder)


@pytest.mark.parametrize(
    ("name", "entry"),
    [("../secret", {"size": 1, "sha256": ""}), ("/secret", {"size": 1, "sha256": ""}), ("config.json", 3), ("x", {})],
)
def test_a_damaged_entry_is_refused(folder, name, entry):
    manifest = read_manifest(folder)
    manifest["files"] = {name: entry}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"the entry for .* is damaged"):
        verify(folder)


def test_what_was_hashed_while_it_was_written_is_not_read_again(tmp_path):
    (tmp_path / "large").write_text("x")
    write_manifest(tmp_path, known={"large": "0" * 64, "not there": "1" * 64})
    assert {name: told["sha256"] for name, told in read_manifest(tmp_path)["files"].items()} == {"large": "0" * 64}
