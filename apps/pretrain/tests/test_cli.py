"""The command builds and runs what a recipe names, and says what is wrong with one."""

import sys

import pytest
from hyvideo_pretrain.cli import NothingToResume, expand, main

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
    assert expand(["--seed_everything", "1", "fit"]) == ["--seed_everything", "1", "fit", "--weights_only=true"]
    assert expand(["--help"]) == ["--help"]


def test_a_recipe_runs_and_resumes(tmp_path, recipe):
    assert main(["fit", "--config", str(recipe)]) == 0
    assert (tmp_path / "run" / "last.ckpt").is_file()
    assert main(["fit", "--config", str(recipe), "--resume", "--trainer.max_steps", "4"]) == 0


def test_resuming_nothing_is_refused(tmp_path, recipe):
    with pytest.raises(NothingToResume, match=r"nothing to resume in .*run; run without --resume"):
        main(["fit", "--config", str(recipe), "--resume"])
    assert not (tmp_path / "run").exists()


def test_the_program_name_is_left_alone(recipe):
    before = list(sys.argv)
    main(["fit", "--config", str(recipe)])
    assert sys.argv == before


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


@pytest.mark.parametrize("argv", [["--help"], ["fit", "--help"]])
def test_help_names_the_command(capsys, argv):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 0
    assert "hyvideo pretrain" in capsys.readouterr().out
