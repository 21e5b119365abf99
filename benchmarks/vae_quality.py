"""PSNR, SSIM and LPIPS of autoencoders on a folder of images and videos, at the sizes of the paper's table 1.

    uv run benchmarks/vae_quality.py DIR --vae tiny-vae --vae diffusers:FOLDER --out quality.json --sheet worst.png

Images become 256x256, videos their first 33 frames at 640x360 (see `quality_items.py`). The latent is the posterior's
mode. PSNR and SSIM compare pixels of 8 bits, frame by frame; a clip's is the mean over its frames, a table's cell the
mean over images or clips. LPIPS is on the same pixels, over the VGG-16 of `--lpips-weights` (a file of torchvision's
weights); without that file there is none, since nothing is downloaded. The paper's own figures are on ImageNet's and
MCL-JCV's: other footage gives other numbers.

Shapes: B batch, C channels, T H W frames, height, width.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hy_data.contact_sheet import Row, write_contact_sheet
from hy_plugins import HyError
from hy_weights import CheckpointError
from hyvideo_reconstruct.quality import compare
from machine import machine
from quality_coders import Coder, open_coder
from quality_items import LeftOut, Sizes, find_items, read_item
from quality_table import print_table
from rich.console import Console
from rich.progress import Progress

Frames = npt.NDArray[np.uint8]
Distance = Callable[[Frames, Frames], float]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write what is asked for; 2 if nothing could be measured."""
    arguments = _parser().parse_args(argv)
    try:
        report = _measure_all(arguments)
    except (HyError, CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print_table(report, why_no_lpips=None if arguments.lpips_weights else "no --lpips-weights")
    return 0


def _parser() -> argparse.ArgumentParser:
    sizes = Sizes()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", metavar="DIR", type=Path, help="images and videos, in any folders beneath it")
    text = "a bundled model, what load_vae takes, or diffusers:FOLDER; may be given again (default tiny-vae)"
    parser.add_argument("--vae", metavar="NAME", action="append", help=text)
    parser.add_argument("--image-size", type=int, default=sizes.image, help=f"default {sizes.image}")
    parser.add_argument("--video-size", nargs=2, type=int, metavar=("W", "H"), default=(sizes.width, sizes.height))
    parser.add_argument("--frames", type=int, default=sizes.frames, help=f"of each video (default {sizes.frames})")
    parser.add_argument("--limit", type=int, help="images, and videos, to take at most, evenly spread")
    parser.add_argument("--lpips-weights", metavar="FILE", type=Path, help="torchvision's VGG-16, .pth or .safetensors")
    parser.add_argument("--tiling", choices=("auto", "on", "off"), default="auto")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", metavar="FILE", type=Path, help="JSON with every item's figures")
    parser.add_argument("--sheet", metavar="FILE", type=Path, help="PNG of each autoencoder's worst items")
    parser.add_argument("--worst", type=int, default=3, help="items of each kind on the sheet (default 3)")
    return parser


def _measure_all(arguments: argparse.Namespace) -> dict[str, Any]:
    if not arguments.folder.is_dir():
        raise OSError(f"{arguments.folder} is no folder; give one with images or videos")
    width, height = arguments.video_size
    sizes = Sizes(image=arguments.image_size, width=width, height=height, frames=arguments.frames)
    items = {kind: _spread(files, arguments.limit) for kind, files in find_items(arguments.folder).items()}
    distance = _lpips(arguments.lpips_weights, arguments.device) if arguments.lpips_weights else None
    device, rows, left_out, sheet = torch.device(arguments.device), [], {}, []
    for name in arguments.vae or ["tiny-vae"]:
        coder = open_coder(name, dtype=getattr(torch, arguments.dtype), device=device, tiling=arguments.tiling)
        found, left_out = _measure(coder, items, sizes, distance)
        rows.append({"vae": name, "parameters": coder.parameters, "latent": coder.latent} | _summary(found))
        rows[-1]["items"] = found
        sheet += _worst(coder, found, sizes, arguments) if arguments.sheet else []
    if not any(row["items"][kind] for row in rows for kind in items):
        raise OSError(f"{arguments.folder}: no image or video could be used; {len(left_out)} were left out")
    if sheet:
        write_contact_sheet(arguments.sheet, sheet, columns=4, frame_height=128)
    return {
        "machine": machine(device),
        "sizes": {"image": sizes.image, "video": [sizes.frames, sizes.height, sizes.width]},
        "dtype": arguments.dtype,
        "left_out": left_out,
        "results": rows,
    }


def _spread(files: list[Path], limit: int | None) -> list[Path]:
    if limit is None or len(files) <= limit:
        return files
    return [files[round(place)] for place in np.linspace(0, len(files) - 1, limit)]


def _measure(
    coder: Coder, items: dict[str, list[Path]], sizes: Sizes, distance: Distance | None
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Figures of each item by kind, and why others have none."""
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in items}
    left_out: dict[str, str] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for kind, files in items.items():
            for file in progress.track(files, description=f"{coder.name}: {kind}"):
                try:
                    frames_THWC = read_item(file, sizes)
                except LeftOut as reason:
                    left_out[str(file)] = str(reason)
                    continue
                rebuilt_THWC = coder.reconstruct(frames_THWC)
                quality = compare(frames_THWC, rebuilt_THWC)
                figures = {"file": str(file), "psnr": quality.mean_psnr, "ssim": quality.mean_ssim}
                figures["lpips"] = distance(frames_THWC, rebuilt_THWC) if distance else None
                found[kind].append(figures)
    return found, left_out


def _summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means over images and over clips."""
    means: dict[str, Any] = {}
    for kind, figures in found.items():
        means[kind] = {"count": len(figures)}
        for name in ("psnr", "ssim", "lpips"):
            values = [item[name] for item in figures if item[name] is not None]
            means[kind][name] = mean(values) if values else None
    return means


def _worst(
    coder: Coder, found: dict[str, list[dict[str, Any]]], sizes: Sizes, arguments: argparse.Namespace
) -> list[Row]:
    """The items with the lowest PSNR: some frames of the original, and what became of them."""
    rows = []
    for figures in found.values():
        for item in sorted(figures, key=lambda item: item["psnr"])[: arguments.worst]:
            frames_THWC = read_item(Path(item["file"]), sizes)
            label = f"{coder.name}: {Path(item['file']).name}, {item['psnr']:.2f} dB"
            rows += [Row(label, frames_THWC), Row("reconstruction", coder.reconstruct(frames_THWC))]
    return rows


def _lpips(weights: Path, device: str) -> Distance:
    from hy_vae3d.perceptual import PerceptualDistance  # needs lpips, which is in the extra `train`

    measure = PerceptualDistance(weights)

    def video(frames_THWC: Frames) -> torch.Tensor:
        return torch.from_numpy(frames_THWC).permute(3, 0, 1, 2)[None].to(device, torch.float32) / 127.5 - 1

    @torch.inference_mode()
    def distance(one_THWC: Frames, other_THWC: Frames) -> float:
        pairs = zip(one_THWC, other_THWC, strict=True)  # VGG's activations of one frame at a time
        return mean(float(measure(video(other[None]), video(one[None]))) for one, other in pairs)

    return distance


if __name__ == "__main__":
    sys.exit(main())
