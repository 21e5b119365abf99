import pytest
import torch
from hy_weights import LoRA, LoRAError, extract_lora, merge_loras


def state_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.fixture
def merged(model, lora):
    """A model's weights before and after a LoRA was merged in."""
    base = state_of(model)
    merge_loras(model, [(lora, 1.0)])
    return base, state_of(model)


def test_a_merged_lora_is_found_again(merged, lora, names):
    found = extract_lora(*merged, names, rank=6)
    assert set(found.lora.layers) == set(lora.layers)
    for name, factors in lora.layers.items():
        torch.testing.assert_close(found.lora.layers[name].delta(), factors.delta(), rtol=1e-4, atol=1e-5)
        assert found.lora.layers[name].rank <= 6
    assert found.share == pytest.approx(1, abs=1e-6)
    assert min(found.kept.values()) == pytest.approx(1, abs=1e-6)
    assert not found.outside


def test_the_rank_is_the_differences_where_that_is_smaller(model, names, draw_factors):
    base = state_of(model)
    merge_loras(model, [(LoRA({"last": draw_factors(names.shapes["last"], 1, 1.0)}), 1.0)])
    found = extract_lora(base, state_of(model), names, rank=4).lora.layers["last"]
    assert found.rank <= 2  # one, and what float32 rounds


def test_what_is_kept_is_the_largest_singular_values(model, names):
    base, tuned = state_of(model), state_of(model)
    change = torch.randn_like(tuned["last.weight"])
    tuned["last.weight"] = tuned["last.weight"] + change
    found = extract_lora(base, tuned, names, rank=2)
    values = torch.linalg.svdvals(change) ** 2
    share = float(values[:2].sum() / values.sum())
    assert found.kept == {"last": pytest.approx(share, rel=1e-4)}
    assert found.share == pytest.approx(share, rel=1e-4)


def test_what_a_lora_cannot_hold_is_told(merged, names):
    base, tuned = merged
    tuned["last.bias"] = tuned["last.bias"] + 2
    found = extract_lora(base, tuned, names, rank=6)
    assert found.outside == {"last.bias": pytest.approx(4 * len(tuned["last.bias"]))}
    inside = sum(float((tuned[key] - base[key]).square().sum()) for key in tuned if key != "last.bias")
    assert found.share == pytest.approx(inside / (inside + found.outside["last.bias"]), rel=1e-4)


def test_targets_choose_the_layers(merged, names):
    found = extract_lora(*merged, names, rank=6, targets=("blocks.0.*",))
    assert {name.split(".")[1] for name in found.lora.layers} == {"0"}
    assert any(key.startswith("blocks.1.") for key in found.outside)


def test_the_same_difference_gives_the_same_lora_whatever_was_drawn_before(merged, names):
    first = extract_lora(*merged, names, rank=2).lora.layers
    torch.rand(3)
    second = extract_lora(*merged, names, rank=2).lora.layers
    assert all(torch.equal(first[name].down, second[name].down) for name in first)


def test_bfloat16_is_subtracted_in_float32(model, names):
    base = {key: value.bfloat16() for key, value in state_of(model).items()}
    tuned = {key: value.clone() for key, value in base.items()}
    tuned["last.weight"] = tuned["last.weight"] * 1.01
    found = extract_lora(base, tuned, names, rank=6).lora.layers["last"]
    wanted = tuned["last.weight"].float() - base["last.weight"].float()
    torch.testing.assert_close(found.delta(), wanted, rtol=1e-3, atol=1e-6)


def test_progress_is_told_tensor_by_tensor(merged, names):
    told = []
    extract_lora(*merged, names, rank=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, len(merged[0])) for done in range(1, len(merged[0]) + 1)]


def test_refused(merged, names):
    base, tuned = merged
    with pytest.raises(LoRAError, match="rank of at least 1, found 0"):
        extract_lora(base, tuned, names, rank=0)
    with pytest.raises(LoRAError, match=r"do not differ in any layer that fits \*"):
        extract_lora(base, base, names, rank=2)
    with pytest.raises(LoRAError, match=r"only one of them has last\.bias"):
        extract_lora(base, {key: value for key, value in tuned.items() if key != "last.bias"}, names, rank=2)
    with pytest.raises(LoRAError, match=r"last\.weight is .* and \[3, 2\]"):
        extract_lora(base, tuned | {"last.weight": torch.zeros(3, 2)}, names, rank=2)
    with pytest.raises(LoRAError, match=r"last\.weight is in 8 bits"):
        extract_lora(base, tuned | {"last.weight": tuned["last.weight"].to(torch.float8_e4m3fn)}, names, rank=2)
