"""The command builds and runs what a recipe names, and says what is wrong with one."""

import shutil
import sys
from typing import ClassVar

import pytest
import torch
from hy_weights import CheckpointError, read_state, verify
from hyvideo_pretrain import cli
from hyvideo_pretrain.cli import expand, main
from hyvideo_pretrain.config_errors import ConfigError, misfits_explained
from hyvideo_pretrain.run_folder import NothingToResume
from lightning.pytorch.demos.boring_classes import BoringModel

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
    - class_path: hyvideo_pretrain.checkpoints.Checkpoints
      init_args: {folder: FOLDER}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("FOLDER", str(tmp_path / "run")))
    return path


def test_resume_and_safe_loading_are_spelled_out():
    assert expand(["fit", "--resume"]) == ["fit", "--weights_only=true", "--ckpt_path=last"]
    newest = ["fit", "--weights_only=true", "--ckpt_path=last", "--model.size", "3"]
    assert expand(["fit", "--resume", "--model.size", "3"]) == newest
    named = ["fit", "--weights_only=true", "--ckpt_path=runs/a", "--model.size", "3"]
    assert expand(["fit", "--resume", "runs/a", "--model.size", "3"]) == named
    assert expand(["fit", "--resume=runs/a", "--model.size", "3"]) == named
    assert expand(["--seed_everything", "1", "fit"]) == ["--seed_everything", "1", "fit", "--weights_only=true"]
    assert expand(["--help"]) == ["--help"]


def test_a_recipe_runs_and_resumes(tmp_path, recipe):
    assert main(["fit", "--config", str(recipe)]) == 0
    verify(tmp_path / "run" / "step-00000002")
    assert main(["fit", "--config", str(recipe), "--resume", "--trainer.max_steps", "4"]) == 0
    verify(tmp_path / "run" / "step-00000004")


def test_a_named_checkpoint_is_resumed_and_one_that_is_none_refused(tmp_path, recipe):
    for steps in ("2", "4"):
        main(["fit", "--config", str(recipe), *(["--resume"] if steps == "4" else []), "--trainer.max_steps", steps])
    older = str(tmp_path / "run" / "step-00000002")
    assert main(["fit", "--config", str(recipe), "--resume", older, "--trainer.max_steps", "3"]) == 0
    assert (tmp_path / "run" / "latest").resolve().name == "step-00000003"
    with pytest.raises(CheckpointError, match="no manifest"):
        main(["fit", "--config", str(recipe), "--resume", str(tmp_path)])
    assert main(["validate", "--config", str(recipe), "--ckpt_path", str(tmp_path / "run" / "latest")]) == 0


class Shown(BoringModel):
    """Notes the weights that an evaluation sees."""

    seen: ClassVar[list[torch.Tensor]] = []

    def on_validation_start(self) -> None:
        self.seen.append(self.layer.weight.detach().clone())

    on_test_start = on_predict_start = on_validation_start


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_an_evaluation_takes_the_newest_checkpoint(tmp_path, recipe, command):
    recipe.write_text(recipe.read_text().replace(f"{BoringModel.__module__}.BoringModel", f"{__name__}.Shown"))
    main(["fit", "--config", str(recipe)])
    for path in ("--resume", "--ckpt_path=last"):
        main([command, "--config", str(recipe), path, "--trainer.limit_val_batches", "1"])
        trained = read_state((tmp_path / "run" / "latest").resolve())["state_dict"]["layer.weight"]
        assert torch.equal(Shown.seen.pop(), trained)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(NothingToResume, match="nothing to resume in"):
        main([command, "--config", str(recipe), "--resume"])


def test_resuming_nothing_is_refused(tmp_path, recipe):
    with pytest.raises(NothingToResume, match=r"nothing to resume in .*run; run without --resume"):
        main(["fit", "--config", str(recipe), "--resume"])
    assert not (tmp_path / "run").exists()


def test_the_progress_bar_is_put_right(recipe, monkeypatch):
    trainers = []
    monkeypatch.setattr(cli, "without_false_total", trainers.append)
    main(["fit", "--config", str(recipe)])
    assert [trainer.global_step for trainer in trainers] == [2]


