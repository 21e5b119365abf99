import numpy as np
import pytest
from hyvideo_reconstruct.quality import MOST_PSNR, compare
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def test_each_frame_has_its_psnr_and_the_clip_their_mean(frames_THWC):
    noisy_THWC = frames_THWC.copy()
    noisy_THWC[2, :, :, 1] ^= 8  # a third of the numbers are 8 levels off
    noisy_THWC[5] ^= 1
    found = compare(frames_THWC, noisy_THWC)
    off_by = {2: 64 / 3, 5: 1}
    expected = [10 * np.log10(255**2 / off_by[n]) if n in off_by else MOST_PSNR for n in range(7)]
    assert found.psnr == pytest.approx(expected)
    assert found.mean_psnr == pytest.approx(np.mean(expected))
    assert found.worst == 2


def test_levels_are_subtracted_without_wrapping_round():
    dark_THWC, light_THWC = np.zeros((1, 8, 8, 3), np.uint8), np.full((1, 8, 8, 3), 255, np.uint8)
    assert compare(dark_THWC, light_THWC).psnr == compare(light_THWC, dark_THWC).psnr == [0]


def test_the_figures_are_those_of_another_implementation():
    rng = np.random.default_rng(0)
    one_HWC = rng.integers(0, 256, (40, 56, 3), np.uint8)
    other_HWC = np.clip(one_HWC + rng.normal(0, 20, one_HWC.shape), 0, 255).astype(np.uint8)
    found = compare(one_HWC[None], other_HWC[None])
    assert found.psnr[0] == pytest.approx(peak_signal_noise_ratio(one_HWC, other_HWC), abs=1e-4)
    theirs = structural_similarity(
        one_HWC,
        other_HWC,
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert found.mean_ssim == pytest.approx(theirs, abs=2e-3)  # they treat the borders otherwise


def test_frames_smaller_than_the_window_have_no_ssim(frames_THWC):
    assert compare(frames_THWC[:, :10], frames_THWC[:, :10]).mean_ssim is None
    assert compare(frames_THWC[:, :11], frames_THWC[:, :11]).mean_ssim == pytest.approx(1, abs=1e-4)


def test_clips_of_different_shapes_are_not_compared(frames_THWC):
    with pytest.raises(ValueError, match="zip"):
        compare(frames_THWC, frames_THWC[1:])
    with pytest.raises(ValueError, match="frames of one size"):
        compare(frames_THWC, frames_THWC[:, 1:])
