"""fp8 files as they are handed around, each with something missing or wrong too."""

import dataclasses

import pytest
import torch
from hy_dit import DiT, load_dit
from hy_dit.format import model_format
from hy_dit.layout import DIFFUSERS
from hy_dit.quantize import SCHEMES, QuantizedLinear, block_linears, quantize
from hy_weights import CheckpointError, write_model
from safetensors.torch import save_file

WIDE_HEADS = {"width": 256, "heads": 2, "rope_axes": (16, 56, 56), "double_blocks": 1, "single_blocks": 1}
FP8 = torch.float8_e4m3fn


@pytest.fixture
def bf16(make_dit):
    return make_dit(**WIDE_HEADS).bfloat16()


@pytest.fixture
def inputs(make_text):
    return torch.randn(1, 4, 1, 4, 4), torch.tensor([900.0]), make_text(3)


def split(dit: DiT) -> tuple[dict, dict]:
    """The state dict with fp8 weights in the blocks, and their scales by layer."""
    state, scales = dit.state_dict(), {}
    for name, linear in block_linears(dit):
        state[f"{name}.weight"], scales[name] = quantize(linear.weight, SCHEMES["fp8"])
    return state, scales


def with_wide_weights(dit: DiT) -> DiT:
    """What an fp8 model computes, by an ordinary one: weights in bfloat16, taken times their scales."""
    state, scales = split(dit)
    for name, scale in scales.items():
        state[f"{name}.weight"] = state[f"{name}.weight"].bfloat16() * scale.bfloat16()
    dit.load_state_dict(state)
    return dit


def save_released(folder, state, scales):
    path = folder / "mp_rank_00_model_states_fp8.pt"
    torch.save({"module": state}, path)
    if scales is not None:
        torch.save(scales, folder / "mp_rank_00_model_states_fp8_map.pt")
    return path


@pytest.mark.parametrize("form", [torch.float32, torch.bfloat16])
def test_a_released_file_computes_weight_times_scale(bf16, inputs, tmp_path, form):
    state, scales = split(bf16)
    path = save_released(tmp_path, state, {name: scale.to(form).reshape(1) for name, scale in scales.items()})
    dit = load_dit(path)
    assert sum(isinstance(module, QuantizedLinear) for module in dit.modules()) == 13
    assert dit.single_blocks[0].linear1.weight.dtype == FP8
    assert torch.equal(dit(*inputs), with_wide_weights(bf16)(*inputs))


def test_scales_beside_the_weights_are_found(bf16, inputs, tmp_path):
    state, scales = split(bf16)
    state |= {f"{name}.scale_weight": scale for name, scale in scales.items()}
    state |= {f"{name}.scale_input": torch.tensor(1.0) for name in scales}
    state["scaled_fp8"] = torch.empty(2).to(FP8)
    state["txt_in.input_embedder.weight"], scale = quantize(state["txt_in.input_embedder.weight"], SCHEMES["fp8"])
    state["txt_in.input_embedder.scale_weight"] = scale
    save_file(state, tmp_path / "scaled.safetensors")
    dit = load_dit(tmp_path / "scaled.safetensors")
    expected = with_wide_weights(bf16)
    with torch.no_grad():
        expected.txt_in.input_embedder.weight.copy_(state["txt_in.input_embedder.weight"].bfloat16() * scale.bfloat16())
    assert torch.equal(dit(*inputs), expected(*inputs))


def test_weights_cast_as_they_were_are_taken_so_in_every_layer(bf16, inputs, tmp_path):
    cast = {key: value.to(FP8) for key, value in bf16.state_dict().items()}
    save_file(cast, tmp_path / "plain.safetensors")
    dit = load_dit(tmp_path / "plain.safetensors")
    bf16.load_state_dict(cast)
    assert dit.img_in.proj.weight.dtype == dit.single_blocks[0].q_norm.weight.dtype == torch.bfloat16
    assert dit.double_blocks[0].img_mlp.fc1.weight.dtype == FP8
    assert torch.equal(dit(*inputs), bf16(*inputs))


