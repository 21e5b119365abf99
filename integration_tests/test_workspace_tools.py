"""The scripts in tools/ and the workflows that call them."""

import datetime
import os
import re
import subprocess
import sys
import zipfile

import changed
import isolation
import pytest
import release
import yaml
from members import ROOT, closure, dependants, read_member, read_members, required_name

MEMBERS = read_members()
WORKFLOWS = {file.name: yaml.safe_load(file.read_text()) for file in sorted((ROOT / ".github/workflows").glob("*.yml"))}

PYPROJECT = """[project]
name = "hy-x"
version = "0.1.0"
dependencies = ["torch>=2.9", "hy-y[train]>=0.1,<0.2"]

[project.entry-points.hy_plugins]
version = "left alone"
"""


@pytest.fixture
def member(tmp_path):
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## Unreleased\n\n- Faster.\n\n## 0.1.0 (2026-01-02)\n\n- First.\n"
    )
    return read_member(tmp_path)


@pytest.mark.parametrize("script", ["changed.py", "isolation.py", "release.py"])
def test_scripts_explain_themselves(script):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / script, "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("usage:")


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("hy-dit[x]>=0.1,<0.2", "hy-dit"),
        ("Hy_Dit", "hy-dit"),
        ("torch>=2; python_version<'4'", "torch"),
        (" a.b", "a-b"),
    ],
)
def test_requirements_are_read_by_name(requirement, name):
    assert required_name(requirement) == name


def test_dependencies_come_before_what_needs_them():
    order = closure("hyvideo", MEMBERS)
    assert order[-1] == "hyvideo"
    assert order.index("hy-plugins") < order.index("hy-vae3d") < order.index("hyvideo-demo")


def test_a_package_is_its_own_dependant():
    assert dependants(["hyvideo"], MEMBERS) == ["hyvideo"]


def test_a_change_affects_dependants_and_no_one_else():
    affected = changed.affected(["packages/hy-flow/src/hy_flow/schedule.py", "README.md"], MEMBERS)
    assert {"hy-flow", "hyvideo-sample", "hyvideo"} <= set(affected)
    assert not {"hy-plugins", "hy-vae3d", "hy-dit"} & set(affected)


@pytest.mark.parametrize("path", ["pyproject.toml", "tools/members.py", ".github/workflows/ci.yml", ".ci/run"])
def test_a_change_of_what_all_share_affects_all(path):
    assert changed.affected([path], MEMBERS) == list(MEMBERS)


@pytest.mark.parametrize("path", ["README.md", "benchmarks/vae.py", "packages/README.md"])
def test_a_change_outside_the_members_affects_none(path):
    assert changed.affected([path], MEMBERS) == []


def test_an_unknown_base_counts_as_a_change_of_everything(capsys):
    assert changed.changed_paths("no-such-branch") is None
    assert "no-such-branch" in capsys.readouterr().err


def test_preparing_a_release_changes_the_version_and_dates_the_changelog(member):
    release.prepare(member, "0.2.0", datetime.date(2026, 11, 20))
    prepared = read_member(member.folder)
    assert prepared.version == "0.2.0"
    assert (member.folder / "pyproject.toml").read_text() == PYPROJECT.replace('"0.1.0"', '"0.2.0"', 1)
    assert release.section(prepared, "0.2.0") == "- Faster."
    assert release.section(prepared, "0.1.0") == "- First."


def test_a_release_needs_an_unreleased_section(member):
    release.prepare(member, "0.2.0", datetime.date(2026, 11, 20))
    with pytest.raises(release.ReleaseError, match="0 unreleased headings"):
        release.prepare(member, "0.3.0", datetime.date(2026, 11, 21))
    assert read_member(member.folder).version == "0.2.0"


def test_a_version_has_three_numbers(member):
    with pytest.raises(release.ReleaseError, match=r"major\.minor\.patch"):
        release.prepare(member, "v2", datetime.date(2026, 11, 20))


def test_a_dated_version_may_be_released(member):
    assert release.check("hy-x-v0.1.0", {"hy-x": member}, ["hy-y-v0.1.0"]) is member


