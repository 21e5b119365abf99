"""Every bundled recipe builds what it names, at its full size, on tensors without data."""

from dataclasses import asdict, replace

import pytest
import torch
from hy_data import pack_world
from hy_dit import DiT, DiTConfig
from hy_tiny import vae_folder
from hy_weights import write_model
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


def built(name, options=()):
    return LightningCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=None,
        auto_configure_optimizers=False,
        run=False,
        args=[f"--config={bundled()[name]}", *HERE, *options],
    )


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_recipe_builds_what_it_names(name, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.device("meta"):
        models = built(name, options.get(name, [])).model.models()
    model = models["dit" if name.startswith("dit") else "vae"]
    assert sum(weight.numel() for weight in model.parameters()) == PARAMETERS[name]
    assert all(weight.is_meta for weight in model.parameters()) or name == "vae/finetune-tiling"  # which reads a file


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("name", ["finetune/lora", "finetune/full", "finetune/sft"])
def test_a_fine_tuning_builds_on_the_checkpoint_that_is_there(name, guided, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dit = DiT(replace(DiTConfig.preset("tiny"), guidance_embed=guided))
    write_model(tmp_path / "checkpoint/dit", dit.state_dict(), asdict(dit.config))
    module = built(name, [] if guided else ["--model.embedded_guidance=null"] * (name != "finetune/lora")).model
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    all_of_it = sum(weight.numel() for weight in dit.parameters())
    count = sum(weight.numel() for weight in trained)
    assert 0 < count < all_of_it / 2 if name == "finetune/lora" else count == all_of_it
    assert module.embedded_guidance == (1.0 if guided else None)


def test_there_is_no_other_recipe_but_the_rewriters():
    assert set(bundled()) == {
        *PARAMETERS,
        "finetune/lora",
        "finetune/full",
        "finetune/sft",
        "rewrite/lora",
    }  # it reads a language model