def test_layers_left_in_bfloat16_stay_so(bf16, tmp_path):
    state, scales = split(bf16)
    state["single_blocks.0.linear2.weight"] = bf16.state_dict()["single_blocks.0.linear2.weight"]
    del scales["single_blocks.0.linear2"]
    dit = load_dit(save_released(tmp_path, state, scales))
    assert dit.single_blocks[0].linear2.weight.dtype == torch.bfloat16
    assert dit.single_blocks[0].linear1.weight.dtype == FP8


def test_other_fp8_layers_of_a_released_file_are_taken_as_they_were_cast(bf16, inputs, tmp_path):
    state, scales = split(bf16)
    cast = state["txt_in.input_embedder.weight"].to(FP8)
    dit = load_dit(save_released(tmp_path, state | {"txt_in.input_embedder.weight": cast}, scales))
    assert torch.equal(dit.txt_in.input_embedder.weight, cast.bfloat16())
    assert torch.equal(dit.final_layer.linear.weight, bf16.final_layer.linear.weight)


@pytest.mark.parametrize(("value", "scaled"), [(448.0, True), (-448.0, True), (416.0, False), (-416.0, False)])
def test_the_largest_number_tells_that_weights_were_scaled(bf16, tmp_path, value, scaled):
    cast = {key: value.to(FP8) for key, value in bf16.state_dict().items()}
    cast["single_blocks.0.linear2.weight"][3, 5] = value
    save_file(cast, tmp_path / "model.safetensors")
    if not scaled:
        load_dit(tmp_path / "model.safetensors")
        return
    with pytest.raises(CheckpointError, match=r"missing \('single_blocks.0.linear2' fills the whole range of fp8"):
        load_dit(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_file_without_its_map_is_refused(bf16, tmp_path, name):
    state, _ = split(bf16)
    (torch.save if name.endswith(".pt") else save_file)(state, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"scales are missing .* noise.* second file, here model_map.pt: put it"):
        load_dit(tmp_path / name)


def test_a_pickle_whose_weights_do_not_fill_the_range_needs_its_map_too(bf16, tmp_path):
    cast = {key: value.to(FP8) for key, value in bf16.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"scales are missing; without them .* noise"):
        load_dit(save_released(tmp_path, cast, None))


def spoilt(scales: dict, how: str) -> dict:
    first = next(iter(scales))
    changes = {
        "unknown layer": {"double_blocks.7.img_mod.linear": torch.tensor(1.0)},
        "keyed by weight": {f"{first}.weight": torch.tensor(1.0)},
        "nan": {first: torch.tensor(float("nan"))},
        "infinite": {first: torch.tensor(float("inf"))},
        "zero": {first: torch.tensor(0.0)},
        "negative": {first: torch.tensor(-1.0)},
        "per input": {first: torch.ones(1, 256)},
    }
    if how == "lacking":
        return {name: scale for name, scale in scales.items() if name != first}
    return scales | changes[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("lacking", r"_fp8_map.pt: lacks the scales of fp8 weights in .*_fp8.pt: double_blocks.0.img_mod.linear$"),
        (
            "unknown layer",
            r"_fp8_map.pt: has scales of layers without an fp8 weight .*: double_blocks.7.img_mod.linear",
        ),
        ("keyed by weight", r"has scales of layers without an fp8 weight in .*: double_blocks.0.img_mod.linear.weight"),
        ("nan", r"scale of 'double_blocks.0.img_mod.linear' is not a positive number"),
        ("infinite", r"scale of 'double_blocks.0.img_mod.linear' is not a positive number"),
        ("zero", r"scale of 'double_blocks.0.img_mod.linear' is not a positive number"),
        ("negative", r"scale of 'double_blocks.0.img_mod.linear' is not a positive number"),
        ("per input", r"has the shape \[1, 256\]; expected one number, or \[1536, 1\]"),
    ],
)
def test_a_wrong_map_is_refused(bf16, tmp_path, how, message):
    state, scales = split(bf16)
    with pytest.raises(CheckpointError, match=message):
        load_dit(save_released(tmp_path, state, spoilt(scales, how)))


