import hashlib
import json

import pytest
from hy_plugins import Component, Plugins, hookimpl
from hy_weights import CheckpointError, write_manifest
from hyvideo_sample.checkpoint import open_checkpoint
from hyvideo_sample.settings import SampleError, Settings

NONE = Plugins(discover=False)


@pytest.fixture
def bundled(checkpoint):
    """Plugins that offer the model `small`."""

    class Bundle:
        PLUGIN_API = (1, 0)
        folder = checkpoint

        @hookimpl
        def hy_components(self):
            target = "hyvideo_bundle_of_a_test:path"
            return [Component(kind="model", name="small", target=target, summary="small")]

    plugins = Plugins(discover=False)
    plugins.register(Bundle(), name="bundle")
    return plugins


def test_a_folder_opens_with_its_defaults(checkpoint):
    found = open_checkpoint(str(checkpoint), NONE)
    assert found.folder == checkpoint
    assert found.digest == hashlib.sha256((checkpoint / "manifest.json").read_bytes()).hexdigest()
    assert found.defaults == Settings(width=48, height=32, frames=5, fps=12.5, steps=2, shift=3.0, guidance=3.0)
    assert not found.dit.guidance_embed


def test_a_bundled_name_opens_too(bundled, checkpoint, monkeypatch):
    monkeypatch.setattr(bundled, "load", lambda kind, name: {("model", "small"): lambda: checkpoint}[kind, name])
    found = open_checkpoint("small", bundled)
    assert (found.name, found.folder) == ("small", checkpoint)


@pytest.mark.parametrize("name", ["nowhere", __file__, None])
def test_an_unknown_model_lists_the_known_ones_and_says_that_a_folder_works(bundled, name):
    with pytest.raises(SampleError, match=r"no model.* \(known: small\) or a folder"):
        open_checkpoint(name, bundled)


def test_missing_parts_are_all_named(make_checkpoint):
    folder = make_checkpoint()
    for file in ("vae/config.json", "dit/model.safetensors", "manifest.json"):
        (folder / file).unlink()
    with pytest.raises(CheckpointError, match=r"lacks dit/model.safetensors, vae/config.json, manifest.json; a model"):
        open_checkpoint(str(folder), NONE)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"stepps": 3}, r"config.json, 'sampling' is .*stepps.*; it must be an object with keys of dtype, fps, frames"),
        ({"prompt": "x"}, "must be an object with keys"),
        ([1], "must be an object"),
        ({"frames": 18}, "config.json, 'sampling': frames is 18"),
    ],
)
def test_wrong_defaults_are_refused_by_file_and_key(make_checkpoint, sampling, message):
    with pytest.raises(SampleError, match=message):
        open_checkpoint(str(make_checkpoint(sampling=sampling)), NONE)


def test_a_model_without_defaults_has_the_general_ones(make_checkpoint):
    assert open_checkpoint(str(make_checkpoint(sampling={})), NONE).defaults == Settings()


def test_a_misspelt_key_of_a_part_is_found_before_weights_are_read(make_checkpoint):
    folder = make_checkpoint()
    config = json.loads((folder / "dit/config.json").read_text())
    (folder / "dit/config.json").write_text(json.dumps(config | {"widht": 16}))
    write_manifest(folder)
    with pytest.raises(CheckpointError, match="widht"):
        open_checkpoint(str(folder), NONE)


def test_parts_of_different_models_are_told_apart(make_checkpoint):
    with pytest.raises(SampleError, match="the VAE has 4 latent channels, the transformer 8"):
        open_checkpoint(str(make_checkpoint(in_channels=8)), NONE)


def test_a_negative_prompt_that_nothing_reads_is_refused(make_checkpoint, checkpoint):
    settings = Settings(negative="rain")
    open_checkpoint(str(checkpoint), NONE).check(settings)
    with pytest.raises(SampleError, match="'rain' would have no effect: this model has learned its guidance"):
        open_checkpoint(str(make_checkpoint(guidance_embed=True)), NONE).check(settings)
    with pytest.raises(SampleError, match="guidance is 1"):
        open_checkpoint(str(checkpoint), NONE).check(Settings(negative="rain", guidance=1))
    for change in ({"guidance_low": 0.2}, {"guidance_high": 0.8}, {"guidance_rescale": 0.7}):
        open_checkpoint(str(checkpoint), NONE).check(Settings(**change))
        with pytest.raises(SampleError, match="interval and rescale would have no effect: guidance is 1; leave them"):
            open_checkpoint(str(checkpoint), NONE).check(Settings(guidance=1, **change))
        with pytest.raises(SampleError, match="interval and rescale would have no effect: this model has learned"):
            open_checkpoint(str(make_checkpoint(guidance_embed=True)), NONE).check(Settings(**change))
        open_checkpoint(str(make_checkpoint(guidance_embed=True)), NONE).check(Settings(true_cfg=4, **change))
