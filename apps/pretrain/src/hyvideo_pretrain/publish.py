"""After training: a checkpoint folder that `hyvideo sample` takes."""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

import torch
from hy_plugins import HyError
from hy_weights import require_replaceable, staged, write_manifest, write_model
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from hyvideo_pretrain.bundled import model_folder

DTYPES = ("float32", "bfloat16", "float16")


class PublishError(HyError):
    """What was asked for could not be published."""


class Publish(Callback):
    """Writes the trained models, one sub-folder each, when training has come to its end.

    A module says what it holds by `models()`, name to nn.Module with a dataclass `config`. Where weights are averaged
    (`EMAWeightAveraging`), the average is what is written.

    Args:
        folder: Where the checkpoint goes; a checkpoint there is replaced once the new one is whole.
        include: Models to copy in beside the trained ones, by name: folders, or names of bundled models, for example
            `{"vae": "tiny-vae"}`.
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
        require_plain(include or ())
        self.include = {name: model_folder(place) for name, place in (include or {}).items()}
        self.sampling = dict(sampling or {})
        self.dtype = number_format(dtype)
        self._averages: Mapping[str, Tensor] | None = None

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

    def state_dict(self) -> dict[str, Any]:
        """What `hyvideo pretrain publish` needs to do the same with a checkpoint of the run."""
        include = {name: str(path) for name, path in self.include.items()}
        return {"include": include, "sampling": self.sampling, "dtype": str(self.dtype).removeprefix("torch.")}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the averaged weights in case nothing is left to train: then nobody puts them in place."""
        self._averages = checkpoint["state_dict"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let them go."""
        self._averages = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder, on one process only; a trial of a few batches (`fast_dev_run`) is not published."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            return
        if self._averages is not None:
            pl_module.load_state_dict(self._averages, strict=pl_module.strict_loading)
        made_by = {"module": type(pl_module).__qualname__, "steps": trainer.global_step}
        models: dict[str, Any] = pl_module.models()  # pyright: ignore[reportCallIssue]
        parts = ((name, model.state_dict(), asdict(model.config)) for name, model in models.items())
        write_models(self.folder, parts, self.include, self.sampling, self.dtype, made_by)


def number_format(dtype: str) -> torch.dtype:
    """Return the number format of that name.

    Raises:
        PublishError: It is none that weights are published in.
    """
    if dtype not in DTYPES:
        raise PublishError(f"dtype is {dtype!r}; it is one of {', '.join(DTYPES)}")
    return getattr(torch, dtype)


def require_plain(names: Iterable[str]) -> None:
    """Refuse names of models that would lead out of the folder that is published.

    Raises:
        PublishError: There is one.
    """
    for name in names:
        if name in ("", "..") or PurePath(name).name != name:
            raise PublishError(f"{name!r} is no name of a model's folder; give one without slashes, such as 'vae'")


def write_models(
    folder: Path,
    models: Iterable[tuple[str, Mapping[str, Tensor], Mapping[str, Any]]],
    include: Mapping[str, Path],
    sampling: Mapping[str, float],
    dtype: torch.dtype,
    made_by: Mapping[str, Any],
) -> None:
    """Publish a folder of models, replacing an older one of the same name.

    Args:
        folder: The final place.
        models: Name, state and configuration of each.
        include: Model folders to copy in beside them, by name.
        sampling: What `hyvideo sample` uses where its caller says nothing.
        dtype: Number format of the floating-point weights.
        made_by: JSON values for the manifests.

    Raises:
        CheckpointError: Weights are not finite, or the place can't be written or is not ours to replace.
    """
    with staged(folder) as inside:
        for name, state, config in models:
            tensors = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
            write_model(inside / name, tensors, config, provenance=made_by)
        for name, path in include.items():
            shutil.copytree(path, inside / name)
        (inside / "config.json").write_text(json.dumps({"sampling": dict(sampling)}, indent=2) + "\n")
        write_manifest(inside, made_by)
