"""All weights train, and small steps are kept."""

from dataclasses import asdict

import pytest
import torch
from hy_dit import load_dit
from hy_dit.quantize import quantize_
from hy_weights import write_model
from hyvideo_finetune import FinetuneError, trainable_dit


def changed_by_a_step(dit):
    """Share of a layer's weights that a step at the recipes' learning rate changes."""
    weight = dit.single_blocks[0].linear1.weight
    before = weight.detach().clone()
    weight.grad = torch.ones_like(weight)
    torch.optim.AdamW([weight], lr=1e-5, weight_decay=0).step()
    return (weight != before).float().mean()


def test_small_steps_on_a_base_of_bfloat16_are_kept(bfloat16_checkpoint):
    path = str(bfloat16_checkpoint / "dit")
    dit = trainable_dit(path)
    assert all(one.requires_grad and one.dtype == torch.float32 for one in dit.parameters())
    assert changed_by_a_step(dit) == 1
    assert changed_by_a_step(trainable_dit(path, "bfloat16")) < 0.1, "which is why float32 is the default"


def test_a_base_of_few_bits_is_refused(checkpoint, tmp_path):
    dit = load_dit(checkpoint / "dit")
    quantize_(dit, "int8")
    write_model(tmp_path / "int8", dit.state_dict(), asdict(dit.config))
    with pytest.raises(FinetuneError, match=r"int8: double_blocks\.0\.\w+.* are stored in few bits"):
        trainable_dit(str(tmp_path / "int8"))
