import dataclasses
import json
import weakref

import hy_dit.load
import pytest
import torch
import torch.nn.functional as F
from hy_dit import DiT, DiTConfig, load_dit, quantize_
from hy_dit.errors import DiTConfigError
from hy_dit.quantize import SCHEMES, QuantizedLinear, block_linears, dequantize, quantize
from hy_weights import CheckpointError, unallocated, write_model
from safetensors.torch import save_file

BOTH = pytest.mark.parametrize("scheme", ["fp8", "int8"])


@pytest.fixture
def inputs(make_text):
    return torch.randn(2, 4, 3, 4, 6), torch.tensor([900.0, 300.0]), make_text(5, 3)


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    one, other = one.detach(), other.detach()
    return float((one.float() - other.float()).norm() / other.float().norm())


def test_the_released_model_has_320_quantized_layers():
    with unallocated():
        dit = DiT(DiTConfig.preset("hunyuan-video-cfgdistill"))
    names = dict(block_linears(dit))
    assert len(names) == 320
    assert {"double_blocks.19.txt_mod.linear", "single_blocks.39.modulation.linear"} <= names.keys()
    assert not any(name.startswith("txt_in.") for name in names)


def test_the_forward_is_the_released_arithmetic():
    x, weight = torch.randn(2, 3, 8).bfloat16(), torch.randn(5, 8)
    scale, bias = torch.tensor(0.0123), torch.randn(5).bfloat16()
    fp8 = weight.to(torch.float8_e4m3fn)
    layer = QuantizedLinear(fp8, scale, torch.nn.Parameter(bias))
    expected = F.linear(x, fp8.to(torch.bfloat16) * scale.to(torch.bfloat16), bias)
    assert torch.equal(layer(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x.float()), expected)


def test_rounding_errs_by_half_a_step_at_most():
    weight = torch.randn(6, 64) * torch.tensor([1e-4, 1e-2, 1.0, 3.0, 50.0, 0.0])[:, None]
    eight, scale = quantize(weight, SCHEMES["int8"])
    assert (eight.dtype, scale.shape) == (torch.int8, (6, 1))
    error = (dequantize(eight, scale, torch.float32) - weight).abs()
    assert (error <= 0.5 * scale * 1.0001 + 0.004 * weight.abs()).all()  # the scale is rounded to bfloat16, 8 bits
    assert eight[:5].abs().amax(dim=1).ge(126).all()
    eight, scale = quantize(weight, SCHEMES["fp8"])
    assert (eight.dtype, scale.shape) == (torch.float8_e4m3fn, ())
    wide = dequantize(eight, scale, torch.float32)
    assert wide.isfinite().all()
    assert ((wide - weight).abs() <= 2**-4 * weight.abs() + 2**-10 * scale).all()
    assert eight.float().abs().max() == 448


@BOTH
def test_scales_are_exact_in_bfloat16_and_never_zero(scheme):
    _, scale = quantize(torch.randn(4, 8), SCHEMES[scheme])
    assert torch.equal(scale.bfloat16().float(), scale)
    eight, scale = quantize(torch.zeros(4, 8), SCHEMES[scheme])
    assert (scale == 1).all()
    assert (eight.float() == 0).all()
    for tiny in (5.7e-38, 1.65e-38):  # the scale is below bfloat16's normal numbers, and rounded down by a third
        eight, _ = quantize(torch.full((4, 8), tiny), SCHEMES[scheme])
        assert eight.float().isfinite().all()
        assert (eight.float() >= 0).all()


@pytest.mark.parametrize(("scheme", "bound"), [("fp8", 0.06), ("int8", 0.015)])
def test_the_output_stays_near(make_dit, inputs, scheme, bound):
    dit = make_dit()
    before = dit(*inputs)
    quantize_(dit, scheme)
    error = relative(dit(*inputs), before)
    assert bound / 10 < error < bound


@BOTH
def test_a_model_is_quantized_in_its_blocks_only_and_once(make_dit, scheme):
    dit = make_dit()
    untouched = {name: value for name, value in dit.state_dict().items() if "_blocks." not in name}
    quantize_(dit, scheme)
    assert all(torch.equal(dit.state_dict()[name], value) for name, value in untouched.items())
    assert sum(isinstance(module, QuantizedLinear) for module in dit.modules()) == 2 * 10 + 2 * 3
    with pytest.raises(DiTConfigError, match=r"double_blocks.0.img_mod.linear holds torch.* already"):
        quantize_(dit, scheme)


def test_an_unknown_scheme_is_refused(make_dit, tmp_path):
    with pytest.raises(DiTConfigError, match="'int4'; there are fp8, int8, nf4"):
        quantize_(make_dit(), "int4")
    with pytest.raises(DiTConfigError, match="'int4'; there are fp8, int8, nf4"):
        load_dit(tmp_path, quantize_to="int4")


