"""Every member has the same skeleton, its own version, floors on what it needs and bounds on its siblings."""

import importlib
import tomllib

import pytest
from members import ROOT, Member, read_members, required_name
from packaging.requirements import Requirement
from packaging.version import Version

MEMBERS = read_members()
LEVELS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
EACH = pytest.mark.parametrize("member", MEMBERS.values(), ids=list(MEMBERS))


def content(member: Member) -> dict:
    return tomllib.loads((member.folder / "pyproject.toml").read_text(encoding="utf-8"))


def test_all_members_of_the_design_exist():
    packages = "plugins weights vae3d dit textenc flow parallel data rewrite i2v avatar v2a tiny".split()
    apps = "pretrain finetune sample reconstruct encode caption rewrite plan demo curate studio".split()
    expected = {f"hy-{name}" for name in packages} | {f"hyvideo-{name}" for name in apps} | {"hyvideo"}
    assert expected <= set(MEMBERS)


@EACH
def test_has_the_skeleton(member):
    needed = ["README.md", "CHANGELOG.md", f"src/{member.module}/__init__.py", f"src/{member.module}/plugin.py"]
    missing = [file for file in [*needed, f"src/{member.module}/py.typed"] if not (member.folder / file).is_file()]
    assert not missing
    assert [folder.name for folder in (member.folder / "src").iterdir() if folder.is_dir()] == [member.module]


@EACH
def test_describes_itself(member):
    project = content(member)["project"]
    assert "dynamic" not in project, "the version is static, so that a release is a diff"
    assert str(Version(member.version)) == member.version
    assert project["readme"] == "README.md"
    assert project["license"] == "Apache-2.0"
    assert project["requires-python"] == ">=3.11"
    assert project["description"].endswith(".")


@EACH
def test_readme_and_changelog_begin_with_their_subject(member):
    readme = (member.folder / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"# {member.name}\n\n")
    assert (member.folder / "CHANGELOG.md").read_text(encoding="utf-8").startswith("# Changelog\n\n## ")


@EACH
def test_readme_says_so_where_only_the_skeleton_stands(member):
    held = {path.name for path in member.source.iterdir()} - {"__init__.py", "plugin.py", "py.typed", "__pycache__"}
    bare = not held and member.name != "hyvideo"  # which brings the others, and so holds nothing of its own
    assert ("holds only its skeleton" in (member.folder / "README.md").read_text(encoding="utf-8")) == bare


@EACH
def test_lists_its_components_through_the_entry_point(member):
    registered = content(member)["project"]["entry-points"]["hy_plugins"]
    assert list(registered.values()) == [f"{member.module}.plugin"]
    plugin = importlib.import_module(f"{member.module}.plugin")
    assert plugin.PLUGIN_API == (1, 0)
    assert callable(plugin.hy_components)


def test_entry_points_do_not_hide_one_another():
    names = [name for member in MEMBERS.values() for name in content(member)["project"]["entry-points"]["hy_plugins"]]
    assert len(names) == len(set(names)), "of two entry points with one name, one is skipped without a word"


@EACH
def test_every_requirement_has_a_floor_and_every_sibling_a_bound(member):
    assert any(required_name(requirement) == "pytest" for requirement in member.groups["test"])
    for requirement in map(Requirement, member.requirements):
        operators = {specifier.operator for specifier in requirement.specifier}
        sibling = MEMBERS.get(required_name(requirement.name))
        if sibling is member:  # its own extra, asked for by its test group
            continue
        assert ">=" in operators, f"{requirement} has no floor"
        assert "==" not in operators, f"{requirement} admits one version only"
        if sibling is not None:
            assert "<" in operators, f"{requirement} has no upper bound"
            assert requirement.specifier.contains(sibling.version), f"{requirement} excludes {sibling.version}"


def test_the_workspace_requires_floors_too():
    root = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = [*root["project"]["dependencies"], *root["dependency-groups"]["dev"]]
    thirds = [requirement for requirement in listed if required_name(requirement) not in MEMBERS]
    assert [requirement for requirement in thirds if ">=" not in requirement] == []


def test_the_workspace_knows_every_member():
    root = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(root["tool"]["uv"]["sources"]) == set(MEMBERS)
    modules = sorted(member.module for member in MEMBERS.values())
    assert sorted(root["tool"]["importlinter"]["root_packages"]) == modules
    (levels,) = [contract for contract in LEVELS["contracts"] if contract["type"] == "layers"]
    assert sorted(name.strip() for level in levels["layers"] for name in level.split("|")) == modules


def test_the_contract_needs_pluggy_alone():
    assert [required_name(requirement) for requirement in MEMBERS["hy-plugins"].dependencies] == ["pluggy"]
    assert not MEMBERS["hy-plugins"].extras
