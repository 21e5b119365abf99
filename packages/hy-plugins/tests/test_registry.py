"""Each way in which a plugin can be broken is reported by name and leaves the rest working."""

import sys
from types import ModuleType

import pluggy
import pytest
from hy_plugins import Component, PluginError, Plugins, UnknownComponent, hookimpl, registry


def component(kind="sampler", name="euler", target="nowhere:Euler"):
    return Component(kind=kind, name=name, target=target, summary="a summary")


def module(*components, api=(1, 0)):
    plugin = ModuleType("in_process")
    plugin.PLUGIN_API = api
    plugin.hy_components = hookimpl(lambda: iter(components))
    return plugin


@pytest.fixture
def plugins():
    return Plugins(discover=False)


BROKEN = {
    "import-fails": (
        "import no_such_module_anywhere",
        "ModuleNotFoundError: No module named 'no_such_module_anywhere'",
    ),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "syntax": ("def (", "SyntaxError"),
    "no-api": ("del PLUGIN_API", "PLUGIN_API is None; this hy-plugins takes (1, 0) to (1, 0)"),
    "old-api": ("PLUGIN_API = (0, 9)", "PLUGIN_API is (0, 9)"),
    "new-api": ("PLUGIN_API = (1, 1)", "PLUGIN_API is (1, 1)"),
    "next-api": ("PLUGIN_API = (2, 0)", "PLUGIN_API is (2, 0)"),
    "misspelt-hook": ("@hookimpl\ndef hy_component():\n    return []", "unknown hook 'hy_component'"),
    "two-hooks": (
        "@hookimpl\ndef hy_components():\n    return []\n@hookimpl\ndef hy_more():\n    return []",
        "unknown hook 'hy_more'",
    ),
    "wrong-signature": ("@hookimpl\ndef hy_components(host):\n    return []", "'host'"),
    "unmarked-hook": ("def hy_components():\n    return []", "no `@hookimpl def hy_components()`"),
    "none": ("@hookimpl\ndef hy_components():\n    pass", "or it returned None"),
    "half-way": (
        "@hookimpl\ndef hy_components():\n"
        "    yield Component(kind='sampler', name='mine', target='a:b', summary='s')\n"
        "    raise ZeroDivisionError('half-way')",
        "ZeroDivisionError: half-way",
    ),
    "not-a-component": (
        "@hookimpl\ndef hy_components():\n"
        "    yield Component(kind='sampler', name='mine', target='a:b', summary='s')\n"
        "    yield 'sampler'",
        "hy_components gave 'sampler', which is no Component",
    ),
    "bad-target": (
        "@hookimpl\ndef hy_components():\n    yield Component(kind='sampler', name='mine', target='a.b', summary='s')",
        "component sampler mine: target='a.b' must match",
    ),
    "duplicate": (
        "@hookimpl\ndef hy_components():\n"
        "    yield Component(kind='sampler', name='mine', target='a:b', summary='s')\n"
        "    yield Component(kind='sampler', name='good', target='a:b', summary='s')",
        "sampler 'good' is offered already by plugin 'a-good' (hy-a-good 1.0)",
    ),
    "twice-itself": (
        "@hookimpl\ndef hy_components():\n"
        "    yield Component(kind='sampler', name='mine', target='a:b', summary='s')\n"
        "    yield Component(kind='sampler', name='mine', target='a:c', summary='s')",
        "sampler 'mine' is offered already by itself",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_reported_by_name_and_the_rest_works(site, capsys, name):
    source, message = BROKEN[name]
    site.plugin("a-good", "sampler good math:sqrt")
    site.broken(name, source)
    site.plugin("z-good", "sampler fine math:floor")
    plugins = Plugins()
    assert plugins.names("sampler") == ["fine", "good"]
    assert plugins.load("sampler", "fine")(2.5) == 2
    (broken,) = plugins.broken
    assert (broken.name, broken.distribution, broken.version) == (name, f"hy-{name}", "1.0")
    assert f"plugin '{name}' (hy-{name} 1.0) is broken: " in str(broken)
    assert message in str(broken)
    assert capsys.readouterr().err == f"hyvideo: {broken}\n"


@pytest.mark.parametrize("name", BROKEN)
def test_strict_raises_and_keeps_the_reason(site, name):
    site.plugin("a-good", "sampler good math:sqrt")
    site.broken(name, BROKEN[name][0])
    with pytest.raises(PluginError, match=f"plugin '{name}'.*is broken") as caught:
        Plugins(strict=True)
    assert caught.value.__cause__ is not None
    assert BROKEN[name][1] in str(caught.value)


@pytest.mark.parametrize(("value", "raises"), [("1", True), ("0", False), ("", False)])
def test_strictness_comes_from_the_environment(site, monkeypatch, value, raises):
    site.broken("bad", "import no_such_module_anywhere")
    monkeypatch.setenv("HY_PLUGINS_STRICT", value)
    if raises:
        with pytest.raises(PluginError, match="bad"):
            Plugins()
        assert len(Plugins(strict=False).broken) == 1
    else:
        assert len(Plugins().broken) == 1


def test_a_keyboard_interrupt_is_not_a_broken_plugin(site):
    site.broken("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Plugins()


def test_two_distributions_with_one_plugin_name(site):
    site.plugin("depth", "condition theirs math:sin", distribution="b-depth")
    site.plugin("depth", "condition ours math:cos", distribution="a-depth")
    plugins = Plugins()
    assert plugins.names("condition") == ["ours"]
    (broken,) = plugins.broken
    assert str(broken) == (
        "plugin 'depth' (b-depth 1.0) is broken: PluginError: the name 'depth' is taken by plugin 'depth' (a-depth 1.0)"
    )


def test_a_broken_plugin_is_reported_once_however_many_ask(site, capsys):
    site.broken("bad", "import no_such_module_anywhere")
    assert len(Plugins().broken) == len(Plugins().broken) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_targets_are_imported_only_when_asked_for(site):
    site.plugin("lazy", "sampler lazy lazy_target:Lazy.inner", lazy_target="class Lazy:\n    inner = 7")
    plugins = Plugins()
    assert plugins.names("sampler") == ["lazy"]
    assert plugins.components("sampler")[0].summary == "a summary"
    assert "lazy_target" not in sys.modules
    assert plugins.load("sampler", "lazy") == 7
    assert "lazy_target" in sys.modules


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module:Thing", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("math:no_such_attribute", "AttributeError: module 'math' has no attribute 'no_such_attribute'"),
        ("raising_target:Thing", "RuntimeError: no GPU here"),
    ],
)
def test_a_target_that_cannot_be_imported_names_its_plugin(site, target, reason):
    site.plugin("late", f"backbone big {target}", raising_target="raise RuntimeError('no GPU\\nhere')")
    plugins = Plugins()
    assert plugins.broken == []
    with pytest.raises(PluginError) as caught:
        plugins.load("backbone", "big")
    what = f"backbone 'big' of plugin 'late' (hy-late 1.0) cannot be imported from '{target}'"
    assert str(caught.value) == f"{what}: {reason}"
    assert type(caught.value.__cause__).__name__ in reason


def test_an_unknown_name_lists_the_known_and_suggests_the_nearest(site):
    site.plugin("many", "sampler heun math:sin", "sampler eulers math:tan", "sampler euler math:cos", "filter blur a:b")
    with pytest.raises(UnknownComponent) as caught:
        Plugins().load("sampler", "eular")
    assert str(caught.value) == "no sampler 'eular'; did you mean 'euler'?\n  known: euler, eulers, heun"
    assert caught.value.__cause__ is None
    with pytest.raises(UnknownComponent, match=r"^no path 'euler'\n  known: none$"):
        Plugins().load("path", "euler")


def test_asking_for_a_component_of_a_broken_plugin_chains_its_error(site):
    site.broken("bad", "import no_such_module_anywhere")
    with pytest.raises(UnknownComponent, match=r"plugin 'bad' \(hy-bad 1.0\) is broken: ModuleNotFound") as caught:
        Plugins().load("condition", "depth")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    site.broken("worse", "1 / 0")
    with pytest.raises(UnknownComponent, match="plugin 'worse'") as caught:
        Plugins().load("condition", "depth")
    assert [type(error) for error in caught.value.__cause__.exceptions] == [ModuleNotFoundError, ZeroDivisionError]


@pytest.mark.parametrize(("value", "left"), [("one, three", ["two"]), ("*", []), ("", ["one", "three", "two"])])
def test_disabled_plugins_are_skipped_and_named(site, monkeypatch, value, left):
    for name in ("one", "two", "three"):
        site.plugin(name, f"sampler {name} math:sin")
    monkeypatch.setenv("HY_PLUGINS_DISABLE", value)
    plugins = Plugins()
    assert plugins.names("sampler") == left
    assert sorted([*plugins.disabled, *left]) == ["one", "three", "two"]
    for name in plugins.disabled:
        with pytest.raises(UnknownComponent, match=f"plugin '{name}' is switched off by HY_PLUGINS_DISABLE"):
            plugins.load("sampler", name)


def test_plugins_that_are_not_discovered_are_not_there(site):
    site.plugin("good", "sampler good math:sqrt")
    plugins = Plugins(discover=False)
    assert (plugins.loaded, plugins.broken, plugins.names("sampler")) == ([], [], [])


def test_register_and_unregister(plugins):
    plugins.register(module(component()), name="mine")
    (plugin,) = plugins.loaded
    assert str(plugin) == "plugin 'mine' (unpackaged -)"
    assert (plugin.api, plugin.components) == ((1, 0), (component(),))
    with pytest.raises(PluginError, match=r"the name 'mine' is taken by plugin 'mine' \(unpackaged -\)"):
        plugins.register(module(), name="mine")
    plugins.register(module(component(name="heun")), name="other")
    plugins.unregister("mine")
    assert plugins.names("sampler") == ["heun"]
    plugins.register(module(component()), name="mine")
    assert plugins.names("sampler") == ["euler", "heun"]
    with pytest.raises(PluginError, match="no plugin 'nobody' is loaded"):
        plugins.unregister("nobody")


def test_what_register_refuses_leaves_nothing(plugins):
    plugins.register(module(component()), name="first")
    refused = module(component(name="heun"), component())
    with pytest.raises(PluginError, match="sampler 'euler' is offered already by plugin 'first'"):
        plugins.register(refused, name="second")
    misspelt = module(component(name="heun"))
    misspelt.hy_componets = hookimpl(lambda: [])
    with pytest.raises(pluggy.PluginValidationError, match="hy_componets"):
        plugins.register(misspelt, name="third")
    assert plugins.names("sampler") == ["euler"]
    refused.hy_components = hookimpl(lambda: [component(name="heun")])
    plugins.register(refused, name="second")
    assert plugins.names("sampler") == ["euler", "heun"]


def test_one_name_in_two_kinds_is_fine(plugins):
    plugins.register(module(component(kind="sampler"), component(kind="path")), name="mine")
    assert plugins.names("sampler") == plugins.names("path") == ["euler"]


@pytest.mark.parametrize(
    ("api", "accepted"),
    [
        ((2, 0), True),
        ((2, 1), True),
        ((2, 2), False),
        ((1, 1), False),
        ((3, 0), False),
        ((2,), False),
        ([2, 0], False),
        ("2.0", False),
        (None, False),
    ],
)
def test_the_same_major_and_at_most_this_minor(monkeypatch, plugins, api, accepted):
    monkeypatch.setattr(registry, "PLUGIN_API", (2, 1))
    if accepted:
        plugins.register(module(component(), api=api), name="mine")
        assert plugins.loaded[0].api == api
    else:
        with pytest.raises(PluginError, match=r"this hy-plugins takes \(2, 0\) to \(2, 1\)"):
            plugins.register(module(component(), api=api), name="mine")
