"""A demo folder is begun, resumed or replaced only when asked, and never another folder."""

import subprocess
import sys
from dataclasses import replace

import pytest
from hyvideo_demo.cli import main
from hyvideo_demo.layout import DemoError, Options, open_folder

ASKED = Options(video="", captions="", frames=25, vae_steps=1, dit_steps=2, seed=3)
OTHER = Options(video="", captions="", frames=17, vae_steps=9, dit_steps=9, seed=9)


def test_resume_goes_on_with_the_options_it_was_begun_with(tmp_path):
    open_folder(tmp_path / "demo", ASKED, resume=False, overwrite=False)
    assert open_folder(tmp_path / "demo", OTHER, resume=True, overwrite=False) == ASKED
    assert open_folder(tmp_path / "demo", OTHER, resume=False, overwrite=True) == OTHER


def test_a_second_demo_in_the_same_place_is_refused(tmp_path):
    open_folder(tmp_path / "demo", ASKED, resume=False, overwrite=False)
    shard = tmp_path / "demo" / "shards" / "clips-000000.tar"
    shard.parent.mkdir()
    shard.touch()
    with pytest.raises(DemoError, match="--resume"):
        open_folder(tmp_path / "demo", ASKED, resume=False, overwrite=False)


def test_a_demo_that_failed_before_its_first_clip_may_be_tried_again(tmp_path):
    open_folder(tmp_path / "demo", OTHER, resume=False, overwrite=False)
    assert open_folder(tmp_path / "demo", ASKED, resume=False, overwrite=False) == ASKED


def test_beginning_anew_removes_what_the_old_demo_made_and_nothing_else(tmp_path):
    root = tmp_path / "demo"
    open_folder(root, OTHER, resume=False, overwrite=False)
    for folder in ("shards", "latents", "vae", "checkpoint", "samples", "runs/vae"):
        (root / folder).mkdir(parents=True)
        (root / folder / "clips-000000.tar").touch()
    (root / "notes.txt").write_text("mine")
    open_folder(root, ASKED, resume=False, overwrite=True)
    assert sorted(path.name for path in root.iterdir()) == ["demo.json", "notes.txt"]


@pytest.mark.parametrize("text", ['{"video": ', '{"vidoe": ""}', "[]"])
def test_a_damaged_record_is_said(tmp_path, text):
    (tmp_path / "demo.json").write_text(text)
    with pytest.raises(DemoError, match=r"demo\.json is damaged .* --overwrite begins anew"):
        open_folder(tmp_path, ASKED, resume=True, overwrite=False)
    assert open_folder(tmp_path, ASKED, resume=False, overwrite=True) == ASKED


@pytest.mark.parametrize("name", ["video", "captions"])
def test_missing_files_are_refused_before_anything_is_made(tmp_path, name):
    with pytest.raises(DemoError, match=r"gone\.mp4: no such file"):
        open_folder(
            tmp_path / "demo", replace(ASKED, **{name: str(tmp_path / "gone.mp4")}), resume=False, overwrite=False
        )
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path, inside):
    (tmp_path / "file").write_text("")
    with pytest.raises(DemoError, match=r"choose (another )?with --out"):
        open_folder(tmp_path / "file" / inside, ASKED, resume=False, overwrite=False)


def test_a_strangers_folder_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(DemoError, match="not a demo's folder"):
            open_folder(tmp_path, ASKED, resume=False, overwrite=overwrite)


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(DemoError, match="no demo to resume"):
        open_folder(tmp_path, ASKED, resume=True, overwrite=False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--frames", "24"], "24 is not 4n+1: try 21 or 25"),
        (["--frames", "1"], "'1' is not a whole number of at least 5"),
        (["--dit-steps", "x"], "'x' is not a whole number of at least 1"),
        (["--seed", "-5"], "'-5' is not a whole number of at least 0 and at most 4294967295"),
        (["--videoo", "x"], "unrecognized arguments"),
    ],
)
def test_a_wrong_option_exits_with_2(wrong, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(wrong)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_options_are_checked_before_anything_slow_is_imported():
    script = (
        "import sys; from hyvideo_demo import cli; cli.parser(); print({'torch', 'numpy', 'cv2'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
