"""Every bundled recipe builds what it names, at its full size, on tensors without data."""

import pytest
import torch
from hy_data import pack_world
from hy_tiny import vae_folder
from hyvideo_pretrain.recipes import bundled
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI

HERE = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto"]
PARAMETERS = {
    "dit/hunyuan-video": 12_810_782_784,
    "dit/world": 10_291_904,
    "vae/finetune-tiling": 3_886_227,
    "vae/hunyuan-video": 246_478_803,
    "vae/tiny": 3_886_227,
}
"""Of the transformer or autoencoder."""


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """What a recipe cannot know: files."""
    shards = tmp_path_factory.mktemp("footage") / "shards"
    pack_world(shards, 4, size=(16, 16), frames=65)
    clips = [f"--data.folder={shards}"]
    return {
        "vae/hunyuan-video": [*clips, f"--data.validation_folder={shards}"],
        "vae/finetune-tiling": [*clips, f"--model.weights={vae_folder()}"],
        "vae/tiny": clips,
    }


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_recipe_builds_what_it_names(name, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.device("meta"):
        built = LightningCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            auto_configure_optimizers=False,
            run=False,
            args=[f"--config={bundled()[name]}", *HERE, *options.get(name, [])],
        )
    models = built.model.models()
    model = models["dit" if name.startswith("dit") else "vae"]
    assert sum(weight.numel() for weight in model.parameters()) == PARAMETERS[name]
    assert all(weight.is_meta for weight in model.parameters()) or name == "vae/finetune-tiling"  # which reads a file


def test_there_is_no_other_recipe_but_the_rewriters():
    assert set(bundled()) == {*PARAMETERS, "rewrite/lora"}  # that one reads a language model
