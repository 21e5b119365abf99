"""From what runs without data hold to what a device must hold, phase by phase."""

from dataclasses import dataclass
from math import ceil

import torch
from hy_vae3d import Tiling
from hy_vae3d.footprint import Half, footprint

from hyvideo_plan.measure import Run, count_weights, measure_dit
from hyvideo_plan.models import Model
from hyvideo_plan.setup import Setup
from hyvideo_plan.video import Video

_MOMENTS = 2  # that AdamW keeps of each gradient
_SCALES = 2 / 256 * 4  # bytes per weight of an 8-bit optimizer's block-wise scales


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What one device holds at the worst moment of one phase, in bytes.

    Attributes:
        name: text, denoise, decode, encode or step.
        weights: of the part that works, of those that stay beside it, and their moving average.
        gradients: as many as there are at that moment.
        buckets: DDP's copies of the gradients, in which it averages them over the devices.
        optimizer: AdamW's moments.
        activations: what the run itself makes and lets go of.
        flops: arithmetic of the phase, on all devices together; per optimizer step in training.
    """

    name: str
    weights: int
    gradients: int = 0
    buckets: int = 0
    optimizer: int = 0
    activations: int = 0
    flops: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.buckets + self.optimizer + self.activations


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run needs.

    Attributes:
        setup: how it is set up.
        phases: in the order in which they run.
        step_flops: arithmetic of one step: a call of the transformer, with both branches of guidance; in training
            forward and backward.
    """

    setup: Setup
    phases: tuple[Phase, ...]
    step_flops: int

    @property
    def peak(self) -> int:
        """What a device must hold: the largest phase."""
        return max(phase.total for phase in self.phases)

    @property
    def flops(self) -> int:
        """Arithmetic of the whole run."""
        return sum(phase.flops for phase in self.phases)


