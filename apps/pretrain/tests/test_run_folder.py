"""What stays of a run's checkpoints, which is the newest, and what a kill in between leaves."""

import os

import pytest
from hy_weights import staged, write_manifest
from hyvideo_pretrain import run_folder
from hyvideo_pretrain.run_folder import NothingToResume, checkpoints, newest_whole, provenance, step_name, tidy


def save(folder, step, score=None, stage=None):
    told = provenance(folder, step, score, stage)
    with staged(folder / step_name(step)) as inside:
        (inside / "data").write_text(str(step))
        write_manifest(inside, told)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def steps(folder):
    return [int(saved.path.name.removeprefix("step-")) for saved in checkpoints(folder)]


def test_names_sort_by_step():
    assert [step_name(step) for step in (7, 1200, 123456789)] == ["step-00000007", "step-00001200", "step-123456789"]


def test_the_last_ones_and_the_best_stay(tmp_path):
    for step, score in [(1, 3.0), (2, 1.0), (3, 2.0), (4, None), (5, float("nan")), (6, 1.0)]:
        save(tmp_path, step, score)
        tidy(tmp_path, 2, "min", set())
    assert names(tmp_path) == ["best", "latest", "step-00000002", "step-00000005", "step-00000006"]
    assert os.readlink(tmp_path / "latest") == "step-00000006"
    assert os.readlink(tmp_path / "best") == "step-00000002"  # the first of equals


def test_the_largest_may_be_the_best(tmp_path):
    for step, score in [(1, 0.0), (2, 5.0), (3, -1.0)]:
        save(tmp_path, step, score)
        tidy(tmp_path, 1, "max", set())
    assert os.readlink(tmp_path / "best") == "step-00000002"


def test_the_best_is_one_of_the_newest_stage_that_has_a_score(tmp_path):
    best = []
    for step, score, stage in [
        (1, 1.0, 0),
        (2, 9.0, 1),
        (3, None, None),
        (4, 8.0, 1),
        (5, 8.5, 1),
        (6, float("inf"), 2),
    ]:
        save(tmp_path, step, score, stage)
        tidy(tmp_path, 1, "min", set())
        best.append(int(os.readlink(tmp_path / "best").removeprefix("step-")))
    assert best == [1, 2, 2, 4, 4, 4]
    assert steps(tmp_path) == [4, 6]


def test_without_scores_there_is_no_best(tmp_path):
    save(tmp_path, 1)
    tidy(tmp_path, 1, "min", set())
    assert names(tmp_path) == ["latest", "step-00000001"]


def test_the_newest_is_the_one_that_was_written_last_whatever_its_step(tmp_path):
    for step in (4, 8, 12, 6):  # the run went back to step 4
        save(tmp_path, step)
    os.utime(tmp_path / "step-00000012", (2**32, 2**32))  # clocks have no say
    assert steps(tmp_path) == [4, 8, 12, 6]
    assert newest_whole(tmp_path).name == "step-00000006"
    tidy(tmp_path, 2, "min", set())
    assert steps(tmp_path) == [12, 6]


def test_a_torn_newest_is_said_and_the_one_before_is_taken(tmp_path, caplog):
    for step in (1, 2, 3):
        save(tmp_path, step)
    (tmp_path / "step-00000003" / "manifest.json").write_text("{")
    (tmp_path / "step-00000002" / "data").write_text("another")
    assert newest_whole(tmp_path).name == "step-00000001"
    assert "step-00000003: passed over: it has no readable manifest.json" in caplog.text
    assert "step-00000002: does not match its manifest.json: data is changed; the one before is taken" in caplog.text


def test_nothing_whole_is_nothing_to_resume(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "step-00000001" / "data").unlink()
    with pytest.raises(NothingToResume, match=r"no checkpoint there is whole; remove them, or name another folder$"):
        newest_whole(tmp_path)


def test_a_damaged_one_takes_no_place_of_a_whole_one(tmp_path, caplog):
    for step, score in [(1, 2.0), (2, 1.0), (3, 3.0)]:
        save(tmp_path, step, score)
    (tmp_path / "step-00000002" / "data").write_text("another")
    known = {tmp_path / "step-00000003"}
    tidy(tmp_path, 2, "min", known)
    assert steps(tmp_path) == [1, 2, 3]
    assert (os.readlink(tmp_path / "best"), os.readlink(tmp_path / "latest")) == ("step-00000001", "step-00000003")
    assert "step-00000002: does not match its manifest.json: data is changed; it does not count" in caplog.text
    assert known == {tmp_path / "step-00000003", tmp_path / "step-00000001"}
    save(tmp_path, 4)
    tidy(tmp_path, 2, "min", known)
    assert steps(tmp_path) == [1, 3, 4]


def test_what_is_known_to_be_whole_is_not_read_again(tmp_path, monkeypatch):
    for step in (1, 2, 3):
        save(tmp_path, step)
    read = []
    monkeypatch.setattr(run_folder, "verify", lambda path: read.append(path.name))
    known = {tmp_path / "step-00000003"}
    for _ in range(2):
        tidy(tmp_path, 2, "min", known)
    assert read == ["step-00000002"]


def test_one_that_cannot_be_read_is_passed_over(tmp_path, monkeypatch, caplog):
    save(tmp_path, 1)
    save(tmp_path, 2)

    def verify(path):
        if path.name == "step-00000002":
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(run_folder, "verify", verify)
    assert newest_whole(tmp_path).name == "step-00000001"
    assert "Input/output error; the one before is taken" in caplog.text


def test_other_folders_and_links_are_left_alone(tmp_path):
    for step in (1, 2):
        save(tmp_path, step)
    with staged(tmp_path / "model") as inside:
        (inside / "w").write_text("x")
    (tmp_path / "step-00000009").symlink_to("model")
    (tmp_path / "step-1").mkdir()
    tidy(tmp_path, 1, "min", set())
    assert names(tmp_path) == ["latest", "model", "step-00000002", "step-00000009", "step-1"]


def test_a_foreign_manifest_counts_for_nothing(tmp_path):
    with staged(tmp_path / "step-00000001") as inside:
        (inside / "w").write_text("x")
    assert checkpoints(tmp_path) == []
    assert provenance(tmp_path, 5, None)["number"] == 0


@pytest.mark.parametrize("call", ["_link", "discard"])
def test_what_was_cut_short_is_put_right_by_the_next(tmp_path, monkeypatch, call):
    class Cut(Exception):
        pass

    def cut(*_):
        raise Cut

    for step, score in [(1, 1.0), (2, 2.0), (3, 0.5)]:
        save(tmp_path, step, score)
    with monkeypatch.context() as patched:
        patched.setattr(run_folder, call, cut)
        with pytest.raises(Cut):
            tidy(tmp_path, 1, "min", set())
    tidy(tmp_path, 1, "min", set())
    assert names(tmp_path) == ["best", "latest", "step-00000003"]
