import re
import subprocess
import sys
from pathlib import Path

import hy_data
import pytest
from hy_data.plugin import PLUGIN_API, hy_components
from hy_plugins import Plugins


def test_components_are_listed_and_load():
    assert PLUGIN_API == (1, 0)
    plugins = Plugins(discover=False)
    plugins.register(sys.modules["hy_data.plugin"], name="data")
    for component in hy_components():
        assert callable(plugins.load(component.kind, component.name))
    assert plugins.names("captioner") == ["measured"]


def test_listing_components_imports_nothing_heavy():
    code = "import sys, hy_data.plugin as p; list(p.hy_components()); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"av", "cv2", "numpy", "scenedetect", "webdataset", "torch"} & set(loaded)


def test_only_the_lightning_module_needs_torch():
    source = Path(hy_data.__file__).parent
    heavy = re.compile(r"^(?:import|from) (?:torch|lightning)\b", re.MULTILINE)
    needing = {file.parent for file in source.rglob("*.py") if heavy.search(file.read_text(encoding="utf-8"))}
    assert needing == {source / "lightning"}


def test_every_public_name_is_there_and_others_are_not():
    for name in hy_data.__all__:
        assert getattr(hy_data, name).__module__.startswith("hy_data.")
    with pytest.raises(AttributeError, match="nothing_here"):
        getattr(hy_data, "nothing_here")  # noqa: B009
