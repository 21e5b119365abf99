"""Low-rank adapters beside a transformer's linear layers, as far as they take memory.

Shapes: B batch, L tokens, D width.
"""

from collections.abc import Iterable

from torch import Tensor, nn


class _Adapter(nn.Module):
    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(linear.in_features, rank, bias=False, dtype=linear.weight.dtype)
        self.up = nn.Linear(rank, linear.out_features, bias=False, dtype=linear.weight.dtype)

    def added(self, linear: nn.Module, given: tuple[Tensor], out_BLD: Tensor) -> Tensor:
        """A forward hook's answer: the layer's output and the adapter's."""
        return out_BLD + self.up(self.down(given[0]))


def add_adapters(model: nn.Module, blocks: Iterable[nn.Module], rank: int) -> None:
    """Freeze a model, and put a trainable adapter of that rank beside each linear layer of its blocks."""
    model.requires_grad_(False)
    for block in blocks:
        linears = [part for part in block.modules() if isinstance(part, nn.Linear)]
        for linear in linears:
            adapter = _Adapter(linear, rank)
            linear.register_forward_hook(adapter.added)
            linear.add_module("adapter", adapter)
