"""The transformer in 8 bits, its blocks offloaded and recomputed: what hy-dit offers fits what hy-parallel takes."""

import dataclasses

import pytest
import torch
from hy_dit import DiT, DiTConfig, DiTParallelPlan, quantize_
from hy_parallel import BlockOffload, recompute_blocks
from hy_plugins import TextTokens

BLOCKS = DiTParallelPlan().blocks


@pytest.fixture
def dit():
    torch.manual_seed(0)
    config = dataclasses.replace(
        DiTConfig.preset("tiny"), width=64, heads=2, rope_axes=(8, 12, 12), double_blocks=2, single_blocks=3
    )
    dit = DiT(config)
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.normal_(std=0.1)
    return dit


@pytest.fixture
def inputs(dit):
    config = dit.config
    mask_BS = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    text = TextTokens(torch.randn(2, 5, config.text_width), mask_BS, torch.randn(2, config.pooled_width))
    return torch.randn(2, config.in_channels, 2, 4, 6), torch.tensor([900.0, 100.0]), text


@pytest.mark.parametrize("scheme", [None, "fp8", "int8"])
@pytest.mark.parametrize("resident", [0, 2])
def test_offloading_changes_no_output(dit, inputs, scheme, resident):
    if scheme:
        quantize_(dit, scheme)
    dit.requires_grad_(False)
    with torch.inference_mode():
        expected = dit(*inputs)
        offload = BlockOffload(dit, BLOCKS, "cpu", resident=resident)
        for _ in range(2):
            assert torch.equal(dit(*inputs), expected)
    everything = sum(tensor.nbytes for tensor in dit.state_dict().values())
    assert offload.device_bytes < everything <= offload.device_bytes + offload.host_bytes


def test_training_around_an_offloaded_fp8_model(dit, inputs):
    quantize_(dit, "fp8")
    dit.requires_grad_(False)
    dit.img_in.requires_grad_(True)
    gradients = []
    for offloaded in (False, True):
        if offloaded:
            recompute_blocks(dit, BLOCKS)
            BlockOffload(dit, BLOCKS, "cpu")
        dit.zero_grad()
        dit(*inputs).square().mean().backward()
        gradients.append(dit.img_in.proj.weight.grad.clone())
    assert gradients[0].abs().sum() > 0
    assert torch.equal(gradients[0], gradients[1])
