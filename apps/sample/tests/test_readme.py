"""The README's commands run as written, on a tiny model in the place that they name."""

import re
import shlex
from pathlib import Path

from hyvideo_sample.cli import main


def test_the_readme_commands_run(checkpoint, tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/checkpoint").symlink_to(checkpoint)
    (tmp_path / "captions.txt").write_text("a van\na dog\n")
    text = (Path(__file__).parents[1] / "README.md").read_text()
    commands = [line for line in re.findall(r"^hyvideo sample .*", text, re.M)]
    assert len(commands) == 6
    for command in commands:
        assert main(shlex.split(command)[2:]) == 0, command
    assert {path.name for path in tmp_path.rglob("*.*") if path.suffix in (".mp4", ".png")} == {
        "van.mp4",
        "another-van.mp4",
        "ball.png",
        "unipc.mp4",
        "001-a-van.mp4",
        "002-a-dog.mp4",
        "close-up-a-white-van-drives-off-0.mp4",
    }
