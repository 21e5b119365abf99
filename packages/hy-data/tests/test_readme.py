import re
from pathlib import Path


def test_the_example_runs(tmp_path, monkeypatch, textured):
    from hy_data import write_video

    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert examples
    monkeypatch.chdir(tmp_path)
    write_video("my.mp4", textured(30), 25)
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})
