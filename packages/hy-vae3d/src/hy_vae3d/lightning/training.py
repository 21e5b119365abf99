"""Training the VAE with Lightning (paper section 4.1). Needs the extra `train`.

Shapes: B batch, C channels, T H W frames, height, width. Pixels are in [-1, 1].
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from hy_vae3d.config import VAE3DConfig, VAEConfigError
from hy_vae3d.discriminator import PatchDiscriminator
from hy_vae3d.inflate import inflate as inflate_time
from hy_vae3d.lightning import draws
from hy_vae3d.lightning.schedule import warmup_and_cosine
from hy_vae3d.lightning.validation import psnr, show, side_by_side, ssim
from hy_vae3d.load import load_vae
from hy_vae3d.losses import adaptive_weight, hinge_for_discriminator, hinge_for_generator, reconstruction_loss
from hy_vae3d.model import VAE3D
from hy_vae3d.tiling import Tiling

if TYPE_CHECKING:
    from hy_vae3d.perceptual import PerceptualDistance


class VAETraining(LightningModule):
    """Trains a `VAE3D` on batches `{"video_BCTHW": [B, 3, T, H, W] in [-1, 1]}`; images are clips of one frame.

    The loss is L1 + `lpips_weight` LPIPS + `adversarial_weight` hinge + `kl_weight` KL, the paper's weights by default;
    a weight of 0 builds and costs nothing. Optimisation is manual; Lightning's `global_step` counts batches all the
    same.

    Args:
        preset: Which VAE to build, see `VAE3DConfig.preset`.
        weights: A VAE folder to start from instead; its own configuration then replaces `preset`.
        inflate: Begin by making a model of images one of clips, see `hy_vae3d.inflate`; for `weights` of a stage that
            saw images only.
        optimizer: Makes the optimizer from the parameters; a recipe names its class and settings. Its learning rate is
            the peak, reached after `warmup_steps`, then lowered along a half cosine.
        warmup_steps: Steps of linear warm-up.
        final_lr: Where the cosine ends, as a share of the peak; 1 keeps it constant, for a stage that another follows.
        gradient_clip: Largest norm of the gradient, of the VAE's and of the discriminator's; 0 leaves them.
        kl_weight: Weight of the divergence from N(0, I), averaged per latent number.
        contrast_weight: How much more busy pixels count, see `reconstruction_loss`; 0 is the paper's plain L1.
        lpips_weight: Weight of the perceptual distance.
        lpips_trunk: VGG-16 for it, see `PerceptualDistance`; None draws one from `seed`. The log says which.
        lpips_frames: Random frames of each batch to measure it on, to save memory; None takes all.
        adversarial_weight: Weight of the adversarial loss.
        adversarial_start: Batches without it; the discriminator begins to learn then too, with its own warm-up.
        adversarial_adaptive: Multiply the weight by `adaptive_weight`.
        discriminator_optimizer: Makes the discriminator's optimizer, with the same warm-up and cosine.
        discriminator_width: See `PatchDiscriminator`.
        tiling: Tiles to train with, gradients passing through the blend, so that tiled and whole results agree;
            validation then also logs `val_psnr_tiled`, and as `val_seam` the mean difference of the two decodings.
        tiling_probability: Share of batches that go through the tiles, in [0, 1].
        seed: Of the drawn latents, frames and tilings. They depend on it, the epoch, the batch's place in it and the
            rank only, so that a resumed run draws what the unbroken one would have drawn.

    Raises:
        VAEConfigError: A weight is negative, a probability beyond [0, 1], or a count below its least.
    """

    def __init__(
        self,
        preset: str = "tiny",
        weights: str | None = None,
        inflate: bool = False,
        optimizer: OptimizerCallable = AdamW,
        warmup_steps: int = 100,
        final_lr: float = 0.05,
        gradient_clip: float = 0.0,
        kl_weight: float = 1e-6,
        contrast_weight: float = 0.0,
        lpips_weight: float = 0.1,
        lpips_trunk: str | None = None,
        lpips_frames: int | None = None,
        adversarial_weight: float = 0.05,
        adversarial_start: int = 0,
        adversarial_adaptive: bool = False,
        discriminator_optimizer: OptimizerCallable = AdamW,
        discriminator_width: int = 64,
        tiling: Tiling | None = None,
        tiling_probability: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.save_hyperparameters(ignore=["optimizer", "discriminator_optimizer", "tiling"])
        _check(self.hparams)
        self.vae = load_vae(weights).train() if weights else VAE3D(VAE3DConfig.preset(preset))
        if inflate:
            inflate_time(self.vae)
        self.discriminator = PatchDiscriminator(discriminator_width) if adversarial_weight else None
        self.optimizer, self.discriminator_optimizer = optimizer, discriminator_optimizer
        self.warmup_steps, self.final_lr, self.gradient_clip = warmup_steps, final_lr, gradient_clip
        self.kl_weight, self.contrast_weight = kl_weight, contrast_weight
        self.lpips_weight, self.lpips_trunk, self.lpips_frames = lpips_weight, lpips_trunk, lpips_frames
        self.adversarial_weight, self.adversarial_start = adversarial_weight, adversarial_start
        self.adversarial_adaptive = adversarial_adaptive
        self.tiling, self.tiling_probability, self.seed = tiling, tiling_probability, seed
        self.lpips: PerceptualDistance | None = None  # made by `setup`: an average of weights need not copy it

    def models(self) -> dict[str, nn.Module]:
        """Return what a published checkpoint holds, by folder name; not the discriminator."""
        return {"vae": self.vae}

    def setup(self, stage: str) -> None:
        """Prepare the perceptual distance.

        Raises:
            CheckpointError: `lpips_trunk` isn't a VGG-16.
            VAEConfigError: The trainer computes in float16, which would need the loss scaled.
        """
        if self.trainer.precision in ("16-mixed", "16-true"):
            raise VAEConfigError(f"precision is {self.trainer.precision}; this training takes bf16-mixed or 32-true")
        if self.lpips_weight and self.lpips is None:
            from hy_vae3d.perceptual import PerceptualDistance  # takes seconds to import

            self.lpips = PerceptualDistance(self.lpips_trunk, self.seed)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Step the VAE on its losses, then the discriminator on the same reconstruction."""
        video_BCTHW = batch["video_BCTHW"]
        optimizers = self.optimizers()
        optimizer, *others = optimizers if isinstance(optimizers, list) else [optimizers]
        adversary = others[0] if others and self.global_step >= self.adversarial_start else None

        self.toggle_optimizer(optimizer)  # the adversarial loss leaves no gradient in the discriminator
        rebuilt_BCTHW, losses = self.losses(video_BCTHW, batch_idx, adversarial=adversary is not None)
        self._backward(optimizer, losses["loss"])
        optimizer.step()
        self.untoggle_optimizer(optimizer)
        if adversary is not None:
            losses["discriminator"] = self.discriminator_loss(video_BCTHW, rebuilt_BCTHW.detach())
            self._backward(adversary, losses["discriminator"])
            adversary.optimizer.step()  # past Lightning, which counts the other one's steps as `global_step`

        schedules = self.lr_schedulers()
        stepped = zip(schedules if isinstance(schedules, list) else [schedules], (optimizer, adversary), strict=False)
        for schedule in (schedule for schedule, of_optimizer in stepped if of_optimizer is not None):
            schedule.step()  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
        self.log_dict(losses, prog_bar=True, batch_size=len(video_BCTHW))

    def losses(
        self, video_BCTHW: Tensor, batch_idx: int, *, adversarial: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruct a clip from a drawn latent.

        Args:
            video_BCTHW: [B, 3, T, H, W] in [-1, 1].
            batch_idx: The batch's place in its epoch, which the draws depend on.
            adversarial: Whether the discriminator judges the result.

        Returns:
            The reconstruction, and what the VAE is trained on: the weighted sum under `loss`, and each term by itself.
        """
        place = self._place(batch_idx)
        with self._tiled(draws.happens(self.tiling_probability, "tiling", *place)):
            posterior = self.vae.encode(video_BCTHW)
            latent_BCTHW = posterior.sample(draws.generator(*place, self.global_rank, device=self.device))
            rebuilt_BCTHW = self.vae.decode(latent_BCTHW).float()
        losses = {"l1": reconstruction_loss(rebuilt_BCTHW, video_BCTHW, self.contrast_weight), "kl": posterior.kl()}
        loss = losses["l1"]
        if self.lpips is not None:
            chosen = draws.sample(video_BCTHW.shape[2], self.lpips_frames, "lpips", *place)
            losses["lpips"] = self.lpips(rebuilt_BCTHW[:, :, chosen], video_BCTHW[:, :, chosen])
            loss = loss + self.lpips_weight * losses["lpips"]
        if adversarial:
            assert self.discriminator is not None
            losses["adversarial"] = hinge_for_generator(self.discriminator(rebuilt_BCTHW))
            weight = self.adversarial_weight
            if self.adversarial_adaptive:
                last_weight = self.vae.decoder.conv_out.conv.weight
                losses["adaptive"] = adaptive_weight(loss, losses["adversarial"], last_weight)
                weight = weight * losses["adaptive"]
            loss = loss + weight * losses["adversarial"]
        return rebuilt_BCTHW, {"loss": loss + self.kl_weight * losses["kl"], **losses}

    def discriminator_loss(self, video_BCTHW: Tensor, rebuilt_BCTHW: Tensor) -> Tensor:
        """Return what the discriminator is trained on: to tell the clips from their reconstructions."""
        assert self.discriminator is not None
        return hinge_for_discriminator(self.discriminator(video_BCTHW), self.discriminator(rebuilt_BCTHW))

    def _backward(self, optimizer: LightningOptimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast(self.device.type, enabled=False):  # gradients have the formats of the forward pass
            self.manual_backward(loss)
        self.clip_gradients(optimizer.optimizer, self.gradient_clip, "norm")

    def _place(self, batch_idx: int) -> tuple[int, int, int]:
        """What every random choice of a batch depends on, the same in every process."""
        return self.seed, self.current_epoch, batch_idx

    @contextmanager
    def _tiled(self, on: bool) -> Iterator[None]:
        """Let the VAE work by tiles, or not; outside of this block it never does."""
        self.vae.tiling = self.tiling if on else None
        try:
            yield
        finally:
            self.vae.tiling = None

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure clips decoded from the posterior's mode, and show the first of the first batch."""
        video_BCTHW = batch["video_BCTHW"]
        latent_BCTHW = self.vae.encode(video_BCTHW).mode()
        rebuilt_BCTHW = self._decode(latent_BCTHW)
        measured = {"val_psnr": psnr(rebuilt_BCTHW, video_BCTHW), "val_ssim": ssim(rebuilt_BCTHW, video_BCTHW)}
        if self.lpips is not None:
            measured["val_lpips"] = self.lpips(rebuilt_BCTHW, video_BCTHW)
        if self.tiling is not None:
            tiled_BCTHW = self._decode(latent_BCTHW, tiled=True)
            measured["val_psnr_tiled"] = psnr(tiled_BCTHW, video_BCTHW)
            measured["val_seam"] = (tiled_BCTHW - rebuilt_BCTHW).abs().mean()
        self.log_dict(measured, prog_bar=True, batch_size=len(video_BCTHW), sync_dist=True)
        if batch_idx == 0:
            show(self.loggers, "val_reconstruction", side_by_side(rebuilt_BCTHW, video_BCTHW), self.global_step)

    def _decode(self, latent_BCTHW: Tensor, *, tiled: bool = False) -> Tensor:
        with self._tiled(tiled):
            return self.vae.decode(latent_BCTHW).float().clamp(-1.0, 1.0)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The VAE's optimizer and the discriminator's, with warm-up and a cosine over the trainer's whole length."""
        total = self.trainer.estimated_stepping_batches  # infinite for a trainer without a last step
        optimizers = [self.optimizer(self.vae.parameters())]
        lengths = [total]
        if self.discriminator is not None:
            optimizers.append(self.discriminator_optimizer(self.discriminator.parameters()))
            lengths.append(total - self.adversarial_start)
        factors = [warmup_and_cosine(self.warmup_steps, length, self.final_lr) for length in lengths]
        return optimizers, [LambdaLR(one, factor) for one, factor in zip(optimizers, factors, strict=True)]


def _check(settings: Any) -> None:
    """Refuse numbers that no training can have."""
    least = {"gradient_clip": 0, "kl_weight": 0, "lpips_weight": 0, "adversarial_weight": 0, "adversarial_start": 0}
    least |= {"contrast_weight": 0, "warmup_steps": 0, "lpips_frames": 1}
    for name, bound in least.items():
        if settings[name] is not None and settings[name] < bound:
            raise VAEConfigError(f"{name} must be at least {bound}, got {settings[name]}")
    if not 0 <= settings["tiling_probability"] <= 1:
        raise VAEConfigError(f"tiling_probability must be in [0, 1], got {settings['tiling_probability']}")
