"""`hyvideo convert` from every form to every other and back without a changed bit, and `hyvideo verify` of all."""

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from hy_dit import DiT, DiTConfig, load_dit
from hy_plugins import Plugins
from hy_vae3d import VAE3D, VAE3DConfig, load_vae
from hy_weights import CheckpointError, verify, write_model
from safetensors.torch import load_file, save_file

CONFIG = replace(
    DiTConfig.preset("tiny"),
    width=256,
    heads=2,
    rope_axes=(16, 56, 56),
    double_blocks=1,
    single_blocks=2,
    text_width=24,
)


@pytest.fixture(scope="module")
def dit():
    torch.manual_seed(0)
    return DiT(CONFIG).bfloat16()


@pytest.fixture
def folder(dit, tmp_path):
    write_model(tmp_path / "in", dit.state_dict(), asdict(CONFIG))
    return tmp_path / "in"


def convert(*arguments):
    return Plugins().load("command", "convert")([str(argument) for argument in arguments])


def same(one, two):
    state = two.state_dict()
    return all(torch.equal(value, state[key]) for key, value in one.state_dict().items())


def test_all_the_way_round(dit, folder, tmp_path, capsys):
    convert(folder, tmp_path / "theirs", "--to", "diffusers")
    assert "HunyuanVideo transformer" in capsys.readouterr().out
    convert(tmp_path / "theirs", tmp_path / "one.safetensors", "--to", "single")
    convert(tmp_path / "one.safetensors", tmp_path / "ours", "--to", "ours")
    verify(tmp_path / "ours")
    for name in ("theirs", "one.safetensors", "ours"):
        loaded = load_dit(tmp_path / name)
        assert loaded.config == CONFIG
        assert same(dit, loaded)
    assert load_file(tmp_path / "one.safetensors").keys() == dit.state_dict().keys()


def test_diffusers_takes_what_it_made(dit, folder, tmp_path):
    from diffusers import HunyuanVideoTransformer3DModel  # pyright: ignore[reportPrivateImportUsage]

    convert(folder, tmp_path / "theirs", "--to", "diffusers")
    loaded: Any = HunyuanVideoTransformer3DModel.from_pretrained(
        tmp_path / "theirs", output_loading_info=True, torch_dtype=torch.bfloat16
    )
    model, report = loaded
    assert not any(report.values())
    assert torch.equal(model.single_transformer_blocks[1].proj_out.weight, dit.single_blocks[1].linear2.weight)


def test_a_released_pickle_in_another_number_format(dit, tmp_path):
    torch.save({"module": dit.float().state_dict()}, tmp_path / "mp_rank_00_model_states.pt")
    convert(tmp_path / "mp_rank_00_model_states.pt", tmp_path / "out", "--to", "ours", "--dtype", "fp16")
    assert {value.dtype for value in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float16}
    dit.bfloat16()


def test_wrong_requests_are_refused_and_leave_nothing(folder, tmp_path):
    write_model(tmp_path / "other", {"something.weight": torch.ones(2)}, {})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    (tmp_path / "taken.safetensors").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for arguments, message in (
        ((tmp_path / "none", tmp_path / "out", "--to", "ours"), "none: no such file or folder"),
        ((tmp_path / "other", tmp_path / "out", "--to", "ours"), "is no model that an installed package knows"),
        ((folder, tmp_path / "mine", "--to", "diffusers"), "never overwritten"),
        ((folder, tmp_path / "taken.safetensors", "--to", "single"), "already there"),
        ((folder, tmp_path / "out", "--to", "single"), r"ends in \.safetensors"),
    ):
        with pytest.raises(CheckpointError, match=message):
            convert(*arguments)
    assert sorted(tmp_path.rglob("*")) == before


def check(*arguments):
    return Plugins().load("command", "verify")([str(argument) for argument in arguments])


VAE = VAE3DConfig(latent_channels=4, channels=(8, 8, 16, 16), layers_per_block=1, norm_groups=4, scaling_factor=0.5)


@pytest.fixture
def vae_folder(tmp_path):
    torch.manual_seed(0)
    state = {key: torch.randn_like(value) for key, value in VAE3D(VAE).state_dict().items()}
    write_model(tmp_path / "in", state, asdict(VAE))
    return tmp_path / "in"


def test_the_vae_all_the_way_round(vae_folder, tmp_path, capsys):
    vae = load_vae(vae_folder)
    convert(vae_folder, tmp_path / "theirs", "--to", "diffusers")
    convert(tmp_path / "theirs", tmp_path / "one.safetensors", "--to", "single")
    convert(tmp_path / "one.safetensors", tmp_path / "ours", "--to", "ours")
    assert capsys.readouterr().out.count("HunyuanVideo VAE") == 3
    verify(tmp_path / "ours")
    for name in ("theirs", "one.safetensors", "ours"):
        loaded = load_vae(tmp_path / name)
        assert loaded.config == VAE
        assert same(vae, loaded)


