"""Who may import what: declared dependencies only, and the heavy or special libraries only where they belong.

The levels between our own packages are import-linter's job (`uv run lint-imports`).
"""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from typing import TypeGuard

import pytest
from members import Member, read_members, required_name

MEMBERS = read_members()
EACH = pytest.mark.parametrize("member", MEMBERS.values(), ids=list(MEMBERS))
# Members are installed editable, and so are missing from what the environment says about itself.
DISTRIBUTIONS = dict(packages_distributions()) | {member.module: [member.name] for member in MEMBERS.values()}


def is_type_checking(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports(node: ast.AST) -> Iterator[str]:
    """The modules that run time imports anywhere below a node, as absolute dotted names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.level == 0:
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif is_type_checking(child):
            yield from imports(ast.Module(body=child.orelse, type_ignores=[]))
        else:
            yield from imports(child)


def eager_imports(tree: ast.Module) -> Iterator[str]:
    """The modules that importing the file imports for certain: not those in a function, an ``if`` or a ``try``."""
    for statement in tree.body:
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.If | ast.Try):
            yield from imports(ast.Module(body=[statement], type_ignores=[]))


def files(member: Member) -> dict[str, ast.Module]:
    found = sorted(member.source.rglob("*.py"))
    return {str(file.relative_to(member.source)): ast.parse(file.read_text(encoding="utf-8")) for file in found}


def distributions(module: str) -> set[str]:
    """The distributions that may provide a module."""
    return {required_name(name) for name in DISTRIBUTIONS.get(module.partition(".")[0], [])}


def is_foreign(module: str, member: Member) -> bool:
    return module.partition(".")[0] not in {*sys.stdlib_module_names, member.module}


def is_under(module: str, parent: str) -> bool:
    return f"{module}.".startswith(f"{parent}.")


def is_training(file: str) -> bool:
    """Whether a file is the package's ``lightning`` module, or a part of it."""
    return file == "lightning.py" or file.startswith("lightning/")


def allowed(member: Member, file: str, tree: ast.Module) -> set[str]:
    """The distributions that importing a file may need: an extra's where it trains, or where its docstring says so."""
    named = list(member.extras) if is_training(file) else re.findall("extra `(.+?)`", ast.get_docstring(tree) or "")
    listed = [*member.dependencies, *(requirement for extra in named for requirement in member.extras[extra])]
    names = {required_name(requirement) for requirement in listed}
    if file.startswith("testing"):
        names.add("pytest")
    if file == "plugin.py":  # only hy-plugins' loader imports it
        names.add("hy-plugins")
    return names


@EACH
def test_importing_a_file_needs_declared_dependencies_only(member):
    undeclared = {
        f"{file}: {module}"
        for file, tree in files(member).items()
        for module in eager_imports(tree)
        if is_foreign(module, member) and not distributions(module) & allowed(member, file, tree)
    }
    assert undeclared == set()


@EACH
def test_every_optional_import_is_declared_somewhere(member):
    declared = {required_name(requirement) for requirement in member.requirements} | {"hy-plugins"}
    undeclared = {
        f"{file}: {module}"
        for file, tree in files(member).items()
        for module in imports(tree)
        if is_foreign(module, member) and not distributions(module) & declared
    }
    assert undeclared == set()


def uses(library: str, tree: ast.Module) -> bool:
    """Whether a file imports a library or reaches it through its parent (`torch.nn` after `import torch`)."""
    reached = (ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return any(is_under(name, library) for name in (*imports(tree), *reached))


def found_in(library: str, member: Member) -> set[str]:
    return {file for file, tree in files(member).items() if uses(library, tree)}


PACKAGES = [member for member in MEMBERS.values() if member.folder.parent.name == "packages"]
APPS = [member for member in MEMBERS.values() if member.folder.parent.name == "apps"]


@pytest.mark.parametrize("member", PACKAGES, ids=lambda member: member.name)
def test_packages_import_lightning_only_in_their_lightning_module(member):
    assert not [file for file in found_in("lightning", member) if not is_training(file)]


@pytest.mark.parametrize("member", PACKAGES, ids=lambda member: member.name)
def test_model_code_knows_one_device(member):
    parallel = {"hy-parallel", "hy-data"}
    assert member.name in parallel or found_in("torch.distributed", member) == set()


@pytest.mark.parametrize("member", APPS, ids=lambda member: member.name)
def test_apps_contain_no_tensor_maths(member):
    assert found_in("torch.nn", member) == set()


def test_the_rules_see_what_they_should():
    code = (
        "import torch.nn as nn\nfrom torch import distributed\nif TYPE_CHECKING:\n    import av\n"
        "elif found:\n    import numpy\n"
        "def f():\n    import cv2\ntry:\n    import flash_attn\nexcept ImportError:\n    pass\n"
    )
    tree = ast.parse(code)
    assert list(imports(tree)) == ["torch.nn", "torch.distributed", "numpy", "cv2", "flash_attn"]
    assert list(eager_imports(tree)) == ["torch.nn", "torch.distributed"]
    assert uses("torch.distributed", tree)
    assert uses("torch.nn", ast.parse("import torch\nprint(torch.nn.functional.pad)"))
    assert not uses("torch.nn", ast.parse("import torch.nnx"))


def test_one_distribution_brings_opencv():
    """Two would share a folder: whichever is updated or removed last breaks the other."""
    assert set(DISTRIBUTIONS["cv2"]) == {"opencv-python-headless"}
