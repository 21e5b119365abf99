"""The way from noise to a latent: which noise levels it visits, what velocity it follows, how far along it one is.

Shapes: B batch, C channels, T H W latent frames, height, width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hy_dit import DiT
from hy_flow import Velocity, embedded_guidance, guided, linear_quadratic, sigmas
from hy_plugins import TextTokens
from torch import Tensor

from hyvideo_sample.settings import Settings


def noise_levels(settings: Settings) -> Tensor:
    """The schedule that the settings name: steps + 1 levels, from 1 to 0."""
    if settings.schedule == "linear-quadratic":
        return linear_quadratic(settings.steps)
    return sigmas(settings.steps, float(settings.shift))


def guided_velocity(dit: DiT, text: TextTokens, null_text: TextTokens, settings: Settings) -> Velocity:
    """The velocity towards a prompt, guided as the settings say."""
    interval, rescale = (settings.guidance_low, settings.guidance_high), settings.guidance_rescale
    if dit.config.guidance_embed:
        told = embedded_guidance(dit, settings.guidance, dtype=dit.img_in.proj.weight.dtype)
        return guided(told, text, null_text, settings.true_cfg, interval=interval, rescale=rescale)
    return guided(dit, text, null_text, settings.guidance, interval=interval, rescale=rescale)


@contextmanager
def watched(velocity: Velocity, levels: Tensor, step_done: Callable[[], None]) -> Iterator[Velocity]:
    """Tell how far a sampler is, whoever's it is, by the noise levels that it asks for.

    Args:
        velocity: what it follows.
        levels: its schedule.
        step_done: is called once per step of the schedule.

    Yields:
        the velocity to give to the sampler.
    """
    ends, done = levels[1:].tolist(), 0

    def advance(reached: int) -> None:
        nonlocal done
        for _ in range(reached - done):
            step_done()
        done = max(done, reached)

    def watching(x_BCTHW: Tensor, sigma: Tensor) -> Tensor:
        advance(sum(end >= float(sigma) for end in ends))
        return velocity(x_BCTHW, sigma)

    yield watching
    advance(len(ends))
