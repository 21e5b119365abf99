"""The VAE's training with everything on: interrupted and resumed it ends in the same weights; its recipes run."""

import signal
from dataclasses import asdict
from functools import partial

import lightning
import pytest
import torch
from hy_data.curriculum import Stage
from hy_data.lightning import ClipShards, Promotion
from hy_data.packing import Packing, pack_footage
from hy_data.shots import street_clip
from hy_flow.lightning import EMA
from hy_plugins import Plugins
from hy_vae3d import VAE3D, VAE3DConfig, load_vae
from hy_vae3d.lightning import VAETraining
from hy_vae3d.tiling import Tiling
from hy_weights import read_tensors, write_model
from hyvideo_pretrain.checkpoints import Checkpoints
from hyvideo_pretrain.cli import main
from hyvideo_pretrain.signals import Interrupted
from torch.optim import AdamW

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4, scaling_factor=1.0)
STAGES = [
    Stage(name="low", buckets=[(5, 16, 32)], batch_size=2, max_epochs=1),
    Stage(name="high", buckets=[(9, 32, 48)], batch_size=1),
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    captioner = Plugins(strict=True).load("captioner", "measured")()
    pack_footage([street_clip()], folder, captioner=captioner, packing=Packing(short_side=48))
    return folder


class Terminate(lightning.Callback):
    """Sends the process the signal that a scheduler sends."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 4:
            signal.raise_signal(signal.SIGTERM)


def fit(shards, folder, *callbacks, resume=False):
    torch.manual_seed(0)
    module = VAETraining(
        optimizer=partial(AdamW, lr=1e-3),
        discriminator_optimizer=partial(AdamW, lr=1e-3),
        warmup_steps=2,
        gradient_clip=1.0,
        lpips_frames=1,
        adversarial_start=2,
        adversarial_adaptive=True,
        discriminator_width=8,
        tiling=Tiling(tile_size=16, overlap=0.5),
    )
    data = ClipShards(
        shards, stages=STAGES, buckets=[(5, 32, 48)], batch_size=1, steps=3, held_out=1, max_interval=8, num_workers=1
    )
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        precision="bf16-mixed",
        callbacks=[Promotion(), EMA(decay=0.9), Checkpoints(str(folder)), *callbacks],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(1 if resume else 2)  # the global random numbers have no say
    trainer.fit(module, data, ckpt_path=folder if resume else None, weights_only=True)
    return module


@pytest.fixture(autouse=True)
def _small_and_on_one_thread(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(VAE3DConfig, "preset", lambda name: SMALL)
    yield
    torch.set_num_threads(threads)


def test_resumed_in_the_middle_of_an_epoch_it_ends_in_the_same_weights(shards, tmp_path):
    whole = fit(shards, tmp_path / "whole")
    with pytest.raises(Interrupted, match="stopped after step 5"):
        fit(shards, tmp_path / "broken", Terminate())
    resumed = fit(shards, tmp_path / "broken", resume=True)
    assert resumed.trainer.global_step == whole.trainer.global_step == 9
    expected = whole.state_dict()
    assert expected.keys() == resumed.state_dict().keys()
    assert [name for name, value in resumed.state_dict().items() if not torch.equal(value, expected[name])] == []
    measured = {name: float(value) for name, value in whole.trainer.callback_metrics.items()}
    assert {name: float(value) for name, value in resumed.trainer.callback_metrics.items()} == measured
    assert {"loss", "l1", "kl", "lpips", "adversarial", "discriminator", "adaptive", "stage"} < measured.keys()
    assert {"val_psnr", "val_ssim", "val_lpips", "val_psnr_tiled", "val_seam"} < measured.keys()


@pytest.mark.parametrize("name", ["tiny", "hunyuan-video", "finetune-tiling"])
def test_a_recipe_trains_and_publishes(shards, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "start", VAE3D(SMALL).state_dict(), asdict(SMALL))
    small = {
        "model.preset": "tiny",
        "model.weights": str(tmp_path / "start"),
        "model.lpips_trunk": "null",
        "model.discriminator_width": "8",
        "model.adversarial_start": "0",
        "model.tiling.tile_size": "32",
        "data.folder": str(shards),
        "data.validation_folder": "null",
        "data.buckets": "[[5, 32, 48]]",
        "data.steps": "2",
        "data.num_workers": "0",
        "trainer.accelerator": "cpu",
        "trainer.strategy": "auto",
        "trainer.max_steps": "2",
        "trainer.enable_progress_bar": "false",
    }
    if name != "finetune-tiling":
        small["data.stages"] = "[{name: all, buckets: [[5, 32, 48]], batch_size: 1}]"
        del small["model.tiling.tile_size"]
    main(["fit", "--config", f"vae/{name}", *(f"--{option}={value}" for option, value in small.items())])
    published = tmp_path / "runs" / f"vae-{name}" / "model" / "vae"
    trained = load_vae(published)
    assert trained.config == SMALL
    assert not torch.equal(trained.decoder.conv_out.conv.weight, load_vae("start").decoder.conv_out.conv.weight)
    assert not [key for key in read_tensors(published) if "discriminator" in key]
    assert list((tmp_path / "runs" / f"vae-{name}" / "tensorboard").rglob("events.*"))
