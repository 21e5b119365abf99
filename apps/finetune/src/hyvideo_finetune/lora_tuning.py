"""A LoRA as a Lightning module: flow matching on a frozen transformer with adapters that train."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from hy_dit import LORA_TARGETS, DiT, load_dit, load_lora
from hy_dit.quantize import quantize_
from hy_flow.lightning import FlowMatching
from hy_plugins.protocols import TextEncoder
from hy_weights import (
    LoRA,
    base_metadata,
    insert_lora,
    inserted_lora,
    located,
    lora_parameters,
    merge_loras,
    new_lora,
    require_base,
)
from lightning import Callback
from lightning.pytorch.callbacks import WeightAveraging

from hyvideo_finetune.errors import FinetuneError

FOLDERS = ("transformer", "dit")
"""Where a whole pipeline keeps its transformer: diffusers', ours."""

Precision = Literal["float32", "bfloat16", "float16"]


class LoRATuning(FlowMatching):
    """Trains a LoRA on a transformer whose own weights stay as they are.

    Checkpoints hold the adapters alone, and the SHA-256 of the base: a resumed run loads that again, and refuses
    another. `SaveLoRA` writes the file that other tools read.

    Args:
        base: the transformer, or the folder of a whole pipeline, as `hy_dit.load_dit` takes it, or a hub id.
        text_encoder: frozen.
        rank: of the adapters.
        alpha: the adapters' scale times their rank; None: the rank, so that the scale is 1.
        targets: patterns of the layers' names, such as `double_blocks.*.img_attn_qkv`; None: attention and MLPs of
            every block.
        dropout: share of the rank's channels that training zeroes.
        start: a LoRA to go on from; rank, alpha and targets are then its own.
        merged: LoRAs by file that are merged into the base first, each with its strength.
        any_base: take `start` and `merged` also if they were trained on another base.
        dtype: number format of the base's weights; adapters are float32.
        quantize_to: "fp8" or "int8" keeps the blocks' weights in 8 bits, which halves them, "nf4" in 4.
        embedded_guidance: the scale that a base which has learned its guidance is told in training. Another base
            takes none.
        training: what else `FlowMatching` takes.

    Raises:
        CheckpointError: the base or a LoRA can't be read, or they don't fit each other.
        FinetuneError: settings contradict each other.
    """

    def __init__(
        self,
        base: str,
        text_encoder: TextEncoder,
        rank: int = 32,
        alpha: float | None = None,
        targets: Sequence[str] | None = None,
        dropout: float = 0.0,
        start: str | None = None,
        merged: Mapping[str, float] | None = None,
        any_base: bool = False,
        dtype: Precision = "bfloat16",
        quantize_to: Literal["fp8", "int8", "nf4"] | None = None,
        embedded_guidance: float = 1.0,
        **training: Any,
    ) -> None:
        if start is not None and (alpha is not None or targets is not None):
            raise FinetuneError("start brings its own alpha and targets; leave them out")
        place = located(base, FOLDERS)
        number_format: torch.dtype = getattr(torch, dtype)
        dit = load_dit(place, number_format, quantize_to=None if merged else quantize_to)
        if merged:
            loras = {file: load_lora(file, dit) for file in merged}
            for file, lora in loras.items():
                if not any_base:
                    require_base(lora, place, file)
            merge_loras(dit, [(loras[file], strength) for file, strength in merged.items()], keep_on=None)
            if quantize_to:
                quantize_(dit, quantize_to)
        super().__init__(
            backbone=dit.requires_grad_(False),
            text_encoder=text_encoder,
            embedded_guidance=embedded_guidance if dit.config.guidance_embed else None,
            freeze_text_encoder=True,
            **training,
        )
        self.base = base_metadata(place, base, merged)
        self._settings = {"dtype": dtype, "quantize_to": quantize_to, "dropout": dropout}
        if start is None:
            generator = torch.Generator().manual_seed(self.seed)
            lora = new_lora(dit, targets or LORA_TARGETS, rank=rank, alpha=alpha, generator=generator)
        else:
            lora = load_lora(start, dit)
            if not any_base:
                require_base(lora, place, start, merged)
        insert_lora(dit, lora, dropout=dropout)

    @property
    def dit(self) -> DiT:
        """The transformer, adapters included."""
        assert isinstance(self.backbone, DiT)
        return self.backbone

    def lora(self) -> LoRA:
        """Return a copy of the LoRA as it is."""
        return inserted_lora(self.dit)

    def models(self) -> dict[str, Any]:
        """Nothing to publish as a model: the result is the LoRA."""
        return {}

    def configure_callbacks(self) -> list[Callback]:
        """Refuse averages of weights; asked before any callback copies the model.

        Raises:
            FinetuneError: a callback would average the base with the adapters.
        """
        for callback in self.trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue] - set by a connector
            if isinstance(callback, WeightAveraging):
                raise FinetuneError(
                    f"{type(callback).__name__} would copy the whole base, and put it into every checkpoint; a LoRA is "
                    "trained without it: leave it out"
                )
        return []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the base out, and tell which it is, and what the adapters are."""
        adapters = {id(one) for one in lora_parameters(self.dit)}
        trained = {name for name, one in self.named_parameters() if id(one) in adapters}
        checkpoint["state_dict"] = {name: one for name, one in checkpoint["state_dict"].items() if name in trained}
        checkpoint["lora_base"] = self.base
        checkpoint["lora_settings"] = self._told()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse another base and other adapters; what the checkpoint leaves out is what the module has.

        Raises:
            FinetuneError: the checkpoint is of no LoRA, of one on another base, or of one with other settings.
        """
        saved = checkpoint.get("lora_base")
        if saved is None:
            raise FinetuneError("the checkpoint is of another kind of training: it has no LoRA")
        for name in ("base_sha256", "merged_sha256"):
            was, now = saved.get(name), self.base.get(name)
            if was != now:
                raise FinetuneError(
                    f"the checkpoint's LoRA is on {saved['base']}, this one on {self.base['base']}: {name} was {was} "
                    f"and is {now}; give the base it was begun on"
                )
        _require_same(checkpoint.get("lora_settings", {}), self._told())
        checkpoint["state_dict"] = {**self.state_dict(), **checkpoint["state_dict"]}

    def _told(self) -> dict[str, Any]:
        """What makes the adapters what they are, as plain values."""
        layers = self.lora().layers
        ranks = {f"rank of {name}": one.rank for name, one in layers.items()}
        alphas = {f"alpha of {name}": one.alpha for name, one in layers.items()}
        return {**self._settings, **ranks, **alphas}


def _require_same(saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings than a run was begun with."""
    for name in [*here, *(name for name in saved if name not in here)]:
        was, now = saved.get(name), here.get(name)
        if was != now:
            raise FinetuneError(
                f"the checkpoint was made with other settings: {name} was {was} and is {now}; give those it was begun "
                "with, or begin anew with its LoRA as start"
            )
