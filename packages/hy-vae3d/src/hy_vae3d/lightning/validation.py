"""What validation measures and shows.

Shapes: B batch, C channels, T H W frames, height, width. Pixels are in [-1, 1].
"""

from collections.abc import Iterable

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

SHOWN_FRAMES = 4


def psnr(video_BCTHW: Tensor, target_BCTHW: Tensor) -> Tensor:
    """Return the PSNR in dB, of each clip as a whole, averaged over the clips."""
    return peak_signal_noise_ratio(
        video_BCTHW, target_BCTHW, data_range=2.0, dim=(1, 2, 3, 4), reduction="elementwise_mean"
    )


def ssim(video_BCTHW: Tensor, target_BCTHW: Tensor) -> Tensor:
    """Return the structural similarity of the frames, on pixels in [0, 1], averaged over all of them."""
    video, target = (((clip + 1.0) / 2.0).transpose(1, 2).flatten(0, 1) for clip in (video_BCTHW, target_BCTHW))
    similarity = structural_similarity_index_measure(video, target, data_range=1.0)
    assert isinstance(similarity, Tensor)
    return similarity


def side_by_side(video_BCTHW: Tensor, target_BCTHW: Tensor) -> Tensor:
    """Return a picture [3, 2H, n*W] in [0, 1]: frames of the first clip as they should be, and below as they are."""
    frames = video_BCTHW.shape[2]
    shown = torch.linspace(0, frames - 1, min(SHOWN_FRAMES, frames)).round().long()
    rows = [clip_BCTHW[0][:, shown].permute(0, 2, 1, 3).flatten(2) for clip_BCTHW in (target_BCTHW, video_BCTHW)]
    return ((torch.cat(rows, dim=1).float() + 1.0) / 2.0).clamp(0.0, 1.0)


def show(loggers: Iterable[object], name: str, picture: Tensor, step: int) -> None:
    """Give a picture to those loggers that take pictures."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture.cpu(), step)
