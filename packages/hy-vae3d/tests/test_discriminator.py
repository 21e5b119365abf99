"""The adversary takes images and clips, and judges each clip by itself."""

import pytest
import torch
from hy_vae3d import VAEConfigError
from hy_vae3d.discriminator import PatchDiscriminator


@pytest.mark.parametrize(("frames", "size", "scores"), [(1, 16, (1, 2)), (5, 16, (2, 2)), (17, 40, (5, 5))])
def test_a_score_for_each_patch(frames, size, scores):
    judged = PatchDiscriminator(8)(torch.zeros(2, 3, frames, size, size))
    assert judged.shape == (2, 1, scores[0], scores[1], scores[1])


def test_a_patch_is_47_pixels_wide():
    """Without norms, whose statistics span the clip."""
    torch.manual_seed(0)
    judge = PatchDiscriminator(8)
    judge.layers = torch.nn.Sequential(*[one for one in judge.layers if not isinstance(one, torch.nn.GroupNorm)])
    picture = torch.randn(1, 3, 1, 128, 128, requires_grad=True)
    judge(picture)[0, 0, 0, 8, 8].backward()
    assert picture.grad is not None
    rows = picture.grad.abs().sum((0, 1, 2, 4)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 47


def test_a_clip_is_judged_by_itself():
    judge, videos = PatchDiscriminator(8), torch.randn(3, 3, 5, 16, 16)
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    torch.testing.assert_close(judge(videos)[1:2], judge(videos[1:2]))
    assert all(torch.equal(value, before[name]) for name, value in judge.state_dict().items())


@pytest.mark.parametrize("width", [0, 12])
def test_other_widths_are_refused(width):
    with pytest.raises(VAEConfigError, match=f"positive multiple of 8, got {width}"):
        PatchDiscriminator(width)
