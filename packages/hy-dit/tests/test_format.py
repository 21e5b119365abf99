"""What `hyvideo convert` and `hyvideo verify` are told of the transformer."""

import dataclasses

import pytest
import torch
from hy_dit.format import model_format
from hy_weights import CheckpointError, write_model


def test_it_opens_checks_and_translates_its_own(make_dit, tmp_path):
    dit, known = make_dit(), model_format()
    write_model(tmp_path / "model", dit.state_dict(), dataclasses.asdict(dit.config))
    model = known.open(tmp_path / "model")
    assert model is not None
    assert (model.config, model.layout) == (dataclasses.asdict(dit.config), "released key names")
    known.check(model, "there")
    theirs = known.to_diffusers(model)
    assert theirs.config["num_layers"] == 2
    assert torch.equal(theirs.tensors["proj_out.weight"], dit.final_layer.linear.weight)


def test_it_lists_what_does_not_fit(make_dit, tmp_path):
    dit, known = make_dit(), model_format()
    state = dit.state_dict()
    del state["time_in.mlp.0.bias"]
    write_model(tmp_path / "model", state, dataclasses.asdict(dit.config))
    model = known.open(tmp_path / "model")
    assert model is not None
    with pytest.raises(CheckpointError, match=r"^there does not fit the HunyuanVideo .* 1 missing: time_in.mlp.0.bias"):
        known.check(model, "there")


def test_another_model_is_not_its_business(tmp_path):
    write_model(tmp_path / "model", {"decoder.weight": torch.ones(2, 2)}, {})
    assert model_format().open(tmp_path / "model") is None
