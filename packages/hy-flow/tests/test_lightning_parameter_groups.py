from functools import partial

import pytest
import torch
from hy_flow.errors import FlowError

pytest.importorskip("lightning", reason="training is the extra hy-flow[train]")
from hy_flow.lightning import FlowMatching
from hy_flow.lightning.parameter_groups import parameter_groups
from torch import nn


@pytest.fixture
def named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    model[2].requires_grad_(False)
    return dict(model.named_parameters())


def test_a_parameter_belongs_to_the_first_pattern_that_it_fits(named):
    groups = parameter_groups(named.items(), {"*.bias": 0.5, "1.*": 0.1})
    assert groups == [
        {"params": [named["0.weight"]]},
        {"params": [named["0.bias"], named["1.bias"]], "lr": 0.5},
        {"params": [named["1.weight"]], "lr": 0.1},
    ]


def test_without_patterns_all_that_is_trained_is_one_group(named):
    assert parameter_groups(named.items(), {}) == [
        {"params": [named[f"{n}.{k}"] for n in "01" for k in ("weight", "bias")]}
    ]


def test_there_is_no_empty_group(named):
    assert [len(group["params"]) for group in parameter_groups(named.items(), {"*": 0.5})] == [4]


@pytest.mark.parametrize(("rates", "message"), [({"2.*": 0.1}, r"'2\.\*', which fits nothing"), ({"0.*": 0.0}, "is 0")])
def test_refused(named, rates, message):
    with pytest.raises(FlowError, match=message):
        parameter_groups(named.items(), rates)


def test_a_training_warms_them_up_in_their_ratio(toys):
    module = FlowMatching(
        *toys, optimizer=partial(torch.optim.SGD, lr=0.4), learning_rates={"text_encoder.*": 0.1}, decay="constant"
    )
    assert [group["lr"] for group in module.configure_optimizers().param_groups] == [0.4, 0.1]
    assert module.peaks == [0.4, 0.1]
