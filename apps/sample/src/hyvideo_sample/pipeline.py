"""From prompts to files, with one part of the model in memory at a time: text encoder, transformer, VAE.

Every latent is on disk before the VAE is loaded, and goes when its sample is written.

Shapes: B batch, C channels, T H W frames/height/width, of the latent or of the video.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from hy_dit import load_dit
from hy_flow import auto_shift
from hy_plugins import HyError, Plugins, TextTokens
from hy_plugins.protocols import Sampler
from hy_textenc import CachedTextEncoder, load_text_encoder
from hy_vae3d import Tiling
from hy_vae3d.pixels import to_levels
from hy_weights import CheckpointError, TensorStore, verify
from torch import Tensor

from hyvideo_sample.checkpoint import Checkpoint
from hyvideo_sample.decoding import unfinished
from hyvideo_sample.denoising import guided_velocity, noise_levels, watched
from hyvideo_sample.files import write_sample
from hyvideo_sample.latents import latent_place, write_latent
from hyvideo_sample.loras import ChosenLoRA, put_on
from hyvideo_sample.noise import draw_noise
from hyvideo_sample.progress import Stages
from hyvideo_sample.record import Record
from hyvideo_sample.settings import SampleError, Settings


@dataclass(kw_only=True)
class Pipeline:
    """Makes samples that differ in their prompts only.

    Each prompt is computed alone, so that its pixels do not depend on its company.

    Attributes:
        checkpoint: the model.
        settings: of every sample, but the prompt.
        plugins: the autoencoder is one of their components.
        stages: where progress is shown.
        keep_latents: whether latents stay when their samples are written.
        noise_1CTHW: what sampling starts from; without it, what the settings' seed draws.
        loras: added to the transformer.
        any_base: whether they may have been trained on another.
        store: a folder of text states, which is looked in first; None encodes each prompt.
        failures: what went wrong, by the file that could not be made for it.
        kept: the files of latents that are on disk, by the sample they belong to.
    """

    checkpoint: Checkpoint
    settings: Settings
    plugins: Plugins
    stages: Stages
    keep_latents: bool = False
    noise_1CTHW: Tensor | None = None
    loras: tuple[ChosenLoRA, ...] = ()
    any_base: bool = False
    store: Path | None = None
    failures: dict[Path, HyError] = field(default_factory=dict)
    kept: dict[Path, Path] = field(default_factory=dict)

    @torch.inference_mode()
    def run(self, prompts: Mapping[Path, str], originals: Mapping[Path, str], sampler: Sampler) -> None:
        """Make a sample of each prompt and write it to its file; one that fails does not stop the others.

        Args:
            prompts: by file.
            originals: the prompts as they were given, by file; only of those that were rewritten.
            sampler: what follows the velocity.

        Raises:
            CheckpointError: the model's files are not what its manifest says, or do not fit.
        """
        self._check()
        null_text, *texts = self._encode([self.settings.negative, *prompts.values()])
        records = {out: self._record(prompt, originals.get(out, "")) for out, prompt in prompts.items()}
        latents = self._denoise(dict(zip(prompts, texts, strict=True)), null_text, records, sampler)
        self._decode(latents, records)

    @torch.inference_mode()
    def finish(self, out: Path, latent_BCTHW: Tensor, source: Path) -> None:
        """Make a sample of a latent that was kept, with the settings' own prompt; the latent's file stays.

        Args:
            out: the sample's file.
            latent_BCTHW: the latent.
            source: its file.

        Raises:
            CheckpointError: as `run`.
        """
        self._check()
        self.kept[out] = source
        self.keep_latents = True
        self._decode({out: latent_BCTHW}, {out: self._record(self.settings.prompt, self.settings.original)})

    def _check(self) -> None:
        """Compare a published model's files with its manifest."""
        if self.checkpoint.parts.published:
            with self.stages.stage("check the model"):
                verify(self.checkpoint.folder)

    def _record(self, prompt: str, original: str) -> Record:
        settings = replace(self.settings, prompt=prompt, original=original)
        digest = self.checkpoint.digest
        return Record(settings=settings, model=self.checkpoint.name, model_sha256=digest, loras=self.loras)

    def _encode(self, prompts: list[str]) -> list[TextTokens]:
        with self.stages.stage("load the text encoder"):
            encoder: Any = load_text_encoder(self.checkpoint.parts.text_encoder, **self._format(), **self._reading())
            if self.store:
                encoder = CachedTextEncoder(
                    encoder, TensorStore(self.store, report=self.stages.note), device=self.settings.device
                )
            elif hasattr(encoder, "load"):  # else its first prompt would
                encoder.load()
        with self.stages.stage("encode the prompt"), warnings.catch_warnings(record=True) as notes:
            texts = [encoder.encode([prompt]) for prompt in prompts]
        for note in notes:  # a prompt that was cut, say; as Python prints warnings, few would read it
            self.stages.note(str(note.message))
        return texts

    def _reading(self) -> dict[str, Any]:
        """How the released encoders read prompts; both stay in memory until all are read."""
        if self.checkpoint.parts.published:
            return {}
        return {"media": "image" if self.settings.frames == 1 else "video", "offload": "none"}

    def _denoise(
        self, texts: Mapping[Path, TextTokens], null_text: TextTokens, records: Mapping[Path, Record], sampler: Sampler
    ) -> dict[Path, Tensor]:
        """Sample the latent of each file, in the scale that the transformer knows."""
        with self.stages.stage("load the transformer"):
            dit = load_dit(self.checkpoint.parts.dit, **self._format())
            if self.loras:
                put_on(dit, self.loras, self.checkpoint.parts.dit, any_base=self.any_base)
        settings, latents = self.settings, {}
        noise_1CTHW = self._noise((1, dit.config.in_channels, *settings.latent_grid)).to(settings.device)
        levels = noise_levels(settings)
        with self.stages.stage("denoise", len(texts) * settings.steps, "steps") as step_done:
            for out, text in texts.items():
                with watched(guided_velocity(dit, text, null_text, settings), levels, step_done) as velocity:
                    latent_BCTHW = sampler.sample(velocity, noise_1CTHW, levels).float()
                if latent_BCTHW.isfinite().all():
                    latents[out] = latent_BCTHW
                    self._keep(out, latent_BCTHW, records[out])
                else:
                    advice = "try --dtype float32, or less --guidance"
                    self.failures[out] = SampleError(f"{out}: the latent became infinite; {advice}")
        return latents

    def _noise(self, shape: tuple[int, ...]) -> Tensor:
        if self.noise_1CTHW is not None:
            return self.noise_1CTHW
        return draw_noise(self.settings.noise_source, self.settings.seed, shape, self.settings.device)

    def _keep(self, out: Path, latent_BCTHW: Tensor, record: Record) -> None:
        """Write a latent; where that fails, decoding may still do."""
        file = latent_place(out)
        try:
            write_latent(file, latent_BCTHW, record)
        except CheckpointError as error:
            self.stages.note(f"the latent is not kept: {error}")
        else:
            self.kept[out] = file

    def _decode(self, latents: Mapping[Path, Tensor], records: Mapping[Path, Record]) -> None:
        """Decode latents and write each to its file, whatever becomes of the others."""
        with self.stages.stage("load the VAE"):
            load_vae = self.plugins.load("autoencoder", "causal-3d")
            vae = load_vae(path=self.checkpoint.parts.vae, **self._format())
        vae.tiling = Tiling() if self.settings.tiling == "on" else None
        with self.stages.stage("decode and write", len(latents), "samples") as sample_done:
            for out, latent_BCTHW in latents.items():
                try:
                    raw_BCTHW = latent_BCTHW.to(**self._format()) / vae.scaling_factor
                    write_sample(out, to_levels(vae.decode(raw_BCTHW)).numpy(), records[out])
                except (HyError, MemoryError, RuntimeError) as error:
                    self.failures[out] = unfinished(out, error, self.settings, self.kept.get(out))
                else:
                    self._written(out)
                sample_done()

    def _written(self, out: Path) -> None:
        """Remove the latent of a sample that is whole."""
        if not self.keep_latents and (file := self.kept.pop(out, None)):
            file.unlink(missing_ok=True)

    def _format(self) -> dict[str, Any]:
        """The number format and the device, as the loaders take them."""
        return {"dtype": getattr(torch, self.settings.dtype), "device": self.settings.device}


def placed(settings: Settings) -> Settings:
    """Give the settings with the device and the shift that `auto` stands for.

    Raises:
        SampleError: CUDA is asked for, and there is none.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SampleError("device is 'cuda', but torch finds none here; --device cpu gives nearly the same video")
    found = "cuda" if torch.cuda.is_available() else "cpu"
    return replace(
        settings,
        device=found if settings.device == "auto" else settings.device,
        shift=auto_shift(settings.steps) if settings.shift == "auto" else settings.shift,
    )
