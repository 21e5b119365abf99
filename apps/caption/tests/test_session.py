import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hy_data import read_shards
from hy_plugins import HyError, UnknownComponent
from hy_textenc.captions import CaptionerError, CaptionError, caption_from
from hyvideo_caption import session
from hyvideo_caption.cli import main
from hyvideo_caption.errors import CaptionCommandError


def lines(path="captions.jsonl"):
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def captions(path="captions.jsonl"):
    return {line["key"]: line["caption"]["short"] for line in lines(path) if "caption" in line}


class Stub:
    """Describes clips with a number; `fails` says which numbers it fails at, and with what."""

    def __init__(self):
        self.calls = []
        self.fails = {}
        self.lock = threading.Lock()

    def caption(self, sample):
        with self.lock:
            self.calls.append(sample["key"])
        for key, error in self.fails.items():
            if key in (sample["key"], "every"):
                raise error
        return {"short": f"It is {sample['key']}.", "extra": 1}


@pytest.fixture
def stub(monkeypatch):
    stub = Stub()
    monkeypatch.setattr(session, "make_captioner", lambda name, options: (stub, {}))
    return stub


def test_the_clips_of_shards_are_described(shards, capsys):
    assert main(["shards", "--captioner", "measured"]) == 0
    assert captions() == {
        "c0": "a bright, red scene, the camera stands still",
        "c1": "a bright, green scene, the camera stands still",
        "c2": "a bright, blue scene, the camera stands still",
        "c3": "a bright, yellow scene, the camera stands still",
        "c4": "a dark, grey scene, the camera stands still",
    }
    assert {line["captioner"] for line in lines()} == {"measured"}
    caption = caption_from(lines()[0]["caption"])
    assert caption.metadata["colour"] == "red"
    assert "captions.jsonl: 5 described, 0 had a caption, 0 failed" in capsys.readouterr().out


def test_the_videos_of_a_folder_are_described_and_a_bad_one_does_not_stop_the_rest(footage, capsys):
    assert main(["footage", "--captioner", "measured"]) == 1
    assert set(captions()) == {"red.mp4", "deep/green.MP4.mp4"}
    (failed,) = [line for line in lines() if "error" in line]
    assert failed["key"] == "deep/bad.mov"
    assert "not a video" in failed["error"]
    shown = capsys.readouterr()
    assert "deep/bad.mov: NotAVideo: " in shown.err
    assert "2 described, 0 had a caption, 1 failed" in shown.out


def test_one_video(footage):
    assert main(["footage/red.mp4", "--captioner", "measured", "--out", "deep/out.jsonl"]) == 0
    assert set(captions("deep/out.jsonl")) == {"red.mp4"}


def test_of_a_long_video_the_beginning_is_read(footage, stub, monkeypatch):
    seen = []
    monkeypatch.setattr(stub, "caption", lambda sample: seen.append(sample) or {"short": "x"})
    main(["footage/red.mp4", "--captioner", "stub", "--frames", "2"])
    assert seen[0]["frames_THWC"].shape == (2, 32, 48, 3)
    assert (seen[0]["fps"], seen[0]["start"], Path(seen[0]["source"])) == (25, 0, Path("footage/red.mp4"))


def test_a_second_run_goes_on_where_the_first_ended(shards, stub, capsys):
    stub.fails = {"c1": CaptionError("no"), "c3": ValueError("odd\n\x1b[31m" + "x" * 9999)}
    assert main(["shards", "--captioner", "stub"]) == 1
    assert sorted(stub.calls) == ["c0", "c1", "c2", "c3", "c4"]
    reasons = {line["key"]: line["error"] for line in lines() if "error" in line}
    assert reasons["c1"] == "CaptionError: the caption is None; no"
    assert reasons["c3"].startswith("ValueError: odd [31mxxx")
    assert len(reasons["c3"]) == 500
    stub.calls.clear()
    stub.fails = {"c3": ValueError("odd")}
    assert main(["shards", "--captioner", "stub"]) == 1
    assert stub.calls == ["c1", "c3"]
    stub.fails = {}
    assert main(["shards", "--captioner", "stub"]) == 0
    assert main(["shards", "--captioner", "stub"]) == 0
    assert stub.calls == ["c1", "c3", "c3"]
    assert capsys.readouterr().out.splitlines()[-1] == "captions.jsonl: 0 described, 5 had a caption, 0 failed"
    assert captions() == {f"c{number}": f"It is c{number}." for number in range(5)}


