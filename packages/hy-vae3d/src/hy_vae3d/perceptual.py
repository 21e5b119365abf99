"""How different two clips look, by LPIPS over VGG-16 (paper section 4.1). Needs lpips, which the extra `train` brings.

Shapes: B batch, C channels, T H W frames, height, width. Pixels are in [-1, 1].
"""

import logging
import os
import warnings
from pathlib import Path

import lpips
import torch
from hy_weights import CheckpointError, StoredTensors, read_tensors, unallocated
from hy_weights.finite import require_finite
from torch import Tensor, nn

from hy_vae3d.model import VAEInputError

LEAST_SIDE = 16
"""VGG-16 halves a frame four times."""

log = logging.getLogger(__name__)


class PerceptualDistance:
    """LPIPS 0.1 of frames, with the linear heads that the lpips package carries; nothing is downloaded.

    It is no nn.Module: frozen weights that a file or a seed gives again belong in no checkpoint, average or optimizer.

    Args:
        trunk: VGG-16's weights as torchvision names them (`features.0.weight` ...), `.pth` or `.safetensors`, for the
            metric as published. None draws them at random: a weaker measure of texture that needs no file.
        seed: Of the random ones.

    Raises:
        CheckpointError: The file can't be read, or isn't a VGG-16.
    """

    def __init__(self, trunk: str | os.PathLike[str] | None = None, seed: int = 0) -> None:
        with unallocated(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips calls torchvision by an older spelling
            self.net = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
        self.net.scaling_layer = lpips.ScalingLayer()
        heads = Path(lpips.__file__).with_name("weights") / "v0.1" / "vgg.pth"
        self.net.load_state_dict(read_tensors(heads), strict=False, assign=True)
        weights = _random(self.net.net, seed) if trunk is None else _stored(self.net.net, Path(trunk))
        self.net.net.load_state_dict(weights, assign=True)
        self.net.requires_grad_(False)
        if trunk is None:
            log.warning("LPIPS runs on a random VGG-16 (seed %d); name a file of trained weights for the metric", seed)
        else:
            log.info("LPIPS runs on the VGG-16 of %s", trunk)

    def __call__(self, video_BCTHW: Tensor, target_BCTHW: Tensor) -> Tensor:
        """Return the mean LPIPS of all frames of all clips, a scalar.

        Raises:
            VAEInputError: The frames are too small for VGG-16.
        """
        height, width = video_BCTHW.shape[-2:]
        if min(height, width) < LEAST_SIDE:
            raise VAEInputError(f"LPIPS needs frames of at least {LEAST_SIDE}x{LEAST_SIDE}, got {height}x{width}")
        self.net.to(video_BCTHW.device)
        return self.net(_frames(video_BCTHW), _frames(target_BCTHW)).float().mean()


def _frames(video_BCTHW: Tensor) -> Tensor:
    """Line all frames up along the batch."""
    return video_BCTHW.transpose(1, 2).flatten(0, 1)


def _random(trunk: nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights that keep the activations' size from layer to layer."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator) * (2.0 / tensor[0].numel()) ** 0.5
        if name.endswith("weight")
        else torch.zeros(tensor.shape)
        for name, tensor in trunk.state_dict().items()
    }


def _stored(trunk: nn.Module, path: Path) -> dict[str, Tensor]:
    """A file's convolutions by the names of the lpips package, which groups torchvision's layers in slices."""
    tensors = StoredTensors(path)
    found: dict[str, Tensor] = {}
    for name, expected in trunk.state_dict().items():
        key = f"features.{name.partition('.')[2]}"
        if key not in tensors or tensors[key].shape != expected.shape:
            shape = list(tensors[key].shape) if key in tensors else "missing"
            raise CheckpointError(f"{path}: not torchvision's VGG-16: {key} is {shape}, not {list(expected.shape)}")
        found[name] = tensors[key].float()
    require_finite(found, source=path)
    return found
