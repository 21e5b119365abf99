"""Evenly scaled latents for the diffusion model, at the end of a training.

Shapes: B batch, C channels, T H W frames, height, width, N every latent position.
"""

from collections.abc import Iterable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from hy_vae3d.config import VAEConfigError
from hy_vae3d.model import VAE3D


class StandardizeLatents(Callback):
    """Brings each latent channel to mean 0 and deviation 1 on the validation clips, see `VAE3D.standardize_latents`.

    It works when training has ended, on the averaged weights where they are averaged, and must come before what
    publishes them. Decoding is unchanged, and whoever does it twice changes nothing the second time.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse before the training what would fail after it.

        Raises:
            VAEConfigError: The module trains no VAE.
        """
        if stage == "fit" and not isinstance(getattr(pl_module, "vae", None), VAE3D):
            raise VAEConfigError(f"{type(pl_module).__name__} has no `vae` whose latents could be standardized")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the latents, and fold their moments into the weights.

        Raises:
            VAEConfigError: There are no validation clips.
        """
        vae, data = pl_module.vae, trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(vae, VAE3D)
        batches: Iterable[dict[str, Any]] = data.val_dataloader() if data else []
        vae.eval()
        with torch.no_grad():
            every_CN = [_latents(vae, batch["video_BCTHW"].to(pl_module.device)) for batch in batches]
            if not every_CN:
                raise VAEConfigError("no validation clips to measure latents on: the data module gives none")
            deviation_C, mean_C = torch.std_mean(torch.cat(every_CN, dim=1), dim=1)
            vae.standardize_latents(mean_C.to(pl_module.device), deviation_C.to(pl_module.device))


def _latents(vae: VAE3D, video_BCTHW: Tensor) -> Tensor:
    """The posterior's mode of every clip and position, CN, on the CPU."""
    return vae.encode(video_BCTHW).mode().movedim(1, 0).flatten(1).float().cpu()
