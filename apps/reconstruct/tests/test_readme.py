"""The README's commands run as written."""

import re
import shlex
from pathlib import Path

from hyvideo_reconstruct.cli import main
from PIL import Image


def test_the_readme_commands_run(tmp_path):
    Image.open("in.png").save("photo.jpg")
    text = (Path(__file__).parents[1] / "README.md").read_text()
    commands = re.findall(r"^hyvideo reconstruct .*", text, re.M)
    assert len(commands) == 3
    for command in commands:
        assert main([*shlex.split(command)[2:], "--overwrite"]) == 0, command
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4", "in.png", "photo.jpg", "out.mp4", "out.png"}
