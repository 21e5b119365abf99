"""The root README's example runs as written, and the README stays one screenful of facts."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_example_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
