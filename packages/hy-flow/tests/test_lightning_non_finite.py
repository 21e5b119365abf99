"""SkipNonFinite: a step that is not finite changes nothing, is written down, and ends the run only after many."""

import copy
import json
from functools import partial

import pytest
import torch
from hy_flow import Diverged, FlowError

pytest.importorskip("lightning", reason="training is the extra hy-flow[train]")
from hy_flow.lightning import EMA, FlowMatching, SkipNonFinite
from hy_flow.muon import Muon
from lightning.pytorch.callbacks import Callback
from torch.optim import SGD, AdamW

pytestmark = pytest.mark.filterwarnings(
    "ignore:.isinstance.treespec",
    "ignore:The .*dataloader.* does not have many workers",
    "ignore:You defined a .validation_step. but have no",
)
OPTIMIZERS = {
    "adamw": partial(AdamW, lr=0.01, weight_decay=0.1),
    "fused": partial(AdamW, lr=0.01, weight_decay=0.1, fused=True),
    "sgd": partial(SGD, lr=0.01, momentum=0.9, weight_decay=0.1),
    "muon": partial(Muon, lr=0.01, weight_decay=0.1),
}


def spoiled(batches, *numbers, value=float("nan")):
    """The batches, numbered and named, some of them with a latent that spoils the loss."""
    named = []
    for number, batch in enumerate(batches):
        latent = batch["latent_BCTHW"].clone()
        if number in numbers:
            latent[1] = value
        keys = [f"clip {number}.{row}" for row in range(len(latent))]
        named.append(batch | {"latent_BCTHW": latent, "number": number, "keys": keys})
    return named


class State(Callback):
    """Keeps all that a step may change, after every batch."""

    def __init__(self, average):
        self.average, self.after = average, []

    def on_train_batch_end(self, trainer, module, *_):
        held = {
            "weights": module.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict()["state"],
            "average": self.average._average_model.state_dict(),
        }
        self.after.append(copy.deepcopy(held))


def equal(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(value, second[key]) for key, value in first.items())
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def run(toys, trainer, loader, batches, optimizer="adamw", skip=None, **settings):
    average = EMA(0.8)
    state, skip = State(average), skip or SkipNonFinite()
    module = FlowMatching(*copy.deepcopy(toys), optimizer=OPTIMIZERS[optimizer], warmup_steps=0, decay="constant")
    fit = trainer(max_steps=len(batches), max_epochs=1, callbacks=[skip, average, state], **settings)
    fit.fit(module, loader(batches))
    return state.after, skip, fit


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_spoiled_step_leaves_everything_bit_for_bit_and_the_run_goes_on(
    toys, toy_batches, trainer, loader, optimizer, value
):
    batches = spoiled(toy_batches(4, size=8), 2, value=value)
    after, skip, fit = run(toys, trainer, loader, batches, optimizer, gradient_clip_val=1.0)
    assert equal(after[1], after[2])
    assert not equal(after[0], after[1])
    assert not equal(after[2], after[3])
    assert (skip.skipped, skip.in_a_row, fit.global_step) == (1, 0, 4)
    assert all(value.isfinite().all() for value in after[3]["weights"].values())


def test_a_run_with_a_spoiled_step_is_the_run_without_it(toys, toy_batches, trainer, loader):
    batches = spoiled(toy_batches(4, size=8), 2)
    with_it, _, _ = run(toys, trainer, loader, batches)
    without, _, _ = run(toys, trainer, loader, [batch for batch in batches if batch["number"] != 2])
    assert equal(with_it[3], without[2])


