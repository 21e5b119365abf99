"""A stage with patience: every score counts once, when it comes, also in a run that was interrupted."""

import pytest

lightning = pytest.importorskip("lightning", reason="needs the extra train")
torch = pytest.importorskip("torch", reason="needs the extra train")

from hy_data.curriculum import Stage  # noqa: E402
from hy_data.errors import DataError  # noqa: E402
from hy_data.lightning import BucketedShards, Promotion  # noqa: E402
from hy_data.world_packing import pack_world  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

SECOND = Stage(name="second", scales=[32], aspects=[1.0], batch_size=2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    pack_world(folder, 6, size=(32, 32), frames=1, threads=1)
    return str(folder)


class Scored(lightning.LightningModule):
    """Gets these losses, one for each validation after so many steps; writes down the sizes it is trained on."""

    def __init__(self, losses):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.losses, self.sides = losses, []

    def training_step(self, batch, batch_index):
        self.sides.append(batch["video_BCTHW"].shape[-1])
        return self.weight * batch["video_BCTHW"].mean()

    def validation_step(self, batch, batch_index):
        if self.losses:
            self.log("val/loss", self.losses[self.global_step])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(shards, folder, losses, *, patience=2, checkpoint=None, held_out=0.43, **settings):
    """Train for six epochs of four steps."""
    stages = [Stage(name="first", scales=[16], aspects=[1.0], batch_size=2, patience=patience), SECOND]
    data = BucketedShards(shards, stages, steps=4, held_out=held_out)
    steps = ModelCheckpoint(dirpath=folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    ends = ModelCheckpoint(dirpath=folder, filename="end-{epoch}", every_n_epochs=1, save_top_k=-1)
    scores = ModelCheckpoint(
        dirpath=folder,
        filename="score-{step}",
        every_n_epochs=1,
        mode="max",  # which tells it from the one before
        save_top_k=-1,
        save_on_train_epoch_end=False,
    )
    trainer = lightning.Trainer(
        **{
            "max_epochs": 6,
            "accelerator": "cpu",
            "callbacks": [Promotion("val/loss", "min"), steps, ends, scores],
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "default_root_dir": folder,
            **settings,
        }
    )
    module = Scored(losses)
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    return module


def first(module):
    """How many steps the first stage had."""
    return module.sides.count(16)


def test_each_epoch_s_score_counts(shards, tmp_path):
    losses = {4: 3.0, 8: 2.0, 12: 2.5, 16: 2.0, 20: 1.0, 24: 1.0}
    module = fit(shards, tmp_path, losses)
    assert module.sides == [16] * 16 + [32] * 8


def test_each_of_several_scores_in_an_epoch_counts(shards, tmp_path):
    losses = {2: 3.0, 4: 2.0, 6: 2.5, 8: 2.5, **dict.fromkeys(range(10, 25, 2), 1.0)}
    assert first(fit(shards, tmp_path, losses, val_check_interval=2)) == 8
    better = losses | {8: 1.0}
    assert first(fit(shards, tmp_path, better, val_check_interval=2)) == 12


def test_an_epoch_without_a_score_does_not_count(shards, tmp_path):
    losses = {8: 3.0, 16: 3.0, 24: 3.0}
    assert first(fit(shards, tmp_path, losses, patience=1, check_val_every_n_epoch=2)) == 16


def test_the_trainer_s_trial_run_does_not_count(shards, tmp_path):
    losses = {0: 0.0, 4: 3.0, 8: 2.0, 12: 1.0, 16: 1.0, 20: 1.0, 24: 1.0}
    assert first(fit(shards, tmp_path, losses, patience=1, num_sanity_val_steps=2)) == 16


def test_validating_alone_does_not_count(shards, tmp_path):
    module = fit(shards, tmp_path, dict.fromkeys(range(25), 1.0), max_epochs=1)
    trainer = module.trainer
    before = trainer.datamodule.curriculum.state_dict()
    trainer.validate(module, trainer.datamodule, verbose=False)
    assert trainer.datamodule.curriculum.state_dict() == before


@pytest.mark.parametrize(
    ("every", "names"),
    [
        (4, ["step=1", "step=7", "step=13", "end-epoch=1"]),
        (2, ["step=7", "end-epoch=1", "score-step=6", "score-step=10"]),
    ],
)
def test_a_run_resumed_anywhere_ends_the_stage_where_an_unbroken_one_would(shards, tmp_path, every, names):
    losses = {2: 3.5, 4: 3.0, 6: 2.5, 8: 2.0, 10: 2.2, 12: 2.5, 14: 2.0, 16: 2.5, 18: 2.5, 20: 2.5, 22: 2.5, 24: 2.5}
    whole = fit(shards, tmp_path / "whole", losses, patience=3, val_check_interval=every)
    assert first(whole) == {4: 20, 2: 16}[every]
    for name in names:
        checkpoint = tmp_path / "whole" / f"{name}.ckpt"
        resumed = fit(shards, tmp_path / name, losses, patience=3, val_check_interval=every, checkpoint=checkpoint)
        assert len(resumed.sides) < 24
        assert resumed.sides == whole.sides[-len(resumed.sides) :], name


def test_a_score_that_is_not_logged_is_said(shards, tmp_path):
    with pytest.raises(DataError, match="no score 'val/loss' was logged, which the stage has patience with"):
        fit(shards, tmp_path, {})


@pytest.mark.parametrize("settings", [{"held_out": 0.0}, {"limit_val_batches": 0}])
def test_patience_without_validation_is_refused(shards, tmp_path, settings):
    with pytest.raises(DataError, match=r"stage 'first' has patience with a score, but there is no validation; give"):
        fit(shards, tmp_path, {}, **settings)
