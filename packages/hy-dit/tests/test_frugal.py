"""What saves memory changes no number, whatever was done to the layers."""

import copy

import pytest
import torch
from hy_dit import LORA_TARGETS, DiT, frugal, load_lora, quantize_, save_lora
from hy_dit.testing import CONFIG
from hy_plugins import TextTokens
from hy_weights import insert_lora, inserted_lora, lora_parameters, new_lora, set_lora_strength
from torch import nn


@pytest.fixture
def inputs():
    text = TextTokens(torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.bool), torch.randn(1, 8))
    return torch.randn(1, 4, 2, 8, 8), torch.tensor([500.0]), text


@pytest.fixture
def adapted():
    """A backbone with a LoRA that does something, in training mode."""
    dit = DiT(CONFIG)
    with torch.no_grad():
        for weight in dit.parameters():
            weight.normal_(std=0.2)
    dit.requires_grad_(False)
    insert_lora(dit, new_lora(dit, LORA_TARGETS, rank=4), "mine", dropout=0.3)
    with torch.no_grad():
        for weight in lora_parameters(dit, "mine"):
            weight.normal_(std=0.3)
    return dit.train()


def gradients(dit, inputs, worth, monkeypatch, between=lambda: None):
    monkeypatch.setattr(frugal, "_WORTH", worth)
    dit.zero_grad()
    torch.manual_seed(1)
    velocity_BCTHW = dit(*inputs)
    between()
    velocity_BCTHW.square().mean().backward()
    return [weight.grad.clone() for weight in dit.parameters() if weight.grad is not None]


def test_dropout_in_an_adapter_is_the_same_in_both_passes(adapted, inputs, monkeypatch):
    expected = gradients(adapted, inputs, 1 << 60, monkeypatch)
    found = gradients(adapted, inputs, 0, monkeypatch)
    assert len(found) > 10
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_strength_set_between_the_passes_changes_no_gradient(adapted, inputs, monkeypatch):
    def teacher():
        set_lora_strength(adapted, "mine", 0.0)
        with torch.no_grad():
            adapted(*inputs)

    expected = gradients(adapted, inputs, 1 << 60, monkeypatch)
    found = gradients(adapted, inputs, 0, monkeypatch, between=teacher)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_weights_written_between_the_passes_are_an_error_and_not_another_gradient(make_dit, make_text, monkeypatch):
    dit = make_dit()
    inputs = torch.randn(2, 4, 1, 4, 4), torch.tensor([10.0, 900.0]), make_text(2, 4)

    def optimize():
        with torch.no_grad():
            dit.double_blocks[0].img_mlp.fc2.weight.add_(1)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradients(dit, inputs, 0, monkeypatch, between=optimize)


def test_function_transforms_work(make_dit, make_text, monkeypatch):
    monkeypatch.setattr(frugal, "_WORTH", 0)
    dit, latent_BCTHW = make_dit(out_channels=4).requires_grad_(False), torch.randn(2, 4, 1, 4, 4)
    others = torch.tensor([10.0, 900.0]), make_text(3, 3)
    gradient = torch.func.grad(lambda x_BCTHW: dit(x_BCTHW, *others).square().mean())(latent_BCTHW)
    leaf = latent_BCTHW.clone().requires_grad_()
    dit(leaf, *others).square().mean().backward()
    torch.testing.assert_close(gradient, leaf.grad, atol=1e-5, rtol=1e-4)
    assert copy.deepcopy(dit)(latent_BCTHW, *others).isfinite().all(), "nothing of the transform was remembered"


def test_hooks_see_what_layers_gave_also_where_memory_is_used_again(make_dit, make_text):
    dit, inputs = make_dit(), (torch.randn(2, 4, 1, 4, 4), torch.tensor([10.0, 900.0]), make_text(2, 4))
    plain = {}
    for mode in (torch.enable_grad, torch.no_grad):
        seen = []
        handles = [
            layer.register_forward_hook(lambda layer, given, result, seen=seen: seen.append(result))
            for layer in dit.modules()
            if isinstance(layer, nn.Linear)
        ]
        with mode():
            dit(*inputs)
        plain[mode] = seen
        for handle in handles:
            handle.remove()
    for with_gradients, without in zip(*plain.values(), strict=True):
        torch.testing.assert_close(without, with_gradients.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_a_lora_trains_on_8_bit_weights_and_is_never_lost(inputs, scheme, tmp_path):
    dit = DiT(CONFIG)
    with torch.no_grad():
        for weight in dit.parameters():
            weight.normal_(std=0.2)
    dit.requires_grad_(False)
    quantize_(dit, scheme)
    without = dit(*inputs)
    insert_lora(dit, new_lora(dit, LORA_TARGETS, rank=4), "mine")
    torch.testing.assert_close(dit(*inputs), without)
    optimizer = torch.optim.Adam(lora_parameters(dit, "mine"), lr=0.05)
    for _ in range(3):
        loss = (dit(*inputs) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (dit(*inputs) - 1).square().mean() < (without - 1).square().mean()
    save_lora(tmp_path / "mine.safetensors", inserted_lora(dit, "mine"), dit)
    assert load_lora(tmp_path / "mine.safetensors", dit).layers.keys() == inserted_lora(dit, "mine").layers.keys()
    with pytest.raises(ValueError, match="already; quantizing twice"):
        quantize_(dit, scheme)


def test_quantizing_refuses_adapters(adapted):
    with pytest.raises(ValueError, match=r"is a AdaptedLinear; take adapters out, or merge them, before"):
        quantize_(adapted, "int8")
