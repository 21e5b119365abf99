"""Letters of shape suffixes (``x_BLD``) are explained in the ``Shapes:`` legend of the file's opening docstring."""

import ast
import re

import pytest
from members import ROOT, read_members

SUFFIX = re.compile(r"_?[a-z][a-z0-9_]*_([A-Z][A-Z0-9]*)")


def suffix_letters(tree: ast.Module) -> dict[str, str]:
    """Each shape letter that the file's names use, and a name that uses it."""
    used: dict[str, str] = {}
    for node in ast.walk(tree):
        for field in ("id", "arg", "attr", "name"):
            found = SUFFIX.fullmatch(str(getattr(node, field, "")))
            if found is not None:
                used |= {letter: found.string for letter in found.group(1) if letter.isalpha()}
    return used


def legend_letters(tree: ast.Module) -> set[str]:
    """The single capital letters of the docstring from its word ``Shapes:`` on."""
    _, _, legend = (ast.get_docstring(tree) or "").partition("Shapes:")
    return set(re.findall(r"\b[A-Z]\b", legend))


def unexplained(code: str) -> dict[str, str]:
    tree = ast.parse(code)
    explained = legend_letters(tree)
    return {letter: name for letter, name in suffix_letters(tree).items() if letter not in explained}


@pytest.mark.parametrize("member", read_members().values(), ids=list(read_members()))
def test_each_shape_letter_is_in_its_files_legend(member):
    problems = {
        str(file.relative_to(ROOT)): missing
        for file in sorted(member.source.rglob("*.py"))
        if (missing := unexplained(file.read_text(encoding="utf-8")))
    }
    assert problems == {}


def test_the_rule_sees_names_arguments_and_attributes():
    code = '"""Adds.\n\nShapes: B batch, L tokens.\n"""\ndef f(x_BLD, *, y_B3):\n    self.z_BN = x_BLD\n'
    assert unexplained(code) == {"D": "x_BLD", "N": "z_BN"}
