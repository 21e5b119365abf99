"""The noise that sampling starts from: drawn from a seed, or given.

Shapes: 1 a clip, C channels, T H W latent frames, height, width.
"""

import hashlib
from pathlib import Path

import torch
from hy_flow import counter_noise
from hy_weights import StoredTensors
from hy_weights.finite import require_finite
from torch import Tensor

from hyvideo_sample.settings import SampleError


def draw_noise(source: str, seed: int, shape: tuple[int, ...], device: str) -> Tensor:
    """Draw noise_1CTHW in float32.

    Args:
        source: `counter` gives the same bits on every device and from every version of torch, and each element alone
            (`hy_flow.counter_noise`). `diffusers` is its pipeline's, with a generator of the CPU. `released` is the
            released code's: float16, by the device's own generator, so another on a CPU than on a GPU.
        seed: 0 to 2**32 - 1.
        shape: of the latent.
        device: where the sample is computed.
    """
    if source == "counter":
        return counter_noise(shape, seed, stream="sample")
    if source == "diffusers":
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=device, dtype=torch.float16).float()


def read_noise(file: Path) -> Tensor:
    """Read noise_1CTHW, in float32.

    Args:
        file: a .safetensors file with one tensor, [1, C, T, H, W] or [C, T, H, W], of the latent's size.

    Raises:
        SampleError: it holds no such tensor.
        CheckpointError: it can't be read, or holds NaN or infinity.
    """
    stored = StoredTensors(file)
    shapes = {name: list(stored[name].shape) for name in stored}
    if len(shapes) != 1:
        raise SampleError(f"{file} holds {', '.join(sorted(shapes)) or 'nothing'}; noise is one tensor")
    ((name, shape),) = shapes.items()
    noise = stored[name]
    if len(shape) not in (4, 5) or (len(shape) == 5 and shape[0] != 1) or not noise.is_floating_point():
        raise SampleError(f"{file}: '{name}' is {noise.dtype} {shape}; noise is floats [1, C, T, H, W] of the latent")
    require_finite({name: noise}, source=file)
    return noise.float().reshape(1, *shape[-4:])


def noise_digest(noise_1CTHW: Tensor) -> str:
    """The SHA-256 of noise, by which a sample's settings tell it from others."""
    return hashlib.sha256(noise_1CTHW.contiguous().numpy().tobytes()).hexdigest()


def require_shape(noise_1CTHW: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse noise of another size than the latent's.

    Raises:
        SampleError: says both sizes.
    """
    if tuple(noise_1CTHW.shape) != shape:
        raise SampleError(
            f"the noise is {list(noise_1CTHW.shape)}, the latent of this model, size and number of frames {list(shape)}"
        )
