"""LPIPS needs no download, and takes the user's VGG-16."""

import logging

import pytest
import torch

pytest.importorskip("lpips")

from hy_vae3d import VAEInputError
from hy_vae3d.perceptual import PerceptualDistance
from hy_weights import CheckpointError


@pytest.fixture(scope="module")
def distance():
    return PerceptualDistance(seed=0)


@pytest.fixture(scope="module")
def vgg16(distance):
    """A state dict with torchvision's names, not the weights that seed 0 gives; its classifier is left out."""
    tensors = distance.net.net.state_dict()
    return {f"features.{name.partition('.')[2]}": 2 * tensor for name, tensor in tensors.items()} | {
        "classifier.0.bias": torch.zeros(4096)
    }


def test_it_grows_with_the_difference(distance):
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(1, 3, 2, 32, 32, generator=generator) * 2 - 1
    noise = torch.randn(video.shape, generator=generator)
    values = [float(distance(video + scale * noise, video)) for scale in (0.0, 0.1, 0.3)]
    assert values[0] == 0
    assert 0 < 2 * values[1] < values[2]


def test_it_is_the_mean_over_frames_and_clips(distance):
    video, target = torch.rand(2, 3, 2, 16, 16), torch.rand(2, 3, 2, 16, 16)
    single = [distance(video[b : b + 1, :, t : t + 1], target[b : b + 1, :, t : t + 1]) for b in (0, 1) for t in (0, 1)]
    torch.testing.assert_close(distance(video, target), torch.stack(single).mean())


def test_the_gradient_goes_to_the_reconstruction_alone(distance):
    video = torch.rand(1, 3, 1, 16, 16, requires_grad=True)
    distance(video, torch.rand(1, 3, 1, 16, 16)).backward()
    assert video.grad is not None
    assert not any(parameter.requires_grad for parameter in distance.net.parameters())


def test_the_seed_draws_the_trunk(distance, caplog):
    video, target = torch.rand(1, 3, 1, 16, 16), torch.rand(1, 3, 1, 16, 16)
    before = torch.get_rng_state()
    assert PerceptualDistance(seed=0)(video, target) == distance(video, target)
    assert PerceptualDistance(seed=1)(video, target) != distance(video, target)
    assert torch.equal(torch.get_rng_state(), before)
    assert "random VGG-16 (seed 1)" in caplog.text


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_gives_the_trunk(distance, vgg16, tmp_path, suffix, caplog):
    from safetensors.torch import save_file

    path = tmp_path / f"vgg16{suffix}"
    (torch.save if suffix == ".pth" else save_file)(vgg16, path)
    caplog.set_level(logging.INFO)
    loaded = PerceptualDistance(path)
    assert f"VGG-16 of {path}" in caplog.text
    torch.testing.assert_close(loaded.net.net.slice5[1].weight, vgg16["features.24.weight"])
    torch.testing.assert_close(loaded.net.lin4.model[1].weight, distance.net.lin4.model[1].weight)


def test_a_file_of_something_else_is_refused(vgg16, tmp_path):
    path = tmp_path / "other.pth"
    torch.save({name: value for name, value in vgg16.items() if name != "features.5.bias"}, path)
    with pytest.raises(CheckpointError, match=r"other\.pth: not torchvision's VGG-16: features\.5\.bias is missing"):
        PerceptualDistance(path)
    torch.save(vgg16 | {"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"features\.0\.weight is \[1\], not \[64, 3, 3, 3\]"):
        PerceptualDistance(path)
    with pytest.raises(CheckpointError, match="none"):
        PerceptualDistance(tmp_path / "none.pth")


def test_frames_too_small_for_it_are_refused(distance):
    with pytest.raises(VAEInputError, match="at least 16x16, got 8x16"):
        distance(torch.zeros(1, 3, 1, 8, 16), torch.zeros(1, 3, 1, 8, 16))
