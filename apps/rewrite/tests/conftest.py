"""A rewriter that speaks by rule, under the name of every one that asks a model."""

import json

import pytest
from hy_rewrite import ChatRewriter, Options, TemplateRewriter
from hyvideo_rewrite import tasks


class Model:
    name = "rule"

    def answer(self, messages):
        asked = json.loads(messages[-1]["content"])["prompt"]
        return "babble" if "babble" in asked else json.dumps({"short": asked, "dense": f"{asked} [bold]run."})


@pytest.fixture
def chosen(monkeypatch):
    """What rewriters were asked for, by name and options."""
    found = []

    def load(name, options):
        found.append((name, dict(options)))
        return TemplateRewriter() if name == "template" else ChatRewriter(Model(), Options(rounds=0))

    monkeypatch.setattr(tasks, "load_rewriter", load)
    return found


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
