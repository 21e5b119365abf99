"""One run of the command: look, check everything, encode, decode, compare, write, report.

Shapes: B batch, T frames, H height, W width, C channels (red, green, blue).
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from hy_data import write_video
from hy_data.files import require_place, staged
from hy_plugins import Plugins
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from hyvideo_reconstruct.autoencoder import Coder, open_coder
from hyvideo_reconstruct.cli import FRAMES, Request
from hyvideo_reconstruct.errors import ReconstructError
from hyvideo_reconstruct.footage import Footage, find_footage
from hyvideo_reconstruct.quality import Quality, compare

Frames = npt.NDArray[np.uint8]


def run(request: Request) -> None:
    """Do what a command line asks for.

    Raises:
        HyError: the input can't be read, does not fit in memory, or the output can't be written.
        CheckpointError: the model can't be read.
    """
    console = Console(stderr=True, highlight=False)
    footage = find_footage(request)
    _check_place(request.out, footage, overwrite=request.overwrite)
    if footage.left and request.frames is None:
        console.print(f"note: the first {FRAMES} frames are taken, {footage.left} are left; see --start and --frames")
    if request.threads:
        torch.set_num_threads(request.threads)
    coder = open_coder(request, Plugins(), console)
    coder.prepare((footage.frames, footage.height, footage.width))
    frames = track(footage.read(), "read", total=footage.frames, console=console, transient=True)
    original_THWC = np.stack(list(frames))
    rebuilt_THWC = coder.reconstruct(original_THWC)
    with console.status("compare"):
        quality = compare(original_THWC, rebuilt_THWC)
    _write(request, footage, original_THWC, rebuilt_THWC, quality)
    _report(request, footage, coder, quality)


def _check_place(out: Path, footage: Footage, *, overwrite: bool) -> None:
    """Refuse a place that could not be written to, before anything is computed."""
    ending = ".png" if footage.is_picture else ".mp4"
    if out.suffix.lower() != ending:
        what = "picture" if footage.is_picture else "video"
        raise ReconstructError(f"{out}: a {what}'s reconstruction is written as {ending}; name such a file")
    if out.exists() and footage.path.samefile(out):
        raise ReconstructError(f"{out} is the input; choose another output")
    require_place(out, overwrite=overwrite)


def _write(request: Request, footage: Footage, original_THWC: Frames, rebuilt_THWC: Frames, quality: Quality) -> None:
    """Write both side by side, the input on the left."""
    if footage.is_picture:
        with staged(request.out) as stage:
            both_HWC = np.concatenate([original_THWC[0], rebuilt_THWC[0]], axis=1)
            Image.fromarray(both_HWC).save(stage, format="png")
        return
    told = {
        "reconstruction_of": request.source.name,
        "model": request.model,
        "start": footage.start,
        "psnr": round(quality.mean_psnr, 3),
        "ssim": None if quality.mean_ssim is None else round(quality.mean_ssim, 5),
    }
    pairs = (
        np.concatenate([one_HWC, other_HWC], axis=1)
        for one_HWC, other_HWC in zip(original_THWC, rebuilt_THWC, strict=True)
    )
    write_video(request.out, pairs, footage.fps, metadata=told)


def _report(request: Request, footage: Footage, coder: Coder, quality: Quality) -> None:
    ssims = quality.ssim or [None] * len(quality.psnr)
    rows = [("mean", quality.mean_psnr, quality.mean_ssim)]
    if not footage.is_picture:
        worst = quality.worst
        rows.append((f"worst frame, {footage.start + worst}", quality.psnr[worst], ssims[worst]))
    table = Table("", "PSNR dB", "SSIM", box=None, pad_edge=False)
    for name, psnr, ssim in rows:
        table.add_row(name, f"{psnr:.2f}", "–" if ssim is None else f"{ssim:.4f}")
    console = Console(highlight=False)
    length = "a picture" if footage.is_picture else f"{footage.frames} frames"
    console.print(f"{request.out}: {footage.width}x{footage.height}, {length}, {coder.told}", soft_wrap=True)
    console.print(table)
