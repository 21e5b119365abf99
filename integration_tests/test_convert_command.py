"""`hyvideo convert` from every form of the transformer to every other, and back without a changed bit."""

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from hy_dit import DiT, DiTConfig, load_dit
from hy_plugins import Plugins
from hy_weights import CheckpointError, verify, write_model
from safetensors.torch import load_file

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


def test_a_disk_that_fills_up_leaves_nothing_under_the_final_name(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for name, form in (("out", "ours"), ("out.safetensors", "single")):
        with pytest.raises((CheckpointError, OSError), match="No space left"):
            convert(folder, tmp_path / name, "--to", form)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
