"""The README's commands run as written."""

import re
import shlex
import shutil
from pathlib import Path

from hyvideo_encode.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()
REST = """
    shards: shards
    stages: [{name: only, buckets: [[1, 32, 48]], batch_size: 1}]
"""


def test_the_readme_commands_run(pool, footage):
    Path("prompts.txt").write_text("a cat\n")
    shutil.rmtree("shards")
    footage.rename("shards")
    (recipe,) = re.findall(r"```yaml\n(.*?)```", README, re.S)
    Path("recipe.yaml").write_text(recipe.rstrip() + REST)
    commands = re.findall(r"^hyvideo encode .*", README, re.M)
    assert len(commands) == 5
    for command in commands:
        assert main(shlex.split(command)[2:]) == 0, command
