"""A model: a published folder with all that sampling needs, found by a bundled name, its path or its hub id."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from hy_dit import DiTConfig
from hy_plugins import Plugins
from hy_vae3d import VAE3DConfig
from hy_weights import located, read_config, read_config_as, read_manifest
from hy_weights.hub import SCHEME

from hyvideo_sample.settings import SampleError, Settings, settings_from

PARTS = ("text_encoder", "dit", "vae")
_FILES = [f"{part}/{file}" for part in PARTS for file in ("config.json", "model.safetensors")]
_DEFAULTS = {"width", "height", "frames", "fps", "steps", "shift", "guidance"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model folder that has all its files and fits together; `hy_weights.verify` tells if they are whole.

    Attributes:
        name: what the user calls it.
        folder: where it is.
        digest: SHA-256 of its manifest, which holds that of every file.
        defaults: the settings it was made for.
        dit: the sizes of its transformer.
        vae: the sizes of its autoencoder.
    """

    name: str
    folder: Path
    digest: str
    defaults: Settings
    dit: DiTConfig
    vae: VAE3DConfig

    def check(self, settings: Settings) -> None:
        """Refuse settings that this model would not follow.

        Raises:
            SampleError: there is a negative prompt, and nothing reads it.
        """
        if settings.negative and (self.dit.guidance_embed or settings.guidance == 1):
            why = "this model has learned its guidance" if self.dit.guidance_embed else "guidance is 1"
            raise SampleError(f"the negative prompt {settings.negative!r} would have no effect: {why}; leave it out")


def open_checkpoint(name: str | None, plugins: Plugins) -> Checkpoint:
    """Find a model and read its configuration; no weights are read.

    Args:
        name: of a bundled model, the path of a folder, or a hub id, `hf://org/name`; a bundled name goes first.
        plugins: the bundled models are their components of kind `model`.

    Raises:
        SampleError: there is no such model, it lacks a part, or its parts do not fit each other.
        CheckpointError: a configuration or the manifest can't be read; names file and key. Or the hub has no such
            model, or can't be reached.
    """
    bundled = plugins.names("model")
    known = ", ".join(bundled) or "none"
    right = (
        f"give --model a bundled name (known: {known}) or a folder, such as demo/checkpoint, or a hub id, hf://org/name"
    )
    if name is None:
        raise SampleError(f"no model: {right}")
    if name in bundled:
        folder = Path(plugins.load("model", name)())
    else:
        folder = located(name) if name.startswith(SCHEME) else Path(name)
    if not folder.is_dir():
        raise SampleError(f"no model '{name}': {right}")
    if missing := [file for file in [*_FILES, "config.json", "manifest.json"] if not (folder / file).is_file()]:
        has = f"{', '.join(PARTS)} (each config.json and model.safetensors), config.json and manifest.json"
        raise SampleError(f"{folder} is no whole model: it lacks {', '.join(missing)}; a model folder has {has}")
    read_manifest(folder)
    dit = read_config_as(folder / "dit", DiTConfig)
    vae = read_config_as(folder / "vae", VAE3DConfig)
    if vae.latent_channels != dit.in_channels:
        channels = f"the VAE has {vae.latent_channels} latent channels, the transformer {dit.in_channels}"
        raise SampleError(f"{folder}: {channels}")
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    return Checkpoint(name=name, folder=folder, digest=digest, defaults=_defaults(folder), dit=dit, vae=vae)


def _defaults(folder: Path) -> Settings:
    source = f"{folder / 'config.json'}, 'sampling'"
    values = read_config(folder).get("sampling", {})
    if not isinstance(values, dict) or values.keys() - _DEFAULTS:
        raise SampleError(f"{source} is {values!r}; it must be an object with keys of {', '.join(sorted(_DEFAULTS))}")
    return settings_from(values, source)
