"""Which kernel computes attention: by name, or the fastest of those that are here, measured on the tensors at hand.

All are exact. On a GPU a video model spends most of its time here, and which kernel is fastest depends on the card, the
number format and the number of tokens.

Shapes: B batch, L tokens, N heads, K head channels.
"""

import time
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from hy_dit.attention import AttentionFunction, attention
from hy_dit.errors import DiTConfigError

_KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
_RUNS = 3
"""Timed runs of a candidate, of which the fastest counts; one before them warms up."""


def attention_names() -> list[str]:
    """Return the names that `attention_named` takes here: "sdpa" lets PyTorch choose, the others name a kernel."""
    return ["sdpa", *_KERNELS, *(["flash-attn"] if find_spec("flash_attn") else []), "fastest"]


def attention_named(name: str) -> AttentionFunction:
    """Return an attention function for `DiT.attention`.

    Args:
        name: "sdpa"; a kernel of PyTorch's, "flash", "cudnn", "efficient" or "math"; "flash-attn" where that package
            is installed; or "fastest", which measures at its first call with tensors of a size and remembers.

    Raises:
        DiTConfigError: there is no such name; lists those there are. Whether a kernel runs on a device, in a number
            format and with a mask, shows when it is called.
    """
    if name not in attention_names():
        raise DiTConfigError(f"no attention {name!r} here; there are {', '.join(attention_names())}")
    if name == "sdpa":
        return attention
    if name == "fastest":
        return Fastest({other: attention_named(other) for other in attention_names() if other not in ("math", name)})
    return _flash_attn if name == "flash-attn" else partial(_kernel, _KERNELS[name])


def default_attention(q_BNLK: Tensor, k_BNLK: Tensor, v_BNLK: Tensor, mask_BL: Tensor | None) -> Tensor:
    """What a `DiT` attends with unless told otherwise: PyTorch's choice on a CPU, elsewhere the fastest kernel."""
    if q_BNLK.device.type == "cpu":
        return attention(q_BNLK, k_BNLK, v_BNLK, mask_BL)
    return _fastest()(q_BNLK, k_BNLK, v_BNLK, mask_BL)


@lru_cache(maxsize=1)
def _fastest() -> AttentionFunction:
    """One for all models: what was measured for one holds for the others."""
    return attention_named("fastest")


class Fastest:
    """Attention by the fastest of some functions; which one that is, is measured once for each size and format.

    Measuring runs every function four times. While a graph is compiled, nothing can be measured, and PyTorch chooses.

    Args:
        candidates: by name, one at least; one that fails on the tensors at hand is left out.

    Attributes:
        chosen: the names chosen so far, by device, number format, mask, gradients, and the tensors' sizes.
    """

    def __init__(self, candidates: Mapping[str, AttentionFunction]) -> None:
        self.candidates = candidates
        self.chosen: dict[tuple[object, ...], str] = {}

    def __call__(self, q_BNLK: Tensor, k_BNLK: Tensor, v_BNLK: Tensor, mask_BL: Tensor | None) -> Tensor:
        """Return x_BNLK."""
        if torch.compiler.is_compiling():
            return attention(q_BNLK, k_BNLK, v_BNLK, mask_BL)
        gradient = torch.is_grad_enabled() and q_BNLK.requires_grad
        key = (q_BNLK.device, q_BNLK.dtype, mask_BL is not None, gradient, q_BNLK.shape, k_BNLK.shape)
        if key not in self.chosen:
            self.chosen[key] = self._measure(q_BNLK, k_BNLK, v_BNLK, mask_BL, gradient)
        return self.candidates[self.chosen[key]](q_BNLK, k_BNLK, v_BNLK, mask_BL)

    def _measure(self, q_BNLK: Tensor, k_BNLK: Tensor, v_BNLK: Tensor, mask_BL: Tensor | None, gradient: bool) -> str:
        leaves = [part.detach().requires_grad_(gradient) for part in (q_BNLK, k_BNLK, v_BNLK)]
        seconds: dict[str, float] = {}
        for name, candidate in self.candidates.items():
            try:
                seconds[name] = _seconds(partial(candidate, *leaves, mask_BL), gradient, q_BNLK.device)
            except (RuntimeError, TypeError, ImportError):  # no kernel for this device, format or mask, or no memory
                continue
        # If none works, the first one says why.
        return min(seconds, key=lambda name: seconds[name], default=next(iter(self.candidates)))


def _seconds(run: Callable[[], Tensor], gradient: bool, device: torch.device) -> float:
    """The fastest of some runs, with their backward pass if there will be one."""
    times: list[float] = []
    for _ in range(1 + _RUNS):
        started = time.perf_counter()
        x_BNLK = run()
        if gradient:
            x_BNLK.backward(torch.ones_like(x_BNLK))
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _kernel(backend: SDPBackend, q_BNLK: Tensor, k_BNLK: Tensor, v_BNLK: Tensor, mask_BL: Tensor | None) -> Tensor:
    mask_B11L = None if mask_BL is None else mask_BL[:, None, None, :]
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q_BNLK, k_BNLK, v_BNLK, attn_mask=mask_B11L)


def _flash_attn(q_BNLK: Tensor, k_BNLK: Tensor, v_BNLK: Tensor, mask_BL: Tensor | None) -> Tensor:
    if mask_BL is not None:
        raise NotImplementedError("flash-attn takes no mask of keys")
    parts = (part.transpose(1, 2) for part in (q_BNLK, k_BNLK, v_BNLK))
    return import_module("flash_attn").flash_attn_func(*parts).transpose(1, 2)