def test_accumulated_gradients_are_skipped_together(toys, toy_batches, trainer, loader, tmp_path, monkeypatch):
    losses, training_step = [], FlowMatching.training_step

    def kept(*arguments):
        losses.append(training_step(*arguments))
        return losses[-1]

    monkeypatch.setattr(FlowMatching, "training_step", kept)
    batches = spoiled(toy_batches(6, size=4), 2)
    after, skip, fit = run(toys, trainer, loader, batches, accumulate_grad_batches=2)
    assert equal(after[1], after[2])
    assert equal(after[1], after[3])
    assert equal(after[3], after[4]), "the average must not take the step in later, when there are gradients again"
    assert not equal(after[4], after[5])
    assert (skip.skipped, fit.global_step) == (1, 3)
    (line,) = (tmp_path / "skipped-steps-0.jsonl").read_text().splitlines()
    first, second = json.loads(line)["batches"]
    assert (first["number"], first["loss"]) == (2, "nan")
    assert second["number"] == 3
    assert float(second["loss"]) == pytest.approx(losses[3].item()), "of the batch, not its share of the step's"


def test_a_loss_alone_is_reason_enough(toys, toy_batches, trainer, loader, parameters, same, monkeypatch):
    training_step = FlowMatching.training_step
    monkeypatch.setattr(FlowMatching, "training_step", lambda *arguments: training_step(*arguments) + float("inf"))
    module, skip = FlowMatching(*toys), SkipNonFinite()
    before = parameters(module)
    trainer(max_steps=1, callbacks=[skip]).fit(module, loader(toy_batches(1)))
    assert same(before, parameters(module))
    assert skip.skipped == 1


class Spoil(Callback):
    """Spoils one gradient after the backward pass of a finite loss."""

    def on_after_backward(self, trainer, module):
        if trainer.global_step == 1:
            module.backbone.layers[2].bias.grad[3] = float("inf")


