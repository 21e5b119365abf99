"""The README's commands run as written, with a rewriter that speaks by rule in the place of models."""

import re
import shlex
from pathlib import Path

from hyvideo_rewrite.cli import main


def test_the_readme_commands_run(chosen):
    Path("prompts.txt").write_text("2 foxes\na dog\n")
    text = (Path(__file__).parents[1] / "README.md").read_text()
    commands = re.findall(r"^hyvideo rewrite .*", text, re.M)
    assert len(commands) == 5
    for command in commands:
        assert main(shlex.split(command)[2:]) == 0, command
    assert [name for name, _ in chosen] == ["template", "local", "server", "server"]
