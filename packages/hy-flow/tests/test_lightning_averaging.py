"""EMA: the average in its own precision, whole through validation, checkpoints and publishing."""

import copy
import weakref
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

pytest.importorskip("lightning", reason="training is the extra hy-flow[train]")
from hy_flow.lightning import EMA, FlowMatching, averaged, averaging
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback
from torch.optim import SGD

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a .validation_step. but have no",
    "ignore:.isinstance.treespec",
    "ignore:The .*dataloader.* does not have many workers",
)
NAME = "backbone.layers.0.weight"


class Watch(Callback):
    """Keeps a weight as trained and as averaged after every step, and as validation sees it."""

    def __init__(self, average):
        self.average, self.trained, self.averages, self.validated = average, [], [], []

    def weight(self, module):
        return module.backbone.layers[0].weight.detach().clone()

    def on_train_batch_end(self, trainer, module, *_):
        self.trained.append(self.weight(module))
        self.averages.append(self.weight(self.average._average_model.module))

    def on_validation_batch_start(self, trainer, module, *_):
        self.validated.append(self.weight(module))


def run(toys, trainer, loader, batches, decay=0.8, callbacks=(), module=FlowMatching, **settings):
    average = EMA(decay, precision=settings.pop("average", "float32"))
    watch = Watch(average)
    module = module(*copy.deepcopy(toys), optimizer=partial(SGD, lr=0.5), warmup_steps=0, decay="constant")
    fit = trainer(callbacks=[average, watch, *callbacks], num_sanity_val_steps=0, **{"max_steps": 4, **settings})
    validation = loader(batches[:1]) if settings.get("val_check_interval") else None
    fit.fit(module, loader(batches), validation)
    return module, watch


def test_it_is_the_exponential_average_and_ends_up_in_the_model(toys, toy_batches, trainer, loader):
    module, watch = run(toys, trainer, loader, toy_batches(4))
    expected = watch.trained[0]
    for trained in watch.trained[1:]:
        expected = 0.8 * expected + 0.2 * trained
    torch.testing.assert_close(watch.averages[-1], expected)
    assert torch.equal(watch.weight(module), watch.averages[-1])


