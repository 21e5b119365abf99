"""The same weights under other names, cut otherwise."""

import pytest
import torch
from hy_weights import CheckpointError
from hy_weights.layout import Layout, Rule, outline, prefix_before, renamed

JOINT = Layout(
    "theirs",
    (
        Rule("blocks.{}.qkv", ("layers.blocks.{}.q", "layers.blocks.{}.k", "layers.blocks.{}.rest")),
        Rule("out.norm", ("norm_out",), swapped=True),
    ),
)


@pytest.fixture
def ours():
    torch.manual_seed(0)
    return {
        "blocks.0.qkv.weight": torch.randn(10, 3),
        "blocks.12.qkv.bias": torch.randn(11),
        "out.norm.weight": torch.randn(4, 2),
    }


def test_there_and_back_is_bit_identical_and_shapes_are_known_without_reading(ours):
    theirs = JOINT.from_ours(ours, width=3)
    assert {key: list(theirs[key].shape) for key in theirs} == {
        "layers.blocks.0.q.weight": [3, 3],
        "layers.blocks.0.k.weight": [3, 3],
        "layers.blocks.0.rest.weight": [4, 3],
        "layers.blocks.12.q.bias": [3],
        "layers.blocks.12.k.bias": [3],
        "layers.blocks.12.rest.bias": [5],
        "norm_out.weight": [4, 2],
    }
    assert torch.equal(theirs["norm_out.weight"], ours["out.norm.weight"][[2, 3, 0, 1]])
    back = JOINT.to_ours(theirs)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[key], value) for key, value in ours.items())
    assert all(outline(back, key).shape == value.shape and outline(back, key).is_meta for key, value in ours.items())


def test_parts_of_different_dtypes_make_what_the_outline_says(ours):
    theirs = dict(JOINT.from_ours({"blocks.0.qkv.weight": ours["blocks.0.qkv.weight"]}, width=3))
    theirs["layers.blocks.0.k.weight"] = theirs["layers.blocks.0.k.weight"].double()
    joint = JOINT.to_ours(theirs)
    assert joint["blocks.0.qkv.weight"].dtype == outline(joint, "blocks.0.qkv.weight").dtype == torch.float64


def test_unknown_keys_stay_and_missing_parts_are_listed(ours):
    theirs = {**JOINT.from_ours(ours, width=3), "other.weight": torch.ones(1)}
    assert "other.weight" in JOINT.to_ours(theirs)
    del theirs["layers.blocks.0.q.weight"], theirs["layers.blocks.12.k.bias"]
    with pytest.raises(CheckpointError, match=r"missing: layers.blocks.0.q.weight, layers.blocks.12.k.bias$"):
        JOINT.to_ours(theirs)
    with pytest.raises(CheckpointError, match=r"not known to the layout of theirs: other.weight"):
        JOINT.from_ours({"other.weight": torch.ones(1)}, width=3)


@pytest.mark.parametrize(
    ("keys", "prefix"),
    [
        (["a.w", "b.mark"], ""),
        (["model.a.w", "model.b.mark"], "model."),
        (["x.y.b.mark"], "x.y."),
        (["b.marks", "sub.mark"], None),
        (["ab.mark"], None),
        ([], None),
    ],
)
def test_a_prefix_is_what_stands_before_a_mark(keys, prefix):
    assert prefix_before(keys, ["b.mark", "c.mark"]) == prefix


def test_renaming_goes_in_order_and_may_change_tensors():
    tensors = {"a.x": torch.arange(4.0), "c": torch.ones(1)}
    view = renamed(tensors, [("^a", "b"), (r"^b\.", "z.")], make=lambda name: lambda tensor: tensor * (name == "z.x"))
    assert list(view) == ["z.x", "c"]
    assert torch.equal(view["z.x"], tensors["a.x"])
    assert view["c"] == 0
    with pytest.raises(CheckpointError, match=r"keys 'a.x' and 'c' are both 'z'; one is too many"):
        renamed(tensors, [(".*x|c", "z")])
