"""The command's logic, on a worker without a process."""

import os
from pathlib import Path

import pytest
import torch
from hy_textenc import CachedTextEncoder, TextEncoderError, TinyTextEncoder, load_text_encoder
from hy_textenc.testing import write_text_parts
from hy_weights import CheckpointError, TensorStore
from hyvideo_encode.cli import main
from hyvideo_encode.errors import EncodeError
from hyvideo_encode.texts import EncoderPlace

TEXTS = ["a cat sleeps", "dim", "a dog runs", "一只猫在跑", "bright"]
COMMAND = ["shards", "--encoder", "checkpoint", "--store", "states", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _inline(pool):
    pass


def cached(encoder):
    def load():
        pytest.fail("a prompt is missing")

    return CachedTextEncoder(load, TensorStore("states"), identity=encoder.identity)


def entries():
    return sorted(Path("states").glob("??/*.safetensors"))


def test_each_different_text_is_encoded_once_and_found_by_the_encoders_users(encoder, pool, capsys):
    assert main(COMMAND) == 0
    found, expected = cached(encoder).encode(TEXTS), encoder.encode(TEXTS)
    torch.testing.assert_close(found.tokens_BSD, expected.tokens_BSD, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.pooled_BD, expected.pooled_BD, rtol=0, atol=1e-5)
    assert pool.last.batches == [TEXTS]
    assert len(entries()) == 5
    told = capsys.readouterr().out
    assert "states: 8 prompts, 3 of them hits (38%), 5 encoded (0.0 MB; 0.0 MB as float32); " in told
    assert told.rstrip().endswith(" prompts/s")


def test_batches_have_the_size_that_is_asked_for(pool):
    assert main([*COMMAND, "--batch-size", "2"]) == 0
    assert pool.last.batches == [TEXTS[:2], TEXTS[2:4], TEXTS[4:]]


def test_one_caption_alone(pool):
    assert main([*COMMAND, "--caption", "short"]) == 0
    assert pool.last.batches == [["a cat sleeps", "a dog runs", "一只猫在跑"]]


def test_what_is_there_is_not_encoded_again(pool, monkeypatch, capsys):
    main(COMMAND)
    Path("prompts.txt").write_text("a cat sleeps\na pony\n")
    capsys.readouterr()
    assert main(["prompts.txt", *COMMAND]) == 0
    assert pool.last.batches == [["a pony"]]
    assert "10 prompts, 9 of them hits (90%), 1 encoded" in capsys.readouterr().out
    monkeypatch.setattr(TinyTextEncoder, "encode", lambda *_: pytest.fail("something is encoded"))
    assert main(["prompts.txt", *COMMAND]) == 0


def test_another_encoder_is_another_run(encoder, pool):
    main(COMMAND)
    assert main([*COMMAND, "--dtype", "bfloat16"]) == 0
    assert pool.last.batches == [TEXTS]
    assert len(entries()) == 10


def test_an_entry_that_is_cut_short_is_encoded_again(pool, capsys):
    main(COMMAND)
    damaged = entries()[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert main(COMMAND) == 0
    assert [len(batch) for batch in pool.last.batches] == [1]
    assert len(entries()) == 5
    assert f"note: {damaged.resolve()}: damaged, and removed: truncated" in capsys.readouterr().err


def test_bad_samples_are_told_and_the_rest_goes_on(shard, folder, capsys):
    source = shard(folder / "shards" / "clips-000002.tar", [b"{", {"dense": "a pony"}, {"short": "x"}])
    source.write_bytes(source.read_bytes()[:4800])
    (folder / "shards" / "clips-000003.tar").write_text("no tar")
    assert main([*COMMAND, "--caption", "short"]) == 1
    told = capsys.readouterr()
    assert len(entries()) == 3
    assert "clips-000002.tar: 000: its description is not JSON" in told.err
    assert "clips-000002.tar: 001: it has no caption short; it has dense" in told.err
    assert "clips-000002.tar: not a whole shard" in told.err
    assert "clips-000003.tar: not a whole shard" in told.err
    assert "4 failed" in told.out


def test_many_failures_are_counted_and_the_first_told(shard, folder, capsys):
    shard(folder / "shards" / "clips-000002.tar", [b"{"] * 50)
    assert main(COMMAND) == 1
    told = capsys.readouterr()
    assert told.err.count("failed: ") == 21
    assert "50 failed" in told.out


def test_a_prompt_that_cannot_be_encoded_costs_the_others_nothing(encoder, monkeypatch, capsys):
    original = TinyTextEncoder.encode

    def encode(self, prompts):
        if "a dog runs" in prompts:
            raise RuntimeError("dogs overflow")
        return original(self, prompts)

    monkeypatch.setattr(TinyTextEncoder, "encode", encode)
    assert main(COMMAND) == 1
    assert "failed: 'a dog runs': RuntimeError: dogs overflow" in capsys.readouterr().err
    assert len(entries()) == 4
    assert cached(encoder).encode(["dim"]).mask_BS.all()


def test_warnings_of_the_encoder_are_told_once(capsys):
    Path("prompts.txt").write_text("\n".join(f"{number} " + "word " * 30 for number in range(4)))
    assert main(["prompts.txt", *COMMAND[1:], "--batch-size", "1"]) == 0
    assert capsys.readouterr().err.count("note: a prompt has 32 tokens; only the first 16 are read") == 1


def test_a_full_disk_ends_the_run_and_keeps_what_is_there(full_disk, capsys):
    message = r"what is encoded can't be stored: .*states: not stored: .*No space left"
    with full_disk(2), pytest.raises(EncodeError, match=message):
        main([*COMMAND, "--batch-size", "1"])
    assert len(entries()) == 2
    assert "2 encoded" in capsys.readouterr().out


def test_a_store_that_is_too_small_says_so(capsys):
    main(COMMAND)
    size = entries()[0].stat().st_size
    for entry in entries():
        os.utime(entry, (0, 0))
    Path("prompts.txt").write_text("one\ntwo\n")
    assert main(["prompts.txt", *COMMAND[1:], "--max-size", str(6 * size)]) == 0
    assert "note: the store is full: what was used longest ago goes; see --max-size" in capsys.readouterr().err
    assert len(entries()) <= 6
    with pytest.raises(EncodeError, match=r"can't be stored: .* is larger than the bound of 10"):
        main(["prompts.txt", *COMMAND[1:], "--dtype", "bfloat16", "--max-size", "10"])


def test_a_store_that_cannot_be_is_refused_before_anything_is_computed(folder, monkeypatch):
    (folder / "file").write_text("mine")
    monkeypatch.setattr(TinyTextEncoder, "__init__", lambda *_: pytest.fail("the encoder is loaded"))
    for store, message in (("file", "file: is a file; name a folder"), ("file/states", "states can't be written: .*")):
        with pytest.raises((EncodeError, CheckpointError), match=message):
            main(["shards", "--encoder", "checkpoint", "--store", store])


def test_an_encoder_that_does_not_load_in_a_worker_ends_the_run(monkeypatch, capsys):
    monkeypatch.setattr(EncoderPlace, "identity", lambda self: {"weights": "as announced"})
    with pytest.raises(TextEncoderError, match="not the one that was announced"):
        main(COMMAND)
    weights = Path("checkpoint/text_encoder/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model.safetensors: damaged or truncated"):
        main(COMMAND)
    assert entries() == []
    assert "failed" not in capsys.readouterr().err


def test_a_whole_pipelines_encoders_fill_a_store_for_its_users(folder, pool):
    write_text_parts(folder / "pipeline")
    command = ["shards", "--encoder", "pipeline", "--store", "states", "--device", "cpu", "--media", "image"]
    assert main(command) == 0
    users = load_text_encoder("pipeline", media="image")
    kept = CachedTextEncoder(users, TensorStore("states"))
    text, expected = kept.encode(TEXTS), users.encode(TEXTS)
    assert kept.misses == 0
    most = text.tokens_BSD.shape[1]
    assert most < expected.tokens_BSD.shape[1]
    assert torch.equal(text.mask_BS, expected.mask_BS[:, :most])
    torch.testing.assert_close(text.tokens_BSD[text.mask_BS], expected.tokens_BSD[expected.mask_BS])
    torch.testing.assert_close(text.pooled_BD, expected.pooled_BD)
    others = CachedTextEncoder(load_text_encoder("pipeline", media="video"), TensorStore("states"))
    others.encode(TEXTS)
    assert others.hits == 0, "another template, other states"
    pool.last = None
    assert main(command) == 0
    assert pool.last.batches == []


def test_weights_that_are_damaged_end_the_run_at_once(folder):
    write_text_parts(folder / "pipeline")
    weights = folder / "pipeline" / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(TextEncoderError, match="the weights don't load"):
        main(["shards", "--encoder", "pipeline", "--store", "states", "--device", "cpu"])


def test_a_setting_that_an_encoder_does_not_have_is_named(folder):
    write_text_parts(folder / "pipeline")
    with pytest.raises(EncodeError, match=r"this encoder has no setting for --media video \(.*media"):
        main(["shards", "--encoder", "pipeline/text_encoder_2", "--store", "states", "--media", "video"])


@pytest.mark.parametrize("encoder_place", ["absent", "shards"])
def test_what_is_no_encoder_is_refused(encoder_place):
    with pytest.raises((CheckpointError, TextEncoderError)):
        main(["shards", "--encoder", encoder_place, "--store", "states"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(EncodeError, match="torch finds none here; use --device cpu"):
        main([*COMMAND[:-1], "cuda"])
