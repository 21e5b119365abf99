"""Stage 3: the shots through the autoencoder that stage 2 adapted.

Shapes: B batch, C channels, T H W frames, height, width, N every position of every window.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from hy_data import Item
from hy_data.captions import short_caption
from hy_data.lightning import to_video
from hy_vae3d import VAE3D, load_vae
from hy_weights import write_model


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One shot: its first window at the demo's size, and the autoencoder's version of it.

    Attributes:
        caption: What it shows.
        fps: Frames per second.
        frames: Frames of its windows, 4n+1.
        real_THWC: The first window, uint8.
        rebuilt_THWC: The same through the autoencoder.
    """

    caption: str
    fps: float
    frames: int
    real_THWC: np.ndarray
    rebuilt_THWC: np.ndarray

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio of the reconstruction, in dB."""
        error = np.mean((self.real_THWC.astype(np.float64) - self.rebuilt_THWC) ** 2)
        return float(10 * np.log10(255.0**2 / max(error, 1e-12)))


def standardize(adapted: Path, published: Path, windows: Sequence[Item], advance: Callable[[], None]) -> None:
    """Publish the adapted autoencoder with latents of mean 0 and deviation 1 on these windows, channel by channel.

    Args:
        adapted: The autoencoder's folder.
        published: Where it goes.
        windows: What its latents are measured on.
        advance: Called after each window.
    """
    vae = load_vae(adapted)
    means: list[torch.Tensor] = []
    for window in windows:
        with torch.no_grad():
            means.append(vae.encode(to_video([window.frames()])).mode())
        advance()
    every_CN = torch.cat([mean_BCTHW.movedim(1, 0).flatten(1) for mean_BCTHW in means], dim=1)
    vae.standardize_latents(every_CN.mean(dim=1), every_CN.std(dim=1))
    write_model(published, vae.state_dict(), asdict(vae.config), provenance={"standardized on": len(windows)})


def rebuild(vae: VAE3D, windows: Sequence[Item], advance: Callable[[], None]) -> list[Shot]:
    """Pass each shot's first window through the autoencoder; `advance` is called after each."""
    shots: list[Shot] = []
    for window in windows:
        real_THWC, about = window.frames(), window.clip.description
        with torch.no_grad():
            rebuilt_BCTHW = vae.decode(vae.encode(to_video([real_THWC])).mode())
        caption, fps = short_caption(about["captions"], 0), float(Fraction(about["fps"]))
        shots.append(Shot(caption, fps, len(real_THWC), real_THWC, to_frames(rebuilt_BCTHW)))
        advance()
    return shots


def to_frames(video_BCTHW: torch.Tensor) -> np.ndarray:
    """Turn a batch of one clip in [-1, 1] into uint8 frames."""
    return ((video_BCTHW[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()