@BOTH
def test_casting_the_model_leaves_weights_and_scales_as_they_are(make_dit, inputs, scheme):
    dit = make_dit()
    quantize_(dit, scheme)
    before = {name: value.clone() for name, value in dit.state_dict().items()}
    dit.to(torch.bfloat16).float()
    after = dit.state_dict()
    for name, module in dit.named_modules():
        if isinstance(module, QuantizedLinear):
            for key in (f"{name}.weight", f"{name}.weight_scale"):
                assert after[key].dtype == before[key].dtype
                assert torch.equal(after[key].float(), before[key].float())
    assert dit.bfloat16()(*inputs).isfinite().all()
    assert dit.to("meta").state_dict()["single_blocks.0.linear1.weight"].is_meta


@BOTH
def test_a_quantized_model_is_written_and_read_bit_for_bit(make_dit, inputs, tmp_path, scheme):
    dit = make_dit()
    quantize_(dit, scheme)
    write_model(tmp_path / "model", dit.state_dict(), dataclasses.asdict(dit.config))
    loaded = load_dit(tmp_path / "model")
    assert loaded.state_dict().keys() == dit.state_dict().keys()
    for key, value in dit.state_dict().items():
        assert loaded.state_dict()[key].dtype == value.dtype
        assert torch.equal(loaded.state_dict()[key].float(), value.float())
    assert torch.equal(loaded(*inputs), dit(*inputs))
    assert {parameter.requires_grad for parameter in loaded.parameters()} == {True, False}
    bare = load_dit(tmp_path / "model", dtype=torch.bfloat16)
    assert bare.single_blocks[0].linear1.weight.dtype == SCHEMES[scheme].dtype
    assert bare.single_blocks[0].linear1.bias.dtype == torch.bfloat16


@BOTH
def test_quantizing_while_loading_is_quantizing_afterwards(make_dit, tmp_path, scheme):
    dit = make_dit()
    write_model(tmp_path / "model", dit.state_dict(), dataclasses.asdict(dit.config))
    loaded = load_dit(tmp_path / "model", quantize_to=scheme)
    quantize_(dit, scheme)
    assert all(torch.equal(loaded.state_dict()[key].float(), value.float()) for key, value in dit.state_dict().items())
    write_model(tmp_path / "model", dit.state_dict(), dataclasses.asdict(dit.config))
    with pytest.raises(CheckpointError, match=r"is torch.* already; rounding it again"):
        load_dit(tmp_path / "model", quantize_to="int8")


@BOTH
def test_the_weight_that_is_rounded_stays_as_it_was(scheme):
    weight = torch.randn(4, 8)
    before = weight.clone()
    quantize(weight, SCHEMES[scheme])
    assert torch.equal(weight, before)


def test_weights_that_are_no_numbers_are_refused_before_rounding(make_dit, tmp_path):
    dit = make_dit()
    state = dit.state_dict()
    state["single_blocks.1.linear1.weight"][0, 0] = float("nan")
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(dit.config)))
    with pytest.raises(CheckpointError, match=r"'single_blocks.1.linear1.weight' holds NaN"):
        load_dit(tmp_path, quantize_to="int8")


def test_a_weight_without_columns_is_listed_not_rounded(make_dit, tmp_path):
    dit = make_dit()
    state = dit.state_dict() | {"single_blocks.1.linear1.weight": torch.ones(192)}
    write_model(tmp_path / "model", state, dataclasses.asdict(dit.config))
    with pytest.raises(CheckpointError, match=r"wrong shape: single_blocks.1.linear1.weight"):
        load_dit(tmp_path / "model", quantize_to="int8")


def test_loading_holds_one_full_weight_at_a_time(make_dit, tmp_path, monkeypatch):
    dit = make_dit()
    write_model(tmp_path / "model", dit.state_dict(), dataclasses.asdict(dit.config))
    alive: list[torch.Tensor] = []
    counts = []
    real = hy_dit.load.quantize

    def watched(weight, scheme):
        counts.append(sum(one() is not None for one in alive))
        alive.append(weakref.ref(weight))
        return real(weight, scheme)

    monkeypatch.setattr(hy_dit.load, "quantize", watched)
    load_dit(tmp_path / "model", quantize_to="int8")
    assert len(counts) == 26
    assert max(counts) <= 1


@BOTH
def test_it_compiles_without_a_break(make_dit, inputs, scheme):
    dit = make_dit()
    quantize_(dit, scheme)
    expected_BCTHW = dit(*inputs)
    torch._dynamo.reset()
    compiled = torch.compile(dit, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs), expected_BCTHW, atol=1e-4, rtol=1e-4)


def test_a_gradient_passes_to_what_is_not_quantized(make_dit, inputs):
    dit = make_dit()
    quantize_(dit, "fp8")
    dit(*inputs).square().sum().backward()
    assert dit.img_in.proj.weight.grad is not None
    assert dit.single_blocks[0].linear1.bias.grad is not None
    assert dit.single_blocks[0].linear1.weight.grad is None
