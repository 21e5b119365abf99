"""LoRAs into weights, and out of them again."""

from pathlib import Path

import pytest
import torch
from hy_data.errors import CannotWrite
from hy_dit import load_dit, load_lora, save_lora
from hy_weights import CheckpointError, LoRA, LoRAError, base_metadata, merge_loras, verify
from hy_weights.lora.factors import Factors
from hyvideo_finetune import FinetuneError
from hyvideo_finetune.cli import main


@pytest.fixture
def look(checkpoint, tmp_path):
    """A LoRA of rank 2 for two layers."""
    torch.manual_seed(5)
    dit = load_dit(checkpoint / "dit")
    layers = {}
    for name in ("double_blocks.0.img_attn_qkv", "single_blocks.1.linear1"):
        rows, columns = dit.get_submodule(name).weight.shape
        layers[name] = Factors(torch.randn(2, columns), torch.randn(rows, 2), 1.0)
    file = tmp_path / "look.safetensors"
    save_lora(file, LoRA(layers), dit, metadata=base_metadata(checkpoint / "dit"))
    return file


def merged_by_hand(checkpoint, look, strength):
    dit = load_dit(checkpoint / "dit")
    merge_loras(dit, [(load_lora(look, dit), strength)])
    return dit.state_dict()


@pytest.mark.parametrize(("spelt", "strength"), [("", 1.0), ("=0.5", 0.5), ("=-2", -2.0)])
def test_a_published_folder_stays_whole(checkpoint, look, spelt, strength, capsys):
    assert main(["merge", str(checkpoint), f"{look}{spelt}", "--out", "merged"]) == 0
    assert f"look.safetensors at {strength:g}" in capsys.readouterr().out
    verify("merged")
    expected = merged_by_hand(checkpoint, look, strength)
    state = load_dit("merged").state_dict()
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    from hyvideo_sample.cli import main as sample

    assert sample(["ab", "--model", "merged", "--frames", "1", "--size", "32x32", "--out", "x.png"]) == 0


def test_of_a_transformer_alone_one_is_made(checkpoint, look):
    main(["merge", str(checkpoint / "dit"), str(look), "--out", "merged", "--dtype", "bfloat16"])
    assert load_dit("merged").img_in.proj.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("wanted", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("stored", ["checkpoint", "bfloat16_checkpoint"])
def test_the_sum_is_rounded_once(request, look, wanted, stored):
    base = request.getfixturevalue(stored)
    main(["merge", str(base / "dit"), str(look), "--out", "merged", "--dtype", wanted, "--any-base"])
    exact = load_dit(base / "dit", torch.float32)
    merge_loras(exact, [(load_lora(look, exact), 1.0)])
    found = load_dit("merged").state_dict()
    assert all(torch.equal(found[name], value.to(getattr(torch, wanted))) for name, value in exact.state_dict().items())


def test_another_base_is_refused_unless_that_is_meant(other_checkpoint, look):
    command = ["merge", str(other_checkpoint), str(look), "--out", "merged"]
    with pytest.raises(LoRAError, match="--any-base"):
        main(command)
    assert main([*command, "--any-base"]) == 0


def test_what_is_not_ours_is_not_replaced(checkpoint, look, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    with pytest.raises(CheckpointError):
        main(["merge", str(checkpoint), str(look), "--out", "notes"])
    assert (tmp_path / "notes" / "diary.txt").read_text() == "mine"


def test_what_was_merged_is_extracted(checkpoint, look, capsys):
    main(["merge", str(checkpoint), str(look), "--out", "merged"])
    capsys.readouterr()
    command = ["extract", str(checkpoint), "merged", "--rank", "2", "--out", "again.safetensors", "--dtype", "float32"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "2 layers, rank 2, 100.0% of the difference" in told
    dit = load_dit(checkpoint / "dit")
    again = load_lora("again.safetensors", dit)
    for name, factors in load_lora(look, dit).layers.items():
        torch.testing.assert_close(again.layers[name].delta(), factors.delta(), rtol=1e-3, atol=1e-4)
    assert again.metadata["base_sha256"] == base_metadata(checkpoint / "dit")["base_sha256"]


def test_a_small_rank_keeps_less_and_says_so(checkpoint, look, capsys):
    main(["merge", str(checkpoint), str(look), "--out", "merged"])
    capsys.readouterr()
    main(["extract", str(checkpoint), "merged", "--rank", "1", "--out", "again.safetensors"])
    told = capsys.readouterr().out
    assert "least is kept:" in told
    assert "100.0% of the difference" not in told


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--out", "look.pt"], FinetuneError, r"ends in \.safetensors"),
        (["--out", "taken.safetensors"], CannotWrite, "is a folder"),
        (["--out", "file/look.safetensors"], CannotWrite, "a part of the path is a file"),
        (["--out", "x.safetensors", "--rank", "0"], FinetuneError, "rank is 0"),
        (["--out", "x.safetensors", "--device", "nonsense"], FinetuneError, "--device nonsense can't be used here"),
    ],
)
def test_extract_looks_at_its_output_before_any_work(checkpoint, monkeypatch, options, error, message):
    Path("taken.safetensors").mkdir()
    Path("file").write_text("")
    monkeypatch.setattr("hy_weights.extract_lora", None)
    monkeypatch.setattr("hy_dit.load.open_dit", None)
    with pytest.raises(error, match=message):
        main(["extract", str(checkpoint), str(checkpoint), *options])


def test_the_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"\n  {name}" in told for name in ("prepare", "fit", "merge", "extract"))


def test_an_unknown_command_is_refused():
    with pytest.raises(FinetuneError, match="no command 'fti'; there are fit, validate, prepare, merge, extract"):
        main(["fti"])
