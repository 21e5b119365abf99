"""4-bit normal floats, by bitsandbytes."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hy_dit import load_dit, nf4, quantize_
from hy_dit.errors import DiTConfigError
from hy_dit.quantize import SCHEMES, QuantizedLinear, dequantize, quantize
from hy_weights import CheckpointError, insert_lora, lora_parameters, merge_loras, new_lora, write_model

pytest.importorskip("bitsandbytes")

WIDE = {"width": 64, "heads": 4}
LEVELS = (-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0)
LEVELS += (0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0)
"""As published with QLoRA."""


@pytest.fixture
def inputs(make_text):
    return torch.randn(2, 4, 3, 4, 6), torch.tensor([900.0, 300.0]), make_text(5, 3)


@pytest.fixture
def make_wide(make_dit):
    return lambda: make_dit(**WIDE)


def test_each_weight_goes_to_the_nearest_level_of_its_block():
    weight = torch.randn(6, 192) * torch.tensor([1e-4, 1e-2, 1.0, 3.0, 50.0, 1e3])[:, None]
    packed, scales = quantize(weight, SCHEMES["nf4"])
    assert (packed.dtype, packed.shape, scales.dtype, scales.shape) == (torch.uint8, (6, 96), torch.float32, (6, 3))
    blocks = weight.view(6, 3, 64)
    assert torch.equal(scales, blocks.abs().amax(dim=2))
    levels = torch.tensor(LEVELS)
    nearest = levels[((blocks / scales[..., None])[..., None] - levels).abs().argmin(dim=3)] * scales[..., None]
    torch.testing.assert_close(dequantize(packed, scales, torch.float32), nearest.view(6, 192), atol=0, rtol=1e-5)


def test_the_forward_is_that_of_the_widened_weight():
    x, weight, bias = torch.randn(2, 3, 64).bfloat16(), torch.randn(6, 64), torch.randn(6).bfloat16()
    packed, scales = quantize(weight, SCHEMES["nf4"])
    layer = QuantizedLinear(packed, scales, torch.nn.Parameter(bias))
    assert (layer.in_features, layer.out_features) == (64, 6)
    assert torch.equal(layer(x), F.linear(x, dequantize(packed, scales, torch.bfloat16), bias))


def test_a_width_that_it_does_not_suit_is_refused(make_dit):
    with pytest.raises(DiTConfigError, match="a scale for each 64 columns; a weight has 32"):
        quantize_(make_dit(), "nf4")


def test_without_bitsandbytes_it_says_what_to_install(make_wide, tmp_path, monkeypatch):
    monkeypatch.setattr(nf4, "find_spec", lambda name: None)
    for use in (lambda: quantize_(make_wide(), "nf4"), lambda: load_dit(tmp_path, quantize_to="nf4")):
        with pytest.raises(DiTConfigError, match=r"nf4 needs bitsandbytes: pip install 'hy-dit\[nf4\]'"):
            use()


def test_a_model_is_written_and_read_bit_for_bit_and_stays_near(make_wide, inputs, tmp_path):
    dit = make_wide()
    before = dit(*inputs)
    write_model(tmp_path / "wide", dit.state_dict(), dataclasses.asdict(dit.config))
    quantize_(dit, "nf4")
    error = (dit(*inputs) - before).norm() / before.norm()
    assert 0.01 < error < 0.3
    write_model(tmp_path / "packed", dit.state_dict(), dataclasses.asdict(dit.config))
    for loaded in (load_dit(tmp_path / "packed"), load_dit(tmp_path / "wide", quantize_to="nf4")):
        assert all(torch.equal(loaded.state_dict()[key], value) for key, value in dit.state_dict().items())
        assert torch.equal(loaded(*inputs), dit(*inputs))
    with pytest.raises(CheckpointError, match=r"is torch.uint8 already; rounding it again"):
        load_dit(tmp_path / "packed", quantize_to="int8")


def test_casting_a_model_leaves_weights_and_scales_as_they_are(make_wide):
    dit = make_wide()
    quantize_(dit, "nf4")
    layer = dit.single_blocks[0].linear1
    before = layer.weight.clone(), layer.weight_scale.clone()
    dit.to(torch.bfloat16)
    assert (layer.bias.dtype, layer.weight_scale.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(layer.weight, before[0])
    assert torch.equal(layer.weight_scale, before[1])


def test_scales_of_another_shape_are_refused(make_wide, tmp_path):
    dit = make_wide()
    quantize_(dit, "nf4")
    state = dit.state_dict() | {"single_blocks.0.linear1.weight_scale": torch.ones(320, 2)}
    write_model(tmp_path / "model", state, dataclasses.asdict(dit.config))
    with pytest.raises(CheckpointError, match=r"has the shape \[320, 2\]; expected \[384, 1\]"):
        load_dit(tmp_path / "model")


def test_adapters_train_beside_it_and_are_not_merged_into_it(make_wide, inputs):
    dit = make_wide().requires_grad_(False)
    quantize_(dit, "nf4")
    lora = new_lora(dit, ["single_blocks.*.linear1"], rank=2)
    with pytest.raises(Exception, match="nothing can be added; insert the LoRA"):
        merge_loras(dit, [(lora, 1.0)])
    insert_lora(dit, lora)
    dit(*inputs).square().sum().backward()
    assert all(parameter.grad is not None for parameter in lora_parameters(dit))


def test_it_compiles_without_a_break(make_wide, inputs):
    dit = make_wide()
    quantize_(dit, "nf4")
    expected_BCTHW = dit(*inputs)
    torch._dynamo.reset()
    compiled = torch.compile(dit, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs), expected_BCTHW, atol=1e-4, rtol=1e-4)
