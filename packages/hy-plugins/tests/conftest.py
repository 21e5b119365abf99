"""Fake distributions on a path of their own, and `hyvideo` run on them: what is installed here plays no part."""

import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import hy_plugins.cli
import pytest
from hy_plugins import registry

HEADER = "from hy_plugins import Component, hookimpl\nPLUGIN_API = (1, 0)\n"


class Site:
    """A folder that stands for site-packages."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self.folder = folder
        self.installed = list(sys.path)
        self.path = [str(folder), *(entry for entry in sys.path if not [*Path(entry or ".").glob("*.dist-info")])]

    def add(self, distribution: str, entry_points: dict[str, str], version: str = "1.0", **modules: str) -> None:
        """Install a distribution: `entry_points` maps plugin names to modules, `modules` names to sources."""
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        points = "\n".join(f"{name} = {value}" for name, value in entry_points.items())
        (info / "entry_points.txt").write_text(f"[hy_plugins]\n{points}\n")
        for name, source in modules.items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()

    def plugin(self, name: str, *components: str, distribution: str | None = None, **modules: str) -> None:
        """Install a plugin that offers `components`, each "kind name target"."""
        calls = [
            "Component(kind={!r}, name={!r}, target={!r}, summary='a summary')".format(*component.split())
            for component in components
        ]
        listing = HEADER + f"@hookimpl\ndef hy_components():\n    return [{', '.join(calls)}]\n"
        distribution = distribution or f"hy-{name}"
        module = f"{distribution}_{name}".replace("-", "_")
        self.add(distribution, {name: module}, **{module: listing}, **modules)

    def broken(self, name: str, source: str, header: str = HEADER) -> None:
        """Install a plugin from its module's source."""
        module = f"module_of_{name}".replace("-", "_")
        self.add(f"hy-{name}", {name: module}, **{module: header + textwrap.dedent(source)})

    def run(
        self, *argv: str, code: str = "raise SystemExit(main())", **environment: str
    ) -> subprocess.CompletedProcess:
        """Run `hyvideo` in a process of its own."""
        prelude = f"import sys; from hy_plugins.cli import main; sys.path[:] = {self.path!r}"
        command = [sys.executable, "-c", f"{prelude}\n{code}", *argv]
        source = str(Path(hy_plugins.cli.__file__).parents[1])
        environment = os.environ | {"PYTHONPATH": source, "PYTHONUNBUFFERED": ""} | environment
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


@pytest.fixture
def site(tmp_path, monkeypatch):
    for variable in ("HY_PLUGINS_DISABLE", "HY_PLUGINS_STRICT", "HYVIDEO_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    site = Site(tmp_path / "site")
    monkeypatch.setattr(sys, "path", site.path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    registry._print_once.cache_clear()
    yield site
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(site.folder)):
            del sys.modules[name]


@pytest.fixture
def broken_promises():
    """Run a conformance kit's tests, and say which fail, with what message."""

    def run(kit: type) -> dict[str, str]:
        failures = {}
        for name in [name for name in dir(kit) if name.startswith("test_")]:
            try:
                getattr(kit(), name)()
            except Exception as error:
                failures[name] = f"{type(error).__name__}: {error}"
        return failures

    return run
