import subprocess
import sys

import hy_rewrite
import pytest
from hy_plugins import Plugins
from hy_rewrite import Options, Rewrite, RewriteError, TemplateRewriter, explained, load_rewriter, plugin

LAZY = """
import sys, hy_rewrite, hy_rewrite.plugin
from hy_rewrite import FIELDS, TemplateRewriter, ChatRewriter, server_rewriter, evaluate, collect
TemplateRewriter().rewrite("a dog")
heavy = {"torch", "transformers", "openai", "peft", "lightning"} & sys.modules.keys()
assert not heavy, heavy
"""


def test_importing_it_imports_nothing_heavy():
    subprocess.run([sys.executable, "-c", LAZY], check=True, timeout=60)


def test_every_public_name_can_be_had():
    for name in hy_rewrite.__all__:
        assert getattr(hy_rewrite, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hy_rewrite.nothing  # noqa: B018


def test_the_components_are_offered():
    plugins = Plugins(discover=False)
    plugins.register(plugin, name="rewrite")
    assert plugins.names("rewriter") == ["local", "server", "template"]
    assert plugins.load("rewriter", "template") is TemplateRewriter
    assert {file.name for file in plugins.load("recipe", "rewrite")().glob("*.yaml")} == {"lora.yaml"}


def test_a_rewriter_is_chosen_by_name(model):
    assert isinstance(load_rewriter("template", {}), TemplateRewriter)
    assert load_rewriter("local", {"model": str(model), "mode": "master"}).options.mode == "master"  # pyright: ignore


def test_options_reach_the_rewriter(model):
    given = {"mode": "master", "language": "French", "rounds": 1, "max_length": 300}
    for name, needed in (("local", {}), ("server", {"base_url": "http://127.0.0.1:9/v1"})):
        assert load_rewriter(name, {"model": str(model), **needed, **given}).options == Options(**given)  # pyright: ignore


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("template", {"mode": "master"}, "mode 'master' needs a model: give model"),
        ("local", {"base_url": "x", "model": "y"}, "'local' takes no base_url; it takes model, adapter, mode"),
        ("server", {"model": "x"}, "the rewriter 'server' needs base_url"),
        ("local", {}, "the rewriter 'local' needs model"),
    ],
)
def test_options_that_do_not_fit_are_named(name, options, message):
    with pytest.raises(RewriteError, match=message):
        load_rewriter(name, options)


def test_a_rewriter_that_cannot_explain_itself_is_taken_at_its_word():
    class Shout:
        def rewrite(self, prompt):
            return prompt.upper()

    assert explained(Shout(), "a dog") == Rewrite(original="a dog", rewritten="A DOG", by="Shout", mode="")
    assert explained(TemplateRewriter(), "a dog").by == "template (no model)"


def test_an_option_of_another_type_is_refused():
    with pytest.raises(RewriteError, match="'server' refuses an option's type"):
        load_rewriter("server", {"base_url": "http://127.0.0.1:1/v1", "model": "m", "rounds": "two"})