def estimate(model: Model, video: Video, setup: Setup) -> Estimate:
    """Say what a run needs on each device; nothing is allocated."""
    if setup.training:
        step = training_step(model, video, setup)
        return Estimate(
            setup=setup,
            phases=(_text(model), _vae(model, video, setup, "encode"), step),
            step_flops=step.flops // setup.steps,
        )
    denoise = _denoise(model, video, setup)
    phases = (_text(model), denoise, _vae(model, video, setup, "decode"))
    if setup.keep_all:
        together = sum(phase.weights for phase in phases)
        phases = tuple(
            Phase(name=phase.name, weights=together, activations=phase.activations, flops=phase.flops)
            for phase in phases
        )
    return Estimate(setup=setup, phases=phases, step_flops=denoise.flops // setup.steps)


def at_least(model: Model, setup: Setup) -> int:
    """What the transformer's phase holds for certain: weights, moments, and all gradients when the last is there."""
    if setup.frozen:
        return resident_weights(model, setup)
    share = 1 / setup.devices if setup.sharded else 1.0
    per_weight = setup.weight_bytes + beside_weight(setup)
    return resident_weights(model, setup) + round(count_weights(model.dit).total * per_weight * share)


def beside_weight(setup: Setup) -> float:
    """Bytes per trained weight, beside itself and its gradient: of moments, moving average and DDP's bucket."""
    return _moment_bytes(setup) + setup.average_bytes + _bucket_bytes(setup)


def _bucket_bytes(setup: Setup) -> int:
    """Of DDP's bucket, per trained weight: there is none on a single device, nor with shards."""
    return setup.trained_bytes if setup.devices > 1 and not setup.sharded else 0


def _average_bytes(model: Model, setup: Setup) -> int:
    """Of the averaged weights, all of which are kept, frozen or not."""
    return setup.average_bytes * count_weights(model.dit).total


def _moment_bytes(setup: Setup) -> float:
    """Of AdamW's two moments, per trained weight; they have the weight's number format, and fused updates no copy."""
    return _MOMENTS + _SCALES if setup.eight_bit_optimizer else _MOMENTS * setup.trained_bytes


def _text(model: Model) -> Phase:
    return Phase(name="text", weights=model.text_encoder_bytes)


def _denoise(model: Model, video: Video, setup: Setup) -> Phase:
    branches = model.passes if setup.guidance else 1
    run = measure(model, video, setup, setup.batch * branches)
    latents = (
        3 * 4 * setup.batch * model.dit.in_channels * _volume(video.latent_grid)
    )  # noise, latent, velocity: float32
    return Phase(
        name="denoise",
        weights=resident_weights(model, setup),
        activations=_activations(model, video, setup, run) + latents,
        flops=run.flops * setup.steps,
    )


def training_step(model: Model, video: Video, setup: Setup) -> Phase:
    """Say what an optimizer step needs, with latents and text states at hand."""
    run = measure(model, video, setup, setup.batch)
    share = 1 / setup.devices if setup.sharded else 1.0
    with_gradients = _activations(model, video, setup, run)
    gradients = _at_peak(run, share)
    adapters = setup.trained_bytes * run.trained if setup.lora_rank else 0
    return Phase(
        name="step",
        weights=resident_weights(model, setup) + round((adapters + _average_bytes(model, setup)) * share),
        gradients=gradients,
        buckets=run.trained * _bucket_bytes(setup),
        optimizer=round(run.trained * _moment_bytes(setup) * share),
        activations=with_gradients - gradients,
        flops=run.flops * setup.steps,
    )


def measure(model: Model, video: Video, setup: Setup, batch: int) -> Run:
    """Run the transformer without data on so many clips."""
    return measure_dit(
        model.dit,
        (batch, *video.latent_grid),
        model.text_tokens,
        setup.precision,
        training=setup.training,
        recompute=setup.recompute,
        lora_rank=setup.lora_rank,
    )


def _activations(model: Model, video: Video, setup: Setup, run: Run) -> int:
    """What the run holds at its peak, gradients included, on one device."""
    share = 1 / setup.devices if setup.sharded else 1.0
    peak = run.peak(share)
    if setup.sequence_parallel and setup.devices > 1:
        # What does not belong to video tokens, text and copies of weights, is on every device: an image of one token
        # shows how much that is.
        least = Video(width=16, height=16, frames=1)
        fixed = measure(model, least, setup, setup.batch).peak(share)
        peak = fixed + ceil((peak - fixed) / setup.devices)
    if setup.sharded and setup.devices > 1:  # one block's own gradient, before it is divided
        peak += setup.weight_bytes * count_weights(model.dit).largest_block if not setup.frozen else 0
    if setup.rounded_bytes:  # one layer is widened at a time
        peak += setup.weight_bytes * count_weights(model.dit).largest_linear
    return peak


def _at_peak(run: Run, share: float) -> int:
    """The gradients that are there when the run holds most."""
    gradients, _ = max(run.moments, key=lambda moment: moment[0] * share + moment[1])
    return round(gradients * share)


def resident_weights(model: Model, setup: Setup) -> int:
    """Bytes of the transformer's weights on one device.

    With offload or sharding two blocks are whole on the device at a time: one works, the next arrives.
    """
    counted = count_weights(model.dit)
    width = setup.weight_bytes
    saved = round((width - setup.rounded_bytes) * counted.block_linears) if setup.rounded_bytes and setup.frozen else 0
    whole, blocks = width * counted.total - saved, width * counted.blocks - saved
    block = round(blocks * counted.largest_block / max(counted.blocks, 1))
    if setup.resident_blocks:
        return whole - blocks + min(setup.resident_blocks * block, blocks)
    if setup.sharded and setup.devices > 1:
        return ceil(whole / setup.devices) + min(2 * block, blocks)
    return whole


def _vae(model: Model, video: Video, setup: Setup, half: Half) -> Phase:
    """Encode or decode one clip after another."""
    found = footprint(
        model.vae,
        half,
        (video.frames, video.height, video.width),
        tiling=Tiling() if setup.tiled else None,
        dtype=torch.bfloat16 if setup.precision == "bfloat16" else torch.float32,
    )
    return Phase(
        name=half,
        weights=found.weights,
        activations=found.given + found.peak,
        flops=found.flops * setup.batch,
    )


def _volume(grid: tuple[int, int, int]) -> int:
    frames, height, width = grid
    return frames * height * width
