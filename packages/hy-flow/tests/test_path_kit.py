"""The path kit passes the straight path, and sees each way to break a promise.

Shapes: B batch, C channels, T H W frames/height/width.
"""

import pytest
from hy_flow.testing import PathContract


class Straight:
    def sample(self, latent_BCTHW, noise_BCTHW, sigma_B):
        sigma = sigma_B.view(-1, 1, 1, 1, 1)
        return (1 - sigma) * latent_BCTHW + sigma * noise_BCTHW, noise_BCTHW - latent_BCTHW


class TestStraight(PathContract):
    def make(self):
        return Straight()


class Backwards(Straight):
    def sample(self, latent_BCTHW, noise_BCTHW, sigma_B):
        return super().sample(latent_BCTHW, noise_BCTHW, 1 - sigma_B)


class OneLevel(Straight):
    def sample(self, latent_BCTHW, noise_BCTHW, sigma_B):
        return super().sample(latent_BCTHW, noise_BCTHW, sigma_B[:1].expand_as(sigma_B))


class AnswersWhatIsSeen(Straight):
    def sample(self, latent_BCTHW, noise_BCTHW, sigma_B):
        noisy_BCTHW, _ = super().sample(latent_BCTHW, noise_BCTHW, sigma_B)
        return noisy_BCTHW, -noisy_BCTHW


class NotAMixture(Straight):
    def sample(self, latent_BCTHW, noise_BCTHW, sigma_B):
        noisy_BCTHW, velocity_BCTHW = super().sample(latent_BCTHW, noise_BCTHW, sigma_B)
        return noisy_BCTHW, velocity_BCTHW.flip(1)


class InPlace(Straight):
    def sample(self, latent_BCTHW, noise_BCTHW, sigma_B):
        latent_BCTHW += sigma_B.view(-1, 1, 1, 1, 1) * (noise_BCTHW - latent_BCTHW)
        return latent_BCTHW, noise_BCTHW


@pytest.mark.parametrize(
    ("path", "broken", "message"),
    [
        (Backwards, "from_data_to_noise", "not close"),
        (InPlace, "from_data_to_noise", "the path wrote into the latent"),
        (OneLevel, "each_sample_has_its_level", "not close"),
        (AnswersWhatIsSeen, "the_answer_tells_the_data", "the answer says nothing that is not seen"),
        (NotAMixture, "the_answer_tells_the_data", "not close"),
    ],
)
def test_a_broken_path_is_seen(path, broken, message):
    class Kit(PathContract):
        def make(self):
            return path()

    with pytest.raises(AssertionError, match=message):
        getattr(Kit(), f"test_{broken}")()
