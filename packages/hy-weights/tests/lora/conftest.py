"""A small model with a joint layer, one with swapped halves, and a convolution; and LoRAs for it."""

import pytest
import torch
from hy_weights import LayerNames, LoRA
from hy_weights.layout import Layout, Rule
from hy_weights.lora.factors import Factors
from torch import nn

WIDTH = 6

LAYOUT = Layout(
    "theirs",
    (
        Rule("patch", ("embed",)),
        Rule("blocks.{}.qkv_mlp", tuple(f"their_blocks.{{}}.{name}" for name in ("q", "k", "v", "mlp"))),
        Rule("blocks.{}.proj", ("their_blocks.{}.out",)),
        Rule("last", ("norm_out",), swapped=True),
    ),
)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv_mlp = nn.Linear(width, 5 * width)
        self.proj = nn.Linear(5 * width, width)

    def forward(self, x):
        return x + self.proj(torch.tanh(self.qkv_mlp(x)))


class Model(nn.Module):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.patch = nn.Conv3d(2, width, (1, 2, 2), (1, 2, 2))
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.last = nn.Linear(width, 2 * width)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.last(x)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def model():
    return Model()


def names_of(model: nn.Module, width: int = WIDTH) -> LayerNames:
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv3d)}
    return LayerNames(
        shapes={name: layer.weight.shape for name, layer in layers.items()},
        width=width,
        layout=LAYOUT,
        aliases={"blocks.0.other_proj": "blocks.0.proj", "final": "last"},
        comfy={"last": "final"},
    )


@pytest.fixture
def names(model):
    return names_of(model)


@pytest.fixture
def wider_names():
    """The names of a model with twice the width."""
    return names_of(Model(2 * WIDTH), 2 * WIDTH)


def draw(shape, rank: int = 3, alpha: float = 6.0) -> Factors:
    down = torch.randn(rank, *shape[1:])
    return Factors(down, torch.randn(shape[0], rank, *(1 for _ in shape[2:])), alpha)


@pytest.fixture
def draw_factors():
    """Draw random factors for a weight of a shape."""
    return draw


@pytest.fixture
def lora(names):
    """One that changes every layer."""
    return LoRA({layer: draw(shape) for layer, shape in names.shapes.items()}, {"author": "me"})


def are_same(one: LoRA, other: LoRA) -> bool:
    return one.layers.keys() == other.layers.keys() and all(
        torch.equal(factors.down, other.layers[layer].down)
        and torch.equal(factors.up, other.layers[layer].up)
        and factors.down.dtype == other.layers[layer].down.dtype
        and factors.alpha == other.layers[layer].alpha
        for layer, factors in one.layers.items()
    )


@pytest.fixture
def same():
    """Compare LoRAs tensor for tensor."""
    return are_same
