"""The sampler kit passes Euler and Heun, and sees each way to break a promise.

Shapes: B batch, C channels, T H W frames/height/width.
"""

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from hy_plugins.testing import SamplerContract  # noqa: E402


class Euler:
    def sample(self, velocity, noise_BCTHW, sigmas):
        x_BCTHW = noise_BCTHW
        for now, then in pairwise(sigmas):
            x_BCTHW = x_BCTHW + (then - now) * velocity(x_BCTHW, now)
        return x_BCTHW


class Heun:
    def sample(self, velocity, noise_BCTHW, sigmas):
        x_BCTHW = noise_BCTHW
        for now, then in pairwise(sigmas):
            first = velocity(x_BCTHW, now)
            second = velocity(x_BCTHW + (then - now) * first, then)
            x_BCTHW = x_BCTHW + (then - now) * (first + second) / 2
        return x_BCTHW


class TestEuler(SamplerContract):
    def make(self):
        return Euler()


class TestHeun(SamplerContract):
    def make(self):
        return Heun()


class InPlace:
    def sample(self, velocity, noise_BCTHW, sigmas):
        for now, then in pairwise(sigmas):
            noise_BCTHW += (then - now) * velocity(noise_BCTHW, now)
        return noise_BCTHW


class Backwards(Euler):
    def sample(self, velocity, noise_BCTHW, sigmas):
        return super().sample(lambda x, sigma: -velocity(x, sigma), noise_BCTHW, sigmas)


class Timesteps(Euler):
    def sample(self, velocity, noise_BCTHW, sigmas):
        return super().sample(lambda x, sigma: velocity(x, sigma * 1.5), noise_BCTHW, sigmas)


class OneStep(Euler):
    def sample(self, velocity, noise_BCTHW, sigmas):
        return super().sample(velocity, noise_BCTHW, sigmas[[0, -1]])


class NeedsTwoSteps(Euler):
    def sample(self, velocity, noise_BCTHW, sigmas):
        assert sigmas[2] < sigmas[1]
        return super().sample(velocity, noise_BCTHW, sigmas)


class StopsEarly(Euler):
    def sample(self, velocity, noise_BCTHW, sigmas):
        return super().sample(velocity, noise_BCTHW, sigmas[:-1])


@pytest.mark.parametrize(
    ("sampler", "broken", "message"),
    [
        (InPlace, "straight_path", "the sampler wrote into the noise"),
        (Backwards, "straight_path", "not close"),
        (NeedsTwoSteps, "straight_path", "IndexError"),
        (StopsEarly, "straight_path", "not close"),
        (Timesteps, "straight_path", "velocity's sigma is 1.5"),
        (OneStep, "converges", "the error is "),
        (Timesteps, "converges", "velocity's sigma is 1.5"),
    ],
)
def test_a_broken_sampler_is_seen(broken_promises, sampler, broken, message):
    class Kit(SamplerContract):
        def make(self):
            return sampler()

    assert message in broken_promises(Kit)[f"test_{broken}"]
