"""A decoding that fails costs nothing but itself.

Shapes: B batch, C channels, T H W latent frames, height, width, or frames, height, width of the video.
"""

import os

import numpy as np
import pytest
import torch
from hy_data import CannotWrite, probe, read_settings, read_video
from hy_vae3d import VAE3D, Tiling
from hy_vae3d.fitting import VAEMemoryError
from hy_weights import CheckpointError, StoredTensors
from hyvideo_sample import decoding, pipeline
from hyvideo_sample.cli import main
from hyvideo_sample.latents import finishing, latent_place, read_latent, write_latent
from hyvideo_sample.record import Record
from hyvideo_sample.settings import SampleError, Settings
from safetensors.torch import load_file, save_file

KEPT = "clip.latent.safetensors"
RECORD = Record(
    settings=Settings(prompt='a "dog" 狗', width=32, height=16, frames=5, device="cpu", tiling="off"),
    model="demo",
    model_sha256="ab" * 32,
)


@pytest.fixture
def run(checkpoint):
    return lambda *argv: main(["a ball", "--model", str(checkpoint), "--out", "clip.mp4", "--seed", "3", *argv])


@pytest.fixture
def plain_THWC(run, tmp_path):
    """The frames of a run that nothing disturbs."""
    assert run() == 0
    frames_THWC = read_video("clip.mp4").frames_THWC
    os.remove("clip.mp4")
    assert os.listdir(tmp_path) == []
    return frames_THWC


def failing(error):
    def decode(*args, **kwargs):
        raise error

    return decode


def cpu_out_of_memory():
    return RuntimeError("[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize(
    "error", [MemoryError(), cpu_out_of_memory(), torch.OutOfMemoryError("CUDA out of memory")], ids=type
)
def test_a_decoding_without_memory_is_finished_later_with_the_same_frames(run, plain_THWC, monkeypatch, error):
    with monkeypatch.context() as patch:
        patch.setattr(VAE3D, "decode", failing(error))
        with pytest.raises(SampleError) as caught:
            run()
    assert str(caught.value) == (
        "clip.mp4: decoding took more memory than there is; --tiling on takes less; its latent is kept, so this "
        f"finishes it: hyvideo sample --decode {KEPT}"
    )
    assert os.listdir() == [KEPT]
    assert main(["--decode", KEPT]) == 0
    assert np.array_equal(read_video("clip.mp4").frames_THWC, plain_THWC)
    assert sorted(os.listdir()) == [KEPT, "clip.mp4"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug"), CheckpointError("damaged")], ids=str)
def test_whatever_ends_the_run_the_latent_stays_and_is_told_of(run, plain_THWC, monkeypatch, capsys, error):
    with monkeypatch.context() as patch:
        patch.setattr(VAE3D, "decode", failing(error))
        with pytest.raises(type(error)):
            run()
    assert f"hyvideo sample --decode {KEPT}" in capsys.readouterr().err
    assert main(["--decode", KEPT, "--out", "other.mp4"]) == 0
    assert np.array_equal(read_video("other.mp4").frames_THWC, plain_THWC)


def test_a_full_disk_at_the_last_step(run, plain_THWC, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_sample", failing(CannotWrite("cannot write clip.mp4: the disk is full")))
        with pytest.raises(SampleError, match=rf"the disk is full; its latent is kept.* --decode {KEPT}"):
            run()
    assert main(["--decode", KEPT]) == 0
    assert np.array_equal(read_video("clip.mp4").frames_THWC, plain_THWC)


def test_the_finished_sample_is_as_one_that_was_never_interrupted(run, checkpoint):
    assert run("--keep-latents") == 0
    told = read_settings("clip.mp4")
    assert main(["--decode", KEPT, "--overwrite"]) == 0
    assert read_settings("clip.mp4") == told
    assert main(["--replay", "clip.mp4", "--out", "again.mp4"]) == 0
    assert np.array_equal(read_video("again.mp4").frames_THWC, read_video("clip.mp4").frames_THWC)


def test_a_picture_is_finished_as_a_picture(run, checkpoint):
    assert main(["a ball", "--model", str(checkpoint), "--frames", "1", "--out", "a.b.png", "--keep-latents"]) == 0
    with open("a.b.png", "rb") as file:
        picture = file.read()
    assert main(["--decode", "a.b.latent.safetensors", "--overwrite"]) == 0
    with open("a.b.png", "rb") as file:
        assert file.read() == picture


def test_a_latent_that_can_not_be_kept_does_not_stop_the_sample(run, plain_THWC, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "write_latent", failing(CheckpointError(f"{KEPT}: can't be written (disk full)")))
    assert run() == 0
    assert f"note: the latent is not kept: {KEPT}: can't be written (disk full)" in capsys.readouterr().err
    assert np.array_equal(read_video("clip.mp4").frames_THWC, plain_THWC)


def test_nothing_is_sampled_again_that_only_waits_for_its_decoding(run):
    assert run("--keep-latents") == 0
    os.remove("clip.mp4")
    with pytest.raises(SampleError, match=rf"{KEPT} exists already.* hyvideo sample --decode {KEPT}\. To replace it"):
        run()
    assert run("--overwrite") == 0
    assert os.listdir() == ["clip.mp4"]


def test_the_latent_is_on_disk_before_the_vae_is_loaded(run, monkeypatch):
    load_other = pipeline.Plugins.load

    def load(self, kind, name):
        if kind != "autoencoder":
            return load_other(self, kind, name)
        assert StoredTensors(KEPT)["latent"].shape == (1, 4, 2, 4, 6)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.Plugins, "load", load)
    with pytest.raises(KeyboardInterrupt):
        run()


def test_tiling_is_chosen_by_the_memory_and_recorded(run, monkeypatch, capsys):
    asked = []

    def fitting(config, shape, wanted, **named):
        asked.append((shape, wanted, named["halves"], named["dtype"], named["device"]))
        return Tiling()

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "fitting_tiling", fitting)
        assert run("--dtype", "bfloat16") == 0
    assert asked == [((5, 32, 48), "auto", ("decode",), torch.bfloat16, "cpu")]
    assert "note: decoding the whole video at once does not fit" in " ".join(capsys.readouterr().err.split())
    assert read_settings("clip.mp4")["tiling"] == "on"
    assert run("--overwrite", "--tiling", "off") == 0
    assert read_settings("clip.mp4")["tiling"] == "off"


