"""What a device holds besides a step of the transformer: text encoder, DDP's buckets, weights kept aside."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from hy_plugins import TextTokens
from hyvideo_plan.batches import StepMemory
from hyvideo_plan.cli import main
from hyvideo_plan.encoder import Encoder
from hyvideo_plan.errors import PlanError
from hyvideo_plan.estimate import at_least, training_step
from hyvideo_plan.measure import count_weights
from hyvideo_plan.recipe import read_recipe
from hyvideo_plan.setup import Setup
from hyvideo_plan.video import Video

IMAGE = Video(width=128, height=128, frames=1)
EMA = {"class_path": "hy_flow.lightning.EMA"}


class Table(torch.nn.Module):
    """100,000 weights that are trained, and 10 that are not."""

    def __init__(self, rows: int = 10_000) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(rows, 10)
        self.fixed = torch.nn.Parameter(torch.zeros(10, dtype=torch.float64), requires_grad=False)

    def encode(self, prompts: Sequence[str]) -> TextTokens:
        raise NotImplementedError


class Later(torch.nn.Module):
    """Reads its weights when it first encodes."""

    def __init__(self, path: str) -> None:
        super().__init__()

    def encode(self, prompts: Sequence[str]) -> TextTokens:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def encoders(monkeypatch):
    module = ModuleType("encoders")
    for one in (Table, Later):
        monkeypatch.setattr(one, "__module__", "encoders")
        setattr(module, one.__name__, one)
    monkeypatch.setitem(sys.modules, "encoders", module)


def named(class_path, frozen=False, **init_args):
    return {
        "text_encoder": {"class_path": class_path, "init_args": init_args},
        "freeze_text_encoder": frozen,
    }


def read(recipe, encoder=None, **trainer):
    return read_recipe(recipe(encoder=encoder, trainer=trainer))


def total(found, batch=64):
    return StepMemory(found, IMAGE.tokens).total(batch, IMAGE.tokens)


def test_a_trained_encoder_counts_with_all_that_belongs_to_its_weights(recipe):
    plain, found = read(recipe), read(recipe, named("encoders.Table"))
    assert found.encoder == Encoder(resident=80, trained=100_000)
    assert "only its weights and what belongs to them" in found.notes[0]
    assert total(found) - total(plain) == 80 + 100_000 * 4 * 3, "weights and moments: its gradients come after the peak"
    huge = replace(found, encoder=replace(found.encoder, trained=10**9))
    assert total(huge, 1) - total(plain, 1) == pytest.approx(10**9 * 4 * 4, rel=0.01), "at the end, its gradients too"
    averaged = read(recipe, named("encoders.Table"), callbacks=[EMA])
    assert total(averaged) - total(read(recipe, callbacks=[EMA])) == 80 + 100_000 * 4 * 4
    narrow = read(recipe, named("encoders.Table"), precision="bf16-true")
    assert total(narrow) - total(read(recipe, precision="bf16-true")) == 80 + 100_000 * 2 * 3


def test_a_frozen_encoder_counts_with_its_weights(recipe):
    found = read(recipe, named("encoders.Table", frozen=True, rows=20_000))
    assert found.encoder == Encoder(resident=20_000 * 10 * 4 + 80)
    assert total(found) - total(read(recipe)) == found.encoder.resident


def test_one_that_reads_its_weights_later_counts_with_its_files(recipe, tmp_path):
    (tmp_path / "pipeline/text_encoder").mkdir(parents=True)
    (tmp_path / "pipeline/text_encoder/model.safetensors").write_bytes(bytes(1000))
    (tmp_path / "pipeline/text_encoder_2").mkdir()
    (tmp_path / "pipeline/text_encoder_2/model.safetensors").write_bytes(bytes(500))
    assert read(recipe, named("encoders.Later", path="pipeline")).encoder == Encoder(resident=1500)
    found = read(recipe, named("encoders.Later", path="pipeline/text_encoder"))
    assert found.encoder == Encoder(resident=1000)
    assert "as they are stored" in found.notes[0]
    found = read(recipe, named("encoders.Later", path="nowhere"))
    assert (found.encoder, found.notes) == (
        Encoder(),
        ("the text encoder is not counted: nowhere holds no weights that it could have",),
    )


def test_one_that_reads_states_has_no_weights_on_the_device(recipe, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    cached = "hy_textenc.load_cached_text_encoder"
    for settings in ({}, {"missing": "error", "device": "cuda"}, {"missing": "encode"}):
        found = read(recipe, named(cached, path=".", store="s", **settings))
        assert (found.encoder, found.notes) == (Encoder(), ())
    assert read(recipe, named(cached, path=".", missing="encode", device="cuda")).encoder == Encoder(resident=1000)


@pytest.mark.parametrize(
    "encoder", [named("encoders.Nothing"), named("nowhere.Encoder"), named("encoders.Table", row=1)]
)
def test_one_that_can_not_be_built_is_said_not_to_be_counted(recipe, encoder):
    found = read(recipe, encoder)
    assert found.encoder == Encoder()
    assert "the text encoder is not counted: " in found.notes[0]


@pytest.mark.parametrize(
    ("trainer", "devices"),
    [
        ({"devices": 1}, 1),
        ({"devices": "1", "num_nodes": 3}, 3),
        ({"devices": 4, "num_nodes": 2}, 8),
        ({"devices": [0, 2]}, 2),
        ({"devices": "0,1,3"}, 3),
        ({"devices": "auto"}, 2),
        ({"devices": -1}, 2),
        ({"devices": "auto", "accelerator": "cpu"}, 1),
    ],
    ids=str,
)
def test_devices_are_counted_as_the_trainer_takes_them(recipe, trainer, devices):
    found = read(recipe, **trainer)
    assert found.setup.devices == devices
    assert bool(found.notes) == (trainer["devices"] in ("auto", -1) and "accelerator" not in trainer)


@pytest.mark.parametrize("trainer", [{"devices": "two"}, {"devices": 2, "num_nodes": [1]}], ids=str)
def test_devices_that_are_no_number_are_refused(recipe, trainer):
    with pytest.raises(PlanError, match=r"trainer\.(devices|num_nodes) is .*; planned are a number"):
        read(recipe, **trainer)


def test_several_devices_hold_their_gradients_a_second_time(recipe):
    one, two = read(recipe), read(recipe, devices=2)
    weights = count_weights(one.model.dit).total
    assert total(two) - total(one) == 4 * weights
    both = read(recipe, named("encoders.Table"), devices=2)
    assert total(both) - total(two) == 80 + 100_000 * 4 * 4
    strategy = {"class_path": "lightning.pytorch.strategies.DDPStrategy"}
    viewed = read(recipe, devices=2, strategy=strategy | {"init_args": {"gradient_as_bucket_view": True}})
    assert viewed.bucket_views
    assert total(one) < total(viewed) <= total(two)
    huge = [replace(found, encoder=Encoder(trained=10**9)) for found in (one, two, viewed)]
    assert [total(found, 1) for found in huge] == pytest.approx([16e9, 20e9, 16e9], rel=0.01)
    assert not read(recipe, devices=2, strategy=strategy).bucket_views
    assert "as if every device held all weights" in read(recipe, strategy="fsdp").notes[0]


def test_a_plan_of_a_training_on_several_devices_has_the_buckets_too(model):
    one, two = (Setup(task="train", precision="mixed", devices=devices) for devices in (1, 2))
    steps = [training_step(model, IMAGE, setup) for setup in (one, two)]
    weights = count_weights(model.dit).total
    assert [step.buckets for step in steps] == [0, 4 * weights]
    assert steps[1].total - steps[0].total == 4 * weights
    assert at_least(model, two) - at_least(model, one) == 4 * weights
    assert training_step(model, IMAGE, replace(two, sharded=True)).buckets == 0
    adapters = training_step(model, IMAGE, replace(two, lora_rank=2))
    assert adapters.buckets * 2 == adapters.optimizer


@pytest.mark.parametrize(
    ("precision", "average", "kept"),
    [
        ("bf16-mixed", "bfloat16", 4),
        ("bf16-true", "float32", 2),
        ("bf16-mixed", "float32", 0),
        ("bf16-true", "bfloat16", 0),
    ],
)
def test_weights_that_a_validation_keeps_aside_count_where_they_are_most(recipe, precision, average, kept):
    found = read(recipe, precision=precision, callbacks=[EMA | {"init_args": {"precision": average}}])
    assert found.setup.swapped_bytes == kept
    weights = count_weights(found.model.dit).total
    step = training_step(found.model, IMAGE, replace(found.setup, batch=1))
    assert total(found, 1) >= step.weights + step.optimizer + kept * weights
    elsewhere = read(recipe, precision=precision, callbacks=[EMA | {"init_args": {"device": "cpu"}}])
    assert elsewhere.setup.swapped_bytes == 0


def test_a_validation_may_be_what_holds_most(recipe):
    """With a trained encoder's average in bfloat16, whose weights are kept aside while none has a gradient."""
    average = EMA | {"init_args": {"precision": "bfloat16"}}
    found = read(recipe, named("encoders.Table"), callbacks=[average])
    huge = replace(found, encoder=Encoder(trained=10**9), bucket_views=True)
    assert total(huge, 1) == pytest.approx(10**9 * (4 + 8 + 2 + 4), rel=0.01)


def test_the_command_says_what_is_counted(recipe, capsys):
    file = recipe(encoder=named("encoders.Table"), trainer={"devices": 2})
    assert main(["batches", "--config", str(file), "--memory", "1GB"]) == 0
    assert "mixed, DDP, a text encoder; the largest batches in" in capsys.readouterr().out
