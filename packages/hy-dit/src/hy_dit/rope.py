"""3D rotary position embedding: each video token turns its queries and keys by its frame, row and column (section 4.2).

Adjacent channels (2i, 2i + 1) of a head are read as one complex number and multiplied by exp(i * angle), so a table
holds one complex number per pair. Text tokens are not turned.

Shapes: B batch, L tokens, N heads, K head channels, P = K / 2 channel pairs, 3 the axes time, height, width.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


@lru_cache(maxsize=8)
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
    # Sampling runs in inference mode; a table born there could not be used for training afterwards.
    with torch.inference_mode(False):
        ranges = [torch.arange(size, dtype=torch.float32, device=device) for size in grid]
        positions_L3 = torch.stack(torch.meshgrid(*ranges, indexing="ij"), dim=-1).flatten(0, 2)
        angles = []
        for axis, channels in enumerate(axes):
            exponents = torch.arange(0, channels, 2, dtype=torch.float32, device=device) / channels
            angles.append(torch.outer(positions_L3[:, axis], 1.0 / theta**exponents))
        angle_LP = torch.cat(angles, dim=-1)
        return torch.polar(torch.ones_like(angle_LP), angle_LP)


def extend(rotation_LP: Tensor, tokens: int) -> Tensor:
    """Add rows for `tokens` tokens that are not turned: a rotation by 1 leaves every value exactly as it is."""
    return F.pad(rotation_LP, (0, 0, 0, tokens), value=1.0)


def rotate(x_BLNK: Tensor, rotation_LP: Tensor) -> Tensor:
    """Turn queries or keys by their token's rotation, in float32; the dtype is kept."""
    pairs_BLNP = torch.view_as_complex(x_BLNK.float().unflatten(-1, (-1, 2)))
    turned_BLNP = pairs_BLNP * rotation_LP.unsqueeze(-2)
    return torch.view_as_real(turned_BLNP).flatten(-2).type_as(x_BLNK)
