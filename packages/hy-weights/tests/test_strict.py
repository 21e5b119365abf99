import pytest
import torch
from hy_weights import CheckpointError, load_strict


def network():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


def test_values_are_loaded_and_converted_to_the_module_dtype():
    source, target = network(), network()
    load_strict(
        target,
        {key: value.double() for key, value in source.state_dict().items() if "num" not in key}
        | {"1.num_batches_tracked": torch.tensor(5)},
    )
    assert target[0].weight.dtype == torch.float32
    assert torch.equal(target[0].weight, source[0].weight)
    assert target[1].num_batches_tracked == 5


def test_every_kind_of_mismatch_is_listed_and_nothing_is_loaded():
    target = network()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    tensors = {key: torch.ones_like(value) for key, value in before.items()}
    del tensors["0.bias"]
    tensors["stranger"] = torch.ones(1)
    tensors["0.weight"] = torch.ones(4, 5)
    tensors["1.bias"] = torch.ones(4, dtype=torch.int64)
    with pytest.raises(CheckpointError) as caught:
        load_strict(target, tensors, source="some/file.safetensors")
    message = str(caught.value)
    assert message.startswith("some/file.safetensors does not fit Sequential")
    assert "1 missing: 0.bias" in message
    assert "1 unexpected: stranger" in message
    assert "1 of the wrong shape: 0.weight (expected [4, 3], found [4, 5])" in message
    assert "1 of the wrong dtype: 1.bias (expected torch.float32, found torch.int64)" in message
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_a_long_list_is_cut_but_counted():
    with pytest.raises(CheckpointError, match=r"25 unexpected: .*k19 and 5 more"):
        load_strict(torch.nn.Identity(), {f"k{index:02}": torch.ones(1) for index in range(25)})


def test_a_meta_module_takes_the_tensors_themselves():
    with torch.device("meta"):
        target = torch.nn.Linear(3, 4)
    tensors = {key: torch.randn(value.shape).bfloat16() for key, value in target.state_dict().items()}
    load_strict(target, tensors)
    assert target.weight.dtype == torch.bfloat16
    assert target.weight.data_ptr() == tensors["weight"].data_ptr()
