"""What validation measures, averages and shows."""

import pytest
import torch

pytest.importorskip("lightning")

from hy_vae3d import VAE3DConfig
from hy_vae3d.lightning import VAETraining
from hy_vae3d.lightning.validation import psnr, side_by_side, ssim
from hy_vae3d.tiling import Tiling
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4, scaling_factor=1.0)


@pytest.fixture
def module(monkeypatch):
    monkeypatch.setattr(VAE3DConfig, "preset", lambda name: SMALL)
    torch.manual_seed(0)
    return VAETraining(lpips_weight=0, adversarial_weight=0, tiling=Tiling(tile_size=16, overlap=0.5))


@pytest.fixture
def validate(trainer):
    def validate(module, clips, logger):
        batches = torch.utils.data.DataLoader([{"video_BCTHW": clip} for clip in clips], batch_size=None)
        return trainer(logger=logger).validate(module, batches, verbose=False)[0]

    return validate


def test_psnr_is_each_clips_own():
    video = torch.rand(2, 3, 1, 16, 16) * 2 - 1
    error = torch.tensor([0.1, 0.3]).view(2, 1, 1, 1, 1)
    expected = float((10 * (4 / error.square()).log10()).mean())
    assert float(psnr(video + error, video)) == pytest.approx(expected, rel=1e-3)


def test_ssim_is_of_pixels_from_zero_to_one():
    """Of two flat pictures it is known: (2 a b + c) / (a² + b² + c), c = 0.01²."""
    dark, bright = torch.full((1, 3, 2, 16, 16), -0.6), torch.full((1, 3, 2, 16, 16), 0.2)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert float(ssim(dark, bright)) == pytest.approx(expected, rel=1e-3)
    assert float(ssim(dark, dark)) == pytest.approx(1)


def test_the_picture_has_the_clip_above_its_reconstruction():
    target = torch.zeros(2, 3, 9, 8, 16) + torch.linspace(-1, 1, 9).view(1, 1, 9, 1, 1)
    picture = side_by_side(torch.full_like(target, 3.0), target)
    assert picture.shape == (3, 16, 64)
    assert (picture[:, 8:] == 1).all(), "clamped"
    assert picture[0, 0, ::16].tolist() == pytest.approx([0, 0.375, 0.625, 1])
    assert side_by_side(target[:, :, :1], target[:, :, :1]).shape == (3, 16, 16)


def test_batches_count_by_their_clips(validate, module):
    torch.manual_seed(0)
    clips = torch.rand(3, 3, 1, 16, 16) * 2 - 1
    together = validate(module, [clips[:1], clips[1:]], False)
    single = [validate(module, [clip[None]], False) for clip in clips]
    for name in ("val_psnr", "val_ssim"):
        assert together[name] == pytest.approx(sum(one[name] for one in single) / 3, rel=1e-4, abs=1e-5)


def test_tiles_and_their_seams_are_measured(validate, module):
    clips = torch.rand(1, 3, 1, 32, 32) * 2 - 1
    measured = validate(module, [clips], False)
    latent = module.vae.encode(clips).mode()
    whole = module.vae.decode(latent).clamp(-1, 1)
    module.vae.tiling = module.tiling
    tiled = module.vae.decode(latent).clamp(-1, 1)
    # Norms over the few numbers of so small a tile make much of rounding.
    assert measured["val_seam"] == pytest.approx(float((whole - tiled).abs().mean()), rel=0.02)
    assert measured["val_psnr_tiled"] == pytest.approx(float(psnr(tiled, clips)), rel=0.02)
    assert measured["val_psnr"] == pytest.approx(float(psnr(whole, clips)), rel=1e-4)


def test_tensorboard_gets_the_picture_and_others_no_error(validate, module, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    clips = [torch.rand(1, 3, 1, 16, 16)] * 2
    validate(module, clips, CSVLogger(tmp_path))
    validate(module, clips, [TensorBoardLogger(tmp_path, name="board", version=0)])
    events = EventAccumulator(str(tmp_path / "board" / "version_0"), size_guidance={"images": 0}).Reload()
    (image,) = events.Images("val_reconstruction")
    assert (image.width, image.height) == (16, 32)


def test_lpips_is_measured_where_it_is_trained_on(validate, module):
    pytest.importorskip("lpips")
    module.lpips_weight = 0.1
    measured = validate(module, [torch.rand(1, 3, 1, 16, 16)], False)
    assert measured["val_lpips"] > 0
