"""A small model of two kinds of block, called in a row as a transformer's are."""

import pytest
import torch
from torch import nn


class Wide(nn.Module):
    """A block with a buffer, whose linear layers are of different widths."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(8, 24)
        self.down = nn.Linear(24, 8, bias=False)
        self.register_buffer("shift", torch.randn(8))

    def forward(self, x):
        return x + self.down(torch.tanh(self.up(x))) + self.shift


class Narrow(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        q = self.linear(x).unflatten(-1, (2, 4)).transpose(-2, -3)
        return x + nn.functional.scaled_dot_product_attention(q, q, q).transpose(-2, -3).flatten(-2)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.wide = nn.ModuleList(Wide() for _ in range(3))
        self.narrow = nn.ModuleList(Narrow() for _ in range(4))
        self.last = nn.Linear(8, 1)

    def forward(self, x):
        x = self.first(x)
        for block in (*self.wide, *self.narrow):
            x = block(x)
        return self.last(x)


BLOCKS = ("wide.*", "narrow.*")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def blocks():
    return BLOCKS


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def x():
    return torch.randn(2, 5, 8)
