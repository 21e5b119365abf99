"""After training: a checkpoint folder that `hyvideo sample` takes."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from hy_plugins import HyError
from hy_weights import require_replaceable, staged, write_manifest, write_model
from lightning import Callback, LightningModule, Trainer

DTYPES = ("float32", "bfloat16", "float16")


class PublishError(HyError):
    """What was asked for could not be published."""


class Publish(Callback):
    """Writes the trained models, one sub-folder each, when training has come to its end.

    A module says what it holds by `models()`, name to nn.Module with a dataclass `config`. Where weights are averaged
    (`EMAWeightAveraging`), the average is what is written.

    Args:
        folder: Where the checkpoint goes; a checkpoint there is replaced once the new one is whole.
        include: Model folders to copy in beside the trained ones, by name, for example `{"vae": "demo/vae"}`.
        sampling: What `hyvideo sample` uses where its caller says nothing: width, height, frames, fps, steps, shift,
            guidance.
        dtype: Number format of the written floating-point weights; `bfloat16` halves the folder.
    """

    def __init__(
        self,
        folder: str,
        include: Mapping[str, str] | None = None,
        sampling: Mapping[str, float] | None = None,
        dtype: str = "float32",
    ) -> None:
        self.folder = Path(folder)
        self.include = {name: Path(path) for name, path in (include or {}).items()}
        self.sampling = dict(sampling or {})
        if dtype not in DTYPES:
            raise PublishError(f"dtype is {dtype!r}; it is one of {', '.join(DTYPES)}")
        self.dtype: torch.dtype = getattr(torch, dtype)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse before the training what would fail after it.

        Raises:
            PublishError: The module has no `models()`, or a folder of `include` is not there.
            CheckpointError: Something that is no checkpoint lies where the checkpoint shall go.
        """
        if stage != "fit":
            return
        if not hasattr(pl_module, "models"):
            raise PublishError(f"{type(pl_module).__name__} has no models() that says what to publish")
        for name, path in self.include.items():
            if not path.is_dir():
                raise PublishError(f"{path}: no such folder to include as {name!r}")
        require_replaceable(self.folder)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder, on one process only."""
        if not trainer.is_global_zero:
            return
        made_by = {"module": type(pl_module).__qualname__, "steps": trainer.global_step}
        models: dict[str, Any] = pl_module.models()  # pyright: ignore[reportCallIssue]
        with staged(self.folder) as inside:
            for name, model in models.items():
                tensors = {key: self._stored(value) for key, value in model.state_dict().items()}
                write_model(inside / name, tensors, asdict(model.config), provenance=made_by)
            for name, path in self.include.items():
                shutil.copytree(path, inside / name)
            (inside / "config.json").write_text(json.dumps({"sampling": self.sampling}, indent=2) + "\n")
            write_manifest(inside, made_by)

    def _stored(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor
