"""What makes hy-plugins cheap to depend on: one dependency, few lines, a quick import without torch."""

import ast
import io
import subprocess
import sys
import tokenize
from importlib.metadata import requires
from pathlib import Path

import hy_plugins

SOURCES = sorted(Path(hy_plugins.__file__).parent.glob("*.py"))
NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def code_lines(source):
    """How many lines hold code: no blank line, comment or docstring."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def test_it_depends_on_pluggy_alone():
    assert [requirement.split(">")[0].split("<")[0] for requirement in requires("hy-plugins")] == ["pluggy"]


def test_it_stays_under_600_lines_of_code():
    assert sum(code_lines(path.read_text()) for path in SOURCES) < 600


IMPORT = """
import sys, time
start = time.process_time()  # a busy machine delays us, but not this clock
import hy_plugins
print(time.process_time() - start)
print(sorted({"torch", "pytest", "importlib.metadata", "hy_plugins.testing", "hy_plugins.cli"} & set(sys.modules)))
"""


def test_it_imports_in_50_ms_and_no_more_than_it_needs():
    seconds = []
    while min(seconds, default=1) >= 0.05 and len(seconds) < 10:
        measured, modules = python(IMPORT).splitlines()
        assert modules == "[]"
        seconds.append(float(measured))
    assert min(seconds) < 0.05


WITHOUT_TORCH = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
from hy_plugins.testing import FilterContract
print(sorted({"torch", "pytest"} & set(sys.modules)))
"""


def test_the_kits_import_where_there_is_no_torch():
    assert python(WITHOUT_TORCH) == "[]\n"


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
