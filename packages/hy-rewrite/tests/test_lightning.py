"""Fine-tuning: what is trained, on which tokens, and that it goes on where it was."""

import json
import shutil
from typing import ClassVar

import pytest
import torch
from hy_rewrite import Pair, RewriteError, local_rewriter
from hy_rewrite.dialogue import answer_text, rewriting
from hy_rewrite.lightning import PairsData, PublishAdapter, RewriterTraining
from hy_rewrite.local import LocalChat, rendered
from hy_weights import CheckpointError, verify
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import AdamW

COLOURS = "red blue green white black brown pink grey".split()


def optimizer(parameters):
    return AdamW(parameters, lr=1e-2)


def pair(colour):
    fields = {"short": f"A {colour} fox.", "dense": f"A {colour} fox runs."}
    return Pair(prompt=f"{colour} fox", fields=fields, mode="normal", language="English")


@pytest.fixture
def file(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("".join(pair(colour).line() for colour in COLOURS))
    return str(tmp_path / "pairs.jsonl")


def training(model, **options):
    torch.manual_seed(0)
    return RewriterTraining(str(model), **{"rank": 4, "optimizer": optimizer, "warmup_steps": 2, **options})


def fit(module, data, steps, *callbacks, resume=None, **options):
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )
    trainer.fit(module, data, ckpt_path=resume)
    return trainer


class Losses(Callback):
    def __init__(self):
        self.seen, self.batches = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(outputs["loss"].item())
        self.batches.append([one.prompt for one in batch])


def test_only_the_answer_and_its_end_are_learned(model):
    module = training(model)
    pairs = [pair("red"), pair("turquoise")]
    tokens = module.tokens(pairs)
    assert tokens.ids_BS.shape == tokens.mask_BS.shape == tokens.labels_BS.shape
    for row, one in enumerate(pairs):
        labels = tokens.labels_BS[row]
        learned = labels[labels != -100]
        assert module.tokenizer.decode(learned) == answer_text(one.fields) + "<|end|>"
        whole = tokens.ids_BS[row, tokens.mask_BS[row]]
        dialogue = rendered(module.tokenizer, rewriting(one.prompt, "normal", "English", 1200, with_examples=False))
        assert module.tokenizer.decode(whole) == dialogue + answer_text(one.fields) + "<|end|>"
        assert torch.equal(whole[-len(learned) :], learned)
    assert not tokens.mask_BS[0].all(), "the shorter one has padding"
    assert tokens.mask_BS[1].all()


def test_the_loss_is_the_cross_entropy_of_those_tokens(model):
    module = training(model).eval()
    tokens = module.tokens([pair("red"), pair("turquoise")])
    logits = module.model(input_ids=tokens.ids_BS, attention_mask=tokens.mask_BS.long()).logits
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens.labels_BS[:, 1:].flatten())
    torch.testing.assert_close(module.loss(tokens), expected)
    alone = [module.loss(module.tokens([pair(colour)])) for colour in ("red", "turquoise")]
    counts = (tokens.labels_BS[:, 1:] != -100).sum(1)
    torch.testing.assert_close(expected, (alone[0] * counts[0] + alone[1] * counts[1]) / counts.sum())


def test_it_learns_and_only_the_adapter_changes(model, file):
    module, losses = training(model), Losses()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fit(module, PairsData(file, batch_size=4), 12, losses)
    assert sum(losses.seen[-3:]) < 0.8 * sum(losses.seen[:3])
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert changed == trained
    assert trained
    assert all(".lora_" in name for name in trained)


def test_the_learning_rate_rises_and_stays(model, file):
    class Rates(Callback):
        seen: ClassVar[list[float]] = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    fit(training(model, warmup_steps=4), PairsData(file, batch_size=4), 6, Rates())
    assert Rates.seen == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])