@pytest.mark.parametrize(
    ("tag", "tags", "message"),
    [
        ("hy-x", [], "names no release"),
        ("hy-z-v0.1.0", [], "no member is called 'hy-z'"),
        ("hy-x-v0.2.0", [], r"is at 0\.1\.0"),
        ("hy-x-v0.1.0", ["hy-x-v0.1.0"], "released already"),
    ],
)
def test_a_wrong_release_is_refused(member, tag, tags, message):
    with pytest.raises(release.ReleaseError, match=message):
        release.check(tag, {"hy-x": member}, tags)


def test_a_release_without_notes_is_refused(member):
    (member.folder / "CHANGELOG.md").write_text(
        "# Changelog\n\n## 0.1.0 (2026-01-02)\n\n## 0.0.1 (2025-01-02)\n\n- Old.\n"
    )
    with pytest.raises(release.ReleaseError, match="no filled section"):
        release.check("hy-x-v0.1.0", {"hy-x": member}, [])


def wheel_with(folder, *files):
    wheel = folder / "hy_x-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in ("hy_x/__init__.py", "hy_x-0.1.0.dist-info/METADATA", *files):
            archive.writestr(file, "")
    return wheel


def test_a_clean_wheel_passes(member, tmp_path):
    isolation.check_wheel(member, wheel_with(tmp_path, "hy_x/py.typed", "hy_x/testing.py"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "lacks hy_x/py.typed"),
        (["hy_x/py.typed", "hy_x/tests/data.json"], "contains tests"),
        (["hy_x/py.typed", "hy_x/test_model.py"], "contains tests"),
        (["hy_x/py.typed", "README.md"], "more than hy_x: README.md"),
    ],
)
def test_an_unclean_wheel_is_refused(member, tmp_path, files, message):
    with pytest.raises(isolation.IsolationError, match=message):
        isolation.check_wheel(member, wheel_with(tmp_path, *files))


def test_a_failing_command_shows_what_it_printed(tmp_path):
    with pytest.raises(isolation.IsolationError, match=r"(?s)exit code 3.*broken pipe dream"):
        isolation.run([sys.executable, "-c", "print('broken pipe dream'); raise SystemExit(3)"], tmp_path)


def run_ci_with(fake_uv: str, folder):
    """Run .ci/run with a stand-in for uv, so that nothing is installed and only its order and exit code are tried."""
    (folder / "uv").write_text(f"#!/bin/sh\n{fake_uv}\n")
    (folder / "uv").chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    command = ["bash", ".ci/run"]
    return subprocess.run(command, cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, check=False)


def test_ci_ends_in_the_readmes_test_command(tmp_path):
    done = run_ci_with('echo "called: uv $*"', tmp_path)
    assert done.returncode == 0
    assert re.findall(r"^called: (.*)$", done.stdout, re.MULTILINE)[-1] == "uv run pytest"
    assert "everything passed" in done.stdout


@pytest.mark.parametrize(
    "failing",
    ["sync", "pip check", "ruff format", "ruff check", "pyright", "lint-imports", "tools/isolation.py", "run pytest"],
)
def test_ci_stops_at_the_first_failing_step(tmp_path, failing):
    done = run_ci_with(f'echo "called: uv $*"; case "$*" in *"{failing}"*) exit 3;; esac', tmp_path)
    assert done.returncode == 3
    assert failing in re.findall(r"^called: (.*)$", done.stdout, re.MULTILINE)[-1]
    assert "FAILED" in done.stderr
    assert "everything passed" not in done.stdout


def steps(workflow: dict) -> list[dict]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


@pytest.mark.parametrize("name", list(WORKFLOWS))
def test_actions_are_pinned_and_permissions_are_least(name):
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {}
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)] == []


@pytest.mark.parametrize("name", list(WORKFLOWS))
def test_no_input_is_pasted_into_a_shell(name):
    assert [step["run"] for step in steps(WORKFLOWS[name]) if "${{" in step.get("run", "")] == []


def test_only_the_publishing_job_may_publish_and_the_tag_comes_last():
    jobs = WORKFLOWS["release.yml"]["jobs"]
    assert [name for name, job in jobs.items() if "id-token" in job.get("permissions", {})] == ["publish"]
    assert [name for name, job in jobs.items() if job.get("permissions", {}).get("contents") == "write"] == ["tag"]
    chain = {name: job.get("needs") for name, job in jobs.items()}
    assert chain == {"build": None, "verify": "build", "publish": ["build", "verify"], "tag": ["build", "publish"]}
    assert not any("checkout" in step.get("uses", "") for step in jobs["publish"]["steps"])
