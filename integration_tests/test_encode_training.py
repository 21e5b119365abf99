"""From shards to a training that reads nothing but caches: `hyvideo encode --config`, then `hyvideo pretrain`.

Shapes: T frames, H height, W width, C channels.
"""

import functools
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hy_data import ClipSample, ShardWriter
from hy_dit import DiTConfig
from hy_textenc import CachedTextEncoder, TextEncoderError, TinyTextConfig, TinyTextEncoder
from hy_vae3d import VAE3D, VAE3DConfig
from hy_weights import write_model
from hyvideo_encode.cli import main as encode
from hyvideo_pretrain.cli import main as pretrain

VAE = VAE3DConfig(latent_channels=4, channels=(4, 4, 8, 8), layers_per_block=1, norm_groups=2, scaling_factor=0.5)
TEXT = TinyTextConfig(vocab=64, width=16, layers=1, heads=2, max_tokens=16, pooled_width=12)
DIT = DiTConfig(
    in_channels=4,
    out_channels=4,
    width=32,
    heads=2,
    mlp_ratio=2.0,
    double_blocks=1,
    single_blocks=1,
    rope_axes=(4, 6, 6),
    rope_theta=256.0,
    patch=(1, 2, 2),
    text_width=16,
    pooled_width=12,
    guidance_embed=False,
)
RECIPE = """
seed_everything: 0
model:
  class_path: hy_flow.lightning.FlowMatching
  init_args:
    backbone: {{class_path: hy_dit.DiT, init_args: {{config: {config}}}}}
    text_encoder:
      class_path: hy_textenc.load_cached_text_encoder
      init_args: {{path: checkpoint, store: states}}
    warmup_steps: 1
data:
  class_path: hy_data.lightning.BucketedShards
  init_args:
    shards: shards
    steps: 4
    held_out: 0.4
    caption: {{class_path: hy_textenc.captions.Synthesis, init_args: {{variants: 2}}}}
    latents:
      class_path: hy_data.lightning.LatentCache
      init_args: {{store: states, autoencoder: checkpoint, format: int8}}
    stages:
    - {{name: images, buckets: [[1, 32, 32]], batch_size: 2, steps: 4}}
    - {{name: videos, buckets: [[5, 32, 32]], batch_size: 2}}
trainer:
  accelerator: cpu
  max_steps: 8
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  num_sanity_val_steps: 0
  callbacks:
  - {{class_path: hy_data.lightning.Promotion}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    write_model("checkpoint/vae", VAE3D(VAE).state_dict(), asdict(VAE))
    write_model("checkpoint/text_encoder", TinyTextEncoder(TEXT).state_dict(), asdict(TEXT))
    rng = np.random.default_rng(0)
    with ShardWriter("shards") as writer:
        for number in range(4):
            frames_THWC = rng.integers(0, 255, (9, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
            captions = {"short": f"clip {number}", "style": "noise"}
            writer.write(
                ClipSample(
                    key=f"{number}", frames_THWC=frames_THWC, fps=Fraction(25), captions=captions, source=f"{number}"
                )
            )
    config = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(DIT).items()}
    Path("recipe.yaml").write_text(RECIPE.format(config=str(config).replace("'", "").replace("False", "false")))
    return tmp_path


def test_one_command_makes_all_that_the_training_reads(monkeypatch, capsys):
    assert encode(["--config", "recipe.yaml", "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "8 clips, 0 of them hits" in told
    monkeypatch.setattr(VAE3D, "encode", lambda *_: pytest.fail("a clip is encoded"))
    monkeypatch.setattr(TinyTextEncoder, "encode", lambda *_: pytest.fail("a caption is encoded"))
    assert pretrain(["fit", "--config", "recipe.yaml"]) == 0


def test_the_training_process_reads_no_states_but_the_empty_captions(monkeypatch, capsys):
    assert encode(["--config", "recipe.yaml", "--device", "cpu"]) == 0
    read, original = [], CachedTextEncoder.encode

    @functools.wraps(original)  # a recipe's encoder has to have the protocol's signature
    def encode_states(self, prompts, images=None):
        read.append(list(prompts))  # what a worker process reads is written down there
        return original(self, prompts, images)

    monkeypatch.setattr(CachedTextEncoder, "encode", encode_states)
    settings = ["--data.num_workers=1", "--model.caption_dropout=0.5"]
    assert pretrain(["fit", "--config", "recipe.yaml", *settings]) == 0
    assert read == [[""]]


def test_without_it_the_training_says_what_to_do():
    with pytest.raises(Exception, match=r"have no latent in the cache, .*`hyvideo encode --config` with this recipe"):
        pretrain(["fit", "--config", "recipe.yaml"])
    settings = ["--store", "states", "--format", "int8", "--device", "cpu", "--buckets", "1x32x32", "5x32x32"]
    assert encode(["shards", "--vae", "checkpoint", *settings]) == 0
    told = r"the states of \d+ prompts are not there, such as '', .*; `hyvideo encode --config RECIPE` makes all"
    with pytest.raises(TextEncoderError, match=told):
        pretrain(["fit", "--config", "recipe.yaml"])
