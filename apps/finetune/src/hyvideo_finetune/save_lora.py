"""The trained LoRA as a file that ComfyUI, diffusers, musubi-tuner and `hyvideo sample` read."""

from pathlib import Path
from typing import Any, Literal

import torch
from hy_dit import save_lora
from lightning import Callback, LightningModule, Trainer

from hyvideo_finetune.errors import FinetuneError
from hyvideo_finetune.lora_tuning import LoRATuning

Style = Literal["comfy", "diffusers", "kohya"]


class SaveLoRA(Callback):
    """Writes the LoRA of a `LoRATuning` when training has come to its end, and on the way.

    Its metadata tell the base's SHA-256, rank, alpha, optimizer steps, and what the data module says of its clips
    (`digest`).

    Args:
        file: ends in `.safetensors`; one that is there is replaced.
        lora_format: whose keys: "comfy", "diffusers" or "kohya".
        every: optimizer steps between files on the way, `NAME-step-0000500.safetensors`; None writes the last one only.
        dtype: number format of the factors in the file.

    Raises:
        FinetuneError: the name's ending is another, `every` is below 1, or the module trains no LoRA.
    """

    def __init__(
        self,
        file: str,
        lora_format: Style = "comfy",
        every: int | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16",
    ) -> None:
        self.file = Path(file)
        if self.file.suffix != ".safetensors":
            raise FinetuneError(f"{file}: a LoRA's file ends in .safetensors")
        if every is not None and every < 1:
            raise FinetuneError(f"every is {every}; it must be at least 1")
        self.lora_format: Style = lora_format
        self.every = every
        self.dtype: torch.dtype = getattr(torch, dtype)
        self._last = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse before the training what would fail after it."""
        _tuning(pl_module)
        if trainer.is_global_zero:
            self.file.parent.mkdir(parents=True, exist_ok=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._last = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write, when it is time."""
        step = trainer.global_step
        if self.every is None or step == self._last or step % self.every:
            return
        self._last = step
        self._write(trainer, pl_module, self.file.with_stem(f"{self.file.stem}-step-{step:07d}"))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last one."""
        self._write(trainer, pl_module, self.file)

    def _write(self, trainer: Trainer, pl_module: LightningModule, file: Path) -> None:
        if not trainer.is_global_zero:
            return
        module = _tuning(pl_module)
        data = getattr(getattr(trainer, "datamodule", None), "digest", None)
        metadata = {**module.base, "steps": trainer.global_step, **({"data_sha256": data} if data else {})}
        save_lora(file, module.lora(), module.dit, style=self.lora_format, metadata=metadata, dtype=self.dtype)


def _tuning(module: LightningModule) -> LoRATuning:
    if not isinstance(module, LoRATuning):
        raise FinetuneError(f"SaveLoRA writes what hyvideo_finetune.LoRATuning trains, not {type(module).__name__}")
    return module
