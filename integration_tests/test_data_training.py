"""hy-data's batches in hy-vae3d's training, and its captioner through hy-plugins' door.

Shapes: B batch, C channels, T H W frames, height, width.
"""

from functools import partial

import lightning
import numpy as np
import pytest
import torch
from hy_data.lightning import ClipShards, PretrainClips
from hy_data.packing import Packing, pack_footage
from hy_data.shots import street_clip
from hy_plugins import Plugins
from hy_plugins.protocols import Captioner
from hy_vae3d.lightning import VAETraining


@pytest.fixture(scope="module")
def captioner():
    return Plugins(strict=True).load("captioner", "measured")()


@pytest.fixture(scope="module")
def shards(tmp_path_factory, captioner):
    folder = tmp_path_factory.mktemp("shards")
    ledger = pack_footage([street_clip()], folder, captioner=captioner, packing=Packing(short_side=48))
    assert ledger.summary() == "6 clips: 6 accepted, 0 refused"
    return folder


def test_the_captioner_is_what_the_contract_says(captioner):
    assert isinstance(captioner, Captioner)
    short = captioner.caption({"frames_THWC": np.full((1, 32, 32, 3), 200, np.uint8)})["short"]
    assert short == "a bright, grey scene"


def train(data, steps):
    losses = []

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(trainer.callback_metrics["loss"]))

    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        callbacks=[Watch()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    lightning.seed_everything(0)
    optimizer = partial(torch.optim.AdamW, lr=2e-3)
    trainer.fit(VAETraining(optimizer=optimizer, warmup_steps=1, lpips_weight=0, adversarial_weight=0), data)
    return losses, trainer.callback_metrics


def test_the_autoencoder_learns_from_made_up_clips():
    data = PretrainClips(size=(16, 16), frames=5, batch_size=2, steps=12, validation_clips=2)
    losses, metrics = train(data, 12)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert np.isfinite(float(metrics["val_psnr"]))


def test_the_autoencoder_learns_from_footage(shards):
    data = ClipShards(shards, buckets=[(5, 16, 32)], batch_size=2, steps=12, max_interval=2)
    losses, metrics = train(data, 12)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert np.isfinite(float(metrics["val_psnr"]))
