import errno
import os
from pathlib import Path

import pytest
from hy_data import files
from hy_data.errors import CannotWrite
from hy_data.files import require_place, staged


def test_the_name_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with staged(target) as stage:
        stage.write_text("whole")
        assert stage.parent == target.parent
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def fail_half_way(stage, error):
    stage.write_text("half")
    raise error


def test_a_failing_block_leaves_what_was_there(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), staged(target) as stage:
        fail_half_way(stage, KeyboardInterrupt())
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_file_has_ordinary_permissions(tmp_path):
    with staged(tmp_path / "a.txt") as stage:
        stage.write_text("x")
    (tmp_path / "b.txt").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_no_permission_is_said_plainly(tmp_path, monkeypatch):
    def refuse(path, *arguments, **settings):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "touch", refuse)  # the superuser may write anywhere, so the refusal is played
    with pytest.raises(CannotWrite, match=r"a\.txt: no permission") as caught, staged(tmp_path / "a.txt"):
        pass
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_or_a_file_in_the_way_is_said_plainly(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CannotWrite, match="is a file"), staged(tmp_path / "file" / "a.txt"):
        pass
    with pytest.raises(CannotWrite, match="name a file"), staged(tmp_path):
        pass


def test_a_full_disk_leaves_nothing(tmp_path):
    with pytest.raises(CannotWrite, match="disk is full"), staged(tmp_path / "a.txt") as stage:
        fail_half_way(stage, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert list(tmp_path.iterdir()) == []


def test_a_place_is_tried_before_hours_are_spent_on_what_goes_there(tmp_path, monkeypatch):
    (tmp_path / "there.mp4").touch()
    require_place(tmp_path / "new" / "clip.mp4")
    require_place(tmp_path / "there.mp4", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["there.mp4"]
    for path, message in [
        (tmp_path, "is a folder; name a file"),
        (tmp_path / "there.mp4", r"there.mp4 exists already; choose another place, or give --overwrite"),
        (tmp_path / "there.mp4" / "clip.mp4", "a part of the path is a file, not a folder"),
    ]:
        with pytest.raises(CannotWrite, match=message):
            require_place(path)

    def forbidden(dir):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(dir))

    monkeypatch.setattr(files, "TemporaryFile", forbidden)
    with pytest.raises(CannotWrite, match=r"clip.mp4: no permission to write there"):
        require_place(tmp_path / "new" / "clip.mp4")
