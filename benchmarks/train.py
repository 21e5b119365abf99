"""A training step of ours against a plain loop around diffusers' transformer, in one process, in turn.

    uv run benchmarks/train.py --out benchmarks/results/train-cpu.json

Both train the same weights on the same latents and text states, in autocast to bfloat16, with AdamW, clipped gradients
and an average of the weights. Ours is `FlowMatching` in Lightning's trainer with the callbacks that recipes have;
theirs is what diffusers' examples do: text padded to 256 columns, `torch.optim.AdamW`, `EMAModel`. Time is that of
whole steps. Memory is what a step takes at its peak, gradients included, and once more with what stays between steps:
weights, moments and averages.

Shapes: B batch, C channels, T H W latent frames/height/width, S text tokens, D width.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from compare import show
from diffusers import HunyuanVideoTransformer3DModel  # pyright: ignore[reportPrivateImportUsage]
from diffusers.training_utils import EMAModel
from hy_dit import DiT, DiTConfig
from hy_dit.layout import DIFFUSERS, to_diffusers_config
from hy_flow.lightning import EMA, FlowMatching, SkipNonFinite
from hy_plugins import TextTokens
from lightning import Callback, LightningModule, Trainer
from machine import machine
from peak import peak_bytes
from torch import Tensor, nn
from torch.utils.data import DataLoader

COLUMNS = 256
LATENTS = {320: (5, 16, 16), 2304: (9, 32, 32)}
"""Video tokens of a clip and the latent's T, H, W that gives them."""
BATCH = {320: 4, 2304: 1}
SIZE = {"width": 768, "heads": 6, "double_blocks": 2, "single_blocks": 4}
WARM, MEASURED = 2, 1
DECAY, CLIP, RATE = 0.999, 1.0, 1e-4


class Captions:
    """Text states by caption: caption "n" has n tokens, and stands for any of that length."""

    def __init__(self, config: DiTConfig) -> None:
        self.states_SD = torch.randn(COLUMNS, config.text_width)
        self.pooled_D = torch.randn(config.pooled_width)

    def encode(self, prompts: Sequence[str]) -> TextTokens:
        """Give the states of B prompts, padded to the longest."""
        lengths = [int(prompt) for prompt in prompts]
        return self.padded(lengths, max(lengths))

    def padded(self, lengths: Sequence[int], columns: int) -> TextTokens:
        """Give states of these lengths, padded to so many columns."""
        mask_BS = torch.arange(columns) < torch.tensor(lengths)[:, None]
        tokens_BSD = self.states_SD[:columns] * mask_BS[..., None]
        return TextTokens(tokens_BSD, mask_BS, self.pooled_D.expand(len(lengths), -1))


class PlainLoop:
    """What diffusers' users write."""

    def __init__(
        self, model: HunyuanVideoTransformer3DModel, captions: Captions, trained: list[nn.Parameter], *, average: bool
    ) -> None:
        self.model, self.captions, self.trained = model.train(), captions, trained
        self.optimizer = torch.optim.AdamW(trained, lr=RATE)
        self.average = EMAModel(trained, decay=DECAY) if average else None

    def step(self, batch: dict[str, Any]) -> None:
        """One optimizer step."""
        latent_BCTHW = batch["latent_BCTHW"]
        text = self.captions.padded([int(caption) for caption in batch["captions"]], COLUMNS)
        noise_BCTHW = torch.randn_like(latent_BCTHW)
        sigma_B = torch.sigmoid(torch.randn(len(latent_BCTHW)))
        sigma_B1111 = sigma_B.view(-1, 1, 1, 1, 1)
        noisy_BCTHW = (1 - sigma_B1111) * latent_BCTHW + sigma_B1111 * noise_BCTHW
        with torch.autocast("cpu", torch.bfloat16):
            velocity_BCTHW = self.model(
                hidden_states=noisy_BCTHW,
                timestep=sigma_B * 1000,
                encoder_hidden_states=text.tokens_BSD,
                encoder_attention_mask=text.mask_BS,
                pooled_projections=text.pooled_BD,
                return_dict=False,
            )[0]
        loss = torch.nn.functional.mse_loss(velocity_BCTHW.float(), noise_BCTHW - latent_BCTHW)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.step(self.trained)


