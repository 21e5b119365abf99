"""Recipes go by name; a file of the name goes first; what there is not is said."""

from pathlib import Path

import pytest
import yaml
from hy_plugins import UnknownComponent
from hyvideo_pretrain.cli import main
from hyvideo_pretrain.recipes import bundled, with_recipes

NAMES = ["dit/hunyuan-video", "dit/world", "rewrite/lora", "vae/finetune-tiling", "vae/hunyuan-video", "vae/tiny"]


def test_the_recipes_are_found():
    assert set(NAMES) <= set(bundled())
    assert all(path.is_file() for path in bundled().values())


@pytest.mark.parametrize("form", [["--config", "vae/tiny"], ["--config=vae/tiny"], ["-c", "vae/tiny"]])
def test_a_name_becomes_a_path(form):
    spelled = with_recipes(["fit", *form, "--trainer.max_steps", "vae/tiny"])
    assert "=".join(spelled[1:-2]).endswith(f"={bundled()['vae/tiny']}")
    assert spelled[-2:] == ["--trainer.max_steps", "vae/tiny"]


def test_a_file_goes_first_and_paths_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("vae").mkdir()
    Path("vae/tiny").write_text("")
    for value in ("vae/tiny", "recipe.yaml", "runs/recipe.yaml", "/a/b", "a/b/c"):
        assert with_recipes(["--config", value]) == ["--config", value]


def test_an_unknown_name_is_said():
    with pytest.raises(
        UnknownComponent,
        match=r"no recipe and no file 'vae/tyni'; did you mean 'vae/tiny'\?; recipes: dit/hunyuan-video, dit/world",
    ):
        main(["fit", "--config", "vae/tyni"])


def test_help_lists_the_recipes(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    told = "".join(capsys.readouterr().out.split())  # lines break at hyphens too
    assert ",".join(sorted(bundled())) in told


@pytest.mark.parametrize("name", NAMES[3:])
def test_a_recipe_of_the_vae_is_understood(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", name, "--print_config"])
    assert stopped.value.code == 0
    whole = yaml.safe_load(capsys.readouterr().out)
    written = yaml.safe_load(bundled()[name].read_text())
    assert written["model"]["init_args"].items() >= {"lpips_weight": 0.1, "kl_weight": 1e-6}.items()
    assert whole["data"]["init_args"]["image_fraction"] == 0.2
    assert whole["data"]["init_args"]["max_interval"] == 8


def test_the_recipe_of_the_rewriter_is_understood(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", "rewrite/lora", "--model.model", "somewhere", "--print_config"])
    assert stopped.value.code == 0
    whole = yaml.safe_load(capsys.readouterr().out)
    assert whole["model"]["init_args"]["model"] == "somewhere"
    assert whole["data"]["init_args"]["held_out"] == 50


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_recipe_of_the_transformer_has_the_papers_stages(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", name, "--print_config"])
    assert stopped.value.code == 0
    whole = yaml.safe_load(capsys.readouterr().out)
    stages = whole["data"]["init_args"]["stages"]
    names = ["image-256", "image-256-512", "video-low-short", "video-low-long", "video-high-long"]
    assert [stage["name"] for stage in stages] == names
    assert [bool(stage["frames"]) for stage in stages] == [False, False, True, True, True]
    assert whole["model"]["init_args"]["caption_dropout"] == 0.1
