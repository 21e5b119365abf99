"""Recipes go by name; a file of the name goes first; what there is not is said."""

from pathlib import Path

import pytest
from hy_data import recipes
from hy_plugins import HyError, UnknownComponent


@pytest.fixture(autouse=True)
def offered(tmp_path, monkeypatch):
    """Two plugins' folders of recipes."""
    monkeypatch.chdir(tmp_path)
    for name in ("vae/tiny", "vae/large", "flow/tiny"):
        file = tmp_path / "bundled" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    (tmp_path / "bundled/vae/notes.txt").write_text("")

    class Plugins:
        def names(self, kind):
            return {"recipe": ["flow", "vae"]}[kind]

        def load(self, kind, name):
            return {"recipe": lambda: tmp_path / "bundled" / name}[kind]

    monkeypatch.setattr(recipes, "Plugins", Plugins)
    return tmp_path / "bundled"


def test_they_are_found_by_group_and_name(offered):
    assert recipes.bundled() == {
        "flow/tiny": offered / "flow/tiny.yaml",
        "vae/large": offered / "vae/large.yaml",
        "vae/tiny": offered / "vae/tiny.yaml",
    }
    assert recipes.recipe_file("vae/large") == offered / "vae/large.yaml"


def test_a_file_goes_first_and_paths_are_left_alone():
    Path("vae").mkdir()
    Path("vae/tiny").write_text("")
    for value in ("vae/tiny", "recipe.yaml", "runs/recipe.yaml", "/a/b", "a/b/c"):
        assert recipes.recipe_file(value) == Path(value)


def test_an_unknown_name_is_said():
    message = r"no recipe and no file 'vae/tyni'; did you mean 'vae/tiny'\?; recipes: flow/tiny, vae/large, vae/tiny"
    with pytest.raises(UnknownComponent, match=message):
        recipes.recipe_file("vae/tyni")
    assert issubclass(UnknownComponent, HyError)
