"""The flow-matching objective as a Lightning module (paper section 4.5).

Shapes: B batch, C channels, T H W frames/height/width of the latent.
"""

import hashlib
import math
import random
from collections.abc import Sequence
from functools import partial
from typing import TypedDict

import torch
from hy_plugins.protocols import Backbone, TextEncoder
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import AdamW

from hy_flow.errors import FlowError
from hy_flow.guidance import TIMESTEPS
from hy_flow.loss_bins import LossBins
from hy_flow.path import FlowMatchingPath, LogitNormal


class LatentBatch(TypedDict):
    """What is trained on: normalised latents, and a caption for each."""

    latent_BCTHW: Tensor
    captions: Sequence[str]


class FlowMatching(LightningModule):
    """Trains a backbone, and its text encoder unless frozen, to predict the velocity from data to noise.

    Noise, noise levels and dropped captions depend on the seed, the epoch, the batch's place in it and the rank only:
    a resumed run draws what the uninterrupted one would have drawn, whatever else uses random numbers.

    For an exponential moving average of the weights give the trainer Lightning's own
    `lightning.pytorch.callbacks.EMAWeightAveraging`; clip gradients with the trainer's `gradient_clip_val`.

    Args:
        backbone: an nn.Module; takes the time-step 0..1000.
        text_encoder: an nn.Module, if it has weights.
        optimizer: makes the optimizer from the parameters; a recipe names its class and settings. Its learning rate is
            reached after the warm-up; a cosine then takes it to 0 at the trainer's last step. A trainer without a last
            step keeps it constant.
        warmup_steps: optimizer steps with a linearly rising learning rate.
        caption_dropout: share of captions replaced by the empty one, so that guidance has its null branch.
        freeze_text_encoder: leave the encoder as it is; no gradients flow into it.
        sigma_mean: mean of the logit of the noise levels.
        sigma_std: its standard deviation.
        sigma_shift: shift of the noise levels, as in sampling; more for larger latents.
        sigma_bins: number of noise level ranges that the loss is also logged for.
        seed: of all random draws.

    Raises:
        FlowError: a value is out of its range.
    """

    def __init__(
        self,
        backbone: Backbone,
        text_encoder: TextEncoder,
        optimizer: OptimizerCallable = AdamW,
        warmup_steps: int = 100,
        caption_dropout: float = 0.1,
        freeze_text_encoder: bool = False,
        sigma_mean: float = 0.0,
        sigma_std: float = 1.0,
        sigma_shift: float = 1.0,
        sigma_bins: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= caption_dropout <= 1:
            raise FlowError(f"caption_dropout is {caption_dropout}; it is a share, from 0 to 1")
        self.save_hyperparameters(ignore=["backbone", "text_encoder", "optimizer"])
        self.backbone = backbone
        self.text_encoder = text_encoder
        self.optimizer = optimizer
        self.warmup_steps = warmup_steps
        self.caption_dropout = caption_dropout
        self.seed = seed
        self.path = FlowMatchingPath()
        self.noise_levels = LogitNormal(sigma_mean, sigma_std, sigma_shift)
        self.loss_bins = LossBins(sigma_bins)
        if freeze_text_encoder and isinstance(text_encoder, nn.Module):
            text_encoder.requires_grad_(False).eval()

    def models(self) -> dict[str, nn.Module]:
        """Return what a published checkpoint holds, by folder name."""
        parts = {"dit": self.backbone, "text_encoder": self.text_encoder}
        return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        """Return the mean squared error of the velocity; logs it, and it by noise level."""
        key = self._key("train", self.current_epoch, batch_idx)
        chance = random.Random(key)
        captions = ["" if chance.random() < self.caption_dropout else caption for caption in batch["captions"]]
        sigma_B, loss_B = self._losses(batch["latent_BCTHW"], captions, key)
        loss = loss_B.mean()
        self.loss_bins.add(sigma_B, loss_B)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(captions))
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the loss by noise level, averaged over all samples since the last time."""
        every: int = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue] - set by a connector
        if every and (self.global_step + 1) % every == 0:
            self.log_dict({f"train/loss_sigma_{name}": loss for name, loss in self.loss_bins.pop().items()})

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        """Return the same error, of captions that are never dropped, on noise that is the same in every validation."""
        _, loss_B = self._losses(batch["latent_BCTHW"], batch["captions"], self._key("validation", 0, batch_idx))
        loss = loss_B.mean()
        self.log("val/loss", loss, prog_bar=True, batch_size=len(loss_B), sync_dist=True)
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer of everything that has gradients, with warm-up and cosine decay per optimizer step."""
        optimizer = self.optimizer(parameter for parameter in self.parameters() if parameter.requires_grad)
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            # Lightning refuses to clip gradients of a fused optimizer, which could unscale them by itself, even where
            # nothing is scaled (bf16). This says that it doesn't; the scaler of float16 unscales them, as for others.
            optimizer._step_supports_amp_scaling = False  # pyright: ignore[reportAttributeAccessIssue]
        rate = partial(warmup_cosine, warmup_steps=self.warmup_steps, steps=self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _losses(self, latent_BCTHW: Tensor, captions: Sequence[str], key: int) -> tuple[Tensor, Tensor]:
        """Return each sample's noise level and its mean squared error, both of shape B."""
        generator = torch.Generator(latent_BCTHW.device).manual_seed(key)
        latent_BCTHW = latent_BCTHW.float()
        sigma_B = self.noise_levels.sample(latent_BCTHW.shape[0], generator)
        noise_BCTHW = torch.empty_like(latent_BCTHW).normal_(generator=generator)
        noisy_BCTHW, target_BCTHW = self.path.sample(latent_BCTHW, noise_BCTHW, sigma_B)
        velocity_BCTHW = self.backbone(noisy_BCTHW, sigma_B * TIMESTEPS, self.text_encoder.encode(captions))
        return sigma_B, (velocity_BCTHW - target_BCTHW).square().mean(dim=(1, 2, 3, 4))

    def _key(self, stage: str, epoch: int, batch_idx: int) -> int:
        name = f"{self.seed} {stage} {epoch} {batch_idx} {self.global_rank}"
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")


def warmup_cosine(step: int, warmup_steps: int, steps: float) -> float:
    """The learning rate of a step, as a share of the highest: a linear rise, then a cosine to 0 at `steps`.

    Args:
        step: how many optimizer steps were done.
        warmup_steps: length of the rise.
        steps: of the whole run; infinite for no decay.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1.0, steps - warmup_steps))
    return 0.5 * (1 + math.cos(math.pi * progress))
