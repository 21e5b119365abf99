"""`hyvideo reconstruct`: its options, and what they mean."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hyvideo_reconstruct.errors import ReconstructError

_ABOUT = "Encode and decode a video or picture, and write both side by side, with PSNR and SSIM."

_NOTES = """The left half is the input at the size that was encoded, the right half its reconstruction.
PSNR and SSIM compare pixels of 8 bits, frame by frame; a clip's is the mean of its frames.

examples:
  hyvideo reconstruct in.mp4 out.mp4
  hyvideo reconstruct in.mp4 out.mp4 --model hf://org/name --short-side 360 --frames 33
  hyvideo reconstruct photo.jpg out.png --model checkpoint/vae --device cuda --dtype bfloat16"""

MODEL = "tiny-vae"
FRAMES = 129


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asks for.

    Attributes:
        source: the video or picture.
        out: where to: an .mp4, or a .png for a picture.
        model: a bundled name, a path or a hub id.
        size: width and height to crop and resize to.
        short_side: length to resize the shorter side to.
        start: number of the first frame.
        frames: how many frames at most; None is the first 129, with a note if there are more.
        tiling: auto, on or off.
        dtype: float32 or bfloat16.
        device: auto, cpu or cuda.
        threads: CPU threads; None leaves it to torch.
        overwrite: whether an existing file may be replaced.
    """

    source: Path
    out: Path
    model: str
    size: tuple[int, int] | None
    short_side: int | None
    start: int
    frames: int | None
    tiling: Literal["auto", "on", "off"]
    dtype: str
    device: str
    threads: int | None
    overwrite: bool


def main(argv: Sequence[str]) -> int:
    """Run `hyvideo reconstruct`.

    Returns:
        0.

    Raises:
        HyError: the input can't be read, does not fit in memory, or the output can't be written.
        CheckpointError: the model can't be read.
    """
    request = parse(argv)
    from hyvideo_reconstruct.session import run  # brings torch, which takes seconds: not for --help or a wrong option

    run(request)
    return 0


def parse(argv: Sequence[str]) -> Request:
    """Read the command line.

    Raises:
        ReconstructError: a number is out of its range.
    """
    request = Request(**vars(_parser().parse_args(argv)))
    for name, least in (("short_side", 8), ("start", 0), ("frames", 1), ("threads", 1)):
        value = getattr(request, name)
        if value is not None and value < least:
            raise ReconstructError(f"{name.replace('_', '-')} is {value}; it must be at least {least}")
    if request.size and min(request.size) < 8:
        raise ReconstructError("size is {}x{}; both sides must be at least 8".format(*request.size))
    return request


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyvideo reconstruct",
        description=_ABOUT,
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="IN", type=Path, help="a video, or a picture (png, jpg, webp)")
    parser.add_argument("out", metavar="OUT", type=Path, help="an .mp4; a .png for a picture")
    text = f"a bundled name, a VAE's folder or file, a whole model's folder, or hf://org/name (default {MODEL})"
    parser.add_argument("--model", metavar="MODEL", default=MODEL, help=text)
    sizes = parser.add_mutually_exclusive_group()
    text = "crop the middle to this aspect and resize it (default: as it is)"
    sizes.add_argument("--size", metavar="WIDTHxHEIGHT", type=_size, help=text)
    sizes.add_argument("--short-side", metavar="N", type=int, help="resize the shorter side to this, keep the aspect")
    parser.add_argument("--start", metavar="N", type=int, default=0, help="number of the first frame (default 0)")
    parser.add_argument("--frames", metavar="N", type=int, help=f"how many at most (default {FRAMES})")
    text = "whether the VAE works in overlapping tiles; auto: where the memory asks for it (default auto)"
    parser.add_argument("--tiling", choices=("auto", "on", "off"), default="auto", help=text)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default float32")
    text = "auto takes cuda when there is one (default auto)"
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=text)
    parser.add_argument("--threads", metavar="N", type=int, help="CPU threads (default: torch decides)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    return parser


def _size(text: str) -> tuple[int, int]:
    matched = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if not matched:
        raise argparse.ArgumentTypeError(f"'{text}' is not WIDTHxHEIGHT, such as 640x360")
    return int(matched[1]), int(matched[2])