def test_checkpoints_hold_the_adapter_alone(model, file, tmp_path):
    fit(training(model), PairsData(file), 1, ModelCheckpoint(tmp_path / "c", save_last=True))
    held = torch.load(tmp_path / "c" / "last.ckpt", weights_only=True)["state_dict"]
    assert held
    assert all("lora_" in name for name in held)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_ends_in_the_same_weights(model, file, tmp_path, stop):
    """Two batches an epoch: it stops within one, at an end, and within the next."""
    data = {"batch_size": 4, "seed": 3}
    straight, whole = training(model), Losses()
    fit(straight, PairsData(file, **data), 6, whole)
    keep = ModelCheckpoint(tmp_path / "c", every_n_train_steps=stop, save_top_k=-1, filename="{step}")
    fit(training(model), PairsData(file, **data), stop, keep)
    resumed, rest = training(model), Losses()
    fit(resumed, PairsData(file, **data), 6, rest, resume=str(tmp_path / "c" / f"step={stop}.ckpt"))
    assert rest.batches == whole.batches[stop:]
    assert rest.seen == whole.seen[stop:]
    for (name, one), other in zip(straight.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_an_adapter_comes_back_as_it_was(model, file, tmp_path):
    module = training(model)
    fit(module, PairsData(file, batch_size=4), 6, PublishAdapter(str(tmp_path / "a")))
    verify(tmp_path / "a")
    assert {one.name for one in (tmp_path / "a").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    }
    chat = LocalChat(str(model), adapter=str(tmp_path / "a"), device="cpu")
    ids = module.tokens([pair("red")]).ids_BS
    with torch.no_grad():
        own, read = module.eval().model(ids).logits, chat.model(ids).logits
        base = LocalChat(str(model), device="cpu").model(ids).logits
    torch.testing.assert_close(read, own, rtol=0, atol=0)
    assert not torch.allclose(base, own, atol=1e-3)


def test_a_fine_tuned_rewriter_is_asked_what_it_was_trained_on(model, file, tmp_path):
    fit(training(model), PairsData(file), 1, PublishAdapter(str(tmp_path / "a")))
    rewriter = local_rewriter(model=str(model), adapter=str(tmp_path / "a"), device="cpu", max_new_tokens=4)
    asked = []
    rewriter.chat.answer = lambda messages: asked.append(messages) or "x"
    rewriter.draft("red fox")
    assert asked == [rewriting("red fox", "normal", "English", 1200, with_examples=False)]
    assert str(tmp_path / "a") in rewriter.chat.name


def test_a_rewriter_learns_its_pairs_by_heart(model, file, tmp_path):
    """The whole way: after some steps the tiny model answers with the fields that it was shown."""
    (tmp_path / "one.jsonl").write_text(pair("red").line())
    module = training(model, rank=16, warmup_steps=1)
    fit(module, PairsData(str(tmp_path / "one.jsonl"), batch_size=1), 20, PublishAdapter(str(tmp_path / "a")))
    rewriter = local_rewriter(model=str(model), adapter=str(tmp_path / "a"), device="cpu", rounds=0)
    assert rewriter.explain("red fox").fields == pair("red").fields


def test_each_epoch_has_every_pair_in_an_order_of_its_own(model, file):
    losses = Losses()
    fit(training(model), PairsData(file, batch_size=4), 6, losses)
    epochs = [losses.batches[start] + losses.batches[start + 1] for start in (0, 2, 4)]
    assert all(sorted(epoch) == sorted(f"{colour} fox" for colour in COLOURS) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_held_out_pairs_are_validated_on_only(model, file):
    losses, data = Losses(), PairsData(file, held_out=2, batch_size=3)
    trainer = fit(training(model), data, 4, losses)
    assert not {"pink fox", "grey fox"} & {prompt for batch in losses.batches for prompt in batch}
    assert [one.prompt for one in next(iter(data.val_dataloader()))] == ["pink fox", "grey fox"]
    assert trainer.callback_metrics["val/loss"] > 0


def test_long_pairs_are_left_out_and_counted(model, file):
    length = training(model).tokens([pair("red")]).ids_BS.shape[1]
    module = training(model, max_tokens=length)
    assert len(module.tokens([pair("red"), pair("turquoise")]).ids_BS) == 1
    assert module.tokens([pair("turquoise")]) is None
    module = training(model, max_tokens=10)
    trainer = fit(module, PairsData(file, batch_size=4), 1, max_epochs=1)
    assert trainer.callback_metrics["train/left_out"] == 4


def test_recomputing_changes_no_gradient(model):
    gradients = []
    for checkpointing in (False, True):
        module = training(model, checkpointing=checkpointing).train()
        module.loss(module.tokens([pair("red")])).backward()
        gradients.append([one.grad for one in module.parameters() if one.requires_grad])
        assert all(gradient is not None for gradient in gradients[-1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_bfloat16_base_has_a_float32_adapter(model, file):
    module = training(model, dtype="bfloat16")
    assert {one.dtype for one in module.parameters() if one.requires_grad} == {torch.float32}
    assert {one.dtype for one in module.parameters() if not one.requires_grad} == {torch.bfloat16}
    fit(module, PairsData(file), 1, precision="bf16-mixed")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank is 0; it must be at least 1"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"layers": ["nowhere"]}, "Target modules"),
    ],
)
def test_settings_that_make_no_sense_are_refused(model, options, message):
    with pytest.raises(RewriteError, match=message):
        training(model, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"held_out": -1}, "held_out is -1"),
        ({"held_out": 8, "batch_size": 1}, "8 pairs, 8 of them held out, are no batch of 1"),
        ({"batch_size": 9}, "are no batch of 9"),
    ],
)
def test_data_that_makes_no_sense_is_refused(file, options, message):
    with pytest.raises(RewriteError, match=message):
        PairsData(file, **options)


def test_a_pair_without_its_fields_is_refused(tmp_path):
    line = json.loads(pair("red").line())
    line["fields"].pop("dense")
    (tmp_path / "p.jsonl").write_text(json.dumps(line))
    with pytest.raises(RewriteError, match="the rewrite of 'red fox' lacks one of short, dense"):
        PairsData(str(tmp_path / "p.jsonl"), batch_size=1)


def test_another_adapters_checkpoint_is_refused(model, file, tmp_path):
    fit(training(model), PairsData(file), 1, ModelCheckpoint(tmp_path / "c", save_last=True))
    with pytest.raises(RewriteError, match="the checkpoint's LoRA is not this model's"):
        fit(training(model, rank=2), PairsData(file), 2, resume=str(tmp_path / "c" / "last.ckpt"))


def test_publishing_refuses_before_the_training(model, file, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("mine")
    losses = Losses()
    with pytest.raises(CheckpointError, match="never overwritten"):
        fit(training(model), PairsData(file), 1, PublishAdapter(str(tmp_path / "a")), losses)
    assert not losses.seen
    with pytest.raises(RewriteError, match="LightningModule has no adapter"):
        PublishAdapter("x").setup(Trainer(accelerator="cpu", logger=False), LightningModule(), "fit")


def test_an_adapter_of_another_model_is_refused(model, file, tmp_path):
    fit(training(model), PairsData(file), 1, PublishAdapter(str(tmp_path / "a")))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    config = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
    (tmp_path / "b" / "adapter_config.json").write_text(json.dumps(config | {"r": 7}))
    with pytest.raises(RewriteError, match="b: doesn't fit the model"):
        LocalChat(str(model), adapter=str(tmp_path / "b"), device="cpu")
