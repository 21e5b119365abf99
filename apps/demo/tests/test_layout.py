"""A demo folder is begun, resumed or replaced only when asked, and never another folder."""

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


def test_a_strangers_folder_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(DemoError, match="not a demo's folder"):
            open_folder(tmp_path, ASKED, resume=False, overwrite=overwrite)


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(DemoError, match="no demo to resume"):
        open_folder(tmp_path, ASKED, resume=True, overwrite=False)


@pytest.mark.parametrize("wrong", [["--frames", "24"], ["--frames", "1"], ["--dit-steps", "0"], ["--videoo", "x"]])
def test_a_wrong_option_exits_with_2(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(wrong)
    assert stopped.value.code == 2
    assert "error" in capsys.readouterr().err
