"""Clips to latents, on a worker without a process.

Shapes: B batch, C channels, T H W frames, height, width.
"""

import os
import re
from pathlib import Path

import pytest
import torch
from hy_data import Bucket
from hy_data.errors import DataError
from hy_data.index import StoredClip, index_shards
from hy_data.items import items_for
from hy_data.lightning import to_video
from hy_data.lightning.latent_cache import LatentCache
from hy_vae3d import VAE3D, Tiling
from hy_weights import CheckpointError, TensorStore
from hyvideo_encode import latents
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


@pytest.fixture
def encoded(monkeypatch):
    """The shape of each batch that the autoencoder is given; `encoded.faulty` says which one fails."""
    original = VAE3D.encode

    class Seen(list):
        faulty = None

    seen = Seen()

    def encode(self, video_BCTHW, **options):
        seen.append((len(video_BCTHW), *video_BCTHW.shape[2:]))
        if len(seen) - 1 == seen.faulty:
            raise RuntimeError("out of luck")
        return original(self, video_BCTHW, **options)

    monkeypatch.setattr(VAE3D, "encode", encode)
    return seen


def test_a_clip_that_cannot_be_read_costs_the_others_nothing(monkeypatch, capsys):
    original = StoredClip.read

    def read(self, start=0, stop=None):
        if self.frames == 5:
            raise DataError("cosmic rays")
        return original(self, start, stop)

    monkeypatch.setattr(StoredClip, "read", read)
    assert main([*COMMAND, "1x32x48", "5x32x48"]) == 1
    items = [*wanted(Bucket(1, 32, 48)), *wanted(Bucket(5, 32, 48))]
    bad = [item for item in items if item.clip.frames == 5]
    told = capsys.readouterr()
    assert len(bad) == 2
    for item in bad:
        size = f"{item.bucket.height}x{item.bucket.width}"
        assert f"failed: {item.key} at {size}: DataError: cosmic rays" in told.err
    assert "2 failed" in told.out
    assert len(entries()) == len(items) - len(bad)


def test_a_clip_is_decoded_once_for_all_windows_within_its_longest(monkeypatch):
    original, reads = StoredClip.read, []

    def read(self, start=0, stop=None):
        reads.append((self.key, start, stop))
        return original(self, start, stop)

    monkeypatch.setattr(StoredClip, "read", read)
    assert main([*COMMAND, "1x32x48", "5x32x48"]) == 0
    assert len(entries()) == 5
    assert sorted(reads) == [("0", 2, 7), ("1", 0, 5), ("2", 1, 2)]


def test_clips_of_one_size_are_encoded_together_and_as_they_would_be_alone(vae, encoded, monkeypatch):
    kept, original = {}, LatentCache.put

    def put(self, item, latent_CTHW):
        kept[item.key] = latent_CTHW.clone()
        return original(self, item, latent_CTHW)

    monkeypatch.setattr(LatentCache, "put", put)
    assert main([*COMMAND, "1x32x48", "5x32x48"]) == 0
    assert encoded == [(2, 5, 32, 48), (3, 1, 32, 48)]
    items = (*wanted(Bucket(1, 32, 48)), *wanted(Bucket(5, 32, 48)))
    assert len(items) == len(kept)
    for item in items:
        with torch.inference_mode():
            alone_BCTHW = vae.encode(to_video([item.frames()])).mode() * vae.scaling_factor
        assert torch.equal(kept[item.key], alone_BCTHW[0])


def test_batches_have_the_size_that_is_asked_for(encoded, pool):
    assert main([*COMMAND, "1x32x48", "5x32x48", "--batch-size", "2"]) == 0
    assert encoded == [(2, 5, 32, 48), (2, 1, 32, 48), (1, 1, 32, 48)]
    assert [{item.clip.key for item in batch} for batch in pool.last.batches] == [{"0", "1"}, {"2"}]


def test_large_clips_are_encoded_one_at_a_time_and_small_ones_with_them(encoded, pool, monkeypatch):
    monkeypatch.setattr(latents, "_PIXELS", 4 * 32 * 48)
    assert main([*COMMAND, "1x32x48", "5x32x48"]) == 0
    assert sorted(encoded) == [(1, 1, 32, 48)] * 3 + [(1, 5, 32, 48)] * 2
    assert [{item.clip.key for item in batch} for batch in pool.last.batches] == [{"0"}, {"1"}, {"2"}]


def test_nothing_is_encoded_twice_because_its_neighbour_failed(encoded):
    encoded.faulty = 1
    assert main([*COMMAND, "1x32x48", "5x32x48"]) == 0
    assert encoded == [(2, 5, 32, 48), (3, 1, 32, 48), (2, 1, 32, 48), (1, 1, 32, 48)]
    assert len(entries()) == 5


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
