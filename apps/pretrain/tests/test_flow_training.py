"""A transformer is trained from a recipe with everything that hy-flow has, then another one from its weights."""

import sys
from dataclasses import asdict

import pytest
import torch
import yaml
from hy_vae3d import VAE3D, VAE3DConfig
from hy_weights import read_tensors, verify, write_model
from hyvideo_pretrain.cli import main
from lightning import LightningDataModule

RECIPE = """
seed_everything: 0
model:
  class_path: hy_flow.lightning.FlowMatching
  init_args:
    backbone:
      class_path: hy_dit.DiT
      init_args:
        config:
          in_channels: 4
          out_channels: 4
          width: 32
          heads: 2
          mlp_ratio: 2.0
          double_blocks: 1
          single_blocks: 1
          rope_axes: [4, 6, 6]
          rope_theta: 256.0
          patch: [1, 2, 2]
          text_width: 256
          pooled_width: 256
          guidance_embed: false
    text_encoder: {class_path: hy_textenc.TinyTextEncoder}
    freeze_text_encoder: true
    autoencoder: {class_path: hy_vae3d.load_vae, init_args: {path: FOLDER/vae}}
    path: {class_path: hy_flow.FlowMatchingPath, init_args: {convention: paper}}
    noise_levels: {class_path: hy_flow.Mode, init_args: {scale: 0.8}}
    shift: 2.0
    shift_tokens: 4
    weighting: cosmap
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-2}}
    warmup_steps: 1
    decay: constant
data: {class_path: my_clips.Clips}
trainer:
  accelerator: cpu
  precision: bf16-mixed
  max_steps: 2
  val_check_interval: 2
  gradient_clip_val: 1.0
  log_every_n_steps: 1
  default_root_dir: FOLDER/run
  logger: {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: FOLDER/run, name: "", version: ""}}
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - {class_path: hy_flow.lightning.EMA, init_args: {decay: 0.5}}
    - {class_path: hy_flow.lightning.SkipNonFinite}
    - {class_path: hy_flow.lightning.Throughput}
    - {class_path: hy_parallel.lightning.Recompute, init_args: {blocks: [backbone.double_blocks.*]}}
    - class_path: hyvideo_pretrain.samples.SampleSheets
      init_args: {prompts: [a, b], folder: FOLDER/samples, every: 2, width: 16, height: 16, frames: 5, steps: 2}
    - {class_path: hyvideo_pretrain.publish.Publish, init_args: {folder: FOLDER/out}}
"""


class Clips(LightningDataModule):
    def __init__(self):
        super().__init__()

    def train_dataloader(self):
        pixels = torch.rand(3, 2, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
        batches = [
            {"video_BCTHW": video, "captions": ["a", "b"], "number": number, "keys": ["x", "y"]}
            for number, video in enumerate(pixels)
        ]
        return torch.utils.data.DataLoader(batches, batch_size=None)

    val_dataloader = train_dataloader


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "my_clips", sys.modules[__name__])
    torch.manual_seed(0)
    vae = VAE3D(VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4))
    write_model(tmp_path / "vae", vae.state_dict(), asdict(vae.config))
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("FOLDER", str(tmp_path)))
    return file


def test_a_recipe_trains_samples_and_publishes_and_another_run_starts_from_it(tmp_path, recipe):
    assert main(["fit", "--config", str(recipe)]) == 0
    verify(tmp_path / "out")
    first = read_tensors(tmp_path / "out" / "dit")
    assert sorted(file.name for file in (tmp_path / "samples").iterdir()) == ["step-0000002.mp4", "step-0000002.png"]
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    logged = {"train/loss", "train/gradient_norm", "train/learning_rate", "train/skipped_steps", "val/loss"}
    assert {*logged, "throughput/tokens_per_s", "throughput/flop_per_s"} <= set(header)

    whole = yaml.safe_load(recipe.read_text())
    whole["trainer"]["callbacks"] = [
        {"class_path": "hyvideo_pretrain.start_from.StartFrom", "init_args": {"folder": str(tmp_path / "out")}},
        {"class_path": "hyvideo_pretrain.publish.Publish", "init_args": {"folder": str(tmp_path / "again")}},
    ]
    whole["model"]["init_args"]["optimizer"]["init_args"]["lr"] = 0.0
    recipe.write_text(yaml.safe_dump(whole))
    assert main(["fit", "--config", str(recipe), "--seed_everything", "1"]) == 0
    again = read_tensors(tmp_path / "again" / "dit")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_whole_configuration_can_be_read(recipe, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(recipe), "--model.noise_levels", "hy_flow.LogitNormal", "--print_config"])
    assert stopped.value.code == 0
    model = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert model["noise_levels"] == {"class_path": "hy_flow.LogitNormal", "init_args": {"mean": 0.0, "std": 1.0}}
    assert model["path"] == {"class_path": "hy_flow.FlowMatchingPath", "init_args": {"convention": "paper"}}
    assert model["caption_dropout"] == 0.1
    assert model["compile"] is False
