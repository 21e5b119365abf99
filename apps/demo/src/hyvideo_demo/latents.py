"""Stage 3: clips to latents, with the autoencoder that stage 2 adapted.

Shapes: B batch, C channels, T H W frames, height, width, N every position of every clip.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from hy_data import Bucket, StoredClip, choose_bucket, fit
from hy_data.latents import LatentSample, write_latents
from hy_data.lightning import to_video
from hy_vae3d import VAE3D, load_vae
from hy_weights import write_model

WINDOW_STEP = 4


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One shot: its clip at the demo's size, and the autoencoder's version of it.

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


def standardize(adapted: Path, published: Path, clips: Sequence[StoredClip], buckets: Sequence[Bucket]) -> None:
    """Publish the adapted autoencoder with latents of mean 0 and deviation 1 on these clips, channel by channel."""
    vae = load_vae(adapted)
    with torch.no_grad():
        means = [vae.encode(to_video([windows(clip, buckets)[0]])).mode() for clip in clips]
    every_CN = torch.cat([mean_BCTHW.movedim(1, 0).flatten(1) for mean_BCTHW in means], dim=1)
    vae.standardize_latents(every_CN.mean(dim=1), every_CN.std(dim=1))
    write_model(published, vae.state_dict(), asdict(vae.config), provenance={"standardized on": len(clips)})


def encode(
    vae: VAE3D, clips: Sequence[StoredClip], buckets: Sequence[Bucket], folder: Path, advance: Callable[[], None]
) -> None:
    """Write the latents of every window of every clip; `advance` is called after each clip."""

    def samples() -> Iterator[LatentSample]:
        for clip in clips:
            for number, window_THWC in enumerate(windows(clip, buckets)):
                with torch.no_grad():
                    latent_BCTHW = vae.encode(to_video([window_THWC])).mode() * vae.scaling_factor
                source = {"clip": clip.key, "first": number * WINDOW_STEP}
                yield LatentSample(f"{clip.key}-{number:04d}", latent_BCTHW[0].numpy(), caption_of(clip), source)
            advance()

    write_latents(folder, samples())


def rebuild(vae: VAE3D, clips: Sequence[StoredClip], buckets: Sequence[Bucket]) -> list[Shot]:
    """Pass each clip's first window through the autoencoder."""
    shots: list[Shot] = []
    for clip in clips:
        real_THWC = windows(clip, buckets)[0]
        with torch.no_grad():
            rebuilt_BCTHW = vae.decode(vae.encode(to_video([real_THWC])).mode())
        rebuilt_THWC = to_frames(rebuilt_BCTHW)
        fps = float(clip.load().fps)
        shots.append(Shot(caption_of(clip), fps, len(real_THWC), real_THWC, rebuilt_THWC))
    return shots


def windows(clip: StoredClip, buckets: Sequence[Bucket]) -> list[np.ndarray]:
    """Return the clip's windows, uint8 [T, H, W, 3], of the longest bucket it fills, one every four frames."""
    frames_THWC = clip.load().frames_THWC
    count, height, width = frames_THWC.shape[:3]
    bucket = choose_bucket(buckets, frames=count, height=height, width=width)
    assert bucket is not None  # clips are at least as long as the shortest bucket
    sized_THWC = fit(frames_THWC, bucket.height, bucket.width)
    return [sized_THWC[first : first + bucket.frames] for first in range(0, count - bucket.frames + 1, WINDOW_STEP)]


def caption_of(clip: StoredClip) -> str:
    """Return a clip's short caption."""
    return str(clip.description["captions"]["short"])


def to_frames(video_BCTHW: torch.Tensor) -> np.ndarray:
    """Turn a batch of one clip in [-1, 1] into uint8 frames."""
    return ((video_BCTHW[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()
