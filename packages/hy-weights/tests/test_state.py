"""Whatever a training's state is made of comes back; what can't is refused by name."""

import json
import math
from collections import Counter, OrderedDict, defaultdict, namedtuple

import numpy as np
import pytest
import torch
from hy_weights import CheckpointError, flatten_state, unflatten_state


def through_json(value):
    document, tensors = flatten_state(value)
    text = json.dumps(document, allow_nan=False)  # what isn't JSON would fail here
    return unflatten_state(json.loads(text), tensors)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        2**70,
        -0.0,
        0.1,
        math.inf,
        -math.inf,
        "ä\ud800",
        [],
        (),
        {},
        [1, [2.5, None], (3, (4, "five"))],
        {"a": {"b": [True]}},
        {0: "x", (1, 2): "y", None: [0], 1.5: ()},
        {"$tensor": "not one", "a": 1},
        {"$dict": [["a", 1]]},
        OrderedDict(b=1, a=(2,)),
        Counter({3: 2, "x": 1}),
        (3, tuple(range(5)), None),
    ],
)
def test_plain_values_come_back_as_they_were(value):
    back = through_json(value)
    assert back == value
    assert repr(back) == repr(value)  # 1 is not True, -0.0 not 0.0, a list no tuple


def test_not_a_number_comes_back():
    assert math.isnan(through_json({"loss": math.nan})["loss"])


def test_tensors_are_named_by_the_keys_that_lead_to_them():
    weight = torch.nn.Parameter(torch.randn(2, 3))
    document, tensors = flatten_state({"optimizer": [{"state": {0: {"mean": weight, "step": torch.tensor(3)}}}]})
    assert list(tensors) == ["optimizer.0.state.0.mean", "optimizer.0.state.0.step"]
    assert tensors["optimizer.0.state.0.mean"].data_ptr() == weight.data_ptr()
    assert not tensors["optimizer.0.state.0.mean"].requires_grad
    state = unflatten_state(document, tensors)["optimizer"][0]["state"]
    assert list(state) == [0]
    assert torch.equal(state[0]["mean"], weight)
    assert state[0]["step"].item() == 3


def test_names_that_meet_stay_apart():
    value = {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}, "c": [torch.tensor(2.0)], "c.0": torch.tensor(3.0)}
    back = through_json(value)
    assert [back["a.b"].item(), back["a"]["b"].item(), back["c"][0].item(), back["c.0"].item()] == [1, 0, 2, 3]
    assert through_json(torch.tensor(5)).item() == 5


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.uint32).reshape(2, 3),
        np.zeros((0, 4), np.float16),
        np.array(True),
        np.arange(4.0)[::2],
        np.arange(3, dtype=">i8"),
    ],
)
def test_arrays_come_back(value):
    back = through_json([value])[0]
    assert back.dtype == value.dtype
    assert back.shape == value.shape
    assert np.array_equal(back, value)


@pytest.mark.parametrize(
    "value", [np.float32(0.1), np.float64(math.inf), np.int8(-3), np.bool_(True), np.uint64(2**63)]
)
def test_numpy_numbers_keep_their_kind(value):
    back = through_json(value)
    assert type(back) is type(value)
    assert back == value


def test_the_state_of_numpys_generator_comes_back():
    state = np.random.RandomState(3).get_state()
    other = np.random.RandomState(4)
    other.set_state(through_json(state))
    assert other.rand() == np.random.RandomState(3).rand()


Pair = namedtuple("Pair", "a b")


class Own(dict):
    pass


class Late:
    pass


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({1, 2}, "builtins.set"),
        (b"x", "builtins.bytes"),
        (1j, "builtins.complex"),
        (Pair(1, 2), "Pair"),
        (Own(), "Own"),
        (defaultdict(int), "defaultdict"),
        (Late(), "Late"),
        (Late, "builtins.type"),
        (print, "builtin_function_or_method"),
        (np.array(["x"]), "numpy.ndarray"),
        (np.array([None]), "numpy.ndarray"),
        (np.datetime64("2020"), "datetime64"),
        (torch.ones(2).to_sparse(), "sparse or quantized"),
        (torch.ones(2, device="meta"), "on meta"),
        (torch.ones(2, dtype=torch.complex64), "torch.complex64"),
        (torch.ones(2).to(torch.uint16), "torch.uint16"),
    ],
)
def test_anything_else_is_refused_by_place_and_name(value, what):
    with pytest.raises(CheckpointError, match=rf"^callbacks\.0\.mine: a .*{what}.* can't be stored"):
        flatten_state({"callbacks": [{"mine": value}]})


@pytest.mark.parametrize(
    "document",
    [
        {"$tensor": "gone"},
        {"$call": "print"},
        {"$float": "much"},
        {"$tuple": 3},
        {"$dict": [[1]]},
        {"$array": ["raw", "object", [1]]},
        {"$array": ["raw", "<f8", [3]]},
        {"$number": ["O", 1]},
        {"$tensor": ["raw"]},
        {"$array": "raw"},
    ],
)
def test_a_damaged_document_is_an_error_and_nothing_else(document):
    with pytest.raises(CheckpointError, match=r"^here: damaged, or of a later version"):
        unflatten_state([document], {"raw": torch.zeros(8, dtype=torch.uint8)}, "here")
