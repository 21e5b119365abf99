import pytest
import torch
from hy_weights import LoRA, LoRAError, insert_lora, merge_loras
from torch import nn


def state_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def unchanged(model, state):
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("keep_on", ["cpu", torch.device("cpu")])
def test_weights_are_added_once_and_restored_bit_for_bit(model, lora, draw_factors, names, dtype, keep_on):
    model.to(dtype)
    before = state_of(model)
    other = LoRA({"last": draw_factors(names.shapes["last"], 2, 0.5)})
    merged = merge_loras(model, [(lora, 0.3), (other, -1.7)], keep_on=keep_on)
    for name, factors in lora.layers.items():
        delta = 0.3 * factors.delta() - (1.7 * other.layers[name].delta() if name in other.layers else 0)
        weight = model.get_submodule(name).weight
        assert weight.dtype == dtype
        torch.testing.assert_close(weight, (before[f"{name}.weight"].float() + delta).to(dtype))
        assert not torch.equal(weight, before[f"{name}.weight"])
    merged.unmerge()
    assert unchanged(model, before)
    merged.unmerge()
    assert unchanged(model, before)


def test_rounding_happens_once(model, lora):
    """Each LoRA alone is lost in the rounding of 16-bit weights; both together are not."""
    model.bfloat16()
    with torch.no_grad():
        model.last.weight.fill_(1.0)
    factors = lora.layers["last"]
    factors.down.fill_(1.0)
    factors.up.fill_(0.0015 / 6)
    small = LoRA({"last": factors})
    with merge_loras(model, [(small, 1.0)]):
        assert torch.equal(model.last.weight, torch.ones_like(model.last.weight))
    with merge_loras(model, [(small, 1.0)] * 3):
        assert (model.last.weight > 1).all()


def test_progress_is_told_layer_by_layer(model, lora):
    told = []
    merge_loras(model, [(lora, 1.0)], progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 6) for done in range(1, 7)]


def test_a_block_restores_even_when_it_fails(model, lora):
    before = state_of(model)
    with pytest.raises(ZeroDivisionError), merge_loras(model, [(lora, 1.0)]):
        1 / unchanged(model, before)
    assert unchanged(model, before)


def test_parameters_stay_the_same_objects(model, lora):
    parameters = list(model.parameters())
    with merge_loras(model, [(lora, 1.0)]):
        assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True))
        assert all(parameter.requires_grad for parameter in model.parameters())


def test_merges_end_in_reverse_order(model, lora):
    before = state_of(model)
    first, second = merge_loras(model, [(lora, 1.0)]), merge_loras(model, [(lora, 0.5)])
    with pytest.raises(LoRAError, match="changed since this merge; unmerge the last merge first"):
        first.unmerge()
    second.unmerge()
    first.unmerge()
    assert unchanged(model, before)


def test_a_layer_that_was_replaced_since_is_not_restored_in_vain(model, lora):
    merged = merge_loras(model, [(lora, 1.0)])
    model.last.weight = nn.Parameter(model.last.weight.detach().clone())
    with pytest.raises(LoRAError, match="changed since"):
        merged.unmerge()


def test_an_error_of_the_block_is_not_hidden_by_one_of_unmerging(model, lora):
    def use():
        with merge_loras(model, [(lora, 1.0)]):
            model.last.weight.data.zero_()
            raise KeyError

    with pytest.raises(KeyError):
        use()


def test_weights_in_8_bits_are_not_added_to(model, lora):
    model.last.weight = nn.Parameter(model.last.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(LoRAError, match="last holds 8-bit weights, to which nothing can be added; insert the LoRA"):
        merge_loras(model, [(lora, 1.0)])


def test_weights_in_float64_are_not_rounded(model, lora):
    model.double()
    before = state_of(model)
    merge_loras(model, [(lora, 0.0)])
    assert unchanged(model, before)


def test_training_between_is_not_lost_silently(model, lora):
    merged = merge_loras(model, [(lora, 1.0)])
    model.last(torch.randn(2, 6)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    with pytest.raises(LoRAError, match="changed since"):
        merged.unmerge()


def test_nothing_is_kept_where_that_is_asked(model, lora):
    before = state_of(model)
    merged = merge_loras(model, [(lora, 1.0)], keep_on=None)
    with pytest.raises(LoRAError, match="were not kept"):
        merged.unmerge()
    assert not unchanged(model, before)


def test_merging_under_adapters_works(model, lora):
    x = torch.randn(3, 6)
    plain = LoRA({"last": lora.layers["last"]})
    insert_lora(model, plain)
    inserted = model(x)
    with merge_loras(model, [(plain, -1.0)]):
        assert not torch.allclose(model(x), inserted)
    torch.testing.assert_close(model(x), inserted, atol=0, rtol=0)


def test_a_misfit_changes_nothing(model, lora, draw_factors):
    before = state_of(model)
    unknown = LoRA({"last": lora.layers["last"], "first": lora.layers["last"]})
    wide = LoRA({"blocks.0.proj": lora.layers["blocks.0.proj"], "last": draw_factors((12, 7))})
    for misfit, message in [
        (unknown, "no layer 'first'"),
        (wide, r"last has a weight of shape \[12, 6\], the LoRA's is \[12, 7\]"),
    ]:
        with pytest.raises(LoRAError, match=f"does not fit Model: {message}"):
            merge_loras(model, [(lora, 1.0), (misfit, 1.0)])
    for strength in (float("nan"), float("inf")):
        with pytest.raises(LoRAError, match="a finite number, found"):
            merge_loras(model, [(lora, strength)])
    assert unchanged(model, before)


def test_running_out_of_memory_half_way_changes_nothing(model, lora, monkeypatch):
    before = state_of(model)
    calls = iter([False, False, True])

    def delta(self, device=None):
        if next(calls):
            raise torch.OutOfMemoryError
        return real(self, device)

    real = type(lora.layers["last"]).delta
    monkeypatch.setattr(type(lora.layers["last"]), "delta", delta)
    with pytest.raises(torch.OutOfMemoryError):
        merge_loras(model, [(lora, 1.0)])
    assert unchanged(model, before)