def test_a_map_that_is_no_map_is_refused(bf16, tmp_path):
    state, _ = split(bf16)
    with pytest.raises(CheckpointError, match=r"_fp8_map.pt: not a state dict"):
        load_dit(save_released(tmp_path, state, {"double_blocks.0.img_mod.linear": 0.5}))


def test_a_scale_missing_among_others_is_refused(bf16, tmp_path):
    state, scales = split(bf16)
    state |= {f"{name}.weight_scale": scale for name, scale in scales.items() if name != "single_blocks.0.linear2"}
    save_file(state, tmp_path / "scaled.safetensors")
    with pytest.raises(CheckpointError, match=r"without a scale, while others have one: single_blocks.0.linear2$"):
        load_dit(tmp_path / "scaled.safetensors")


def test_integers_without_a_scale_are_refused(bf16, tmp_path):
    state = bf16.state_dict()
    state["single_blocks.0.linear2.weight"] = torch.ones(256, 1024, dtype=torch.int8)
    write_model(tmp_path / "model", state, dataclasses.asdict(bf16.config))
    with pytest.raises(CheckpointError, match=r"int8 weights need a 'weight_scale' .* for single_blocks.0.linear2$"):
        load_dit(tmp_path / "model")


def test_a_misshapen_fp8_weight_and_an_odd_scale_are_listed(bf16, tmp_path):
    state, scales = split(bf16)
    state["single_blocks.0.linear2.weight"] = state["single_blocks.0.linear2.weight"][:, :10].contiguous()
    state |= {f"{name}.weight_scale": scale for name, scale in scales.items()}
    state["img_in.proj.weight_scale"] = torch.tensor(1.0)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"unexpected: img_in.proj.weight_scale; .*shape: single_blocks.0.linear2"
    ):
        load_dit(tmp_path / "model.safetensors")


def test_fp8_under_diffusers_names(bf16, inputs, tmp_path):
    view = DIFFUSERS.from_ours(bf16.state_dict(), 256)
    cast = {key: view[key].contiguous().to(FP8) for key in view}
    save_file(cast, tmp_path / "plain.safetensors")
    bf16.load_state_dict({key: value.to(FP8) for key, value in bf16.state_dict().items()})
    assert torch.equal(load_dit(tmp_path / "plain.safetensors")(*inputs), bf16(*inputs))
    scale = {"transformer_blocks.0.attn.to_q.weight_scale": torch.ones(())}
    save_file(cast | scale, tmp_path / "scaled.safetensors")
    with pytest.raises(CheckpointError, match=r"has a scale, 'transformer_blocks.0.attn.to_q.weight_scale'; scaled"):
        load_dit(tmp_path / "scaled.safetensors")


@pytest.mark.parametrize("form", ["released", "ours"])
def test_converting_takes_weights_times_scales(bf16, tmp_path, form):
    state, scales = split(bf16)
    path = save_released(tmp_path, state, scales)
    if form == "ours":
        dit = load_dit(path)
        path = tmp_path / "ours"
        write_model(path, dit.state_dict(), dataclasses.asdict(dit.config))
    model = model_format().open(path)
    expected = with_wide_weights(bf16).state_dict()
    assert model is not None
    assert model.tensors.keys() == expected.keys()
    assert all(torch.equal(model.tensors[key], value) for key, value in expected.items())
    theirs = model_format().to_diffusers(model)
    qkv = [theirs.tensors[f"transformer_blocks.0.attn.to_{name}.weight"] for name in "qkv"]
    assert torch.equal(torch.cat(qkv), expected["double_blocks.0.img_attn_qkv.weight"])