def alone(module, decay=0.999, precision="float32"):
    """An EMA of a module, without a training."""
    average = EMA(decay, precision=precision)
    average.setup(SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu"))), module, "fit")
    return average


def test_an_average_of_weights_that_do_not_move_is_those_weights():
    """Lightning's would multiply by 0.001 in bfloat16, and settle up to 2e-3 beside them."""
    module = LightningModule()
    module.weight = torch.nn.Parameter(torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16())
    average = alone(module)
    average._take_in(module)
    found = average._average_model.module.weight
    with torch.no_grad():
        found.mul_(1.01)
    for _ in range(8_000):
        average._take_in(module)
    torch.testing.assert_close(found, module.weight.float(), rtol=1e-4, atol=1e-6, check_dtype=True)


def test_however_many_are_averaged_at_once_none_is_left_out(monkeypatch):
    monkeypatch.setattr(averaging, "_TOGETHER", 10)
    module = LightningModule()
    module.layers = torch.nn.ModuleList([torch.nn.Linear(2, 3), torch.nn.Linear(4, 5), torch.nn.Linear(2, 2)])
    average = alone(module, 0.75)
    average._take_in(module)
    first = [weight.detach().clone() for weight in module.parameters()]
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(1)
    average._take_in(module)
    for found, before in zip(average._average_model.module.parameters(), first, strict=True):
        torch.testing.assert_close(found, before + 0.25)


def test_whether_it_is_the_first_is_known_without_the_device(toys, toy_batches, trainer, loader, monkeypatch):
    _, watch = run(toys, trainer, loader, toy_batches(3), max_steps=3)
    taken = watch.average._average_model.n_averaged
    assert (taken.device.type, int(taken)) == ("cpu", 3)


class Allocations(TorchDispatchMode):
    """Counts what is held of the storages made since it was entered, and the most of it at once."""

    def __init__(self):
        super().__init__()
        self.held = self.most = 0
        self.known = set()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for tensor in (value for value in tree_leaves(result) if isinstance(value, torch.Tensor)):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if function is torch.ops.aten._to_copy.default and key not in self.known:
                self.known.add(key)
                self.held += size
                self.most = max(self.most, self.held)
                weakref.finalize(storage, self.forget, key, size)
        return result

    def forget(self, key, size):
        self.known.discard(key)
        self.held -= size


@pytest.mark.parametrize(
    ("weights", "precision", "most", "kept"),
    [
        (torch.float32, "float32", 4 * 400, 0),
        (torch.bfloat16, "bfloat16", 2 * 400, 0),
        (torch.bfloat16, "float32", 2 * 4 * 400, 2 * 4 * 400),
        (torch.float32, "bfloat16", 4 * 4 * 400, 4 * 4 * 400),
    ],
)
def test_an_exchange_holds_one_tensor_more_or_else_the_weights(weights, precision, most, kept):
    module = LightningModule()
    module.layers = torch.nn.ModuleList([torch.nn.Linear(20, 20, bias=False, dtype=weights) for _ in range(4)])
    average = alone(module, precision=precision)
    own = [weight.detach().clone() for weight in module.parameters()]
    with torch.no_grad():
        for shadow in average._average_model.module.parameters():
            shadow.add_(1)
    expected = [shadow.detach().clone() for shadow in average._average_model.module.parameters()]
    with Allocations() as made:
        with average.swapped_in(module):
            assert made.most == most
            assert made.held == kept
            shown = [weight.to(weights) for weight in expected]
            assert all(torch.equal(*pair) for pair in zip(module.parameters(), shown, strict=True))
            with average.swapped_in(module):  # as a callback would that samples in a validation
                assert torch.equal(next(module.parameters()), shown[0])
            assert torch.equal(next(module.parameters()), shown[0])
    assert all(torch.equal(*pair) for pair in zip(module.parameters(), own, strict=True))
    assert all(torch.equal(*pair) for pair in zip(average._average_model.module.parameters(), expected, strict=True))


class Bfloat16(FlowMatching):
    """With inputs of the toys in the weights' format, as the real backbone casts them."""

    def _losses(self, latent_BCTHW, text, sigma_B, draws):
        forward = self.backbone.__class__.forward
        self.backbone.forward = lambda x, t, text: forward(self.backbone, x.bfloat16(), t.bfloat16(), text).float()
        try:
            return super()._losses(latent_BCTHW, text, sigma_B, draws)
        finally:
            del self.backbone.forward


def test_an_average_of_bfloat16_weights_is_float32_and_validation_gives_it_back(toys, toy_batches, trainer, loader):
    _, watch = run(
        toys, trainer, loader, toy_batches(6), module=Bfloat16, precision="bf16-true", max_steps=6, val_check_interval=3
    )
    assert {weight.dtype for weight in watch.trained} == {torch.bfloat16}
    assert {weight.dtype for weight in watch.averages} == {torch.float32}
    expected = watch.trained[0].float()
    for trained in watch.trained[1:]:
        expected = 0.8 * expected + 0.2 * trained.float()
    torch.testing.assert_close(watch.averages[-1], expected)  # rounded once to bfloat16, it would be off by 1e-3
    assert torch.equal(watch.validated[0], watch.averages[2].bfloat16())
    assert not torch.equal(watch.validated[0], watch.trained[2])


def test_validation_sees_the_average_and_training_goes_on_with_the_weights(toys, toy_batches, trainer, loader):
    batches = toy_batches(4)
    _, with_validation = run(toys, trainer, loader, batches, val_check_interval=2)
    _, without = run(toys, trainer, loader, batches)
    assert all(torch.equal(*pair) for pair in zip(with_validation.trained, without.trained, strict=True))
    assert torch.equal(with_validation.validated[0], without.averages[1])


@pytest.mark.parametrize("average", ["float32", "bfloat16"])
def test_a_resumed_run_equals_the_uninterrupted_one(
    toys, toy_batches, trainer, resumable, stop_at, parameters, same, tmp_path, average
):
    file, batches = tmp_path / "middle.ckpt", toy_batches(4, size=16)

    def run(*callbacks, resume=None):
        module = FlowMatching(*copy.deepcopy(toys), warmup_steps=2)
        fit = trainer(max_steps=6, callbacks=[EMA(0.8, precision=average), *callbacks])
        fit.fit(module, resumable(batches), ckpt_path=resume, weights_only=True)
        return parameters(module)

    whole, stopped = run(), run(stop_at(3, file))
    assert same(whole, run(resume=file))
    assert not same(whole, stopped)
    saved = torch.load(file, weights_only=True)
    assert saved["state_dict"][NAME].dtype == getattr(torch, average)
    assert not torch.equal(saved["state_dict"][NAME].float(), saved["current_model_state"][NAME])


class Break(Callback):
    def on_validation_batch_start(self, *_):
        raise KeyError("broken")


class SaveInValidation(Callback):
    def __init__(self, path):
        self.path = path

    def on_validation_batch_start(self, trainer, *_):
        trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_checkpoint_saved_in_validation_tells_weights_and_average_apart(
    toys, toy_batches, trainer, loader, tmp_path, precision
):
    save = SaveInValidation(tmp_path / "in.ckpt")
    _, watch = run(toys, trainer, loader, toy_batches(4), average=precision, callbacks=[save], val_check_interval=4)
    saved = torch.load(tmp_path / "in.ckpt", weights_only=True)
    assert torch.equal(saved["current_model_state"][NAME], watch.trained[3])
    assert torch.equal(saved["state_dict"][NAME], watch.averages[3])
    assert saved["state_dict"][NAME].dtype == getattr(torch, precision)
    assert not torch.equal(watch.trained[3], watch.averages[3].float())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_error_in_validation_leaves_weights_and_average_apart(toys, toy_batches, trainer, loader, precision):
    average = EMA(0.8, precision=precision)
    watch = Watch(average)
    module = FlowMatching(*toys, optimizer=partial(SGD, lr=0.5), warmup_steps=0)
    fit = trainer(max_steps=4, callbacks=[average, watch, Break()], val_check_interval=2, num_sanity_val_steps=0)
    with pytest.raises(KeyError, match="broken"):
        fit.fit(module, loader(toy_batches(4)), loader(toy_batches(1)))
    assert torch.equal(watch.weight(module), watch.trained[1])
    assert torch.equal(watch.weight(average._average_model.module), watch.averages[1])


class Look(Callback):
    def on_train_batch_end(self, trainer, module, *_):
        self.before = module.backbone.layers[0].weight.detach().clone()
        with averaged(trainer, module):
            self.inside = module.backbone.layers[0].weight.detach().clone()
        self.after = module.backbone.layers[0].weight.detach().clone()


def test_a_callback_may_look_at_the_average(toys, toy_batches, trainer, loader):
    look = Look()
    _, watch = run(toys, trainer, loader, toy_batches(4), callbacks=[look])
    assert torch.equal(look.inside, watch.averages[-1])
    assert torch.equal(look.before, look.after)
    assert not torch.equal(look.before, look.inside)
    trainer(max_steps=1, callbacks=[look]).fit(FlowMatching(*toys), loader(toy_batches(1)))  # nothing is averaged
    assert torch.equal(look.before, look.inside)


class Loads(Callback):
    """Gives a module the weights of another training, when all callbacks are set up."""

    def on_fit_start(self, trainer, module):
        torch.nn.init.constant_(module.backbone.layers[0].weight, 3.0)


class LooksFirst(Callback):
    """Looks at the average before the first step, and at what a checkpoint would hold of it in that step."""

    def on_train_start(self, trainer, module):
        with averaged(trainer, module):
            self.seen = module.backbone.layers[0].weight.detach().clone()

    def on_train_batch_start(self, trainer, module, *_):
        average = next(one for one in trainer.callbacks if isinstance(one, EMA))
        self.held = average._average_model.module.backbone.layers[0].weight.detach().clone()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("first", [True, False])
def test_the_average_begins_with_what_was_loaded(toys, toy_batches, trainer, loader, precision, first):
    average, look = EMA(0.8, precision), LooksFirst()
    callbacks = [look, average] if first else [average, look]
    fit = trainer(max_steps=1, callbacks=[*callbacks, Loads()])
    fit.fit(FlowMatching(*toys), loader(toy_batches(1)))
    assert look.seen.eq(3).all()
    assert look.held.eq(3).all()


def test_a_resumed_run_keeps_the_average_it_had(toys, toy_batches, trainer, resumable, stop_at, tmp_path):
    def run(*callbacks, resume=None):
        module = FlowMatching(*copy.deepcopy(toys), optimizer=partial(SGD, lr=0.5), warmup_steps=0)
        average = EMA(0.8, update_every_n_steps=5)
        fit = trainer(max_steps=4, callbacks=[average, *callbacks])
        fit.fit(module, resumable(toy_batches(4)), ckpt_path=resume, weights_only=True)
        return module.backbone.layers[0].weight

    file = tmp_path / "middle.ckpt"
    run(stop_at(2, file))
    assert torch.equal(run(resume=file), run())


class Counting(Callback):
    def on_train_batch_start(self, trainer, module, *_):
        module.backbone.calls.add_(7)


def test_buffers_are_copied(toys, toy_batches, trainer, loader):
    toys[0].register_buffer("calls", torch.tensor(0))
    _, watch = run(toys, trainer, loader, toy_batches(3), callbacks=[Counting()], max_steps=3)
    assert watch.average._average_model.module.backbone.calls == 21


def test_what_is_frozen_is_neither_copied_nor_saved(toys, toy_batches, trainer, loader, toy_autoencoder, tmp_path):
    average = EMA(0.8)
    module = FlowMatching(*toys, toy_autoencoder, freeze_text_encoder=True)
    fit = trainer(max_steps=1, callbacks=[average])
    fit.fit(module, loader(toy_batches(1)))
    copied = average._average_model.module
    assert copied.autoencoder.model is toy_autoencoder
    assert copied.text_encoder.model is toys[1]
    assert len(list(copied.parameters())) == len(list(toys[0].parameters()))
