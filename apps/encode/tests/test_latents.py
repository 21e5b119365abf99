"""Clips to latents, on a worker without a process.

Shapes: B batch, C channels, T H W frames, height, width.
"""

import os
import re
from pathlib import Path

import pytest
import torch
from hy_data import Bucket
from hy_data.index import index_shards
from hy_data.items import Item, items_for
from hy_data.lightning import to_video
from hy_data.lightning.latent_cache import LatentCache
from hy_vae3d import VAE3D, Tiling
from hy_weights import CheckpointError, TensorStore
from hyvideo_encode.cli import main
from hyvideo_encode.errors import EncodeError

VIDEOS = [Bucket(5, 32, 48), Bucket(9, 32, 32)]
COMMAND = ["footage", "--vae", "checkpoint/vae", "--store", "states", "--device", "cpu", "--buckets"]
BOTH = [*COMMAND, "5x32x48", "9x32x32"]


@pytest.fixture(autouse=True)
def _inline(pool, footage):
    pass


def wanted(*buckets):
    return items_for(index_shards("footage"), buckets or VIDEOS)[0]


def entries():
    return sorted(Path("states").glob("??/*.safetensors"))


def test_what_is_encoded_is_what_training_finds(vae, capsys):
    assert main(BOTH) == 0
    items = wanted()
    assert [item.bucket.frames for item in items] == [9, 5]
    cache = LatentCache("states", "checkpoint")
    for item in items:
        with torch.no_grad():
            expected_BCTHW = vae.encode(to_video([item.frames()])).mode() * vae.scaling_factor
        assert torch.equal(cache.get(item), expected_BCTHW[0].bfloat16().float())
    told = capsys.readouterr()
    assert len(entries()) == 2
    assert "states: 2 clips, 0 of them hits (0%), 2 encoded (" in told.out
    assert re.search(r"; [\d.]+ clips/s, [\d.]+ frames/s$", told.out.strip())
    assert "1 of 3 clips are left out: fewer than 5 frames" in told.err


def test_what_it_takes_is_told_beside_what_float32_would(capsys, monkeypatch):
    monkeypatch.setattr("hyvideo_encode.latents._FLOAT32", 4_000_000)
    main([*COMMAND, "9x32x48"])
    numbers = 4 * 3 * 4 * 6
    assert f"MB; {4 * numbers:,.1f} MB as float32)" in capsys.readouterr().out


