"""Small random models, texts of given lengths, and the released numbers."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hy_dit import DiT, DiTConfig
from hy_plugins import TextTokens
from hy_weights import load_strict, read_tensors

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def sizes():
    """The fields of a model with 2 double and 2 single blocks that runs in milliseconds."""
    return {
        "in_channels": 4,
        "out_channels": 5,
        "width": 32,
        "heads": 2,
        "mlp_ratio": 3.0,
        "double_blocks": 2,
        "single_blocks": 2,
        "rope_axes": (4, 4, 8),
        "rope_theta": 256.0,
        "patch": (1, 2, 2),
        "text_width": 12,
        "pooled_width": 6,
        "guidance_embed": False,
    }


@pytest.fixture
def make_dit(sizes):
    """Build it with weights that are random everywhere, so that nothing starts shut."""

    def make(**changes):
        dit = DiT(DiTConfig(**(sizes | changes)))
        with torch.no_grad():
            for parameter in dit.parameters():
                parameter.normal_(std=0.2)
        return dit

    return make


@pytest.fixture
def make_text():
    """Texts of the given lengths, padded to `columns`."""

    def make(*lengths, columns=None, width=12, pooled=6):
        columns = columns or max(lengths)
        mask_BS = torch.arange(columns) < torch.tensor(lengths)[:, None]
        return TextTokens(torch.randn(len(lengths), columns, width), mask_BS, torch.randn(len(lengths), pooled))

    return make


@pytest.fixture
def make_condition():
    """Make the condition of one site, by name."""
    spec = importlib.util.spec_from_file_location("hy_dit_test_conditions", Path(__file__).parent / "conditions.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a compiler looks for it
    spec.loader.exec_module(module)
    return lambda site: module.MAKE[site]()


@pytest.fixture
def released():
    """A model with released key names and one case of inputs and output: "guidance"/"noguidance", "video"/"image"."""

    def read(kind, case, prefix="dit_tiny_"):
        told = json.loads((FIXTURES / f"{prefix}{kind}.json").read_text())["config"]
        config = DiTConfig(
            in_channels=told["in_channels"],
            out_channels=told["out_channels"],
            width=told["hidden_size"],
            heads=told["heads_num"],
            mlp_ratio=told["mlp_width_ratio"],
            double_blocks=told["mm_double_blocks_depth"],
            single_blocks=told["mm_single_blocks_depth"],
            rope_axes=tuple(told["rope_dim_list"]),
            rope_theta=told["rope_theta"],
            patch=tuple(told["patch_size"]),
            text_width=told["text_states_dim"],
            pooled_width=told["text_states_dim_2"],
            guidance_embed=told["guidance_embed"],
        )
        dit = DiT(config)
        weights = read_tensors(FIXTURES / f"{prefix}{kind}.weights.safetensors")
        load_strict(dit, weights, source=kind)
        tensors = read_tensors(FIXTURES / f"{prefix}{kind}.{case}.safetensors")
        text = TextTokens(tensors["in.text_states"], tensors["in.text_mask"].bool(), tensors["in.text_states_2"])
        return SimpleNamespace(
            dit=dit,
            weights=weights,
            inputs=(tensors["in.x"], tensors["in.t"], text, tensors.get("in.guidance")),
            velocity_BCTHW=tensors["out.x"],
            rope=(tensors["in.freqs_cos"], tensors["in.freqs_sin"]),
        )

    return read
