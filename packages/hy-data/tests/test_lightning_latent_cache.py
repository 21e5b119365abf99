"""Shapes: C channels, T H W latent frames, height, width."""

import json
import pickle
from dataclasses import dataclass, field

import pytest
from hy_data.errors import DataError

pytest.importorskip("hy_weights", reason="needs the extra train")

import torch
from hy_data.lightning.latent_cache import LatentCache
from hy_weights import CheckpointError, TensorStore, write_model


@dataclass(frozen=True)
class Item:
    identity: dict = field(default_factory=lambda: {"sha256": "ab", "start": 0, "frames": 5, "height": 32, "width": 48})

    def but(self, **changed):
        return Item(self.identity | changed)


ITEM = Item()


@pytest.fixture(autouse=True)
def _no_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def vae(tmp_path):
    """A folder that looks like an autoencoder's; nothing here loads one."""
    write_model(tmp_path / "model" / "vae", {"weight": torch.arange(4.0)}, {"scaling_factor": 0.5})
    return tmp_path / "model" / "vae"


@pytest.fixture
def latent_CTHW():
    generator = torch.Generator().manual_seed(0)
    scale_CT11 = torch.rand(16, 3, 1, 1, generator=generator) * 4 + 0.1
    shift_CT11 = torch.randn(16, 3, 1, 1, generator=generator) * 3
    return torch.randn(16, 3, 12, 20, generator=generator) * scale_CT11 + shift_CT11


def deviation(latent_CTHW):
    return latent_CTHW.std((2, 3), keepdim=True)


def test_bf16_is_found_again_within_half_a_step_of_it(tmp_path, vae, latent_CTHW):
    assert LatentCache(tmp_path / "store", vae).put(ITEM, latent_CTHW)
    found_CTHW = LatentCache(tmp_path / "store", vae).get(ITEM)
    assert found_CTHW.dtype == torch.float32
    assert torch.equal(found_CTHW, latent_CTHW.bfloat16().float())
    assert ((found_CTHW - latent_CTHW).abs() <= latent_CTHW.abs() * 2**-8).all()


def test_int8_is_off_by_half_a_level_of_its_channel_and_frame_at_most(tmp_path, vae, latent_CTHW):
    cache = LatentCache(tmp_path / "store", vae, format="int8")
    latent_CTHW[3, 1] = 7.25  # a frame of one value has no levels
    latent_CTHW[4, 0, 2, 2] = 1000.0  # an outlier coarsens its own channel's frame alone
    assert cache.put(ITEM, latent_CTHW)
    error_CTHW = (cache.get(ITEM) - latent_CTHW).abs()
    range_CT11 = latent_CTHW.amax((2, 3), keepdim=True) - latent_CTHW.amin((2, 3), keepdim=True)
    assert (error_CTHW <= range_CT11 / 510 + 1e-5).all()
    assert error_CTHW[3, 1].max() == 0
    others_CTHW = (error_CTHW / deviation(latent_CTHW))[:3]
    assert others_CTHW.square().mean().sqrt() < 0.01, "a hundredth of the deviation, on average"
    assert (error_CTHW[0] > 0).any(), "or nothing was rounded"


def test_the_ends_of_the_range_and_its_middle_are_kept(tmp_path, vae):
    cache = LatentCache(tmp_path / "store", vae, format="int8")
    latent_CTHW = torch.tensor([[-1.0, -0.2, 0.004, 1.55]]).reshape(1, 1, 2, 2)  # levels are 0.01 apart
    cache.put(ITEM, latent_CTHW)
    assert torch.allclose(cache.get(ITEM), torch.tensor([[-1.0, -0.2, 0.0, 1.55]]).reshape(1, 1, 2, 2), atol=1e-6)


def test_bytes_of_each_format(tmp_path, vae):
    latent_CTHW = torch.randn(16, 5, 32, 32)
    sizes = {}
    for stored_as in ("bf16", "int8"):
        cache = LatentCache(tmp_path / stored_as, vae, format=stored_as)
        cache.put(ITEM, latent_CTHW)
        sizes[stored_as] = cache.store.counts.bytes_written / (4 * latent_CTHW.numel())
    assert 0.5 <= sizes["bf16"] < 0.503
    assert 0.25 <= sizes["int8"] < 0.255


CHANGES = [{"sha256": "ac"}, {"start": 4}, {"frames": 1}, {"height": 48}, {"width": 64}, {"crop": 1}]


@pytest.mark.parametrize("changed", CHANGES, ids=lambda changed: next(iter(changed)))
def test_other_pixels_are_another_entry(tmp_path, vae, latent_CTHW, changed):
    cache = LatentCache(tmp_path / "store", vae)
    cache.put(ITEM, latent_CTHW)
    assert cache.get(ITEM.but(**changed)) is None
    assert cache.get(ITEM.but()) is not None