def test_images_and_videos_come_of_the_same_clips():
    assert main([*COMMAND, "1x32x48", "5x32x48"]) == 0
    cache = LatentCache("states", "checkpoint/vae")
    for item in (*wanted(Bucket(1, 32, 48)), *wanted(Bucket(5, 32, 48))):
        assert cache.get(item).shape == (4, (item.bucket.frames - 1) // 4 + 1, 4, 6)


def test_what_is_there_is_not_encoded_again(pool, monkeypatch, capsys):
    main([*COMMAND, "5x32x48"])
    count = len(entries())
    monkeypatch.setattr(VAE3D, "encode", lambda *_: pytest.fail("something is encoded"))
    assert main([*COMMAND, "5x32x48"]) == 0
    assert len(entries()) == count
    assert pool.last.batches == []
    assert f"{count} clips, {count} of them hits (100%), 0 encoded" in capsys.readouterr().out


@pytest.mark.parametrize(
    "option", [["--format", "int8"], ["--vae-dtype", "bfloat16"], ["--tiling"]], ids=lambda o: o[0]
)
def test_other_settings_are_another_run_and_reach_the_autoencoder(vae, monkeypatch, option):
    main([*COMMAND, "5x32x48"])
    count = len(entries())
    seen = []
    original = VAE3D.encode

    def encode(self, video_BCTHW, **options):
        seen.append((video_BCTHW.dtype, self.tiling))
        return original(self, video_BCTHW, **options)

    monkeypatch.setattr(VAE3D, "encode", encode)
    assert main([*COMMAND, "5x32x48", *option]) == 0
    assert len(entries()) == 2 * count
    number_format = torch.bfloat16 if "bfloat16" in option else torch.float32
    assert set(seen) == {(number_format, Tiling() if "--tiling" in option else None)}
    settings = {"--format": {"format": "int8"}, "--vae-dtype": {"dtype": "bfloat16"}, "--tiling": {"tiling": True}}
    assert LatentCache("states", "checkpoint", **settings[option[0]]).get(wanted(Bucket(5, 32, 48))[0]) is not None


def test_captions_and_clips_in_one_command(capsys):
    assert main([*BOTH, "--encoder", "checkpoint", "--caption", "short"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[0] for line in told] == ["states: 3 prompts", "states: 2 clips"]
    assert len(entries()) == 5


def test_a_clip_that_cannot_be_encoded_costs_the_others_nothing(monkeypatch, capsys):
    original = Item.frames

    def frames(self):
        if self.start == 4:
            raise RuntimeError("cosmic rays")
        return original(self)

    monkeypatch.setattr(Item, "frames", frames)
    assert main([*COMMAND, "1x32x48", "5x32x48"]) == 1
    bad = [item for item in (*wanted(Bucket(1, 32, 48)), *wanted(Bucket(5, 32, 48))) if item.start == 4]
    told = capsys.readouterr()
    for item in bad:
        size = f"{item.bucket.height}x{item.bucket.width}"
        assert f"failed: {item.key} at {size}: RuntimeError: cosmic rays" in told.err
    assert f"{len(bad)} failed" in told.out
    all_items = (*wanted(Bucket(1, 32, 48)), *wanted(Bucket(5, 32, 48)))
    assert len(entries()) == len(all_items) - len(bad)


def test_nothing_is_encoded_twice_because_its_neighbour_failed(monkeypatch, pool):
    original, encoded = VAE3D.encode, []

    def encode(self, video_BCTHW, **options):
        encoded.append(video_BCTHW.shape)
        if len(encoded) == 2:
            raise RuntimeError("out of luck")
        return original(self, video_BCTHW, **options)

    monkeypatch.setattr(VAE3D, "encode", encode)
    assert main([*COMMAND, "1x32x48", "1x48x32", "5x32x48"]) == 0
    assert len(encoded) == len(entries()) + 1


def test_damaged_shards_and_clips_are_told_and_the_rest_goes_on(footage, capsys):
    shard = footage / "clips-000001.tar"
    shard.write_bytes(shard.read_bytes()[:600])
    assert main(BOTH) == 1
    told = capsys.readouterr()
    assert "failed: " in told.err
    assert "clips-000001.tar" in told.err
    assert "2 encoded" in told.out


def test_a_clip_that_changes_after_it_was_indexed_is_told(footage, capsys):
    (clip, *_) = index_shards("footage")
    shard = footage / "clips-000000.tar"
    content = bytearray(shard.read_bytes())
    state = shard.stat()
    content[clip.offset + clip.size // 2] ^= 255
    shard.write_bytes(content)
    os.utime(shard, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert main(BOTH) == 1
    told = capsys.readouterr()
    assert "its bytes are not those that were indexed" in told.err
    assert "1 encoded" in told.out


def test_numbers_that_are_not_finite_are_not_kept(monkeypatch, capsys):
    original = VAE3D.encode

    def encode(self, video_BCTHW, **options):
        return original(self, video_BCTHW * float("nan"), **options)

    monkeypatch.setattr(VAE3D, "encode", encode)
    assert main(BOTH) == 1
    assert "DataError: the autoencoder gives NaN or infinity" in capsys.readouterr().err
    assert entries() == []


def test_a_full_disk_ends_the_run_and_keeps_what_is_there(full_disk):
    with full_disk(1), pytest.raises(EncodeError, match=r"what is encoded can't be stored: .*No space left"):
        main(BOTH)
    assert len(entries()) == 1
    assert main(BOTH) == 0
    store = TensorStore("states")
    assert len([store.get(file.stem) for file in entries()]) == 2
    assert store.counts.damaged == 0


def test_what_is_no_autoencoder_is_said_at_once(capsys):
    with pytest.raises(CheckpointError, match="none: no such file or folder"):
        main(["footage", "--vae", "none", "--store", "states", "--buckets", "5x32x48"])
    with pytest.raises(CheckpointError, match="not a HunyuanVideo VAE"):
        main(["footage", "--vae", "checkpoint/text_encoder", "--store", "states", "--buckets", "5x32x48"])
    assert entries() == []


def test_latents_need_shards():
    Path("prompts.txt").write_text("a cat\n")
    with pytest.raises(EncodeError, match="latents are made of shards"):
        main(["prompts.txt", *COMMAND[1:], "5x32x48"])


def test_a_size_that_is_none_is_refused():
    with pytest.raises(EncodeError, match="frames must be 4n"):
        main([*COMMAND, "6x32x48"])
