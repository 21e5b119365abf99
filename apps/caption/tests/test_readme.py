"""The README's commands run as written, where they need neither a server nor a model."""

import re
import shlex
from pathlib import Path

from hyvideo_caption.cli import main, parse

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_commands_run(shards, footage, server):
    (footage / "deep" / "bad.mov").unlink()
    commands = re.findall(r"^hyvideo caption .*", README.read_text("utf-8"), re.M)
    assert len(commands) == 5
    for command in commands:
        argv = shlex.split(command.replace("http://127.0.0.1:8000/v1", server.url))[2:]
        if "vlm-local" in argv:
            parse(argv)
        else:
            assert main(argv) == 0, command
    assert Path("captions.jsonl").exists()
    assert Path("captioned").is_dir()
