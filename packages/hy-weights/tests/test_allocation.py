import subprocess
import sys

import torch
from hy_weights import load_strict, unallocated

BUILD = """
import sys, torch
from hy_weights import unallocated
with unallocated():
    module = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.Linear(4, 4), torch.nn.Embedding(5, 4))
    torch.nn.init.xavier_uniform_(module[1].weight)
    torch.nn.init.normal_(module[2].weight, std=0.02)
    torch.nn.init.trunc_normal_(module[2].weight, std=0.02)
assert all(value.is_meta for value in module.parameters())
assert "sympy" not in sys.modules, "building a module imported symbolic maths"
"""


def test_a_module_is_built_without_memory_and_without_slow_imports():
    done = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_is_filled_by_loading():
    source = torch.nn.Linear(3, 4)
    with unallocated():
        target = torch.nn.Linear(3, 4)
    load_strict(target, source.state_dict())
    assert torch.equal(target.weight, source.weight)
    assert target.weight.requires_grad


def test_outside_modules_are_initialised_as_ever():
    with unallocated():
        torch.nn.Linear(3, 4)
    layer = torch.nn.Linear(300, 4)
    assert layer.weight.device.type == "cpu"
    assert layer.weight.std() > 0