def test_diffusers_takes_the_vae_and_computes_the_same(vae_folder, tmp_path):
    from diffusers import AutoencoderKLHunyuanVideo  # pyright: ignore[reportPrivateImportUsage]

    convert(vae_folder, tmp_path / "theirs", "--to", "diffusers")
    loaded: Any = AutoencoderKLHunyuanVideo.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    model, report = loaded
    assert not any(report.values())
    assert model.config.scaling_factor == VAE.scaling_factor
    video_BCTHW = torch.rand(1, 3, 5, 16, 24) * 2 - 1
    with torch.no_grad():
        posterior, expected = load_vae(vae_folder).encode(video_BCTHW), model.encode(video_BCTHW).latent_dist
    torch.testing.assert_close(posterior.mean, expected.mean, atol=1e-4, rtol=1e-4)

    model.save_pretrained(tmp_path / "saved")
    saved = load_vae(tmp_path / "saved")
    assert saved.config == VAE
    assert same(load_vae(vae_folder), saved)


def test_a_single_file_of_sizes_that_weights_do_not_tell_carries_them(tmp_path):
    small = DiT(replace(DiTConfig.preset("tiny"), double_blocks=1, single_blocks=1))
    write_model(tmp_path / "in", small.state_dict(), asdict(small.config))
    convert(tmp_path / "in", tmp_path / "one.safetensors", "--to", "single")
    assert load_dit(tmp_path / "one.safetensors").config == small.config


@pytest.mark.parametrize("broken", ["missing", "unexpected", "shape", "integers", "float8"])
def test_what_does_not_fit_is_listed_and_neither_converted_nor_verified(dit, tmp_path, broken):
    state = {key: value.clone() for key, value in dit.state_dict().items()}
    key = "double_blocks.0.txt_mlp.fc2.weight"
    tensor = state.pop(key)
    changed = {
        "missing": {},
        "unexpected": {key: tensor, "surplus.weight": tensor.clone()},
        "shape": {key: tensor[:-1]},
        "integers": {key: tensor.to(torch.int64)},
        "float8": {key: tensor.to(torch.float8_e5m2)},
    }
    save_file(
        {**state, **{name: value.contiguous() for name, value in changed[broken].items()}}, tmp_path / "w.safetensors"
    )
    named = "surplus.weight" if broken == "unexpected" else key
    for run, arguments in ((convert, (tmp_path / "out", "--to", "ours")), (check, ())):
        with pytest.raises(CheckpointError, match=rf"w.safetensors does not fit .*1 .*{named}"):
            run(tmp_path / "w.safetensors", *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_verify_says_what_every_form_is(dit, folder, tmp_path, capsys):
    convert(folder, tmp_path / "pipeline" / "transformer", "--to", "diffusers")
    torch.save({"module": dit.state_dict()}, tmp_path / "released.pt")
    tensors, numbers = len(dit.state_dict()), sum(value.numel() for value in dit.state_dict().values())
    for place, layout in (
        (folder, "released key names"),
        (tmp_path / "released.pt", "released key names"),
        (tmp_path / "pipeline", "diffusers' layout"),
    ):
        check(place)
        out = capsys.readouterr().out
        assert f"HunyuanVideo transformer, {layout}" in out
        if layout == "released key names":
            assert f"{tensors} tensors, {numbers:,} numbers, bfloat16" in out
        assert ["config", "double_blocks", "1"] in [line.split() for line in out.splitlines()]


def test_numbers_beyond_the_wanted_format_are_no_weights_any_more(dit, tmp_path):
    state = {key: value.clone() for key, value in dit.state_dict().items()}
    state["time_in.mlp.0.bias"][0] = 1e9
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(
        CheckpointError,
        match=r"w.safetensors: tensor 'time_in.mlp.0.bias' has numbers beyond the range of torch.float16",
    ):
        convert(tmp_path / "w.safetensors", tmp_path / "out", "--to", "ours", "--dtype", "fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_not_even_a_published_model_is_overwritten_but_an_empty_folder_is_filled(folder, tmp_path):
    for output in (folder, tmp_path):
        with pytest.raises(CheckpointError, match="already there, and never overwritten"):
            convert(folder, output, "--to", "diffusers")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "manifest.json", "model.safetensors"]
    (tmp_path / "empty").mkdir()
    convert(folder, tmp_path / "empty", "--to", "diffusers")
    verify(tmp_path / "empty")


def fail_at_fsync(error):
    def fail(*_):
        raise error

    return fail


@pytest.mark.parametrize(("name", "form"), [("out", "ours"), ("out", "diffusers"), ("out.safetensors", "single")])
def test_a_full_disk_is_one_error_and_an_interrupt_an_interrupt_and_neither_leaves_anything(
    folder, tmp_path, monkeypatch, name, form
):
    monkeypatch.setattr("os.fsync", fail_at_fsync(OSError(28, "No space left on device")))
    with pytest.raises(CheckpointError, match=rf"{name}: can't be written \(.*No space left"):
        convert(folder, tmp_path / name, "--to", form)
    monkeypatch.setattr("os.fsync", fail_at_fsync(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        convert(folder, tmp_path / name, "--to", form)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
