"""Training the VAE with Lightning (paper section 4.1). Needs the extra `train`.

Shapes: B batch, C channels, T H W frames, height, width. Pixels are in [-1, 1].
"""

import hashlib
import math
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW
from torchmetrics.functional.image import peak_signal_noise_ratio

from hy_vae3d.config import VAE3DConfig
from hy_vae3d.inflate import inflate as inflate_time
from hy_vae3d.load import load_vae
from hy_vae3d.losses import reconstruction_loss
from hy_vae3d.model import VAE3D


class VAETraining(LightningModule):
    """Trains a `VAE3D` on batches `{"video_BCTHW": [B, 3, T, H, W] in [-1, 1]}`; images are clips of one frame.

    Args:
        preset: Which VAE to build, see `VAE3DConfig.preset`.
        weights: A VAE folder to start from instead; its own configuration then replaces `preset`.
        inflate: Begin by making a model of images one of clips, see `hy_vae3d.inflate`; for `weights` of a stage that
            saw images only.
        optimizer: Makes the optimizer from the parameters; a recipe names its class and settings. Its learning rate is
            the peak, reached after `warmup_steps`, then lowered along a half cosine.
        warmup_steps: Steps of linear warm-up.
        final_lr: Where the cosine ends, as a share of the peak; 1 keeps it constant, for a stage that another follows.
        kl_weight: Weight of the divergence from N(0, I), averaged per latent number; the paper's 1e-6.
        contrast_weight: How much more busy pixels count, see `reconstruction_loss`; 0 is the paper's plain L1.
        seed: Of the drawn latents. They depend on it, the epoch, the batch's place in it and the rank only, so that a
            resumed run draws what the unbroken one would have drawn.
    """

    def __init__(
        self,
        preset: str = "tiny",
        weights: str | None = None,
        inflate: bool = False,
        optimizer: OptimizerCallable = AdamW,
        warmup_steps: int = 100,
        final_lr: float = 0.05,
        kl_weight: float = 1e-6,
        contrast_weight: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["optimizer"])
        self.vae = load_vae(weights).train() if weights else VAE3D(VAE3DConfig.preset(preset))
        if inflate:
            inflate_time(self.vae)
        self.optimizer, self.warmup_steps, self.final_lr = optimizer, warmup_steps, final_lr
        self.kl_weight, self.contrast_weight, self.seed = kl_weight, contrast_weight, seed

    def models(self) -> dict[str, nn.Module]:
        """Return what a published checkpoint holds, by folder name."""
        return {"vae": self.vae}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Encode, draw a latent, decode; return L1 plus the weighted KL."""
        video_BCTHW = batch["video_BCTHW"]
        posterior = self.vae.encode(video_BCTHW)
        rebuilt_BCTHW = self.vae.decode(posterior.sample(self._generator(batch_idx)))
        l1 = reconstruction_loss(rebuilt_BCTHW.float(), video_BCTHW, self.contrast_weight)
        kl = posterior.kl()
        loss = l1 + self.kl_weight * kl
        size = len(video_BCTHW)
        self.log_dict({"loss": loss, "l1": l1, "kl": kl}, prog_bar=True, batch_size=size)
        return loss

    def _generator(self, batch_idx: int) -> torch.Generator:
        name = f"{self.seed} {self.current_epoch} {batch_idx} {self.global_rank}"
        number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")
        return torch.Generator(self.device).manual_seed(number)

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the PSNR, in dB, of clips decoded from the posterior's mode."""
        video_BCTHW = batch["video_BCTHW"]
        rebuilt_BCTHW = self.vae.decode(self.vae.encode(video_BCTHW).mode()).float().clamp(-1.0, 1.0)
        psnr = peak_signal_noise_ratio(
            rebuilt_BCTHW, video_BCTHW, data_range=2.0, dim=(1, 2, 3, 4), reduction="elementwise_mean"
        )
        self.log("val_psnr", psnr, prog_bar=True, batch_size=len(video_BCTHW))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, with warm-up and a cosine over the trainer's whole length."""
        optimizer = self.optimizer(self.vae.parameters())
        total = max(self.trainer.estimated_stepping_batches, 1)  # infinite for a trainer without a last step

        def factor(step: int) -> float:
            warm = min((step + 1) / max(self.warmup_steps, 1), 1.0)
            fall = 0.5 - 0.5 * math.cos(math.pi * min(step / total, 1.0))
            return warm * (1.0 - (1.0 - self.final_lr) * fall)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
