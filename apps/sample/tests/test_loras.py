"""A LoRA changes samples, is remembered by them, and is asked for again."""

from pathlib import Path

import pytest
import torch
from hy_data import read_settings, read_video
from hy_dit import load_dit, save_lora
from hy_weights import CheckpointError, LoRAError, base_metadata, new_lora
from hyvideo_sample.cli import main
from hyvideo_sample.settings import SampleError

COMMAND = ["a white van", "--size", "32x32", "--frames", "5", "--steps", "2"]


def write_look(checkpoint, file, seed=1, **metadata):
    dit = load_dit(checkpoint / "dit")
    lora = new_lora(dit, ["single_blocks.*.linear1"], rank=2, generator=torch.Generator().manual_seed(seed))
    for factors in lora.layers.values():
        factors.up.normal_(generator=torch.Generator().manual_seed(seed))
    save_lora(file, lora, dit, metadata=base_metadata(checkpoint / "dit") | metadata)
    return Path(file)


@pytest.fixture
def look(checkpoint, tmp_path):
    return write_look(checkpoint, tmp_path / "look.safetensors")


def frames(file):
    return read_video(file).frames_THWC


def sample(checkpoint, out, *options):
    assert main([*COMMAND, "--model", str(checkpoint), "--out", out, *options]) == 0
    return frames(out)


def test_a_lora_changes_the_sample_by_its_strength(checkpoint, look):
    plain = sample(checkpoint, "plain.mp4")
    full = sample(checkpoint, "full.mp4", "--lora", str(look))
    half = sample(checkpoint, "half.mp4", "--lora", f"{look}=0.5")
    none = sample(checkpoint, "none.mp4", "--lora", f"{look}=0")
    twice = sample(checkpoint, "twice.mp4", "--lora", f"{look}=0.5", "--lora", f"{look}=0.5")
    assert (plain == none).all()
    assert (plain != full).any()
    assert (half != full).any()
    assert abs(twice.astype(int) - full).max() <= 2


def test_a_replay_uses_the_same_one(checkpoint, look):
    first = sample(checkpoint, "first.mp4", "--lora", f"{look}=0.7")
    (told,) = read_settings("first.mp4")["loras"]
    assert (told["file"], told["strength"], len(told["sha256"])) == (str(look), 0.7, 64)
    assert main(["--replay", "first.mp4", "--out", "again.mp4"]) == 0
    assert (frames("again.mp4") == first).all()


def test_a_replay_refuses_another_one_of_its_name(checkpoint, look):
    sample(checkpoint, "first.mp4", "--lora", str(look))
    write_look(checkpoint, look, seed=2)
    with pytest.raises(SampleError, match="is not the LoRA that the sample was made with"):
        main(["--replay", "first.mp4", "--out", "again.mp4"])
    look.unlink()
    with pytest.raises(SampleError, match="no such LoRA file; give --lora with its place now"):
        main(["--replay", "first.mp4", "--out", "again.mp4"])


def test_one_that_was_trained_on_another_model_is_refused(checkpoint, make_checkpoint, look):
    other = make_checkpoint(seed=3)
    with pytest.raises(LoRAError, match="--any-base"):
        main([*COMMAND, "--model", str(other), "--lora", str(look)])
    assert main([*COMMAND, "--model", str(other), "--lora", str(look), "--any-base", "--out", "x.mp4"]) == 0


def test_one_of_another_width_is_refused(make_checkpoint, look):
    wide = make_checkpoint("wide", width=32, heads=2)
    with pytest.raises(CheckpointError, match="made for a model of width 16; this one has 32"):
        main([*COMMAND, "--model", str(wide), "--lora", str(look)])


def test_a_file_that_is_not_there(checkpoint):
    with pytest.raises(SampleError, match=r"none\.safetensors: no such LoRA file"):
        main([*COMMAND, "--model", str(checkpoint), "--lora", "none.safetensors"])
