"""What is trained on, and the random draws that go with each batch.

Shapes: B batch, C channels, T H W frames/height/width of the latent or of the video.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import torch
from hy_plugins import TextTokens
from torch import Tensor

from hy_flow.noise import counter_noise, counter_uniform


class TrainingBatch(TypedDict):
    """Latents, times the autoencoder's scaling factor, or pixels in [-1, 1]; and a caption for each.

    `text` is what the module's encoder makes of the captions, where who loads a batch has looked that up, see
    `texts.StoredTexts`. `number` is the batch's over all processes and epochs of a run, and `keys` say what its samples
    are. A batch without a number has that of its place: batches so far times processes, plus the rank.
    """

    captions: Sequence[str]
    latent_BCTHW: NotRequired[Tensor]
    video_BCTHW: NotRequired[Tensor]
    text: NotRequired[TextTokens]
    number: NotRequired[int]
    keys: NotRequired[Sequence[str]]


@dataclass(frozen=True)
class Draws:
    """Random numbers that depend on the seed, the purpose, the batch's number and the row in it, and on nothing else.

    Attributes:
        seed: of the run.
        purpose: `train` or `validation`.
        number: the batch's.
        batch: its samples.
        device: where tensors are drawn.
    """

    seed: int
    purpose: str
    number: int
    batch: int
    device: torch.device

    def uniform(self, what: str) -> Tensor:
        """Draw one number in (0, 1) per sample, B."""
        return counter_uniform(
            (self.batch,), self.seed, stream=self._stream(what), rows=range(self.batch), device=self.device
        )

    def noise(self, what: str, like_BCTHW: Tensor) -> Tensor:
        """Draw from N(0, 1), BCTHW, float32."""
        return counter_noise(
            like_BCTHW.shape, self.seed, stream=self._stream(what), rows=range(self.batch), device=self.device
        )

    def happens(self, what: str, probability: float) -> list[bool]:
        """Draw for each sample whether something of that probability happens."""
        uniform_B = counter_uniform((self.batch,), self.seed, stream=self._stream(what), rows=range(self.batch))
        return [chance < probability for chance in uniform_B.tolist()]

    def _stream(self, what: str) -> str:
        return f"{self.purpose}/{what}/{self.number}"
