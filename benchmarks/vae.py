"""Our VAE against diffusers', in one process, alternating, with the same weights, at the released size.

    uv run benchmarks/vae.py --out benchmarks/results/vae-cpu.json

Each case runs both in turn; the figure is the median over pairs of our time divided by theirs. Peak memory is that of
what tensors take in one call beside the weights. Tiles are the released ones in both: diffusers' own differ over time.

Shapes: B batch, C channels, T H W frames, height, width.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from compare import compare, show
from diffusers import AutoencoderKLHunyuanVideo  # pyright: ignore[reportPrivateImportUsage]
from hy_vae3d import VAE3D, Tiling, VAE3DConfig
from hy_vae3d.layout import to_diffusers_config
from machine import machine
from torch import Tensor


def main() -> None:
    """Run the cases and write the figures."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    models = _models()
    results = []
    for dtype in arguments.dtype:
        for model in models:
            model.to(getattr(torch, dtype))
        for frames in arguments.frames:
            for tiled in arguments.tiled:
                _tile(models, tiled=tiled == "yes")
                for work, calls in _calls(models, dtype, frames, arguments.size).items():
                    case = {"work": work, "dtype": dtype, "frames": frames, "size": arguments.size, "tiled": tiled}
                    results.append({**case, **compare(*calls, arguments.pairs)})
                    print(json.dumps(results[-1]), flush=True)
    report = {"machine": machine(), "results": results}
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    columns = ("work", "dtype", "frames", "size", "tiled", "time_ratio", "memory_ratio", "gigaflops_per_second")
    show("hy-vae3d / diffusers", columns, report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], help="(default: both)")
    parser.add_argument("--frames", nargs="+", type=int, default=[17], help="of the clip (default: 17)")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels (default: %(default)s)")
    parser.add_argument("--tiled", nargs="+", choices=("no", "yes"), default=["no"], help="(default: no)")
    parser.add_argument("--pairs", type=int, default=3, help="of runs (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    return parser


def _models() -> tuple[VAE3D, AutoencoderKLHunyuanVideo]:
    """Both VAEs with the same random weights."""
    config = VAE3DConfig.preset("hunyuan-video")
    vae = VAE3D(config).eval()
    values = {key: value for key, value in to_diffusers_config(config).items() if key != "_class_name"}
    other = AutoencoderKLHunyuanVideo(**values).eval()
    other.load_state_dict(vae.state_dict(), strict=True)
    return vae, other


def _tile(models: tuple[VAE3D, AutoencoderKLHunyuanVideo], *, tiled: bool) -> None:
    vae, other = models
    vae.tiling = Tiling() if tiled else None
    other.use_tiling = other.use_framewise_encoding = other.use_framewise_decoding = tiled
    other.tile_sample_min_num_frames, other.tile_sample_stride_num_frames = 64, 48


def _calls(
    models: tuple[VAE3D, AutoencoderKLHunyuanVideo], dtype: str, frames: int, size: int
) -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
    """One call of ours and one of theirs on the same input, by what they do."""
    vae, other = models
    video_BCTHW = (torch.rand(1, 3, frames, size, size) * 2 - 1).to(getattr(torch, dtype))
    latent_BCTHW = torch.randn(1, vae.latent_channels, (frames - 1) // 4 + 1, size // 8, size // 8).to(video_BCTHW)

    @torch.no_grad()
    def encode() -> Tensor:
        return vae.encode(video_BCTHW).mean

    @torch.no_grad()
    def their_encode() -> Tensor:
        return other.encode(video_BCTHW, return_dict=False)[0].mean  # pyright: ignore[reportReturnType]

    @torch.no_grad()
    def decode() -> Tensor:
        return vae.decode(latent_BCTHW)

    @torch.no_grad()
    def their_decode() -> Tensor:
        return other.decode(latent_BCTHW, return_dict=False)[0]

    return {"encode": (encode, their_encode), "decode": (decode, their_decode)}


if __name__ == "__main__":
    main()
