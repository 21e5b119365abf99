import pytest
import torch
from hy_weights.lora.factors import Factors
from hy_weights.lora.joint import cut, join

LAYER = "blocks.0.qkv_mlp"
PART = "their_blocks.0."


def expected_delta(names, parts) -> torch.Tensor:
    shapes = names.parts(LAYER)
    rows = [parts[name].delta() if name in parts else torch.zeros(shape) for name, shape in shapes.items()]
    return torch.cat(rows)


@pytest.mark.parametrize("present", [("q", "k", "v", "mlp"), ("q", "v"), ("mlp",), ("mlp", "k")])
@pytest.mark.parametrize("alphas", [(6.0, 6.0, 6.0, 6.0), (6.0, 1.0, 2.5, 0.3)], ids=["one alpha", "alphas"])
@pytest.mark.parametrize("shared", [False, True], ids=["downs apart", "one down"])
def test_the_joint_matrix_is_that_of_the_parts(names, draw_factors, present, alphas, shared):
    shapes = names.parts(LAYER)
    parts = {}
    for name, alpha in zip(present, alphas, strict=False):
        parts[PART + name] = draw_factors(shapes[PART + name], rank=3, alpha=alpha)
    if shared:
        down = parts[PART + present[0]].down
        parts = {name: Factors(down.clone(), factors.up, factors.alpha) for name, factors in parts.items()}
    joint = join(names, LAYER, parts)
    assert joint.rank == (3 if shared else 3 * len(present))
    torch.testing.assert_close(joint.delta(), expected_delta(names, parts))


def test_parts_may_have_different_ranks(names, draw_factors):
    shapes = names.parts(LAYER)
    parts = {
        PART + name: draw_factors(shapes[PART + name], rank, alpha=2.0 * rank) for name, rank in [("q", 2), ("v", 5)]
    }
    joint = join(names, LAYER, parts)
    assert (joint.rank, joint.scale) == (7, 2.0)
    torch.testing.assert_close(joint.delta(), expected_delta(names, parts))


@pytest.mark.parametrize("present", [("q", "k", "v", "mlp"), ("q", "mlp")])
def test_parts_that_were_joined_are_cut_again(names, draw_factors, present):
    parts = {PART + name: draw_factors(names.parts(LAYER)[PART + name]) for name in present}
    again = cut(names, LAYER, join(names, LAYER, parts))
    assert again.keys() == parts.keys()
    for name, factors in parts.items():
        assert torch.equal(again[name].down, factors.down)
        assert torch.equal(again[name].up, factors.up)
        assert again[name].alpha == factors.alpha


@pytest.mark.parametrize("layer", ["blocks.0.qkv_mlp", "blocks.1.proj", "last", "patch"])
@pytest.mark.parametrize("rank", [1, 3, 4])
def test_a_layer_that_was_cut_is_joined_again(names, draw_factors, layer, rank):
    factors = draw_factors(names.shapes[layer], rank, alpha=0.7)
    parts = cut(names, layer, factors)
    if len(parts) > 1:
        assert all(part.rank == rank for part in parts.values()), "a dense layer's parts share its `down`"
    again = join(names, layer, parts)
    assert torch.equal(again.down, factors.down)
    assert torch.equal(again.up, factors.up)
    assert again.alpha == factors.alpha


def test_an_untrained_layer_and_equal_blocks_keep_their_tensors(names, draw_factors):
    untrained = draw_factors(names.shapes[LAYER], rank=4)
    untrained.up.zero_()
    block = torch.randn(1, 6)
    equal = Factors(block.repeat(4, 1), torch.block_diag(*(torch.randn(n, 1) for n in (6, 6, 6, 12))), 4.0)
    for factors in (untrained, equal):
        again = join(names, LAYER, cut(names, LAYER, factors))
        assert torch.equal(again.down, factors.down)
        assert torch.equal(again.up, factors.up)


@pytest.mark.parametrize("side", [torch.tril, torch.triu])
def test_blocks_on_one_side_of_the_diagonal_are_not_lost(names, side):
    mask = side(torch.ones(5, 5))[[0, 1, 2, 3, 3]][:, :4].repeat_interleave(6, 0).repeat_interleave(2, 1)
    factors = Factors(torch.randn(8, 6), torch.randn(30, 8) * mask, 4.0)
    again = join(names, LAYER, cut(names, LAYER, factors))
    assert torch.equal(again.down, factors.down)
    assert torch.equal(again.up, factors.up)


def test_swapped_halves_are_swapped_in_up_alone(names, draw_factors):
    factors = draw_factors(names.shapes["last"])
    (theirs,) = cut(names, "last", factors).values()
    assert torch.equal(theirs.down, factors.down)
    assert torch.equal(theirs.up, torch.cat([factors.up[6:], factors.up[:6]]))


def test_half_precision_is_kept_unless_scales_are_folded(names, draw_factors):
    shapes = names.parts(LAYER)
    for alpha, dtype in [(6.0, torch.bfloat16), (1.0, torch.float32)]:
        parts = {
            PART + "q": draw_factors(shapes[PART + "q"]),
            PART + "k": draw_factors(shapes[PART + "k"], alpha=alpha),
        }
        halves = {n: Factors(f.down.bfloat16(), f.up.bfloat16(), f.alpha) for n, f in parts.items()}
        joint = join(names, LAYER, halves)
        assert joint.up.dtype == dtype
        torch.testing.assert_close(joint.delta(), expected_delta(names, halves))


@pytest.mark.parametrize("order", [("q", "k"), ("k", "q")])
def test_of_parts_in_different_formats_the_finer_is_kept(names, draw_factors, order):
    coarse, fine = (draw_factors((6, 6)) for _ in order)
    parts = {PART + order[0]: Factors(coarse.down.bfloat16(), coarse.up.bfloat16(), 6.0), PART + order[1]: fine}
    torch.testing.assert_close(join(names, LAYER, parts).delta(), expected_delta(names, parts))
