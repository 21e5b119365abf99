"""A run that an error of ours ends is saved where nothing is half done; its message says what is saved."""

import pytest
import torch
from hy_flow.errors import Diverged
from hy_plugins import HyError
from hy_weights import CheckpointError
from hyvideo_pretrain import checkpoints
from hyvideo_pretrain.checkpoints import Checkpoints
from lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

BATCHES = 6  # of an epoch


class Model(LightningModule):
    """Draws in every step, and notes what it draws."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))
        self.drawn = []

    def training_step(self, batch, batch_idx):
        self.drawn.append(torch.rand(()).item())
        return (self.weight * batch * self.drawn[-1]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("score", 0.0)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1)


class Batches(Dataset):
    """One of them can't be read the first time."""

    def __init__(self, broken=None):
        self.broken = broken

    def __len__(self):
        return BATCHES

    def __getitem__(self, number):
        if number == self.broken:
            self.broken = None
            raise HyError("batch can't be read")
        return torch.ones(4)


class Resumable(DataLoader):
    """All batches are alike: there is no place in them to lose."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Fails(Callback):
    """Raises an error in a hook, at a batch of the run."""

    def __init__(self, hook, batch, error=HyError):
        def fail(trainer, *_):
            if trainer.fit_loop.total_batch_idx == batch and not trainer.sanity_checking:
                raise error("it went wrong")

        setattr(self, hook, fail)


def fit(folder, *callbacks, resume=False, every=100, broken=None, **changes):
    torch.manual_seed(0)
    model = Model()
    torch.manual_seed(1 if resume else 2)
    changes = {"max_steps": 12, "limit_val_batches": 0, **changes}
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[*callbacks, Checkpoints(str(folder), every=every)],
        **changes,
    )
    loaders = Resumable(Batches(broken), batch_size=None), DataLoader(Batches(), batch_size=None)
    trainer.fit(model, *loaders, ckpt_path=folder if resume else None, weights_only=True)
    return model


def steps_in(folder):
    return sorted(int(path.name[5:]) for path in folder.glob("step-*"))


def assert_goes_on(folder, whole, **plan):
    """The run that is resumed ends like one that nothing stopped."""
    resumed, expected = fit(folder, resume=True, **plan), fit(whole, **plan)
    assert resumed.drawn == expected.drawn[-len(resumed.drawn) :]
    assert torch.equal(resumed.weight, expected.weight)


PLANS = {
    "plain": {},
    "accumulated": {"accumulate_grad_batches": 2, "max_steps": 6},
    "validated": {"limit_val_batches": 1, "val_check_interval": 3},
}


@pytest.mark.parametrize(("plan", "step"), list(zip(PLANS.values(), (2, 1, 2), strict=True)), ids=PLANS)
@pytest.mark.parametrize("where", ["end of a step", "next batch"])
def test_between_two_steps_it_is_saved(tmp_path, plan, step, where):
    failing = {"broken": 2} if where == "next batch" else {}
    callbacks = [] if failing else [Fails("on_train_batch_end", 1)]
    with pytest.raises(HyError, match=rf"^.*; saved .*step-0000000{step}$"):
        fit(tmp_path / "a", *callbacks, **failing, **plan)
    assert steps_in(tmp_path / "a") == [step]
    assert_goes_on(tmp_path / "a", tmp_path / "whole", **plan)


LATEST = "the last checkpoint is .*latest"
HALF_DONE = {
    "in the step": (Fails("on_before_optimizer_step", 4), {}, LATEST),
    "before the step": (Fails("on_train_batch_start", 4), {}, LATEST),
    "gradients of one batch of two": (Fails("on_train_batch_end", 4), PLANS["accumulated"], "there is no checkpoint"),
    "before the validation": (Fails("on_train_batch_end", 2), PLANS["validated"], "there is no checkpoint"),
    "in the validation": (Fails("on_validation_batch_end", 5), PLANS["validated"], LATEST),
    "at the end of an epoch": (Fails("on_train_epoch_end", 5), {}, LATEST),
    "last batch of an epoch": (Fails("on_train_batch_end", 5), {}, LATEST),
}


@pytest.mark.parametrize(("callback", "plan", "told"), HALF_DONE.values(), ids=HALF_DONE)
def test_where_something_is_half_done_the_last_one_is_named(tmp_path, callback, plan, told):
    with pytest.raises(HyError, match=f"it went wrong; {told}$"):
        fit(tmp_path, callback, every=3, **plan)
    assert steps_in(tmp_path) == ([3] if told == LATEST else [])


def test_after_a_validation_the_next_batch_is_between_two_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "on_validation_end", lambda *_: None)  # which saves
    with pytest.raises(HyError, match=r"saved .*step-00000003$"):
        fit(tmp_path, broken=3, **PLANS["validated"])


def test_nothing_is_saved_twice(tmp_path, monkeypatch):
    saved, save = [], Checkpoints._save
    monkeypatch.setattr(
        Checkpoints, "_save", lambda self, trainer: (saved.append(trainer.global_step), save(self, trainer))
    )
    with pytest.raises(HyError, match=r"saved .*step-00000002$"):
        fit(tmp_path, every=1, broken=2)
    assert saved == [1, 2]


def test_other_errors_are_left_as_they_are(tmp_path):
    with pytest.raises(ValueError, match=r"^it went wrong$"):
        fit(tmp_path, Fails("on_train_batch_end", 2, ValueError))
    assert steps_in(tmp_path) == []


def test_before_the_first_step_there_is_nothing_to_save(tmp_path):
    class Refuses(Callback):
        def on_train_start(self, *_):
            raise HyError("not with these settings")

    with pytest.raises(HyError, match=r"^not with these settings$"):
        fit(tmp_path, Refuses())
    with pytest.raises(HyError, match=r"^it went wrong; there is no checkpoint$"):
        fit(tmp_path, Fails("on_train_epoch_start", -1))


def test_a_checkpoint_error_is_one_of_ours(tmp_path):
    with pytest.raises(CheckpointError, match=r"^it went wrong; saved .*step-00000002$"):
        fit(tmp_path, Fails("on_train_batch_end", 1, CheckpointError))


@pytest.mark.parametrize(("error", "saved"), [(HyError, []), (Diverged, [2])])
def test_one_process_of_several_saves_what_all_of_them_end_with(tmp_path, monkeypatch, error, saved):
    monkeypatch.setattr(Trainer, "world_size", 2)
    with pytest.raises(error) as ended:
        fit(tmp_path, Fails("on_train_batch_end", 1, error))
    assert steps_in(tmp_path) == saved
    assert ended.value.exit_code == 2


def test_an_error_of_saving_does_not_hide_the_first_one(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(checkpoints, "provenance", lambda *_: 1 / 0)
    with pytest.raises(HyError, match=r"^it went wrong; there is no checkpoint$"):
        fit(tmp_path, Fails("on_train_batch_end", 1))
    assert "no checkpoint: division by zero" in caplog.text
