"""A VAE folder loads as it was written, and a wrong one says what is wrong."""

from dataclasses import asdict

import pytest
import torch
from hy_vae3d import VAE3D, VAE3DConfig, load_vae
from hy_weights import CheckpointError, write_model

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4, scaling_factor=0.5)


def test_a_written_vae_loads_bit_for_bit(tmp_path):
    vae = VAE3D(SMALL)
    write_model(tmp_path / "vae", vae.state_dict(), asdict(SMALL))
    loaded = load_vae(tmp_path / "vae")
    assert loaded.config == SMALL
    assert not loaded.training
    for key, value in vae.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_half_precision_files_compute_in_float32_unless_told_otherwise(tmp_path):
    write_model(tmp_path / "vae", VAE3D(SMALL).bfloat16().state_dict(), asdict(SMALL))
    assert load_vae(tmp_path / "vae").quant_conv.weight.dtype == torch.float32
    assert load_vae(tmp_path / "vae", dtype=torch.bfloat16).quant_conv.weight.dtype == torch.bfloat16


def test_a_missing_key_is_listed(tmp_path):
    tensors = VAE3D(SMALL).state_dict()
    del tensors["decoder.conv_in.conv.bias"]
    write_model(tmp_path / "vae", tensors, asdict(SMALL))
    with pytest.raises(CheckpointError, match=r"1 missing: decoder\.conv_in\.conv\.bias"):
        load_vae(tmp_path / "vae")
