"""The progress bar tells the last epoch where there is one."""

import pytest
from hyvideo_pretrain.progress_bar import without_false_total
from lightning import Trainer
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar


@pytest.mark.parametrize(("limit", "told"), [({"max_steps": 9}, "Epoch 5"), ({"max_epochs": 8}, "Epoch 5/7")])
def test_a_run_of_steps_has_no_last_epoch(limit, told):
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **limit)
    trainer.fit_loop.max_epochs = limit.get("max_epochs", -1)  # as Lightning does when it begins
    without_false_total(trainer)
    bar = trainer.progress_bar_callback
    bar._trainer = trainer
    assert bar._get_train_description(5).strip() == told


def test_a_bar_keeps_its_settings_and_another_is_left_alone():
    mine = RichProgressBar(leave=True)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[mine])
    without_false_total(trainer)
    assert trainer.progress_bar_callback._leave
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[TQDMProgressBar()])
    without_false_total(trainer)
    assert type(trainer.progress_bar_callback) is TQDMProgressBar
