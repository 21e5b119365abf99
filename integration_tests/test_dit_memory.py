"""The transformer in 8 bits, its blocks offloaded and recomputed: what hy-dit offers fits what hy-parallel takes."""

import copy
import dataclasses

import pytest
import torch
from hy_dit import LORA_TARGETS, DiT, DiTConfig, DiTParallelPlan, quantize_
from hy_parallel import BlockOffload, recompute_blocks
from hy_plugins import TextTokens
from hy_weights import insert_lora, merge_loras, new_lora, set_lora_strength

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


def test_what_is_done_to_an_offloaded_model_stays(dit, inputs):
    """A LoRA merged and unmerged, one whose strength is set, weights loaded: as without offloading, at any moment."""
    dit.requires_grad_(False)
    plain = copy.deepcopy(dit)
    BlockOffload(dit, BLOCKS, "cpu")
    lora = new_lora(plain, LORA_TARGETS, rank=2)
    for factors in lora.layers.values():
        torch.nn.init.normal_(factors.up, std=0.2)
    with torch.no_grad():
        before = plain(*inputs)
        torch.testing.assert_close(dit(*inputs), before)
        with merge_loras(plain, [(lora, 1.0)]), merge_loras(dit, [(lora, 1.0)]):
            merged = plain(*inputs)
            assert (merged - before).abs().max() > 1e-3
            for _ in range(2):
                torch.testing.assert_close(dit(*inputs), merged)
        torch.testing.assert_close(dit(*inputs), before)
        smaller = {key: value * 0.9 for key, value in plain.state_dict().items()}
        for model in (plain, dit):
            model.load_state_dict(smaller)
        for _ in range(2):
            torch.testing.assert_close(dit(*inputs), plain(*inputs))


def test_the_strength_of_an_adapter_in_an_offloaded_model_is_heard(dit, inputs):
    dit.requires_grad_(False)
    lora = new_lora(dit, LORA_TARGETS, rank=2)
    for factors in lora.layers.values():
        torch.nn.init.normal_(factors.up, std=0.2)
    with torch.no_grad():
        before = dit(*inputs)
        insert_lora(dit, lora, "mine")
        BlockOffload(dit, BLOCKS, "cpu")
        assert (dit(*inputs) - before).abs().max() > 1e-3
        set_lora_strength(dit, "mine", 0.0)
        for _ in range(2):
            torch.testing.assert_close(dit(*inputs), before)