@pytest.mark.parametrize("settings", [{"dtype": "bfloat16"}, {"tiling": True}, {"format": "int8"}], ids=str)
def test_other_settings_find_nothing(tmp_path, vae, latent_CTHW, settings):
    LatentCache(tmp_path / "store", vae).put(ITEM, latent_CTHW)
    other = LatentCache(tmp_path / "store", vae, **settings)
    assert other.get(ITEM) is None
    other.put(ITEM, latent_CTHW)
    assert other.get(ITEM) is not None


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_another_autoencoder_in_the_same_place_finds_nothing(tmp_path, vae, latent_CTHW, file):
    LatentCache(tmp_path / "store", vae).put(ITEM, latent_CTHW)
    content = (vae / file).read_bytes()
    changed = content.replace(b"0.5", b"0.6") if file == "config.json" else content[:-1] + bytes([content[-1] ^ 1])
    assert len(changed) == len(content)
    (vae / file).write_bytes(changed)
    assert LatentCache(tmp_path / "store", vae).get(ITEM) is None
    (vae / file).write_bytes(content)
    assert LatentCache(tmp_path / "store", vae).get(ITEM) is not None


def test_the_same_autoencoder_elsewhere_finds_all(tmp_path, vae, latent_CTHW):
    LatentCache(tmp_path / "store", vae).put(ITEM, latent_CTHW)
    assert LatentCache(tmp_path / "store", vae.parent).get(ITEM) is not None, "a pipeline's folder"
    copy = vae.rename(tmp_path / "copy")
    (copy / "manifest.json").unlink()
    assert LatentCache(str(tmp_path / "store"), str(copy)).get(ITEM) is not None


def test_a_format_that_changes_has_another_key(tmp_path, vae, monkeypatch):
    cache = LatentCache(tmp_path / "store", vae)
    before = cache.key(ITEM)
    monkeypatch.setattr("hy_data.lightning.latent_cache._WHAT", "latents/2")
    assert cache.key(ITEM) != before


def test_keys_need_no_weights_in_memory(tmp_path, vae, monkeypatch):
    monkeypatch.setattr("safetensors.torch.load_file", lambda *_: pytest.fail("weights are loaded"))
    monkeypatch.setattr("hy_weights.stored.StoredTensors.__init__", lambda *_: pytest.fail("weights are opened"))
    assert len(LatentCache(tmp_path / "store", vae).key(ITEM)) == 64


def test_nothing_is_read_until_the_first_key(tmp_path):
    cache = LatentCache(tmp_path / "store", tmp_path / "none")
    assert not (tmp_path / "store").exists()
    with pytest.raises(CheckpointError, match="none: no such file or folder"):
        cache.key(ITEM)


def test_a_bundled_autoencoder_goes_by_its_name(tmp_path, vae, monkeypatch):
    class Plugins:
        def names(self, kind):
            return {"model": ["ours"]}[kind]

        def load(self, kind, name):
            return {("model", "ours"): lambda: vae}[kind, name]

    monkeypatch.setattr("hy_data.lightning.latent_cache.Plugins", Plugins)
    assert LatentCache(tmp_path / "store", "ours").key(ITEM) == LatentCache(tmp_path / "store", vae).key(ITEM)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("stored_as", ["bf16", "int8"])
def test_what_is_not_finite_is_refused(tmp_path, vae, latent_CTHW, number, stored_as):
    cache = LatentCache(tmp_path / "store", vae, format=stored_as)
    latent_CTHW[1, 2, 3, 4] = number
    with pytest.raises(DataError, match="NaN or infinity"):
        cache.put(ITEM, latent_CTHW)
    assert cache.get(ITEM) is None


@pytest.mark.parametrize("shape", [(1, 16, 3, 4, 4), (16, 4, 4), (16, 0, 4, 4)])
def test_what_is_no_latent_is_refused(tmp_path, vae, shape):
    with pytest.raises(DataError, match=r"a latent is \[C, T, H, W\], got"):
        LatentCache(tmp_path / "store", vae).put(ITEM, torch.zeros(shape))


def test_a_damaged_entry_is_as_good_as_none(tmp_path, vae, latent_CTHW):
    notes = []
    cache = LatentCache(TensorStore(tmp_path / "store", report=notes.append), vae)
    cache.put(ITEM, latent_CTHW)
    (file,) = (tmp_path / "store").glob("??/*.safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert cache.get(ITEM) is None
    assert "damaged, and removed" in notes[0]


def test_a_gpus_half_precision_latent_is_kept_too(tmp_path, vae, latent_CTHW):
    cache = LatentCache(tmp_path / "store", vae, format="int8")
    cache.put(ITEM, latent_CTHW.half().requires_grad_())
    assert torch.allclose(cache.get(ITEM), latent_CTHW, atol=0.1)


def test_it_goes_to_other_processes(tmp_path, vae, latent_CTHW):
    cache = LatentCache(tmp_path / "store", vae)
    cache.put(ITEM, latent_CTHW)
    assert torch.equal(pickle.loads(pickle.dumps(cache)).get(ITEM), cache.get(ITEM))


def test_a_recipe_can_name_it(tmp_path, vae, latent_CTHW):
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--latents", type=LatentCache | None)
    values = {"store": str(tmp_path / "store"), "autoencoder": str(vae), "format": "int8"}
    cache = parser.instantiate(parser.parse_object({"latents": values})).latents
    assert (cache.format, cache.dtype, cache.tiling) == ("int8", "float32", False)
    bounded = values | {"store": {"class_path": "hy_weights.TensorStore", "init_args": {"folder": "s", "max_bytes": 9}}}
    cache = parser.instantiate(parser.parse_string(json.dumps({"latents": bounded}))).latents
    assert cache.store.max_bytes == 9
