"""What is tracked names no machine, no person's folder and no download host, and leaves uv.lock out."""

import re
import subprocess
from pathlib import Path

import pytest
from members import ROOT

PLACES = [re.escape(f"{ROOT}/"), re.escape(f"{Path.home()}/"), r"/home/\w+/", r"/Users/\w+/"]
HOSTS = [r"https?://[^\s\"']+/simple(?![\w-])", r"https?://[^\s\"']+/packages/[0-9a-f]{2}/", r"(?:extra-)?index-url"]
TRACE = re.compile(rf"(?<![\w.*/-])(?:{'|'.join(PLACES)})|{'|'.join(HOSTS)}")


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so nothing is tracked")
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def test_generated_files_are_not_tracked(tracked):
    generated = re.compile(r"(^|/)(uv\.lock|\.venv|__pycache__|dist|lightning_logs|.*\.egg-info)(/|$)")
    assert [name for name in tracked if generated.search(name)] == []


def test_no_text_names_a_machine_or_a_host(tracked):
    found = []
    for name in tracked:
        file = ROOT / name
        if name == Path(__file__).relative_to(ROOT).as_posix() or not file.is_file():
            continue
        content = file.read_bytes()
        if b"\0" not in content:
            found += [f"{name}: {trace.group()}" for trace in TRACE.finditer(content.decode("utf-8", "replace"))]
    assert found == []


@pytest.mark.parametrize("text", ["cd /home/ada/code", "see '/Users/ada/x'", f"{ROOT}/README.md", "index-url = x"])
def test_the_rule_sees_a_trace(text):
    assert TRACE.search(text)


@pytest.mark.parametrize("text", ["packages/home/x/", "https://example.org/simple-model", "src/hy_x/"])
def test_the_rule_leaves_the_rest_alone(text):
    assert not TRACE.search(text)
