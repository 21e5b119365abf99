"""What storing latents costs: error and bytes of bf16, and of 8 bits scaled per channel or per channel and frame.

    uv run benchmarks/latents.py --out benchmarks/results/latents.json      # the street clip through the tiny VAE
    uv run benchmarks/latents.py clip.mp4 --vae hf://org/name --frames 33 --size 256x256

Every error is a root mean square, beside the deviation of the latents (each channel about its mean) and beside the
posterior's own: what an error has to be small against, since training on samples instead of the mode adds that much
noise. `pixels` is the PSNR of what is decoded, against what the latents decode to as they are.

Shapes: B batch, C channels, T H W frames, height, width; N numbers of all windows.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from hy_data import fit, read_video, split_shots, street_clip
from hy_data.lightning import to_video
from hy_plugins import Plugins
from hy_vae3d import VAE3D, load_vae
from machine import machine
from torch import Tensor

Rounding = Callable[[Tensor], Tensor]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("video", nargs="?", type=Path, help="default: the street clip of hy-data's extra `footage`")
    parser.add_argument("--vae", default="tiny-vae", help="a bundled model, or what load_vae takes")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", default="128x224", help="HEIGHTxWIDTH")
    parser.add_argument("--windows", type=int, default=6)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    report = _measure(given)
    print(json.dumps(report, indent=2))
    if given.out:
        given.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


@torch.inference_mode()
def _measure(given: argparse.Namespace) -> dict[str, Any]:
    plugins = Plugins()
    vae = load_vae(plugins.load("model", given.vae)() if given.vae in plugins.names("model") else given.vae)
    posteriors = [vae.encode(video_BCTHW) for video_BCTHW in _windows(given)]
    latents = [posterior.mode() * vae.scaling_factor for posterior in posteriors]
    deviation_C = torch.cat([latent_BCTHW.movedim(1, 0).flatten(1) for latent_BCTHW in latents], dim=1).std(dim=1)
    deviation = float(deviation_C.square().mean().sqrt())
    noise = [torch.exp(0.5 * posterior.logvar) * vae.scaling_factor for posterior in posteriors]
    return {
        "machine": machine(),
        "vae": given.vae,
        "windows": [list(latent_BCTHW.shape) for latent_BCTHW in latents],
        "deviation": deviation,
        "posterior": _rms(noise) / deviation,
        "formats": {
            "bf16": _compared(vae, latents, deviation, lambda latent_CTHW: latent_CTHW.bfloat16().float(), 2.0),
            "int8 per channel": _compared(vae, latents, deviation, lambda x: _rounded(x, (1, 2, 3)), 1.0),
            "int8": _compared(vae, latents, deviation, lambda x: _rounded(x, (2, 3)), 1.0),
        },
    }


def _windows(given: argparse.Namespace) -> list[Tensor]:
    """The first frames of each of the first shots."""
    height, width = map(int, given.size.split("x"))
    video = given.video or street_clip()
    shots = [shot for shot in split_shots(video) if shot.stop - shot.start >= given.frames][: given.windows]
    clips = [read_video(video, start=shot.start, stop=shot.start + given.frames).frames_THWC for shot in shots]
    return [to_video([fit(frames_THWC, height, width)]) for frames_THWC in clips]


def _rounded(latent_CTHW: Tensor, axes: tuple[int, ...]) -> Tensor:
    """256 even levels over the range of each slice."""
    least, largest = latent_CTHW.amin(axes, keepdim=True), latent_CTHW.amax(axes, keepdim=True)
    step = (largest - least) / 255
    return ((latent_CTHW - least) / step).round() * step + least


def _compared(vae: VAE3D, latents: list[Tensor], deviation: float, rounding: Rounding, size: float) -> dict[str, float]:
    errors, pixels = [], []
    for latent_BCTHW in latents:
        kept_BCTHW = rounding(latent_BCTHW[0])[None]
        errors.append(kept_BCTHW - latent_BCTHW)
        shown, kept = (vae.decode(x / vae.scaling_factor).clamp(-1, 1) for x in (latent_BCTHW, kept_BCTHW))
        pixels.append(shown - kept)
    error = _rms(errors)
    return {
        "bytes per number": size,
        "error": error / deviation,
        "latents PSNR": 20 * float(torch.tensor(deviation / error).log10()),
        "pixels PSNR": 20 * float(torch.tensor(2 / _rms(pixels)).log10()),
    }


def _rms(parts: list[Tensor]) -> float:
    return float(torch.cat([part.flatten() for part in parts]).square().mean().sqrt())


if __name__ == "__main__":
    raise SystemExit(main())
