"""The autoencoder of one run: found, checked against the memory there is, and run.

Shapes: B batch, C channels, T frames, H height, W width.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from hy_plugins import Plugins
from hy_vae3d import VAE3D
from hy_vae3d.fitting import Wanted, fitting_tiling
from hy_vae3d.pixels import to_levels
from rich.console import Console

from hyvideo_reconstruct.cli import Request
from hyvideo_reconstruct.errors import ReconstructError


@dataclass(kw_only=True)
class Coder:
    """A loaded autoencoder, and how it is to work.

    Attributes:
        vae: the autoencoder.
        device: where it is.
        tiling: auto, on or off.
        console: where progress is shown.
    """

    vae: VAE3D
    device: torch.device
    tiling: Wanted
    console: Console

    @property
    def told(self) -> str:
        """How it works, in words."""
        tiles = f"tiles of {self.vae.tiling.tile_size} pixels" if self.vae.tiling else "no tiles"
        return f"{tiles}, {str(self.vae.quant_conv.weight.dtype).removeprefix('torch.')} on {self.device.type}"

    def prepare(self, shape: tuple[int, int, int]) -> None:
        """Decide on tiles for a clip of those frames, height and width.

        Raises:
            VAEMemoryError: it does not fit in the memory that is free.
        """
        with self.console.status("measure what it needs"):
            weight = self.vae.quant_conv.weight
            self.vae.tiling = fitting_tiling(
                self.vae.config, shape, self.tiling, dtype=weight.dtype, device=weight.device
            )
        if self.vae.tiling and self.tiling == "auto":
            self.console.print("note: the whole clip at once does not fit in the memory that is free; tiles are used")

    @torch.inference_mode()
    def reconstruct(self, frames_THWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Encode and decode a clip, uint8 (T, H, W, 3); the latent is the posterior's mode."""
        dtype = self.vae.quant_conv.weight.dtype
        with self.console.status("encode"):
            video_BCTHW = torch.from_numpy(frames_THWC).permute(3, 0, 1, 2)[None].to(self.device, dtype)
            posterior = self.vae.encode(video_BCTHW.div_(127.5).sub_(1), pad=True)
            del video_BCTHW
        frames, height, width = frames_THWC.shape[:3]
        with self.console.status("decode"):
            video_BCTHW = self.vae.decode(posterior.mode(), size=(frames, height, width))
        return to_levels(video_BCTHW).numpy()


def open_coder(request: Request, plugins: Plugins, console: Console) -> Coder:
    """Load the autoencoder that a command line names.

    Args:
        request: the command line.
        plugins: bundled models are their components of kind `model`.
        console: where progress is shown.

    Raises:
        ReconstructError: CUDA is asked for, and there is none.
        CheckpointError: there is no such checkpoint, or it is no HunyuanVideo VAE.
    """
    found = torch.cuda.is_available()
    if request.device == "cuda" and not found:
        raise ReconstructError("device is 'cuda', but torch finds none here; use --device cpu")
    device = torch.device("cuda" if found and request.device != "cpu" else "cpu")
    place = request.model
    if place in plugins.names("model"):
        place = Path(plugins.load("model", place)())
    load_vae = plugins.load("autoencoder", "causal-3d")
    with console.status("load the autoencoder"):
        vae = load_vae(place, dtype=getattr(torch, request.dtype), device=device)
    return Coder(vae=vae, device=device, tiling=request.tiling, console=console)
