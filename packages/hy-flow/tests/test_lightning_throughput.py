"""Throughput: what is counted, and what the clock leaves out."""

import copy
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("lightning", reason="training is the extra hy-flow[train]")
from hy_flow.lightning import FlowMatching, Throughput
from hy_flow.lightning.throughput import CountedOperations
from lightning.pytorch.callbacks import Callback

pytestmark = pytest.mark.filterwarnings(
    "ignore:.isinstance.treespec",
    "ignore:The .*dataloader.* does not have many workers",
    "ignore:You defined a .validation_step. but have no",
)


def counted(function):
    with CountedOperations() as operations:
        function()
    return operations.total


def test_a_matrix_product_is_counted_forwards_and_backwards():
    layer, x = nn.Linear(16, 32), torch.randn(8, 16)
    assert counted(lambda: layer(x)) == 2 * 8 * 16 * 32
    assert counted(lambda: layer(x).sum().backward()) == 2 * 2 * 8 * 16 * 32, "x needs no gradient"
    x.requires_grad_()
    assert counted(lambda: layer(x).sum().backward()) == 3 * 2 * 8 * 16 * 32


@pytest.mark.parametrize("masked", [False, True])
def test_attention_on_the_cpu_is_counted(masked):
    q, k, v = torch.randn(3, 2, 4, 24, 8, requires_grad=True)
    mask = torch.ones(2, 1, 1, 24, dtype=torch.bool) if masked else None
    product = 2 * 2 * 4 * 24 * 24 * 8
    assert counted(lambda: F.scaled_dot_product_attention(q, k, v, mask)) == 2 * product
    both = counted(lambda: F.scaled_dot_product_attention(q, k, v, mask).sum().backward())
    assert both in (6 * product, 7 * product), "the fused backward pass makes the scores again"


def test_a_convolution_is_counted():
    layer = nn.Conv3d(3, 8, (1, 2, 2), stride=(1, 2, 2))
    assert counted(lambda: layer(torch.randn(2, 3, 2, 8, 8))) == 2 * 2 * (2 * 4 * 4) * 8 * 3 * 4


def logged(toys, trainer, loader, batches, kept, *callbacks, count=True, **settings):
    settings = {"max_steps": 4, "log_every_n_steps": 2, "num_sanity_val_steps": 0, **settings}
    fit = trainer(logger=kept, callbacks=[Throughput(count), *callbacks], **settings)
    fit.fit(FlowMatching(*copy.deepcopy(toys)), loader(batches), loader(batches[:1]))
    return fit


def test_samples_tokens_and_operations_are_those_since_the_last_log(
    toys, toy_batches, trainer, loader, kept_logger, monkeypatch
):
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    kept = kept_logger()
    logged(toys, trainer, loader, toy_batches(2, size=8) + toy_batches(2, size=4), kept, limit_val_batches=0)
    assert kept.values("throughput/samples_per_s") == {1: 8, 3: 4}
    assert kept.values("throughput/tokens_per_s") == {1: 8, 3: 4}, "latents of one position"
    rates = kept.values("throughput/flop_per_s")
    layers = 11 * 64 + 64 * 64 + 64 * 2
    backward = layers + 64 * 64 + 64 * 2 + 8 * 64  # to the text's vector, the first layer's only input with gradients
    assert rates[1] == 2 * rates[3]
    assert rates[1] == pytest.approx(8 * 2 * (layers + backward), rel=0.1)


def test_patches_are_tokens(toys, trainer, loader, kept_logger, monkeypatch):
    monkeypatch.setattr(time, "perf_counter", iter(range(100)).__next__)

    class Patched(nn.Module):
        def __init__(self):
            super().__init__()
            self.config = type("Config", (), {"patch": (1, 2, 2)})
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, latent, timestep, text):
            return latent * self.scale

    kept = kept_logger()
    batch = {"latent_BCTHW": torch.randn(3, 2, 5, 4, 6), "captions": ["left"] * 3}
    fit = trainer(logger=kept, max_steps=1, log_every_n_steps=1, callbacks=[Throughput(False)])
    fit.fit(FlowMatching(Patched(), toys[1], freeze_text_encoder=True), loader([batch]))
    assert kept.values("throughput/tokens_per_s") == {0: 3 * 5 * 2 * 3}
    assert kept.values("throughput/flop_per_s") == {}


class Clock(Callback):
    """Goes on by a second in every batch that is trained on, by 100 in one of validation."""

    def __init__(self):
        self.now = 50.0

    def on_train_batch_start(self, *_):
        self.now += 1

    def on_validation_batch_start(self, *_):
        self.now += 100


def test_validation_is_not_on_the_clock_and_all_else_is(toys, toy_batches, trainer, loader, kept_logger, monkeypatch):
    kept, clock = kept_logger(), Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    settings = {"val_check_interval": 1, "max_steps": 4, "num_sanity_val_steps": 1}
    logged(toys, trainer, loader, toy_batches(4, size=8), kept, clock, **settings)
    assert kept.values("throughput/samples_per_s") == {1: 8, 3: 8}


def test_counting_changes_no_number(toys, toy_batches, trainer, loader, parameters, same):
    trained = []
    for callbacks in ([], [Throughput()]):
        module = FlowMatching(*copy.deepcopy(toys))
        trainer(max_steps=3, callbacks=callbacks).fit(module, loader(toy_batches(3)))
        trained.append(parameters(module))
    assert same(*trained)


def test_a_compiled_backbone_is_counted_and_compiled(toys, toy_batches, trainer, loader, monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: torch_compile(function, backend=backend))
    throughput = Throughput()
    fit = trainer(max_steps=3, callbacks=[throughput])
    fit.fit(FlowMatching(*copy.deepcopy(toys), compile=True), loader(toy_batches(3)))
    (compiled,) = throughput._operations.values()
    assert len(graphs) == 1
    plain = Throughput()
    trainer(max_steps=1, callbacks=[plain]).fit(FlowMatching(*toys), loader(toy_batches(1)))
    assert list(plain._operations.values()) == [compiled]


def test_an_error_in_a_counted_batch_ends_the_counting(toys, trainer, loader):
    throughput = Throughput()
    with pytest.raises(ValueError, match="a batch holds"):
        trainer(max_steps=1, callbacks=[throughput]).fit(FlowMatching(*toys), loader([{"captions": [""]}]))
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()
