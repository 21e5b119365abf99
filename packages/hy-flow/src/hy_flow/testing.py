"""The conformance kit of paths: `class TestMine(PathContract)`, say how to make yours, run pytest.

It is one of those of `hy_plugins.testing`, which says how they are used.

Shapes: B batch, C channels, T H W frames/height/width of the latent.
"""

import torch
from hy_plugins.testing import Contract
from torch import Tensor


class PathContract(Contract):
    """Promises of a path."""

    near = 0.05  # how far from latent and noise the path may begin and end

    def points(self, sigma: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latent, noise, what the network sees at that level and what it is to answer; both arguments must stay."""
        latent_BCTHW, noise_BCTHW = self.draw(2, 4, 1, 3, 3), self.draw(2, 4, 1, 3, 3, seed=1)
        found = self.make().sample(latent_BCTHW, noise_BCTHW, torch.full((2,), sigma, dtype=latent_BCTHW.dtype))
        drawn = self.draw(2, 4, 1, 3, 3), self.draw(2, 4, 1, 3, 3, seed=1)
        assert torch.equal(latent_BCTHW, drawn[0]), "the path wrote into the latent"
        assert torch.equal(noise_BCTHW, drawn[1]), "the path wrote into the noise"
        return *drawn, *found

    def test_from_data_to_noise(self) -> None:
        """At sigma 0 the network sees the latent, at 1 the noise."""
        for sigma, end in ((0.0, 0), (1.0, 1)):
            points = self.points(sigma)
            torch.testing.assert_close(points[2], points[end], rtol=0, atol=self.near)

    def test_each_sample_has_its_level(self) -> None:
        """Samples of a batch do not meet."""
        mixed = self.make().sample(*self.points(0.0)[:2], self.draw(2).new_tensor([0.2, 0.9]))
        for row, sigma in enumerate((0.2, 0.9)):
            for found, expected in zip(mixed, self.points(sigma)[2:], strict=True):
                torch.testing.assert_close(found[row], expected[row])

    def test_the_answer_tells_the_data(self) -> None:
        """What is seen and what is answered are two different mixtures: together they give latent and noise."""
        for sigma in (0.1, 0.5, 0.9):
            latent, noise, *mixtures = (values.flatten() for values in self.points(sigma))
            ends, mixed = torch.stack((latent, noise), 1), torch.stack(mixtures, 1)
            shares = torch.inverse(ends.T @ ends) @ ends.T @ mixed
            torch.testing.assert_close(ends @ shares, mixed, rtol=1e-3, atol=1e-3)
            assert abs(float(shares.det())) > 0.1, f"at sigma {sigma} the answer says nothing that is not seen"
