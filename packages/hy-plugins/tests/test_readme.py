"""What the README shows, runs."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest
from hy_plugins import Plugins

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README.read_text(), flags=re.DOTALL)
FILES = {match[1]: block for _, block in BLOCKS if (match := re.match(r"# (\S+\.(?:py|toml))\n", block))}


@pytest.fixture
def depth(site):
    """The README's distribution, laid out as its installation would be."""
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    site.add(project["name"], project["entry-points"]["hy_plugins"], version=project["version"])
    (site.folder / "hy_depth").mkdir()
    (site.folder / "hy_depth" / "__init__.py").touch()
    for name in ("plugin", "condition"):
        (site.folder / "hy_depth" / f"{name}.py").write_text(FILES[f"hy_depth/{name}.py"])
    return site


def test_the_use_runs(site, capsys):
    site.plugin("tools", "command plugins hy_plugins.cli:list_plugins")
    ((_, use),) = [block for block in BLOCKS if block[0] == "python" and not block[1].startswith("#")]
    exec(use, {})
    out = capsys.readouterr().out
    assert out.startswith("['plugins']\nPLUGIN ")
    assert out.endswith("\n[]\n")


def test_the_plugin_is_found_without_importing_its_target(depth):
    plugins = Plugins(strict=True)
    assert [(plugin.name, plugin.distribution, plugin.version) for plugin in plugins.loaded] == [
        ("depth", "hy-depth", "1.0")
    ]
    assert plugins.names("condition") == ["depth"]
    assert "hy_depth.condition" not in sys.modules


def test_the_plugin_passes_its_own_tests(depth, monkeypatch, broken_promises):
    monkeypatch.setattr(sys, "path", [str(depth.folder), *depth.installed])
    pytest.importorskip("torch")
    (depth.folder / "test_of_depth.py").write_text(FILES["tests/test_depth.py"])
    kit = importlib.import_module("test_of_depth").TestDepth
    assert broken_promises(kit) == {}
    assert kit().make().gain == 0.5
