"""A model: a published folder with all that sampling needs, found by a bundled name, its path or its hub id."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from hy_dit import DiTConfig
from hy_dit.load import open_dit
from hy_plugins import Plugins
from hy_vae3d import VAE3DConfig
from hy_vae3d.load import open_vae
from hy_weights import located_folder, read_config_as
from hy_weights.digest import folder_digest
from hy_weights.hub import SCHEME
from hy_weights.parts import RELEASED, WEIGHTS, Parts, find_parts

from hyvideo_sample.settings import SampleError, Settings, settings_from

_DEFAULTS = {"width", "height", "frames", "fps", "sampler", "steps", "schedule", "shift", "guidance", "dtype"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model folder that has all its parts and fits together; `hy_weights.verify` tells if a published one is whole.

    Attributes:
        name: what the user calls it.
        folder: where it is.
        parts: where its parts are.
        digest: SHA-256 of its manifest, which holds that of every file; of the files, where there is none.
        defaults: the settings it was made for.
        dit: the sizes of its transformer.
        vae: the sizes of its autoencoder.
    """

    name: str
    folder: Path
    parts: Parts
    digest: str
    defaults: Settings
    dit: DiTConfig
    vae: VAE3DConfig

    def check(self, settings: Settings) -> None:
        """Refuse settings that this model would not follow.

        Raises:
            SampleError: there is a strength that this model has no use for, or something about the negative prompt,
                which is not computed.
        """
        learned = self.dit.guidance_embed
        if settings.true_cfg != 1 and not learned:
            raise SampleError("true_cfg is of models that have learned their guidance; this one takes --guidance")
        if (settings.true_cfg if learned else settings.guidance) != 1:
            return
        why = "this model has learned its guidance; give --true-cfg, such as 4, or" if learned else "guidance is 1;"
        if settings.negative:
            raise SampleError(f"the negative prompt {settings.negative!r} would have no effect: {why} leave it out")
        if (settings.guidance_low, settings.guidance_high, settings.guidance_rescale) != (0, 1, 0):
            raise SampleError(f"guidance interval and rescale would have no effect: {why} leave them out")


def open_checkpoint(name: str | None, plugins: Plugins) -> Checkpoint:
    """Find a model and read its configuration; no weights are read.

    Args:
        name: of a bundled model, the path of a folder, or a hub id, `hf://org/name`; a bundled name goes first.
        plugins: the bundled models are their components of kind `model`.

    Raises:
        SampleError: there is no such model, or its parts do not fit each other.
        CheckpointError: it lacks a part, or a configuration or the manifest can't be read; names file and key. Or the
            hub has no such model, or can't be reached.
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
        folder = located_folder(name, WEIGHTS) if name.startswith(SCHEME) else Path(name)
    if not folder.is_dir():
        raise SampleError(f"no model '{name}': {right}")
    if name.startswith(SCHEME) and (folder / RELEASED).is_dir():
        raise SampleError(
            f"{name}: of the released layout the hub's weights are not downloaded; download them yourself"
        )
    parts = find_parts(folder)
    if parts.published:
        dit, vae = read_config_as(parts.dit, DiTConfig), read_config_as(parts.vae, VAE3DConfig)
    else:
        dit, vae = open_dit(parts.dit).config, open_vae(parts.vae).config
    if vae.latent_channels != dit.in_channels:
        channels = f"the VAE has {vae.latent_channels} latent channels, the transformer {dit.in_channels}"
        raise SampleError(f"{folder}: {channels}")
    digest, defaults = _digest(folder, parts), _defaults(parts)
    return Checkpoint(name=name, folder=folder, parts=parts, digest=digest, defaults=defaults, dit=dit, vae=vae)


def _digest(folder: Path, parts: Parts) -> str:
    if parts.published:
        return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    return hashlib.sha256("".join(map(folder_digest, parts.deciding)).encode()).hexdigest()


def _defaults(parts: Parts) -> Settings:
    source, values = f"{parts.source}, 'sampling'", parts.sampling
    if not isinstance(values, dict) or values.keys() - _DEFAULTS:
        raise SampleError(f"{source} is {values!r}; it must be an object with keys of {', '.join(sorted(_DEFAULTS))}")
    return settings_from(values, source)
