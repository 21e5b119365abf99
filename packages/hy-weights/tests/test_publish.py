"""Publishing survives a kill at any moment; children are forked so that a real SIGKILL can hit them."""

import os
import signal
from pathlib import Path

import pytest
from hy_weights import CheckpointError, publish, staged, staged_file, verify


def write(folder, text):
    with staged(folder) as inside:
        (inside / "data.txt").write_text(text)


def read(folder):
    verify(folder)
    return (Path(folder) / "data.txt").read_text()


def killed(action):
    """Run `action` in a child that ends by SIGKILL inside it."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the child was to die inside the action"
    assert os.WTERMSIG(status) == signal.SIGKILL


def die(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_whole_with_a_manifest(tmp_path):
    write(tmp_path / "deep" / "model", "one")
    assert read(tmp_path / "deep" / "model") == "one"
    assert names(tmp_path / "deep") == ["model"]


def test_nothing_is_under_the_final_name_while_it_is_written(tmp_path):
    with staged(tmp_path / "model") as inside:
        assert inside.parent == tmp_path
        assert not (tmp_path / "model").exists()


def test_an_older_one_is_replaced(tmp_path):
    write(tmp_path / "model", "one")
    write(tmp_path / "model", "two")
    assert read(tmp_path / "model") == "two"
    assert names(tmp_path) == ["model"]


def test_an_empty_folder_may_be_taken(tmp_path):
    write(tmp_path, "one")
    assert read(tmp_path) == "one"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_older_one_and_no_trace(tmp_path, error):
    write(tmp_path / "model", "one")

    def fail():
        with staged(tmp_path / "model") as inside:
            (inside / "data.txt").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert read(tmp_path / "model") == "one"
    assert names(tmp_path) == ["model"]


def test_what_is_not_ours_is_never_replaced(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "manifest.json").write_text('{"name": "someone else\'s"}')
    with pytest.raises(CheckpointError, match="never overwritten"), staged(photos):
        pytest.fail("refused before the work is done, not after")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="a file"):
        write(tmp_path / "file", "x")
    assert names(photos) == ["manifest.json"]
    assert (tmp_path / "file").read_text() == "mine"


def test_what_appears_in_the_place_meanwhile_is_kept(tmp_path):
    def write_slowly():
        with staged(tmp_path / "model"):
            (tmp_path / "model").mkdir()
            (tmp_path / "model" / "mine.txt").write_text("mine")

    with pytest.raises(CheckpointError, match="never overwritten"):
        write_slowly()
    assert names(tmp_path / "model") == ["mine.txt"]
    assert names(tmp_path) == ["model"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match=r"file/model: can't be written"):
        write(tmp_path / "file" / "model", "x")


def test_a_link_stays_a_link(tmp_path):
    write(tmp_path / "step-1", "one")
    (tmp_path / "latest").symlink_to("step-1")
    write(tmp_path / "latest", "two")
    assert (tmp_path / "latest").is_symlink()
    assert read(tmp_path / "step-1") == "two"


def test_killed_while_writing_leaves_the_older_one_and_the_next_write_cleans_up(tmp_path):
    write(tmp_path / "model", "one")

    def half():
        with staged(tmp_path / "model") as inside:
            (inside / "data.txt").write_text("half")
            die()

    killed(half)
    assert read(tmp_path / "model") == "one"
    assert len(names(tmp_path)) == 2
    write(tmp_path / "model", "two")
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("call", ["_sync", "write_manifest", "_publish", "require_replaceable"])
def test_killed_at_any_call_nothing_torn_is_under_the_final_name(tmp_path, monkeypatch, call):
    with monkeypatch.context() as patched:
        patched.setattr(publish, call, die)
        killed(lambda: write(tmp_path / "model", "half"))
    assert not (tmp_path / "model").exists()
    write(tmp_path / "model", "two")
    assert read(tmp_path / "model") == "two"
    assert names(tmp_path) == ["model"]


def test_killed_between_the_two_renames_the_older_one_comes_back(tmp_path, monkeypatch):
    write(tmp_path / "model", "one")
    rename = Path.rename

    def die_on_the_second(path, target):
        if ".staging-" in path.name:
            die()
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", die_on_the_second)
        killed(lambda: write(tmp_path / "model", "two"))
    assert not (tmp_path / "model").exists()
    with pytest.raises(ValueError, match="boom"), staged(tmp_path / "model"):
        raise ValueError("boom")
    assert read(tmp_path / "model") == "one"
    assert names(tmp_path) == ["model"]


def test_killed_before_the_replaced_one_is_deleted_the_new_one_stays(tmp_path, monkeypatch):
    write(tmp_path / "model", "one")
    with monkeypatch.context() as patched:
        patched.setattr(publish.shutil, "rmtree", die)
        killed(lambda: write(tmp_path / "model", "two"))
    assert read(tmp_path / "model") == "two"
    write(tmp_path / "model", "three")
    assert read(tmp_path / "model") == "three"
    assert names(tmp_path) == ["model"]


def test_a_living_writer_is_left_alone(tmp_path):
    with staged(tmp_path / "model") as first:
        (first / "data.txt").write_text("one")
        write(tmp_path / "model", "two")
        assert first.exists()
    assert read(tmp_path / "model") == "one"


def test_only_leftovers_of_this_folder_are_removed(tmp_path):
    kept = [
        ".modelx0.staging-12345678",
        ".model.0.staging-1234567",
        ".model.0.staging-123456789",
        ".model.02.staging-12345678",
        "model.0.staging-12345678",
    ]
    for name in [*kept, ".model.0.staging-12345678"]:
        (tmp_path / name).mkdir()
    write(tmp_path / "model.0", "one")
    assert names(tmp_path) == sorted([*kept, "model.0"])


def test_contents_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    events = []
    sync, rename = publish._sync, Path.rename
    monkeypatch.setattr(publish, "_sync", lambda path: (events.append(("sync", path.name)), sync(path)))
    monkeypatch.setattr(
        Path, "rename", lambda path, target: (events.append(("rename", target.name)), rename(path, target))
    )
    with staged(tmp_path / "model") as inside:
        (inside / "sub").mkdir()
        (inside / "sub" / "data.txt").write_text("x")
    at = events.index(("rename", "model"))
    assert {name for _, name in events[:at]} == {inside.name, "sub", "data.txt", "manifest.json"}
    assert events[at + 1 :] == [("sync", tmp_path.name)]


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    file = tmp_path / "deep" / "w.bin"
    with staged_file(file) as partial:
        partial.write_text("one")
        assert not file.exists()
        with pytest.raises(CheckpointError, match=r"w\.bin: another process is writing it"), staged_file(file):
            pass
    assert file.read_text() == "one"

    def interrupted():
        with staged_file(file) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert file.read_text() == "one"
    assert list(file.parent.iterdir()) == [file]


def test_a_file_where_none_can_be_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="can't be written"), staged_file(tmp_path / "file" / "w.bin"):
        pass


def test_a_discarded_folder_is_gone(tmp_path):
    write(tmp_path / "step-1", "one")
    publish.discard(tmp_path / "step-1")
    assert names(tmp_path) == []
    with pytest.raises(CheckpointError, match=r"step-1: can't be removed"):
        publish.discard(tmp_path / "step-1")


def test_killed_while_it_is_removed_a_folder_has_lost_its_name_and_is_swept_away(tmp_path, monkeypatch):
    for name in ("step-1", "step-2"):
        write(tmp_path / name, "x")
    with monkeypatch.context() as patched:
        patched.setattr(publish.shutil, "rmtree", die)
        killed(lambda: publish.discard(tmp_path / "step-1"))
    left = names(tmp_path)
    assert len(left) == 2
    assert left[0].startswith(".step-1.discarded-")
    publish.sweep(tmp_path)
    assert names(tmp_path) == ["step-2"]


def test_sweeping_removes_what_writers_of_any_name_left_and_puts_back_what_they_moved(tmp_path):
    write(tmp_path / "step-2", "two")
    (tmp_path / "step-2").rename(tmp_path / ".step-2.replaced-0123abcd")
    kept = [".hidden", "step-1.staging-12345678", ".step-1.staging-1234567g"]
    for name in [*kept, ".step-1.staging-12345678", ".step-3.discarded-12345678"]:
        (tmp_path / name).mkdir()
    with staged(tmp_path / "step-4") as living:
        publish.sweep(tmp_path)
        assert living.exists()
    assert names(tmp_path) == sorted([*kept, "step-2", "step-4"])
    assert read(tmp_path / "step-2") == "two"
