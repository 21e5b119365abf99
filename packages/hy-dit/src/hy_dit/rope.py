"""3D rotary position embedding: each video token turns its queries and keys by its frame, row and column (section 4.2).

Adjacent channels (2i, 2i + 1) of a head are read as one complex number and multiplied by exp(i * angle), so a table
holds one complex number per pair. Text tokens are not turned.

Shapes: B batch, L tokens, N heads, K head channels, P = K / 2 channel pairs, 3 the axes time, height, width.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from hy_dit.frugal import owns_its_memory


def rotary_table(grid: tuple[int, int, int], axes: tuple[int, int, int], theta: float, device: torch.device) -> Tensor:
    """Rotations of all tokens of a latent, in the order of the patches: columns fastest, then rows, then frames.

    The last few sizes are remembered, because a model asks for the same table at every step.

    Args:
        grid: tokens along time, height and width.
        axes: head channels turned by each axis.
        theta: base of the wavelengths.
        device: where the table lives.

    Returns:
        rotation_LP, complex64.
    """
    # A graph cannot hold what Python remembers; and tensors without data, or of a function transform, must not outlive
    # what made them.
    transformed = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if transformed or type(torch.empty(0)) is not Tensor:
        return rotations(_positions(grid, device), axes, theta)
    return _remembered(grid, axes, theta, device)


@lru_cache(maxsize=8)
def _remembered(grid: tuple[int, int, int], axes: tuple[int, int, int], theta: float, device: torch.device) -> Tensor:
    # Sampling runs in inference mode; a table born there could not be used for training afterwards.
    with torch.inference_mode(False):
        return rotations(_positions(grid, device), axes, theta)


def rotations(positions_3: Tensor, axes: tuple[int, int, int], theta: float) -> Tensor:
    """Rotations of tokens that stand anywhere.

    Args:
        positions_3: frame, row and column of each token, [..., 3], whole numbers or not.
        axes: head channels turned by each axis.
        theta: base of the wavelengths.

    Returns:
        Complex64, [..., P].
    """
    angles = []
    for axis, channels in enumerate(axes):
        exponents = torch.arange(0, channels, 2, dtype=torch.float32, device=positions_3.device) / channels
        angles.append(positions_3[..., axis, None].float() * (1.0 / theta**exponents))
    angle = torch.cat(angles, dim=-1)
    return torch.polar(torch.ones_like(angle), angle)


def _positions(grid: tuple[int, int, int], device: torch.device) -> Tensor:
    """Where the tokens of a latent stand, [L, 3]."""
    ranges = [torch.arange(size, dtype=torch.float32, device=device) for size in grid]
    return torch.stack(torch.meshgrid(*ranges, indexing="ij"), dim=-1).flatten(0, 2)


def extend(rotation_LP: Tensor, tokens: int) -> Tensor:
    """Add rows for `tokens` tokens that are not turned: a rotation by 1 leaves every value exactly as it is."""
    return F.pad(rotation_LP, (0, 0, 0, tokens), value=1.0)


def rotate(x_BLNK: Tensor, rotation: Tensor) -> Tensor:
    """Turn queries or keys by their token's `rotation`, [L, P] or [B, L, P], in float32; the dtype is kept."""
    precise_BLNK = x_BLNK.float()
    pairs = precise_BLNK.unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # which makes no code for complex numbers
        turn = torch.view_as_real(rotation).unsqueeze(-3)
        x, y, cos, sin = pairs[..., 0], pairs[..., 1], turn[..., 0], turn[..., 1]
        return torch.stack([x * cos - y * sin, x * sin + y * cos], dim=-1).flatten(-2).type_as(x_BLNK)
    pairs = torch.view_as_complex(pairs)
    if owns_its_memory() and precise_BLNK is not x_BLNK:
        turned = pairs.mul_(rotation.unsqueeze(-2))
    else:
        turned = pairs * rotation.unsqueeze(-2)
    return torch.view_as_real(turned).flatten(-2).type_as(x_BLNK)
