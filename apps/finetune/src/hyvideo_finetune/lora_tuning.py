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
    merge_loras,
    new_lora,
    require_base,
)

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
            merge_loras(dit, [(load_lora(file, dit), strength) for file, strength in merged.items()], keep_on=None)
            if quantize_to:
                quantize_(dit, quantize_to)
        super().__init__(
            backbone=dit.requires_grad_(False),
            text_encoder=text_encoder,
            embedded_guidance=embedded_guidance if dit.config.guidance_embed else None,
            freeze_text_encoder=True,
            **training,
        )
        self.base = base_metadata(place, base) | ({"merged": _summary(merged)} if merged else {})
        if start is None:
            generator = torch.Generator().manual_seed(self.seed)
            lora = new_lora(dit, targets or LORA_TARGETS, rank=rank, alpha=alpha, generator=generator)
        else:
            lora = load_lora(start, dit)
            require_base(lora, place, start)
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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the base out, and tell which it is."""
        trained = {name for name, one in self.named_parameters() if one.requires_grad}
        checkpoint["state_dict"] = {name: one for name, one in checkpoint["state_dict"].items() if name in trained}
        checkpoint["lora_base"] = self.base

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse another base; what the checkpoint leaves out is what the module has.

        Raises:
            FinetuneError: the checkpoint is of no LoRA, or of one on another base.
        """
        saved = checkpoint.get("lora_base")
        if saved is None:
            raise FinetuneError("the checkpoint is of another kind of training: it has no LoRA")
        for name in ("base_sha256", "merged"):
            was, now = saved.get(name), self.base.get(name)
            if was != now:
                raise FinetuneError(
                    f"the checkpoint's LoRA is on {saved['base']}, this one on {self.base['base']}: {name} was {was} "
                    f"and is {now}; give the base it was begun on"
                )
        checkpoint["state_dict"] = {**self.state_dict(), **checkpoint["state_dict"]}


def _summary(merged: Mapping[str, float]) -> str:
    return ", ".join(f"{file}={strength:g}" for file, strength in merged.items())