def test_what_a_killed_run_left_unfinished_is_done_again(shards, stub):
    main(["shards", "--captioner", "stub", "--limit", "2"])
    with open("captions.jsonl", "ab") as file:
        file.write(b'{"key": "c2", "caption": {"short": "half')
    stub.calls.clear()
    assert main(["shards", "--captioner", "stub"]) == 0
    assert stub.calls == ["c2", "c3", "c4"]
    assert captions()["c2"] == "It is c2."


def test_overwrite_begins_anew(shards, stub):
    main(["shards", "--captioner", "stub", "--limit", "2"])
    assert main(["shards", "--captioner", "stub", "--limit", "1", "--overwrite"]) == 0
    assert set(captions()) == {"c0"}


def test_a_damaged_shard_costs_its_clips_only(shards, stub, capsys):
    path = shards / "clips-000001.tar"
    path.write_bytes(path.read_bytes()[:700])
    assert main(["shards", "--captioner", "stub"]) == 1
    assert sorted(stub.calls) == ["c0", "c1", "c4"]
    shown = capsys.readouterr()
    assert "clips-000001.tar is not a whole shard" in shown.err
    assert "3 described, 0 had a caption, 1 failed" in shown.out


def test_a_captioner_that_gives_no_caption_fails_the_clip(shards, stub, monkeypatch):
    monkeypatch.setattr(stub, "caption", lambda sample: {"title": "x"})
    assert main(["shards", "--captioner", "stub", "--limit", "1"]) == 1
    assert lines()[0]["error"].startswith("CaptionError: c0: caption field 'short' is ''; it must say")


def test_text_from_outside_is_no_markup(shards, stub, capsys):
    stub.fails = {"c0": ValueError("[/red] [bold]")}
    assert main(["shards", "--captioner", "stub", "--limit", "1"]) == 1
    assert "c0: ValueError: [/red] [bold]" in capsys.readouterr().err


def test_captions_go_into_shards(shards, stub, capsys):
    stub.fails = {"c1": CaptionError("no")}
    assert main(["shards", "--captioner", "stub", "--shards", "new"]) == 1
    found = {sample.key: sample.captions for sample in read_shards("new")}
    assert found["c0"] == {"short": "It is c0.", "metadata": {"extra": 1}}
    assert found["c1"] == {"short": "as it was"}
    assert "new: shards with 4 of these captions" in capsys.readouterr().out
    with pytest.raises(CaptionCommandError, match="new is there already"):
        main(["shards", "--captioner", "stub", "--shards", "new"])


def test_a_server_describes_several_clips_at_a_time(shards, server):
    together = threading.Barrier(3, timeout=5)
    server.wait = lambda number: together.wait() if number <= 3 else None
    options = ["-o", f"base_url={server.url}", "-o", "model=tiny", "-o", "frames=2", "-o", "image_format=png"]
    assert main(["shards", "--captioner", "vlm-server", "--workers", "3", *options]) == 0
    assert server.most == 3
    assert sorted(captions().values()) == [f"Answer {number}." for number in range(1, 6)]
    first = lines()[0]
    assert first["captioner"] == "vlm-server"
    assert first["options"] == {"base_url": server.url, "model": "tiny", "frames": 2, "image_format": "png"}
    assert len(server.asked[0]["messages"][0]["content"]) == 3


def test_a_server_that_is_gone_stops_the_run_after_some_clips(shards, stub, monkeypatch):
    monkeypatch.setattr(session, "_IN_A_ROW", 3)
    stub.fails = {"every": CaptionerError("not there")}
    with pytest.raises(
        CaptionerError, match="3 clips in a row failed, the last with: CaptionerError: not there; run again"
    ):
        main(["shards", "--captioner", "stub"])
    assert len(lines()) == 3


def test_a_captioner_that_would_end_the_thread_does_not_hang_the_run(shards, stub):
    stub.fails = {"c1": SystemExit(3), "c2": KeyboardInterrupt()}
    assert main(["shards", "--captioner", "stub", "--workers", "2"]) == 1
    assert {line["key"] for line in lines() if "error" in line} == {"c1", "c2"}
    assert len(captions()) == 3


