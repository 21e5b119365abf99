"""What all members offer together: every plugin loads beside the others, and every component's target can be had."""

import re
import subprocess
import sys

import hy_rewrite
import pytest
from hy_plugins import Plugins, protocols, testing
from hy_textenc import captions
from members import ROOT, read_members

MEMBERS = read_members()
PLUGINS = Plugins(discover=True, strict=False)
OFFERED = [(component, plugin) for plugin in PLUGINS.loaded for component in plugin.components]

LISTING = """
import sys
from hy_plugins.cli import main
code = main(["--help"])
heavy = {"torch", "numpy", "lightning", "cv2", "transformers"} & sys.modules.keys()
assert code == 0 and not heavy, (code, heavy)
"""


def test_listing_the_commands_imports_nothing_heavy():
    subprocess.run([sys.executable, "-c", LISTING], check=True, timeout=60)


def test_no_plugin_is_broken():
    assert [str(plugin) for plugin in PLUGINS.broken] == []


def test_every_member_is_a_plugin():
    assert set(MEMBERS) <= {plugin.distribution for plugin in PLUGINS.loaded}


@pytest.mark.parametrize(("component", "plugin"), OFFERED, ids=[f"{c.kind} {c.name}" for c, _ in OFFERED])
def test_a_component_is_its_packages_own_and_can_be_loaded(component, plugin):
    assert re.split("[.:]", component.target)[0] == MEMBERS[plugin.distribution].module
    assert callable(PLUGINS.load(component.kind, component.name))


def test_the_guide_to_adding_components_names_protocols_and_kits_that_exist():
    table = [
        line for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines() if line.count("|") == 6
    ]
    named = {name for line in table for name in re.findall(r"`([A-Z]\w+)`", line)}
    kits = {name for name in named if name.endswith("Contract")}
    assert kits == {name for name in vars(testing) if name.endswith("Contract")} - {"Contract", "ModuleContract"}
    assert {name for name in named - kits if not hasattr(protocols, name)} == set()


def test_rewritten_prompts_have_the_structure_of_the_training_captions():
    assert hy_rewrite.FIELDS == captions.FIELDS
