import subprocess
import sys

import hy_dit
import pytest
from hy_dit import T2X, DiT, DiTConfig, plugin
from hy_plugins import Plugins


def test_the_transformer_is_offered_as_a_backbone():
    plugins = Plugins(discover=False)
    plugins.register(plugin, name="dit")
    assert plugins.names("backbone") == ["dit-t2x", "hunyuan-video-dit"]
    assert plugins.load("backbone", "dit-t2x") is T2X
    assert plugins.load("backbone", "hunyuan-video-dit") is DiT


def test_listing_components_imports_no_torch():
    code = "import sys, hy_dit.plugin; list(hy_dit.plugin.hy_components()); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_are_there_and_others_are_not():
    assert all(getattr(hy_dit, name).__name__ == name for name in hy_dit.__all__)
    assert hy_dit.DiTConfig is DiTConfig
    with pytest.raises(AttributeError, match="no attribute 'Dit'"):
        _ = hy_dit.Dit
