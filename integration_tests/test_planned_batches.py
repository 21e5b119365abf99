"""What `hyvideo plan batches` foretells is what a training holds: weights, moments, average, gradients, activations.

Every tensor that a real training makes is counted, by the calls that make it.

Shapes: B batch, C channels, T H W frames, height, width, S text tokens, D width.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from hy_dit import DiT, DiTConfig
from hy_flow.lightning import EMA, FlowMatching
from hy_plugins import TextTokens
from hy_weights.tracker import Tracker
from hyvideo_plan.batches import StepMemory
from hyvideo_plan.recipe import read_recipe
from lightning import Trainer
from torch import nn
from torch.optim import AdamW

CONFIG = DiTConfig(
    in_channels=4,
    out_channels=4,
    width=128,
    heads=2,
    mlp_ratio=4.0,
    double_blocks=2,
    single_blocks=4,
    rope_axes=(16, 24, 24),
    rope_theta=256.0,
    patch=(1, 2, 2),
    text_width=32,
    pooled_width=16,
    guidance_embed=False,
)
TOKENS = 64  # of an image of 128x128 pixels
TEXT = 256  # what is planned for


class Table(nn.Module):
    """An encoder of many weights and little work: one row for all tokens of any caption."""

    def __init__(self, rows: int = 30_000) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, 48)

    def encode(self, prompts: Sequence[str]) -> TextTokens:
        row_BD = self.table(torch.zeros(len(prompts), dtype=torch.int64))
        tokens_BSD = row_BD[:, None, :32].expand(-1, TEXT, -1)
        return TextTokens(tokens_BSD, torch.ones(len(prompts), TEXT, dtype=torch.bool), row_BD[:, 32:])


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """What a step is foretold to hold, in bytes, by batch, number format, format of the average and encoder."""
    monkeypatch.setitem(sys.modules, "encoders", module := ModuleType("encoders"))
    monkeypatch.setattr(module, "Table", Table, raising=False)
    Table.__module__ = "encoders"

    def plan(batch, precision, average, frozen):
        stages = [{"name": "images", "buckets": [[1, 128, 128]], "batch_size": batch}]
        model = {
            "backbone": {"class_path": "hy_dit.DiT", "init_args": {"config": asdict(CONFIG)}},
            "text_encoder": {"class_path": "encoders.Table"},
            "freeze_text_encoder": frozen,
        }
        ema = {"class_path": "hy_flow.lightning.EMA", "init_args": {"precision": average}}
        recipe = {
            "model": {"class_path": "hy_flow.lightning.FlowMatching", "init_args": model},
            "data": {"class_path": "a.B", "init_args": {"stages": stages, "latents": {"class_path": "a.C"}}},
            "trainer": {"accelerator": "cpu", "precision": precision, "callbacks": [ema]},
        }
        (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
        return StepMemory(read_recipe(tmp_path / "recipe.yaml"), TOKENS).total(batch, TOKENS)

    return plan


def held(batch, precision, average, frozen):
    """The most that a training held, validation included."""
    torch.manual_seed(0)
    dit, encoder = DiT(CONFIG), Table()
    module = FlowMatching(dit, encoder, optimizer=partial(AdamW, lr=1e-3, fused=True), freeze_text_encoder=frozen)
    latent_BCTHW = torch.randn(batch, 4, 1, 16, 16)
    batches: Any = [{"latent_BCTHW": latent_BCTHW, "captions": ["a"] * batch}] * 4
    trainer = Trainer(
        accelerator="cpu",
        precision=precision,
        max_steps=4,
        val_check_interval=2,
        callbacks=[EMA(precision=average)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trained, shown = (torch.utils.data.DataLoader(some, batch_size=None) for some in (batches, batches[:1]))
    weights = [*dit.parameters(), *encoder.parameters()]
    with Tracker([*weights, latent_BCTHW]) as tracker:
        trainer.fit(module, trained, shown)
    return sum(weight.nbytes for weight in weights) + max(map(sum, tracker.history))


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.isinstance.treespec")
@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("precision", "average"), [("bf16-mixed", "float32"), ("bf16-mixed", "bfloat16"), ("32-true", "float32")]
)
def test_a_training_holds_what_was_planned(planned, precision, average, frozen, batch):
    assert planned(batch, precision, average, frozen) == pytest.approx(held(batch, precision, average, frozen), rel=0.1)
