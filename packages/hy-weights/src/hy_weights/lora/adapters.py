"""LoRAs beside a model's weights: for training them, and for changing their strength while the model runs.

A linear layer that gets an adapter becomes an `Adapted` one in place: same module, same parameters, same names, so
whatever holds the module, hooks it or trains its weight still does, and no block's code knows. The product goes through
the rank, `(x @ down) @ up`: a parametrisation (`torch.nn.utils.parametrize`) would build `weight + up @ down`, as large
as the weight, in every forward, and keep it for the backward.

The state dict keeps every key it had. Each adapter adds two to its layer: `<layer>.adapters.<name>.down` and `.up`. To
load a base checkpoint strictly, do it before the adapters are inserted or after they are removed.
"""

import math
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hy_weights.errors import LoRAError
from hy_weights.lora.factors import Factors, LoRA
from hy_weights.lora.fit import fitting_layers


class Adapter(nn.Module):
    """One LoRA's factors for one layer.

    Args:
        factors: Starting values; copied.
        strength: What the product is multiplied by, beside its own scale.
        dropout: Share of the rank's channels that training zeroes, each token's apart. (Dropping inputs instead would
            keep a copy of every activation for the backward.)
        dtype: Of the parameters. The product is computed in the dtype of the layer's input.
        device: Of the parameters.
    """

    strength: Tensor

    def __init__(
        self, factors: Factors, strength: float, dropout: float, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__()
        self.down = nn.Parameter(factors.down.detach().to(device, dtype, copy=True))
        self.up = nn.Parameter(factors.up.detach().to(device, dtype, copy=True))
        self.alpha = factors.alpha
        self.scale = factors.scale
        self.dropout = dropout
        # A tensor, so that a compiled model need not be compiled again for another strength.
        self.register_buffer("strength", torch.tensor(strength, dtype=torch.float32, device=device), persistent=False)

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        """Add the product to a layer's output.

        Args:
            x: the layer's input, [..., in].
            out: the layer's output, [..., out].
        """
        hidden = F.dropout(F.linear(x, self.down.to(x.dtype)), self.dropout, self.training)
        hidden = hidden * (self.strength * self.scale)
        # One tensor as large as the output instead of two, as the sum is made by the product itself.
        rows = torch.addmm(
            out.reshape(-1, out.shape[-1]), hidden.reshape(-1, hidden.shape[-1]), self.up.to(x.dtype).t()
        )
        return rows.view(out.shape)


class Adapted(nn.Linear):
    """A linear layer with adapters; `insert_lora` makes it of another, `remove_lora` makes it that again."""

    adapters: nn.ModuleDict

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer, and add what each adapter does."""
        out = super().forward(input)
        for adapter in self.adapters.values():
            out = adapter(input, out)
        return out


@cache
def _adapted_class(base: type[nn.Linear]) -> type[Adapted]:
    """What a layer of a class becomes: it computes as before, and then its adapters add to that."""
    return type(f"Adapted{base.__name__}", (Adapted, base), {})


def new_lora(
    module: nn.Module,
    targets: Sequence[str],
    *,
    rank: int,
    alpha: float | None = None,
    generator: torch.Generator | None = None,
) -> LoRA:
    """Make an untrained LoRA, which changes nothing: `up` is zero, `down` is drawn as a linear layer's weight is.

    Args:
        module: the model that it is for.
        targets: at least one pattern of layer names, as of a shell, such as `double_blocks.*.img_attn_*`; linear layers
            only.
        rank: at least 1.
        alpha: above 0; None: the rank, so that the scale is 1.
        generator: for `down`; None: PyTorch's own.

    Raises:
        LoRAError: rank or alpha are no such numbers, or there is no pattern, or one that fits no linear layer.
    """
    alpha = float(rank if alpha is None else alpha)
    if rank < 1 or not 0 < alpha < math.inf:
        raise LoRAError(f"a LoRA has a rank of at least 1 and an alpha above 0, found rank {rank} and alpha {alpha:g}")
    linear = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    if not targets:
        raise LoRAError(
            f"a LoRA needs a target, a pattern for linear layers of {type(module).__name__}: {_some(linear)}"
        )
    for target in targets:
        if not any(fnmatchcase(name, target) for name in linear):
            raise LoRAError(f"target {target!r} fits no linear layer of {type(module).__name__}: {_some(linear)}")
    layers = {}
    for name, layer in linear.items():
        if any(fnmatchcase(name, target) for target in targets):
            bound = layer.in_features**-0.5
            down = torch.empty(rank, layer.in_features).uniform_(-bound, bound, generator=generator)
            layers[name] = Factors(down, torch.zeros(layer.out_features, rank), alpha)
    return LoRA(layers)


def insert_lora(
    module: nn.Module,
    lora: LoRA,
    name: str = "default",
    *,
    strength: float = 1.0,
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Put a LoRA beside a model's weights: its factors become parameters, which train.

    The model's own weights are not frozen: `module.requires_grad_(False)` before this does it.

    Args:
        module: the model, in the dtype and on the device where it stays.
        lora: the starting values; copied.
        name: what this LoRA is called among the model's; letters, digits and underscores.
        strength: what it is multiplied by; `set_lora_strength` changes it. At 0 it still costs its time.
        dropout: share of the rank's channels that training zeroes, in [0, 1).
        dtype: of its parameters; they are cast to the input's dtype where they are used.

    Raises:
        LoRAError: the LoRA doesn't fit the model or changes a layer that is no `nn.Linear` (or a kind of it, such as
            one with 8-bit weights), the name is taken, or a number is out of its range. The model is unchanged.
    """
    if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
        raise LoRAError(f"a LoRA's name is of letters, digits and underscores, and no reserved word, found {name!r}")
    if not 0 <= dropout < 1 or not math.isfinite(strength):
        raise LoRAError(f"dropout is in [0, 1) and strength finite, found {dropout} and {strength}")
    if name in inserted_loras(module):
        raise LoRAError(f"a LoRA called {name!r} is already inserted; give this one another name, or remove that one")
    layers = fitting_layers(module, lora)
    for layer, found in layers.items():
        if not isinstance(found, nn.Linear):
            raise LoRAError(
                f"{layer} is a {type(found).__name__}; only Linear takes an adapter. Merge this LoRA instead"
            )
    for layer, found in layers.items():
        assert isinstance(found, nn.Linear)
        adapted = _adapted(found)
        adapted.adapters[name] = Adapter(lora.layers[layer], strength, dropout, dtype, found.weight.device).train(
            found.training
        )


def inserted_loras(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the LoRAs that are inserted, in the order they came."""
    return tuple(dict.fromkeys(name for _, layer in _lora_layers(module) for name in layer.adapters))


def set_lora_strength(module: nn.Module, name: str, strength: float) -> None:
    """Change what an inserted LoRA is multiplied by; a compiled model stays compiled.

    Raises:
        LoRAError: no LoRA of that name is inserted, or the strength is not finite.
    """
    if not math.isfinite(strength):
        raise LoRAError(f"a LoRA's strength is a finite number, found {strength}")
    for _, adapter in _adapters(module, name):
        adapter.strength.fill_(strength)


def lora_parameters(module: nn.Module, name: str = "default") -> list[nn.Parameter]:
    """Return the parameters of an inserted LoRA, for an optimiser.

    Raises:
        LoRAError: no LoRA of that name is inserted.
    """
    return [parameter for _, adapter in _adapters(module, name) for parameter in adapter.parameters()]


def inserted_lora(module: nn.Module, name: str = "default") -> LoRA:
    """Return a copy of an inserted LoRA, to be written or merged. Its strength is not part of it.

    Raises:
        LoRAError: no LoRA of that name is inserted.
    """
    return LoRA(
        {
            layer: Factors(adapter.down.detach().clone(), adapter.up.detach().clone(), adapter.alpha)
            for layer, adapter in _adapters(module, name)
        }
    )


def remove_lora(module: nn.Module, name: str = "default") -> None:
    """Take an inserted LoRA out; with its last one gone, a layer is what it was.

    Raises:
        LoRAError: no LoRA of that name is inserted.
    """
    _require_inserted(module, name)
    for _, layer in _lora_layers(module):
        if name in layer.adapters:
            del layer.adapters[name]
        if not layer.adapters:
            del layer.adapters
            layer.__class__ = type(layer).__bases__[1]


def _adapted(linear: nn.Linear) -> Adapted:
    if not isinstance(linear, Adapted):
        linear.__class__ = _adapted_class(type(linear))
        linear.adapters = nn.ModuleDict()
    assert isinstance(linear, Adapted)
    return linear


def _lora_layers(module: nn.Module) -> list[tuple[str, Adapted]]:
    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, Adapted)]


def _adapters(module: nn.Module, name: str) -> Iterator[tuple[str, Adapter]]:
    """Each layer's adapter of that name."""
    _require_inserted(module, name)
    for layer_name, layer in _lora_layers(module):
        if name in layer.adapters:
            adapter = layer.adapters[name]
            assert isinstance(adapter, Adapter)
            yield layer_name, adapter


def _require_inserted(module: nn.Module, name: str) -> None:
    inserted = inserted_loras(module)
    if name not in inserted:
        raise LoRAError(f"no LoRA called {name!r} is inserted; there are {', '.join(inserted) or 'none'}")


def _some(names: dict[str, nn.Linear]) -> str:
    listed = list(names)
    return "it has " + ", ".join([*listed[:3], "..."] if len(listed) > 3 else listed)