def test_the_program_name_is_left_alone(recipe):
    before = list(sys.argv)
    main(["fit", "--config", str(recipe)])
    assert sys.argv == before


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("max_steps: 2", "max_stepz: 2", "does not accept option 'trainer.max_stepz'; did you mean 'max_steps'?"),
        ("max_steps: 2", "max_steps: many", "trainer.max_steps: .*many"),
        ("BoringDataModule", "BoringDataModul", "BoringDataModul: module .* has no attribute 'BoringDataModul'"),
        ("{folder:", "{foldr:", r"Checkpoints: Option 'foldr' is not accepted; did you mean 'folder'\?$"),
        ("data:", "data: [", "Problems parsing config"),
    ],
)
def test_a_misspelt_recipe_is_said_in_a_line(recipe, wrong, right, message):
    recipe.write_text(recipe.read_text().replace(wrong, right, 1))
    with pytest.raises(ConfigError, match=message) as caught:
        main(["fit", "--config", str(recipe)])
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


class Picky(BoringModel):
    def __init__(self, size: int = 1) -> None:
        super().__init__()
        if size > 2:
            raise ValueError(f"size is {size}; at most 2")


def test_what_a_class_refuses_is_said_in_a_line(recipe):
    recipe.write_text(recipe.read_text().replace(f"{BoringModel.__module__}.BoringModel", f"{__name__}.Picky"))
    with pytest.raises(ConfigError, match=r"^size is 3; at most 2$"):
        main(["fit", "--config", str(recipe), "--model.size", "3"])


class Other(BoringModel):
    """Of another width, or with another optimizer, from the second time on."""

    def __init__(self, width: int = 2, parts: int = 1) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(32, width)
        self.parts = parts

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = [[self.layer.weight, self.layer.bias], [torch.nn.Parameter(torch.ones(1))]]
        return torch.optim.SGD([{"params": group} for group in groups[: self.parts]], lr=0.1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--model.width=3",
            r"of another model than the recipe's: size mismatch for layer\.weight: .*; give the recipe",
        ),
        ("--model.parts=2", "of another optimizer than the recipe's: loaded state dict has a different number of"),
        ("--trainer.fast_dev_run=-1", r"^fast_dev_run=-1 is not a valid configuration\. It should be >= 0$"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(recipe, option, message):
    recipe.write_text(recipe.read_text().replace(f"{BoringModel.__module__}.BoringModel", f"{__name__}.Other"))
    main(["fit", "--config", str(recipe)])
    with pytest.raises(ConfigError, match=message) as caught:
        main(["fit", "--config", str(recipe), "--resume", "--trainer.max_steps=3", option])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError, ValueError])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(error, match=r"^out of memory$"), misfits_explained():
        raise error("out of memory")


def test_a_damaged_checkpoint_is_said_and_the_one_before_taken(tmp_path, recipe, caplog):
    assert main(["fit", "--config", str(recipe)]) == 0
    assert main(["fit", "--config", str(recipe), "--resume", "--trainer.max_steps", "4"]) == 0
    (tmp_path / "run" / "step-00000004" / "state.safetensors").write_bytes(b"")
    assert main(["fit", "--config", str(recipe), "--resume", "--trainer.max_steps", "3"]) == 0
    assert "step-00000004: does not match" in caplog.text
    for path in (tmp_path / "run").glob("step-*/state.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(NothingToResume, match="no checkpoint there is whole"):
        main(["fit", "--config", str(recipe), "--resume"])


def test_without_the_callback_there_is_nothing_to_resume(recipe):
    text = recipe.read_text()
    recipe.write_text(text[: text.index("  callbacks:")])
    with pytest.raises(NothingToResume, match=r"has no callback .*Checkpoints to resume from"):
        main(["fit", "--config", str(recipe), "--resume"])


@pytest.mark.parametrize("argv", [["--help"], ["fit", "--help"]])
def test_help_names_the_command(capsys, argv):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 0
    assert "hyvideo pretrain" in capsys.readouterr().out
