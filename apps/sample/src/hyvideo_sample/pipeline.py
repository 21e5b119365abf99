"""From prompts to files, with one part of the model in memory at a time: text encoder, transformer, VAE.

Shapes: B batch, C channels, T H W frames/height/width, of the latent or of the video.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hy_dit import load_dit
from hy_flow import embedded_guidance, guided, sample, sigmas
from hy_plugins import HyError, Plugins, TextTokens
from hy_textenc import load_text_encoder
from hy_weights import verify
from torch import Tensor

from hyvideo_sample.checkpoint import Checkpoint
from hyvideo_sample.files import Record, write_sample
from hyvideo_sample.progress import Stages
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
        failures: what went wrong, by the file that could not be made for it.
    """

    checkpoint: Checkpoint
    settings: Settings
    plugins: Plugins
    stages: Stages
    failures: dict[Path, HyError] = field(default_factory=dict)

    @torch.inference_mode()
    def run(self, prompts: Mapping[Path, str]) -> None:
        """Make a sample of each prompt and write it to its file; one that fails does not stop the others.

        Raises:
            CheckpointError: the model's files are not what its manifest says, or do not fit.
        """
        with self.stages.stage("check the model"):
            verify(self.checkpoint.folder)
        null_text, *texts = self._encode([self.settings.negative, *prompts.values()])
        latents = self._denoise(dict(zip(prompts, texts, strict=True)), null_text)
        self._decode(latents, prompts)

    def _encode(self, prompts: list[str]) -> list[TextTokens]:
        with self.stages.stage("load the text encoder"):
            encoder = load_text_encoder(self.checkpoint.folder / "text_encoder", **self._format())
        with self.stages.stage("encode the prompt"), warnings.catch_warnings(record=True) as notes:
            texts = [encoder.encode([prompt]) for prompt in prompts]
        for note in notes:  # a prompt that was cut, say; as Python prints warnings, few would read it
            self.stages.console.print(f"note: {note.message}", markup=False, highlight=False)
        return texts

    def _denoise(self, texts: Mapping[Path, TextTokens], null_text: TextTokens) -> dict[Path, Tensor]:
        """Sample the latent of each file, in the scale that the transformer knows."""
        with self.stages.stage("load the transformer"):
            dit = load_dit(self.checkpoint.folder / "dit", **self._format())
        settings, latents = self.settings, {}
        shape = (1, dit.config.in_channels, *settings.latent_grid)
        with self.stages.stage("denoise", len(texts) * settings.steps, "steps") as step_done:
            for out, text in texts.items():
                generator = torch.Generator().manual_seed(settings.seed)
                noise_BCTHW = torch.randn(shape, generator=generator).to(settings.device)
                if dit.config.guidance_embed:
                    dtype = dit.img_in.proj.weight.dtype
                    velocity = embedded_guidance(dit, text, settings.guidance, dtype=dtype)
                else:
                    velocity = guided(dit, text, null_text, settings.guidance)
                schedule = sigmas(settings.steps, settings.shift)
                latent_BCTHW = sample(velocity, noise_BCTHW, schedule, on_step=lambda *_: step_done())
                if latent_BCTHW.isfinite().all():
                    latents[out] = latent_BCTHW
                else:
                    advice = "try --dtype float32, or less --guidance"
                    self.failures[out] = SampleError(f"{out}: the latent became infinite; {advice}")
        return latents

    def _decode(self, latents: Mapping[Path, Tensor], prompts: Mapping[Path, str]) -> None:
        with self.stages.stage("load the VAE"):
            load_vae = self.plugins.load("autoencoder", "causal-3d")
            vae = load_vae(path=self.checkpoint.folder / "vae", **self._format())
        with self.stages.stage("decode and write", len(latents), "samples") as sample_done:
            for out, latent_BCTHW in latents.items():
                raw_BCTHW = latent_BCTHW.to(**self._format()) / vae.scaling_factor
                frames_THWC = _pixels(vae.decode(raw_BCTHW))
                record = Record(
                    settings=replace(self.settings, prompt=prompts[out]),
                    model=self.checkpoint.name,
                    model_sha256=self.checkpoint.digest,
                )
                try:
                    write_sample(out, frames_THWC, record)
                except HyError as error:
                    self.failures[out] = error
                sample_done()

    def _format(self) -> dict[str, Any]:
        """The number format and the device, as the loaders take them."""
        return {"dtype": getattr(torch, self.settings.dtype), "device": self.settings.device}


def placed(settings: Settings) -> Settings:
    """Give the settings with the device that `auto` stands for.

    Raises:
        SampleError: CUDA is asked for, and there is none.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SampleError("device is 'cuda', but torch finds none here; --device cpu gives nearly the same video")
    found = "cuda" if torch.cuda.is_available() else "cpu"
    return replace(settings, device=found if settings.device == "auto" else settings.device)


def _pixels(video_BCTHW: Tensor) -> npt.NDArray[np.uint8]:
    """The frames of the first video, from [-1, 1] to 0..255."""
    levels_BCTHW = (video_BCTHW.float().clamp(-1, 1) + 1) * 127.5
    return levels_BCTHW[0].round().to(torch.uint8).permute(1, 2, 3, 0).cpu().numpy()