def test_bad_clips_in_a_row_stop_nothing(shards, stub, monkeypatch):
    monkeypatch.setattr(session, "_IN_A_ROW", 2)
    stub.fails = {"every": CaptionError("bad clip")}
    assert main(["shards", "--captioner", "stub"]) == 1
    assert len(lines()) == 5


COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell begin deaf to Ctrl-C
from hy_plugins.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_keeps_what_it_has(shards, server, end):
    gate = threading.Event()
    server.wait = lambda number: gate.wait(30) if number > 2 else None
    options = ["-o", f"base_url={server.url}", "-o", "model=tiny"]
    command = [sys.executable, "-c", COMMAND, "caption"]
    command += ["shards", "--captioner", "vlm-server", "--workers", "2", *options]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    deadline = time.monotonic() + 60
    while len(server.asked) < 4 or len(lines()) < 2:
        assert running.poll() is None, running.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(end)
    start = time.monotonic()
    _, told = running.communicate(timeout=20)
    assert time.monotonic() - start < 10
    assert len(captions()) == 2
    if end == signal.SIGINT:
        assert running.returncode == 130
        assert told.strip().endswith("interrupted")
        assert "Traceback" not in told
    gate.set()
    server.wait = lambda number: None
    assert main(["shards", "--captioner", "vlm-server", *options]) == 0
    assert len(captions()) == 5
    assert len(lines()) == 5


def test_two_runs_do_not_write_one_file(shards, stub, monkeypatch):
    def meanwhile(sample):
        monkeypatch.setattr(stub, "caption", lambda sample: {"short": "x"})
        with pytest.raises(CaptionCommandError, match="being written by another process"):
            main(["shards", "--captioner", "stub"])
        return {"short": "x"}

    monkeypatch.setattr(stub, "caption", meanwhile)
    assert main(["shards", "--captioner", "stub", "--limit", "1"]) == 0


@pytest.mark.parametrize(
    ("argv", "error", "told"),
    [
        (["none"], CaptionCommandError, "none: no such file or folder"),
        (["empty"], CaptionCommandError, "empty holds neither shards nor videos"),
        ([], CaptionCommandError, "name what is to be described"),
        (["shards", "--workers", "0"], CaptionCommandError, "workers is 0; it must be at least 1, at most 256"),
        (["shards", "--workers", "999"], CaptionCommandError, "at most 256"),
        (["shards", "--frames", "0"], CaptionCommandError, "frames is 0; it must be at least 1"),
        (["shards", "--limit", "-1"], CaptionCommandError, "limit is -1"),
        (["shards", "-o", "dark=x"], CaptionCommandError, "captioner 'measured': .*dark"),
        (["shards", "-o", "colour=red"], CaptionCommandError, "can't be given 'colour'; its options are dark, bright,"),
        (["shards", "-o", "dark"], CaptionCommandError, "each given as name=value"),
        (["shards", "--captioner", "mesured"], UnknownComponent, "did you mean 'measured'"),
        (["shards", "--captioner", "vlm-server"], CaptionerError, "frames are sent only where you say"),
        (["shards", "--captioner", "vlm-local"], CaptionerError, "needs model"),
        (["shards", "--out", "shards"], CaptionCommandError, "shards can't be written: Is a directory"),
        (["shards", "--out", "mine.txt"], CaptionCommandError, r"mine.txt is no file of captions: line 1"),
        (["shards", "--out", "theirs.jsonl"], CaptionCommandError, "holds captions by 'vlm-local', not 'measured'"),
        (["shards", "--shards", "empty"], CaptionCommandError, "empty is there already"),
        (["footage", "--shards", "new"], CaptionCommandError, "footage holds none"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_lost(shards, footage, argv, error, told):
    Path("empty").mkdir()
    Path("mine.txt").write_text("my notes\n")
    theirs = '{"key": "c0", "caption": {"short": "x"}, "captioner": "vlm-local"}\n'
    Path("theirs.jsonl").write_text(theirs)
    with pytest.raises(error, match=told) as caught:
        main(["--captioner", "measured", *argv])
    assert isinstance(caught.value, HyError)
    assert caught.value.exit_code == 2
    assert Path("mine.txt").read_text() == "my notes\n"
    assert Path("theirs.jsonl").read_text() == theirs
    assert not Path("captions.jsonl").exists() or not lines()


def test_options_are_listed(capsys):
    assert main(["--captioner", "vlm-server", "--list-options"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("  --base_url BASE_URL   of the API")
    assert "type: int, default: 8" in shown