def test_a_gradient_alone_is_reason_enough(toys, toy_batches, trainer, loader, tmp_path):
    skip = SkipNonFinite(str(tmp_path / "log" / "run"))
    module = FlowMatching(*toys, warmup_steps=0)
    before = {}

    class Before(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            before[trainer.global_step] = copy.deepcopy(module.state_dict())

    trainer(max_steps=3, callbacks=[Spoil(), skip, Before()]).fit(module, loader(spoiled(toy_batches(3, size=4))))
    assert equal(before[1], before[2])
    assert not equal(before[2], before[3])
    (line,) = (tmp_path / "log" / "run" / "skipped-steps-0.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert (found["step"], found["rank"], found["gradient_norm"]) == (1, 0, "inf")
    (batch,) = found["batches"]
    assert batch["number"] == 1
    assert batch["keys"] == ["clip 1.0", "clip 1.1", "clip 1.2", "clip 1.3"]
    assert float(batch["loss"]) > 0


def test_many_in_a_row_end_the_run_and_say_what_to_do(toys, toy_batches, trainer, loader, tmp_path):
    batches = spoiled(toy_batches(8, size=4), 1, 3, 4, 5)
    average = EMA(0.8)
    state, skip = State(average), SkipNonFinite(patience=3)
    module = FlowMatching(*toys)
    fit = trainer(max_steps=8, callbacks=[average, state, skip])
    with pytest.raises(Diverged) as raised:
        fit.fit(module, loader(batches))
    file = tmp_path / "skipped-steps-0.jsonl"
    message = str(raised.value)
    assert message.startswith("3 steps in a row, up to step 5, had a loss or gradient that is not finite.")
    assert f"{file} lists their batches" in message
    assert "go on from the last checkpoint" in message
    assert [json.loads(line)["batches"][0]["number"] for line in file.read_text().splitlines()] == [1, 3, 4, 5]
    assert len(state.after) == 6
    assert equal(state.after[2], state.after[5]), "what a checkpoint would hold is good"
    assert (fit.global_step, skip.skipped) == (6, 4)


class SaveDiverged(Callback):
    def __init__(self, path):
        self.path = path

    def on_exception(self, trainer, module, exception):
        trainer.save_checkpoint(self.path)


def test_a_run_that_ended_so_is_resumed_with_its_average_as_it_was(toys, toy_batches, trainer, resumable, tmp_path):
    """The callback that ends it comes before the average, which does not see the last batch."""
    file, batches = tmp_path / "last.ckpt", spoiled(toy_batches(8, size=4), 4)
    settings = {"max_steps": 4, "accumulate_grad_batches": 2}
    fit = trainer(callbacks=[SkipNonFinite(patience=1), EMA(0.8), SaveDiverged(file)], **settings)
    with pytest.raises(Diverged):
        fit.fit(FlowMatching(*copy.deepcopy(toys)), resumable(batches))
    saved = torch.load(file, weights_only=True)["state_dict"]
    average = EMA(0.8)
    state = State(average)
    fit = trainer(callbacks=[SkipNonFinite(), average, state], **settings)
    fit.fit(FlowMatching(*toys), resumable(batches), ckpt_path=file, weights_only=True)
    assert equal(saved, {name[7:]: value for name, value in state.after[0]["average"].items() if "." in name})


def test_the_count_is_in_the_checkpoint(toys, toy_batches, trainer, resumable, stop_at, tmp_path):
    batches = spoiled(toy_batches(6, size=4), 1, 2, 3, 4)
    file = tmp_path / "middle.ckpt"
    trainer(max_steps=6, callbacks=[SkipNonFinite(patience=4), stop_at(3, file)]).fit(
        FlowMatching(*copy.deepcopy(toys)), resumable(batches)
    )
    skip = SkipNonFinite(patience=4)
    with pytest.raises(Diverged, match="4 steps in a row, up to step 4"):
        trainer(max_steps=6, callbacks=[skip]).fit(
            FlowMatching(*toys), resumable(batches), ckpt_path=file, weights_only=True
        )
    assert skip.skipped == 4
    again = SkipNonFinite(patience=4)
    again.load_state_dict(skip.state_dict())
    assert (again.skipped, again.in_a_row) == (4, 0)


class Elsewhere(Callback):
    """Another process that always has, or never has, something to skip."""

    def __init__(self, skips):
        self.skips = skips

    def on_fit_start(self, trainer, module):
        trainer.strategy.reduce_boolean_decision = lambda decision, all: (
            decision and self.skips if all else decision or self.skips
        )


def test_all_processes_skip_what_one_of_them_skips(toys, toy_batches, trainer, loader, parameters, same, tmp_path):
    module = FlowMatching(*toys)
    before, skip = parameters(module), SkipNonFinite()
    trainer(max_steps=2, callbacks=[skip, Elsewhere(True)]).fit(module, loader(spoiled(toy_batches(2))))
    assert same(before, parameters(module))
    assert skip.skipped == 2


def test_the_norm_before_clipping_and_the_count_are_logged(toys, toy_batches, trainer, loader, kept_logger):
    norms = []

    class Norm(Callback):
        def on_after_backward(self, trainer, module):
            squares = [weight.grad.square().sum() for weight in module.parameters()]
            norms.append(float(torch.stack(squares).sum().sqrt()))

    kept = kept_logger()
    callbacks = [Norm(), SkipNonFinite()]
    fit = trainer(max_steps=3, logger=kept, log_every_n_steps=1, callbacks=callbacks, gradient_clip_val=0.01)
    fit.fit(FlowMatching(*toys), loader(spoiled(toy_batches(3, size=4), 1)))
    logged = kept.values("train/gradient_norm")
    assert logged == pytest.approx(dict(enumerate(norms)), nan_ok=True)
    assert norms[1] != norms[1]
    assert kept.values("train/skipped_steps") == {0: 0, 1: 1, 2: 1}


def test_a_note_that_cannot_be_written_is_told_and_the_run_goes_on(
    toys, toy_batches, trainer, loader, tmp_path, caplog
):
    (tmp_path / "file").write_text("")
    batches = spoiled(toy_batches(3, size=4), 1)
    _, skip, fit = run(toys, trainer, loader, batches, skip=SkipNonFinite(str(tmp_path / "file" / "log")))
    assert (skip.skipped, fit.global_step) == (1, 3)
    assert "skipped-steps-0.jsonl can't be written: [Errno" in caplog.text
    assert '"keys": ["clip 1.0", ' in caplog.text


def test_patience_below_one_is_refused():
    with pytest.raises(FlowError, match="patience is 0; it must be at least 1"):
        SkipNonFinite(patience=0)