class Turns(Callback):
    """Runs the plain loop's step before or after each of ours, in turn, and times both.

    It must be the last callback: what the others do in a step is ours.
    """

    def __init__(self, theirs: Callable[[dict[str, Any]], None]) -> None:
        self.theirs = theirs
        self.seconds: tuple[list[float], list[float]] = ([], [])
        self.peaks = [0, 0]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Take their turn in every other step; begin with ours."""
        if batch_idx % 2:
            self._other(batch, batch_idx)
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End ours; take their turn in the other steps."""
        self._note(0, time.perf_counter() - self._started, batch_idx)
        if not batch_idx % 2:
            self._other(batch, batch_idx)

    def _other(self, batch: dict[str, Any], batch_idx: int) -> None:
        started = time.perf_counter()
        if batch_idx == WARM:
            self.peaks[1] = peak_bytes(lambda: self.theirs(batch))
        else:
            self.theirs(batch)
        self._note(1, time.perf_counter() - started, batch_idx)

    def figures(self, peak: int, resident: Sequence[int]) -> dict[str, Any]:
        """Ratios, and what they are of.

        Args:
            peak: bytes that a step of ours takes.
            resident: bytes that stay between steps, of ours and of theirs.
        """
        mine, theirs = (statistics.median(seconds) for seconds in self.seconds)
        most = [held + stays for held, stays in zip((peak, self.peaks[1]), resident, strict=True)]
        return {
            "time_ratio": round(statistics.median(a / b for a, b in zip(*self.seconds, strict=True)), 3),
            "memory_ratio": round(peak / self.peaks[1], 3),
            "resident_ratio": round(most[0] / most[1], 3),
            "seconds": round(mine, 4),
            "diffusers_seconds": round(theirs, 4),
            "peak_megabytes": round(peak / 1e6, 1),
            "diffusers_peak_megabytes": round(self.peaks[1] / 1e6, 1),
            "resident_megabytes": round(resident[0] / 1e6, 1),
            "diffusers_resident_megabytes": round(resident[1] / 1e6, 1),
        }

    def _note(self, which: int, seconds: float, batch_idx: int) -> None:
        if batch_idx >= WARM + MEASURED:
            self.seconds[which].append(seconds)


class MeasuredStep(LightningModule):
    """Looks at the memory of one step."""

    peak = 0

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Take a step; forward and backward are a part of it."""
        if batch_idx != WARM:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            return
        self.peak = peak_bytes(
            lambda: super(MeasuredStep, self).optimizer_step(0, batch_idx, optimizer, optimizer_closure)
        )


class Ours(MeasuredStep, FlowMatching):
    """Ours, with the memory of one step looked at."""


def main() -> None:
    """Run the cases and write the figures."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    results = []
    for tokens in arguments.tokens:
        for text in arguments.text:
            results.append(_measure(tokens, text, arguments.pairs))
            print(json.dumps(results[-1]), flush=True)
    report = {"machine": machine(), "model": SIZE, "results": results}
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    columns = ("video_tokens", "text_tokens", "batch", "time_ratio", "memory_ratio", "resident_ratio", "tokens_per_s")
    show("hyvideo pretrain / a plain loop with diffusers", columns, report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", nargs="+", type=int, default=list(LATENTS), help="video tokens (default: both)")
    parser.add_argument(
        "--text", nargs="+", default=["20-60", "60-200"], help="range of the captions' tokens (default: both)"
    )
    parser.add_argument("--pairs", type=int, default=7, help="of steps (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    return parser


def _measure(tokens: int, text: str, pairs: int) -> dict[str, Any]:
    torch.manual_seed(0)
    config = replace(DiTConfig.preset("hunyuan-video"), **SIZE)
    dit, other = DiT(config), HunyuanVideoTransformer3DModel(**values(config))
    other.load_state_dict(dict(DIFFUSERS.from_ours(dit.state_dict(), config.width)), strict=True)
    captions = Captions(config)
    batches = make_batches(config, tokens, text, WARM + MEASURED + pairs)
    plain = PlainLoop(other, captions, list(other.parameters()), average=True)
    turns = Turns(plain.step)
    ours = Ours(dit, captions, optimizer=_fused, warmup_steps=1, decay="constant", caption_dropout=0.0)
    trainer = Trainer(
        accelerator="cpu",
        precision="bf16-mixed",
        max_epochs=1,
        gradient_clip_val=CLIP,
        callbacks=[EMA(DECAY), SkipNonFinite(), turns],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(ours, DataLoader(batches, batch_size=None))
    resident = 4 * 4 * sum(weight.numel() for weight in dit.parameters())  # weights, two moments, the average: float32
    return {
        "video_tokens": tokens,
        "text_tokens": text,
        "batch": BATCH[tokens],
        "pairs": pairs,
        **(figures := turns.figures(ours.peak, [resident, resident])),
        "tokens_per_s": round(tokens * BATCH[tokens] / figures["seconds"], 1),
    }


def _fused(parameters: Any) -> torch.optim.Optimizer:
    """The optimizer that recipes name."""
    return torch.optim.AdamW(parameters, lr=RATE, fused=True)


def values(config: DiTConfig) -> dict[str, Any]:
    """What diffusers' class is made with."""
    return {key: value for key, value in to_diffusers_config(config).items() if key != "_class_name"}


def make_batches(config: DiTConfig, tokens: int, text: str, count: int) -> list[dict[str, Any]]:
    """Random latents, and captions of random lengths in a range."""
    least, most = (int(part) for part in text.split("-"))
    shape = (BATCH[tokens], config.in_channels, *LATENTS[tokens])

    def lengths() -> list[str]:
        return [str(int(length)) for length in torch.randint(least, most + 1, (BATCH[tokens],))]

    latents: list[Tensor] = [torch.randn(shape) for _ in range(count)]
    return [
        {"latent_BCTHW": latent_BCTHW, "captions": lengths(), "number": number, "keys": []}
        for number, latent_BCTHW in enumerate(latents)
    ]


if __name__ == "__main__":
    main()
