import re
import subprocess
import sys

import hy_dit
import pytest
from hy_dit import T2X, DiT, DiTConfig, plugin
from hy_plugins import Plugins
from hy_weights import unallocated


def test_the_transformer_is_offered_as_a_backbone():
    plugins = Plugins(discover=False)
    plugins.register(plugin, name="dit")
    assert plugins.names("backbone") == ["dit-t2x", "hunyuan-video-dit"]
    assert plugins.load("backbone", "dit-t2x") is T2X
    assert plugins.load("backbone", "hunyuan-video-dit") is DiT


def test_the_parallel_plan_names_every_block():
    plugins = Plugins(discover=False)
    plugins.register(plugin, name="dit")
    plan = plugins.load("parallel_plan", "hunyuan-video-dit")()
    with unallocated():
        dit = DiT(DiTConfig.preset("tiny"))
    patterns = [re.compile(path.replace(".", r"\.").replace("*", r"\d+")) for path in plan.blocks]
    found = [name for name, _ in dit.named_modules() if any(pattern.fullmatch(name) for pattern in patterns)]
    assert len(found) == 2 + dit.config.double_blocks + dit.config.single_blocks
    assert dict(plan.tensor) == {}


def test_listing_components_imports_no_torch():
    code = "import sys, hy_dit.plugin; list(hy_dit.plugin.hy_components()); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_are_there_and_others_are_not():
    assert all(getattr(getattr(hy_dit, name), "__name__", name) == name for name in hy_dit.__all__)
    assert hy_dit.DiTConfig is DiTConfig
    with pytest.raises(AttributeError, match="no attribute 'Dit'"):
        _ = hy_dit.Dit
