"""Autoencoders to compare: ours by name or path, and diffusers', all from pixels to pixels.

Shapes: B batch, C channels, T H W frames, height, width.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hy_plugins import Plugins
from hy_vae3d import load_vae
from hy_vae3d.fitting import Wanted, fitting_tiling
from torch import Tensor

DIFFUSERS = "diffusers:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coder:
    """An autoencoder from a clip to its reconstruction.

    Attributes:
        name: as the user calls it.
        parameters: how many it has.
        latent: what a clip is compressed to, in words.
        device: where it is.
        dtype: number format of its weights.
        code: the reconstruction of video_BCTHW in [-1, 1], of the same shape.
    """

    name: str
    parameters: int
    latent: str
    device: torch.device
    dtype: torch.dtype
    code: Callable[[Tensor], Tensor]

    @torch.inference_mode()
    def reconstruct(self, frames_THWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Encode (the posterior's mode) and decode frames, and round them to 8 bits."""
        video_BCTHW = torch.from_numpy(frames_THWC).permute(3, 0, 1, 2)[None].to(self.device, torch.float32)
        rebuilt_CTHW = self.code((video_BCTHW / 127.5 - 1).to(self.dtype))[0].float()
        levels_CTHW = ((rebuilt_CTHW.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return levels_CTHW.permute(1, 2, 3, 0).cpu().numpy()


def open_coder(name: str, *, dtype: torch.dtype, device: torch.device, tiling: Wanted) -> Coder:
    """Load an autoencoder.

    Args:
        name: A bundled model, what `load_vae` takes, or `diffusers:FOLDER`.
        dtype: Number format of weights and arithmetic.
        device: Where to.
        tiling: `"auto"` has ours take tiles where a clip does not fit in memory; diffusers' only with `"on"`.

    Raises:
        CheckpointError: The checkpoint can't be read.
        OSError: diffusers can't read it.
    """
    if name.startswith(DIFFUSERS):
        return _theirs(name, dtype, device, tiled=tiling == "on")
    return _ours(name, dtype, device, tiling)


def _ours(name: str, dtype: torch.dtype, device: torch.device, tiling: Wanted) -> Coder:
    plugins = Plugins()
    place = plugins.load("model", name)() if name in plugins.names("model") else name
    vae = load_vae(place, dtype=dtype, device=device)

    def code(video_BCTHW: Tensor) -> Tensor:
        size = tuple(video_BCTHW.shape[2:])
        posterior = vae.encode(video_BCTHW, pad=True)
        return vae.decode(posterior.mode(), size=size)

    def prepared(video_BCTHW: Tensor) -> Tensor:
        frames, height, width = video_BCTHW.shape[2:]
        with torch.inference_mode(False):
            shape = (frames, height, width)
            vae.tiling = fitting_tiling(vae.config, shape, tiling, dtype=dtype, device=device)
        return code(video_BCTHW)

    return Coder(
        name=name,
        parameters=sum(parameter.numel() for parameter in vae.parameters()),
        latent=f"4x8x8, {vae.latent_channels} channels",
        device=device,
        dtype=dtype,
        code=prepared,
    )


def _theirs(name: str, dtype: torch.dtype, device: torch.device, *, tiled: bool) -> Coder:
    """An autoencoder of diffusers; one for images codes a clip's frames one by one."""
    import diffusers

    folder = name.removeprefix(DIFFUSERS)
    file = Path(folder) / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if kind is None:
        raise OSError(f"{file}: its _class_name {config.get('_class_name')!r} is no class of diffusers")
    vae: Any = kind.from_pretrained(folder, torch_dtype=dtype).to(device).eval()
    for switch in ("use_framewise_encoding", "use_framewise_decoding"):  # on by default: clips are cut into tiles
        if hasattr(vae, switch):
            setattr(vae, switch, tiled)
    if tiled:
        vae.enable_tiling()
    is_for_video = any(parameter.ndim == 5 for parameter in vae.parameters())

    def code(x: Tensor) -> Tensor:
        return vae.decode(vae.encode(x).latent_dist.mode()).sample

    def by_frame(video_BCTHW: Tensor) -> Tensor:
        return torch.stack([code(frame_BCHW) for frame_BCHW in video_BCTHW.unbind(2)], dim=2)

    return Coder(
        name=name,
        parameters=sum(parameter.numel() for parameter in vae.parameters()),
        latent=f"{config.get('latent_channels', '?')} channels" + ("" if is_for_video else ", image by image"),
        device=device,
        dtype=dtype,
        code=code if is_for_video else by_frame,
    )
