"""The command builds and runs what a recipe names, and says what is wrong with one."""

import pytest
from hyvideo_pretrain.cli import expand, main

RECIPE = """
model:
  class_path: lightning.pytorch.demos.boring_classes.BoringModel
data:
  class_path: lightning.pytorch.demos.boring_classes.BoringDataModule
trainer:
  accelerator: cpu
  max_steps: 2
  default_root_dir: FOLDER
  limit_val_batches: 0
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: hyvideo_pretrain.checkpoints.LastCheckpoint
      init_args: {folder: FOLDER}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("FOLDER", str(tmp_path / "run")))
    return path


def test_resume_and_safe_loading_are_spelled_out():
    assert expand(["fit", "--resume"]) == ["fit", "--weights_only=true", "--ckpt_path=last"]
    assert expand(["--help"]) == ["--help"]


def test_a_recipe_runs_and_resumes(tmp_path, recipe):
    assert main(["fit", "--config", str(recipe)]) == 0
    assert (tmp_path / "run" / "last.ckpt").is_file()
    assert main(["fit", "--config", str(recipe), "--resume", "--trainer.max_steps", "4"]) == 0


@pytest.mark.parametrize(
    ("wrong", "right", "named"),
    [
        ("max_steps: 2", "max_stepz: 2", "max_stepz"),
        ("BoringDataModule", "BoringDataModul", "BoringDataModul"),
        ("init_args: {folder:", "init_args: {foldr:", "foldr"),
    ],
)
def test_a_misspelt_recipe_exits_with_2_and_names_the_key(recipe, capsys, wrong, right, named):
    recipe.write_text(recipe.read_text().replace(wrong, right))
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(recipe)])
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err


def test_help_names_the_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "hyvideo pretrain" in capsys.readouterr().out
