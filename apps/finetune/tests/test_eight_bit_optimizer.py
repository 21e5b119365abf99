"""AdamW with moments in 8 bits, from the command line to a resumed run."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hyvideo_finetune import FinetuneError
from hyvideo_finetune.cli import main
from safetensors.torch import load_file

QUIET = ["--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]
QUIET += ["--trainer.enable_model_summary=false"]


def prepare(clips, checkpoint):
    small = ["--size", "48x32", "--frames", "9", "--rank", "2", "--steps", "6"]
    return main(["prepare", str(clips), "--model", str(checkpoint), "--out", "room", *small, "--eight-bit-optimizer"])


def test_it_is_refused_where_it_is_not_installed(clips, checkpoint, monkeypatch):
    monkeypatch.setattr("hyvideo_finetune.prepare.command.find_spec", lambda name: None)
    with pytest.raises(FinetuneError, match=r"needs bitsandbytes: pip install 'hyvideo-finetune\[bitsandbytes\]'"):
        prepare(clips, checkpoint)
    assert not Path("room").exists()


def fit(*options):
    assert main(["fit", "--config", "room/recipe.yaml", *QUIET, *options]) == 0
    return load_file("room/run/checkpoints/latest/state.safetensors")


def test_its_moments_are_bytes_and_a_resumed_run_is_the_same_to_the_bit(clips, checkpoint):
    pytest.importorskip("bitsandbytes")
    assert prepare(clips, checkpoint) == 0
    recipe = yaml.safe_load(Path("room/recipe.yaml").read_text())
    optimizer = recipe["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "bitsandbytes.optim.AdamW8bit"
    optimizer["init_args"]["min_8bit_size"] = 16  # smaller tensors stay in 32 bits: by default below 4096 numbers
    Path("room/recipe.yaml").write_text(yaml.safe_dump(recipe))
    whole = fit()
    moments = [value for name, value in whole.items() if name.endswith((".state1", ".state2"))]
    assert len(moments) > 10
    assert {value.dtype for value in moments} == {torch.uint8}
    shutil.rmtree("room/run")
    fit("--trainer.max_steps=3")
    resumed = fit("--resume")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
