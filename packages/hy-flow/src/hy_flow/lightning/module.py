"""The flow-matching objective as a Lightning module (paper section 4.5).

Shapes: B batch, C channels, T H W frames/height/width of the latent or of the video.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, get_args

import torch
from hy_plugins import TextTokens
from hy_plugins.protocols import Autoencoder, Backbone, TextEncoder
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from hy_flow.errors import FlowError
from hy_flow.guidance import Predict, embedded_guidance, guided
from hy_flow.lightning.batch import Draws, TrainingBatch
from hy_flow.lightning.frozen import Frozen, unwrapped
from hy_flow.lightning.parameter_groups import parameter_groups
from hy_flow.lightning.schedule import Decay, curriculum_of, rate
from hy_flow.lightning.texts import prepare_texts, replaced
from hy_flow.loss_bins import LossBins
from hy_flow.noise_levels import LogitNormal, NoiseLevels, token_shift
from hy_flow.path import FlowMatchingPath, TrainingPath
from hy_flow.sampling import sample
from hy_flow.schedule import shift_sigma, sigmas
from hy_flow.weighting import Weighting, loss_weight

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, less their whole part, spread evenly over (0, 1) however many there are."""


class FlowMatching(LightningModule):
    """Trains a backbone, and its text encoder unless frozen, to predict the velocity between data and noise.

    Noise, noise levels, dropped captions and drawn latents depend on the seed, the batch's number and the row in it
    only: a resumed run, or one on another number of processes, draws what the other would have drawn for that batch.

    Batches are `TrainingBatch`es. A curriculum of the data module (`curriculum`, see `schedule.Curriculum`) may set a
    stage's learning rate and shift; every stage has its own warm-up. Averaged weights, gradient clipping and
    accumulation, number formats and checkpoints are the trainer's: see `EMA`, `SkipNonFinite` and `Throughput` beside
    this, and the trainer's `gradient_clip_val`, `accumulate_grad_batches` and `precision`. The gradients of a step are
    let go at the end of its batch: neither a validation nor the next forward pass holds them.

    Args:
        backbone: an nn.Module; takes the time-step 0..1000.
        text_encoder: an nn.Module, if it has weights. Of one that looks states up (`texts.StoredTexts`) all that the
            training will ask for is looked for before it begins, and a data module that can (`texts.Captioned`) puts
            states into its batches.
        autoencoder: makes latents of batches of pixels; frozen. Latents are drawn from its posterior. Its weights are
            not in checkpoints. None: batches hold latents.
        path: from data to noise; None: `FlowMatchingPath()`.
        noise_levels: which are trained on; None: `LogitNormal()`.
        shift: of the noise levels, as in sampling; a curriculum's stage may set another.
        shift_tokens: size, frames * height * width, of the latent that `shift` is for; larger ones are shifted more,
            see `hy_flow.token_shift`. None: `shift` is for all.
        weighting: how much the loss counts at each noise level; see `hy_flow.loss_weight`.
        optimizer: makes the optimizer from the parameters; a recipe names its class and settings. A stage's learning
            rate takes the place of its first group's; others keep their ratio to that.
        learning_rates: of parameters by a pattern of their names, such as `{"backbone.single_blocks.*": 1e-5}`; the
            others have the optimizer's.
        warmup_steps: optimizer steps with a linearly rising learning rate, at the start of every stage.
        decay: `cosine` from the first warm-up to 0 at the trainer's last step (without a last step it stays), or
            `constant`.
        caption_dropout: share of captions replaced by the empty one, so that guidance has its null branch.
        embedded_guidance: the scale that a backbone which has learned its guidance is told in training; 1 asks it for
            the data as they are. None: the backbone takes none.
        freeze_text_encoder: leave the encoder as it is; no gradients flow into it, and checkpoints don't hold it.
        compile: have `torch.compile` compile the backbone; parameters keep their names.
        sigma_bins: number of noise level ranges that the loss is also logged for.
        seed: of all random draws, 0 to 2**64 - 1.

    Attributes:
        samples_seen: trained on in this process, since it began.
        tokens_seen: their latent patches.

    Raises:
        FlowError: a value is out of its range.
    """

    def __init__(
        self,
        backbone: Backbone,
        text_encoder: TextEncoder,
        autoencoder: Autoencoder | None = None,
        path: TrainingPath | None = None,
        noise_levels: NoiseLevels | None = None,
        shift: float = 1.0,
        shift_tokens: int | None = None,
        weighting: Weighting = "uniform",
        optimizer: OptimizerCallable = AdamW,
        learning_rates: Mapping[str, float] | None = None,
        warmup_steps: int = 100,
        decay: Decay = "cosine",
        caption_dropout: float = 0.1,
        embedded_guidance: float | None = None,
        freeze_text_encoder: bool = False,
        compile: bool = False,
        sigma_bins: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(
            ignore=["backbone", "text_encoder", "autoencoder", "path", "noise_levels", "optimizer"]
        )
        _check(self.hparams)
        self.backbone = backbone
        self.text_encoder = Frozen(text_encoder) if freeze_text_encoder else text_encoder
        self.autoencoder = None if autoencoder is None else Frozen(autoencoder)
        self.path: TrainingPath = path or FlowMatchingPath()
        self.noise_levels = noise_levels or LogitNormal()
        self.shift, self.shift_tokens = shift, shift_tokens
        self.weighting: Weighting = weighting
        self.optimizer = optimizer
        self.learning_rates = learning_rates or {}
        self.warmup_steps = warmup_steps
        self.decay: Decay = decay
        self.caption_dropout = caption_dropout
        self.embedded_guidance = embedded_guidance
        self.compile_backbone = compile
        self.seed = seed
        self.loss_bins = LossBins(sigma_bins)
        self.samples_seen = self.tokens_seen = 0
        self._null_text: TextTokens | None = None
        self._stepped = 0

    def models(self) -> dict[str, nn.Module]:
        """Return what a published checkpoint holds, by folder name."""
        parts = {"dit": self.backbone, "text_encoder": unwrapped(self.text_encoder)}
        return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}

    def setup(self, stage: str) -> None:
        """Move what is frozen to the device that the trainer moves the rest to; ask for the text states."""
        if stage == "fit":
            prepare_texts(self.trainer, unwrapped(self.text_encoder))
        for part in (self.text_encoder, self.autoencoder):
            if isinstance(part, Frozen):
                part.move(self.trainer.strategy.root_device)

    def on_fit_start(self) -> None:
        """Compile."""
        if self.compile_backbone and isinstance(self.backbone, nn.Module):
            self.backbone.compile()

    def on_train_start(self) -> None:
        """Ask how long the training is: the trainer knows once it has the data."""
        steps = self.trainer.estimated_stepping_batches if self.decay == "cosine" else -1
        self.steps = steps if steps > 0 else float("inf")  # a loader without a length leaves Lightning's -1 for "any"
        self._stepped = self.global_step

    def on_train_batch_start(self, batch: TrainingBatch, batch_idx: int) -> None:
        """Set the learning rate of the step at hand."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        for group, learning_rate in zip(optimizer.param_groups, self._learning_rates(), strict=True):
            group["lr"] = learning_rate

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """Return the weighted squared error of the velocity; logs it, and by noise level without weights."""
        draws = self._draws(batch, "train", self.trainer.fit_loop.total_batch_idx)
        latent_BCTHW = self._latents(batch, draws)
        text = self._text(batch, draws.happens("dropped caption", self.caption_dropout))
        sigma_B = self._noise_levels(draws.uniform("sigma"), latent_BCTHW)
        loss_B = self._losses(latent_BCTHW, text, sigma_B, draws)
        self.loss_bins.add(sigma_B, loss_B)
        loss = (loss_weight(self.weighting, *self.path.scales(sigma_B)) * loss_B).mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(loss_B))
        self.samples_seen += len(loss_B)
        self.tokens_seen += self._tokens(latent_BCTHW)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: TrainingBatch, batch_idx: int) -> None:
        """Let the gradients of a step go: Lightning would keep them until the next backward pass."""
        if self.global_step != self._stepped:
            self._stepped = self.global_step
            self.zero_grad()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the learning rate, the stage and the loss by noise level, of all samples since the last time."""
        every: int = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue] - set by a connector
        if not every or (self.global_step + 1) % every:
            return
        losses = self.loss_bins.pop(lambda sums: self.trainer.strategy.reduce(sums, reduce_op="sum"))
        values = {f"train/loss_sigma_{name}": loss for name, loss in losses.items()}
        curriculum = curriculum_of(self)
        if curriculum is not None:
            values["train/stage"] = float(curriculum.stage)
        self.log_dict({**values, "train/learning_rate": self._learning_rates()[0]})

    def validation_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """Return the squared error of the velocity, without weights, of captions that are never dropped.

        Noise and noise level of a sample are the same in every validation. The levels are spread evenly over (0, 1),
        whatever is trained on: they tell runs apart that differ in it.
        """
        draws = self._draws(batch, "validation", batch_idx)
        latent_BCTHW = self._latents(batch, draws)
        row_B = torch.arange(draws.batch, device=self.device, dtype=torch.float32)
        sigma_B = (row_B + (draws.number + 0.5) * GOLDEN % 1) / draws.batch
        loss = self._losses(latent_BCTHW, self._text(batch), sigma_B, draws).mean()
        self.log("val/loss", loss, prog_bar=True, batch_size=draws.batch, sync_dist=True)
        return loss

    def configure_optimizers(self) -> Optimizer:
        """The optimizer of everything that has gradients; its learning rate is set before every step."""
        if self.learning_rates:
            optimizer = self.optimizer(parameter_groups(self.named_parameters(), self.learning_rates))
        else:
            optimizer = self.optimizer(parameter for parameter in self.parameters() if parameter.requires_grad)
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            # Lightning refuses to clip gradients of a fused optimizer, which could unscale them by itself, even where
            # nothing is scaled (bf16). This says that it doesn't; the scaler of float16 unscales them, as for others.
            optimizer._step_supports_amp_scaling = False  # pyright: ignore[reportAttributeAccessIssue]
        self.peaks: list[float] = [group["lr"] for group in optimizer.param_groups]
        return optimizer

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[str], noise_BCTHW: Tensor, *, steps: int = 30, shift: float = 7.0, guidance: float = 6.0
    ) -> Tensor:
        """Sample latents with the weights as they are, in evaluation mode.

        Args:
            prompts: B of them.
            noise_BCTHW: where to start, on the module's device.
            steps: of the released solver and schedule.
            shift: of the schedule.
            guidance: scale of classifier-free guidance, 1 is without; or of the guidance that the backbone has learned.

        Returns:
            latent_BCTHW, float32, times the autoencoder's scaling factor.
        """
        training = [part for part in self.modules() if part.training]
        self.eval()
        try:
            text, null_text = self._encode(prompts), self._encode([""])
            backbone = self.path.velocity(self.backbone)
            if self.embedded_guidance is None:
                velocity = guided(backbone, text, null_text, guidance)
            else:
                velocity = guided(embedded_guidance(backbone, guidance), text)
            return sample(velocity, noise_BCTHW, sigmas(steps, shift))
        finally:
            for part in training:
                part.training = True

    def _losses(self, latent_BCTHW: Tensor, text: TextTokens, sigma_B: Tensor, draws: Draws) -> Tensor:
        """Return each sample's mean squared error, B."""
        noise_BCTHW = draws.noise("noise", latent_BCTHW)
        noisy_BCTHW, target_BCTHW = self.path.sample(latent_BCTHW, noise_BCTHW, sigma_B)
        answer_BCTHW = self._predict()(noisy_BCTHW, self.path.timestep(sigma_B), text)
        return (answer_BCTHW.float() - target_BCTHW).square().mean(dim=(1, 2, 3, 4))

    def _text(self, batch: TrainingBatch, dropped: Sequence[bool] = ()) -> TextTokens:
        """Return the states of a batch's captions, and the empty one's where a caption is dropped."""
        if "text" not in batch:
            drops = dropped or [False] * len(batch["captions"])
            return self._encode(["" if drop else text for drop, text in zip(drops, batch["captions"], strict=True)])
        text = batch["text"].to(device=self.device)
        if not any(dropped):
            return text
        if self._null_text is None:
            self._null_text = self._encode([""])
        return replaced(text, self._null_text, dropped)

    def _predict(self) -> Predict:
        """The backbone, told its guidance if it takes any."""
        scale = self.embedded_guidance
        return self.backbone if scale is None else embedded_guidance(self.backbone, scale)

    def _encode(self, captions: Sequence[str]) -> TextTokens:
        """Encode on the module's device: one that reads a cache gives states where it pleases."""
        return self.text_encoder.encode(captions).to(device=self.device)

    @torch.no_grad()
    def _latents(self, batch: TrainingBatch, draws: Draws) -> Tensor:
        """Return a batch's latents, float32; drawn from the autoencoder's posterior where it holds pixels."""
        if "latent_BCTHW" in batch:
            return batch["latent_BCTHW"].float()
        if "video_BCTHW" not in batch or self.autoencoder is None:
            raise FlowError(
                f"a batch holds {', '.join(map(str, batch))}; it must hold latent_BCTHW, or video_BCTHW where "
                "the module has an autoencoder"
            )
        with torch.autocast(self.device.type, enabled=False):  # its weights' number format is its own
            posterior = self.autoencoder.encode(self.autoencoder.cast(batch["video_BCTHW"]))
        mean_BCTHW, logvar_BCTHW = posterior.mean.float(), posterior.logvar.float()
        latent_BCTHW = mean_BCTHW + torch.exp(0.5 * logvar_BCTHW) * draws.noise("posterior", mean_BCTHW)
        return latent_BCTHW * self.autoencoder.scaling_factor

    def _noise_levels(self, uniform_B: Tensor, latent_BCTHW: Tensor) -> Tensor:
        """Return sigma_B of training."""
        curriculum = curriculum_of(self)
        of_stage = None if curriculum is None else curriculum.current.shift
        shift = self.shift if of_stage is None else of_stage
        shift = token_shift(shift, prod(latent_BCTHW.shape[2:]), self.shift_tokens)
        return shift_sigma(self.noise_levels.quantile(uniform_B), shift)

    def _learning_rates(self) -> list[float]:
        """Return the learning rate of each of the optimizer's groups, for the step at hand."""
        curriculum = curriculum_of(self)
        began = 0 if curriculum is None else curriculum.began
        share = rate(self.global_step, began, self.warmup_steps, self.decay, self.steps)
        of_stage = None if curriculum is None else curriculum.current.learning_rate
        if of_stage is not None:
            share *= of_stage / self.peaks[0]
        return [peak * share for peak in self.peaks]

    def _draws(self, batch: TrainingBatch, purpose: str, place: int) -> Draws:
        number = batch.get("number", place * self.trainer.world_size + self.global_rank)
        return Draws(self.seed, purpose, number, len(batch["captions"]), self.device)

    def _tokens(self, latent_BCTHW: Tensor) -> int:
        """Count the patches of a batch; a backbone that doesn't tell its patch has one per latent position."""
        config: Any = getattr(self.backbone, "config", None)
        return latent_BCTHW.shape[0] * prod(latent_BCTHW.shape[2:]) // prod(getattr(config, "patch", (1,)))


def _check(given: Any) -> None:
    """Refuse settings that would fail in the first step, or do something else than they say."""
    if not 0 <= given.caption_dropout <= 1:
        raise FlowError(f"caption_dropout is {given.caption_dropout}; it is a share, from 0 to 1")
    if given.shift_tokens is not None and given.shift_tokens < 1:
        raise FlowError(f"shift_tokens is {given.shift_tokens}; it is a latent's frames * height * width, or None")
    if given.warmup_steps < 0:
        raise FlowError(f"warmup_steps is {given.warmup_steps}; it must not be negative")
    if given.decay not in get_args(Decay):
        raise FlowError(f"decay is {given.decay!r}; it is one of {', '.join(get_args(Decay))}")
    if not 0 <= given.seed < 2**64:
        raise FlowError(f"seed is {given.seed}; it must be from 0 to 2**64 - 1")
    shift_sigma(0.0, given.shift)
    half = torch.full((1,), 0.5)
    loss_weight(given.weighting, half, half)