def test_tiles_change_the_frames_where_the_video_is_larger_than_one(run, checkpoint):
    sizes = ("--size", "272x16", "--steps", "1")
    assert run(*sizes, "--keep-latents") == 0
    whole_THWC = read_video("clip.mp4").frames_THWC
    assert main(["--decode", KEPT, "--tiling", "on", "--out", "tiled.mp4"]) == 0
    assert read_settings("tiled.mp4")["tiling"] == "on"
    tiled_THWC = read_video("tiled.mp4").frames_THWC
    assert tiled_THWC.shape == whole_THWC.shape
    assert not np.array_equal(tiled_THWC, whole_THWC)
    assert run(*sizes, "--tiling", "on", "--overwrite") == 0
    assert np.array_equal(read_video("clip.mp4").frames_THWC, tiled_THWC)


def test_what_can_not_be_decoded_is_not_sampled(run, monkeypatch):
    monkeypatch.setattr("hy_vae3d.fitting.SMALL", 0)
    monkeypatch.setattr("hy_vae3d.fitting.free_memory", lambda device: 10**6)
    monkeypatch.setattr(pipeline.Pipeline, "run", lambda self, prompts: pytest.fail("it was sampled"))
    with pytest.raises(VAEMemoryError, match=r"5 frames of 48x32 in float32, and 0.0 GB are free on cpu") as caught:
        run()
    assert caught.value.exit_code == 2
    assert os.listdir() == []


def test_another_model_is_refused(run, make_checkpoint):
    assert run("--keep-latents") == 0
    other = make_checkpoint(seed=1)
    assert main(["--decode", KEPT, "--model", str(other), "--overwrite"]) == 0
    make_checkpoint("model")
    assert main(["a ball", "--model", "model", "--out", "b.mp4", "--keep-latents"]) == 0
    make_checkpoint("model", seed=1)
    with pytest.raises(SampleError, match=r"b.latent.safetensors was made with another model"):
        main(["--decode", "b.latent.safetensors", "--out", "c.mp4"])


def test_a_latent_and_its_record_come_back(tmp_path):
    latent_BCTHW = torch.randn(1, 4, 2, 2, 4, generator=torch.Generator().manual_seed(0))
    place = latent_place(tmp_path / "a clip.mp4")
    write_latent(place, latent_BCTHW, RECORD)
    assert place.name == "a clip.latent.safetensors"
    assert finishing(place) == f'hyvideo sample --decode "{place}"'
    read_BCTHW, record = read_latent(place)
    assert torch.equal(read_BCTHW, latent_BCTHW)
    assert record == RECORD
    assert [file.name for file in tmp_path.iterdir()] == [place.name]


def changed(file, *, tensors=None, metadata=None):
    write_latent(file, torch.zeros(1, 4, 2, 2, 4), RECORD)
    stored = StoredTensors(file).metadata()
    save_file(tensors or load_file(file), file, metadata=stored if metadata is None else metadata)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tensors": {"weight": torch.zeros(3)}}, SampleError, "is no sample's latent; give a file that"),
        ({"metadata": {}}, SampleError, "carries no settings"),
        ({"metadata": {"settings": "[1]"}}, SampleError, "carries no settings"),
        ({"metadata": {"settings": "{}"}}, SampleError, r"was not written by this .* lack device"),
        ({"tensors": {"latent": torch.zeros(1, 4, 3, 2, 4)}}, SampleError, r"\[1, 4, 3, 2, 4\]; its settings ask for"),
        ({"tensors": {"latent": torch.zeros(1, 4, 2, 2, 4).half()}}, SampleError, "the latent is float16"),
        ({"tensors": {"latent": torch.full((1, 4, 2, 2, 4), torch.nan)}}, CheckpointError, "NaN"),
    ],
)
def test_what_is_no_latent_is_refused(tmp_path, change, error, message):
    changed(tmp_path / KEPT, **change)
    with pytest.raises(error, match=message):
        main(["--decode", KEPT])
    assert os.listdir() == [KEPT]


def test_a_cut_or_missing_latent_is_refused(tmp_path):
    changed(tmp_path / KEPT)
    (tmp_path / KEPT).write_bytes((tmp_path / KEPT).read_bytes()[:-8])
    for name in (KEPT, "none.latent.safetensors"):
        with pytest.raises(CheckpointError, match=name):
            main(["--decode", name])


def test_a_latent_of_another_width_than_the_models_is_refused(run, checkpoint):
    assert run("--keep-latents") == 0
    tensors, told = load_file(KEPT), StoredTensors(KEPT).metadata()
    save_file({"latent": tensors["latent"][:, :3].contiguous()}, KEPT, metadata=told)
    with pytest.raises(SampleError, match=r"this VAE is \[B, 4, T, H, W\], got \[1, 3, 2, 4, 6\]"):
        main(["--decode", KEPT, "--overwrite"])


def test_probing_is_told_as_a_stage(run, capsys):
    assert run() == 0
    assert "measure the decoding" in capsys.readouterr().err
    assert probe("clip.mp4").frames == 5
