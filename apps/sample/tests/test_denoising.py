import pytest
import torch
from hy_flow import Euler, Heun, linear_quadratic, sigmas
from hyvideo_sample.denoising import noise_levels, watched
from hyvideo_sample.noise import draw_noise
from hyvideo_sample.settings import Settings

SHAPE = (1, 4, 2, 4, 6)


def test_the_schedule_is_the_one_that_was_named():
    assert torch.equal(noise_levels(Settings(steps=9, shift=5)), sigmas(9, 5.0))
    assert torch.equal(noise_levels(Settings(steps=9, schedule="linear-quadratic")), linear_quadratic(9))


@pytest.mark.parametrize(("sampler", "counts"), [(Euler(), [0, 1, 2]), (Heun(), [0, 1, 1, 2, 2])], ids=type)
def test_progress_is_told_whenever_a_noise_level_is_reached_and_at_the_end(sampler, counts):
    told, seen = [], []

    def velocity(x, sigma):
        seen.append(len(told))
        return x

    with watched(velocity, sigmas(3, 7.0), lambda: told.append(1)) as followed:
        sampler.sample(followed, torch.ones(SHAPE), sigmas(3, 7.0))
    assert seen == counts
    assert len(told) == 3


def test_a_sampler_that_fails_is_not_said_to_be_done():
    told = []
    with pytest.raises(MemoryError), watched(lambda *_: 1 / 0, sigmas(3, 7.0), lambda: told.append(1)):
        raise MemoryError
    assert told == []


def test_each_source_draws_its_own_noise_and_the_same_each_time():
    drawn = {source: draw_noise(source, 7, SHAPE, "cpu") for source in ("counter", "diffusers", "released")}
    assert {noise.dtype for noise in drawn.values()} == {torch.float32}
    assert torch.equal(drawn["diffusers"], torch.randn(SHAPE, generator=torch.Generator().manual_seed(7)))
    half = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7), dtype=torch.float16)
    assert torch.equal(drawn["released"], half.float())
    for source, noise in drawn.items():
        assert torch.equal(noise, draw_noise(source, 7, SHAPE, "cpu"))
        assert not torch.equal(noise, draw_noise(source, 8, SHAPE, "cpu"))
    assert not torch.equal(drawn["counter"], drawn["diffusers"])
