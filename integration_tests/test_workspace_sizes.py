"""Files and functions stay small enough to read: hard limits for each, medians for all."""

import ast
from statistics import median, quantiles

from members import ROOT, read_members

SOURCES = sorted(file for member in read_members().values() for file in member.source.rglob("*.py"))
OTHERS = [file for pattern in ("*/*/tests", "integration_tests", "tools", "benchmarks") for file in ROOT.glob(pattern)]
FILES = SOURCES + sorted(file for folder in OTHERS for file in folder.rglob("*.py"))


def lengths_of_functions(file) -> dict[str, int]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    name = file.relative_to(ROOT)
    return {f"{name}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1 for node in functions}


def test_no_file_is_longer_than_600_lines():
    lengths = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > 600} == {}


def test_no_function_is_longer_than_80_lines():
    lengths = {name: lines for file in FILES for name, lines in lengths_of_functions(file).items()}
    assert {name: lines for name, lines in lengths.items() if lines > 80} == {}


def test_files_are_mostly_short():
    lengths = [len(file.read_text(encoding="utf-8").splitlines()) for file in SOURCES]
    assert median(lengths) <= 150
    assert quantiles(lengths, n=20)[-1] <= 400


def test_functions_are_mostly_short():
    lengths = [lines for file in SOURCES for lines in lengths_of_functions(file).values()]
    assert median(lengths) <= 20
    assert quantiles(lengths, n=20)[-1] <= 50
