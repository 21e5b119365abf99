"""The README's commands run as written."""

import re
import shlex
from pathlib import Path

from hyvideo_encode.cli import main


def test_the_readme_commands_run(pool):
    Path("prompts.txt").write_text("a cat\n")
    text = (Path(__file__).parents[1] / "README.md").read_text()
    commands = re.findall(r"^hyvideo encode .*", text, re.M)
    assert len(commands) == 3
    for command in commands:
        assert main(shlex.split(command)[2:]) == 0, command
