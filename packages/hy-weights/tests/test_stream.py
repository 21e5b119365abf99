"""A streamed file is what safetensors reads, and one tensor at a time is in memory."""

import hashlib
import os
import subprocess
import sys
import time

import pytest
import torch
from hy_weights import CheckpointError, StoredTensors
from hy_weights.stream import write_stream
from safetensors.torch import load_file


def test_safetensors_reads_back_every_number_format_and_shape(tmp_path):
    torch.manual_seed(0)
    tensors = {
        "f64": torch.randn(3, dtype=torch.float64),
        "f32": torch.randn(2, 3),
        "turned": torch.randn(2, 3).T,
        "f16": torch.randn(5).half(),
        "bf16": torch.randn(5).bfloat16(),
        "f8": torch.randn(3).to(torch.float8_e4m3fn),
        "f8b": torch.randn(3).to(torch.float8_e5m2),
        **{name: torch.arange(3).to(getattr(torch, name)) for name in ("int64", "int32", "int16", "int8", "uint8")},
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
    }
    seen = []
    write_stream(tmp_path / "w.safetensors", tensors, progress=lambda done, total: seen.append((done, total)))
    read = load_file(tmp_path / "w.safetensors")
    assert read.keys() == tensors.keys()
    for key, value in tensors.items():
        assert read[key].dtype == value.dtype, key
        assert torch.equal(
            read[key].view(torch.uint8) if key.startswith("f8") else read[key],
            value.view(torch.uint8) if key.startswith("f8") else value,
        ), key
    total = sum(value.nbytes for value in tensors.values())
    assert seen[-1] == (total, total)


def test_another_number_format_is_for_floating_point_only(tmp_path):
    write_stream(tmp_path / "w.safetensors", {"a": torch.randn(3), "n": torch.arange(2)}, torch.bfloat16)
    read = load_file(tmp_path / "w.safetensors")
    assert (read["a"].dtype, read["n"].dtype) == (torch.bfloat16, torch.int64)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor([1.0, float("nan")]), "'bad' holds NaN or infinity"),
        (torch.ones(2, dtype=torch.complex64), "'bad' is of torch.complex64, which safetensors files can't hold"),
    ],
)
def test_what_cannot_be_stored_is_named(tmp_path, value, message):
    with pytest.raises(CheckpointError, match=message):
        write_stream(tmp_path / "w.safetensors", {"good": torch.ones(1), "bad": value})


def test_a_file_may_say_what_it_is(tmp_path):
    file = tmp_path / "w.safetensors"
    write_stream(file, {"a": torch.ones(3)}, metadata={"hyvideo_config": '{"width": 3}'})
    assert StoredTensors(file).config() == {"width": 3}
    write_stream(file, {"a": torch.ones(3)}, metadata={"hyvideo_config": "[3]"})
    with pytest.raises(CheckpointError, match=r"w\.safetensors: expected a JSON object, found list"):
        StoredTensors(file).config()
    write_stream(file, {"a": torch.ones(3)})
    assert StoredTensors(file).config() is None
    (tmp_path / "config.json").write_text('{"width": 4}')
    assert StoredTensors(tmp_path).config() == {"width": 4}


def test_numbers_too_large_for_the_format_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"tensor 'a' has numbers beyond the range of torch\.float16"):
        write_stream(tmp_path / "w.safetensors", {"a": torch.tensor([1e6])}, torch.float16)


STREAMS = """
import sys, torch
from pathlib import Path
from hy_weights.layout import Entry, View
from hy_weights.stream import write_stream
seed = {"seed": torch.ones(1)}
big = View(seed, {f"w{n}": Entry(("seed",), lambda s: torch.ones(64 * 2**20, device=s.device)) for n in range(12)})
write_stream(Path(sys.argv[1]), big)
"""


@pytest.mark.slow
def test_three_gigabytes_pass_through_a_tenth_of_that_memory(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", STREAMS, str(tmp_path / "big.safetensors")])
    most = 0
    while process.poll() is None:
        with open(f"/proc/{process.pid}/status") as status:
            found = [int(line.split()[1]) for line in status if line.startswith("RssAnon")]
        most = max([most, *found])
        time.sleep(0.02)
    assert process.returncode == 0
    assert os.path.getsize(tmp_path / "big.safetensors") > 3 * 2**30
    assert most < 1.2 * 2**20, f"{most / 2**20:.2f} GB"


def test_what_is_not_finite_is_written_where_that_is_allowed(tmp_path):
    digest = hashlib.sha256()
    file = tmp_path / "w.safetensors"
    write_stream(file, {"a": torch.tensor([torch.nan, 1.0]), "b": torch.zeros(0)}, finite=False, digest=digest)
    assert load_file(file)["a"].isnan().tolist() == [True, False]
    assert digest.hexdigest() == hashlib.sha256(file.read_bytes()).hexdigest()
