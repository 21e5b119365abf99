"""What `hyvideo convert` and `hyvideo verify` are told of the VAE."""

from dataclasses import asdict

import pytest
import torch
from hy_vae3d import VAE3D, VAE3DConfig
from hy_vae3d.format import model_format
from hy_weights import CheckpointError, write_model

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4)


def test_it_opens_checks_and_translates_its_own(tmp_path):
    vae, known = VAE3D(SMALL), model_format()
    write_model(tmp_path / "model", vae.state_dict(), asdict(SMALL))
    model = known.open(tmp_path / "model")
    assert model is not None
    assert (model.config, model.layout) == (asdict(SMALL), "released key names")
    known.check(model, "there")
    theirs = known.to_diffusers(model)
    assert theirs.config["block_out_channels"] == [8, 8, 8, 8]
    assert theirs.tensors.keys() == vae.state_dict().keys()


def test_it_lists_what_does_not_fit(tmp_path):
    known = model_format()
    write_model(tmp_path / "model", {**VAE3D(SMALL).state_dict(), "loss.weight": torch.ones(1)}, asdict(SMALL))
    model = known.open(tmp_path / "model")
    assert model is not None
    with pytest.raises(CheckpointError, match=r"^there does not fit the HunyuanVideo VAE .* 1 unexpected: loss.weight"):
        known.check(model, "there")


def test_another_model_is_not_its_business(tmp_path):
    write_model(tmp_path / "model", {"decoder.weight": torch.ones(2, 2)}, {})
    assert model_format().open(tmp_path / "model") is None
