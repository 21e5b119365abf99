import tarfile

import numpy as np
import pytest
from hy_data.errors import DataError

pytest.importorskip("safetensors", reason="needs the extra train")

from hy_data.latents import LatentSample, read_latents, write_latents


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    return [
        LatentSample(
            key=f"clip-{number}",
            latent_CTHW=rng.normal(size=(16, number, 4, 6)).astype(np.float32),
            caption=f"„scene“ {number}",
            source={"shard": "clips-000000.tar", "frames": [0, 5]},
        )
        for number in (1, 3)
    ]


def test_latents_come_back_bit_by_bit(tmp_path, samples):
    assert write_latents(tmp_path, samples) == 2
    for before, after in zip(samples, read_latents(tmp_path), strict=True):
        np.testing.assert_array_equal(after.latent_CTHW, before.latent_CTHW)
        assert after.latent_CTHW.dtype == np.float32
        assert (after.key, after.caption, after.source) == (before.key, before.caption, before.source)


def test_views_are_stored_as_they_look(tmp_path, samples):
    (sample, _) = samples
    turned = LatentSample(sample.key, sample.latent_CTHW.transpose(0, 1, 3, 2), sample.caption, sample.source)
    write_latents(tmp_path, [turned])
    (after,) = read_latents(tmp_path)
    np.testing.assert_array_equal(after.latent_CTHW, turned.latent_CTHW)


def test_a_failing_encoder_leaves_the_older_latents(tmp_path, samples):
    def failing():
        yield samples[1]
        raise RuntimeError("out of memory")

    write_latents(tmp_path, samples[:1])
    with pytest.raises(RuntimeError, match="out of memory"):
        write_latents(tmp_path, failing())
    assert [sample.key for sample in read_latents(tmp_path)] == ["clip-1"]


def test_none_and_damaged_ones_are_said(tmp_path, samples):
    with pytest.raises(DataError, match="holds no latents"):
        list(read_latents(tmp_path))
    write_latents(tmp_path, samples)
    path = tmp_path / "latents-000000.tar"
    with tarfile.open(path) as tar:
        place = tar.getmember("clip-3.latent.safetensors").offset_data
    content = bytearray(path.read_bytes())
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"latents-000000\.tar: clip-3 is damaged"):
        list(read_latents(tmp_path))
