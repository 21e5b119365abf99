"""What the encoders of transformers have in common: weights that are read when first needed and leave after use."""

import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from hy_plugins import TextTokens
from hy_weights.digest import folder_digest
from torch import nn

from hy_textenc.errors import TextEncoderError
from hy_textenc.folders import encoder_folders
from hy_textenc.quantization import Quantization, quantization_config
from hy_textenc.tokens import load_tokenizer

Offload = Literal["none", "cpu", "free"]
"""What happens to an encoder's weights after each use: they stay, move to the CPU, or are dropped and read again."""


class PretrainedEncoder(nn.Module, ABC):
    """An encoder whose weights are a pretrained model of transformers, frozen.

    Making one reads configuration and tokenizer; the weights are read by the first `encode`, or by `load`.

    Args:
        path: the encoder's folder, a pipeline's, or the hub id of either (`hf://org/name[/folder]`).
        dtype: of the weights and of the results; without it the stored one.
        device: where to encode, and where results are.
        quantization: "8bit" or "4bit" weights, through bitsandbytes.
        offload: what happens to the weights after each use. "cpu" moves them off the device, "free" drops them, "none"
            keeps them there. Quantized weights can't move: "free" or "none".

    Attributes:
        folders: where its parts lie.
        config: transformers' configuration, of all layers.
        tokenizer: transformers' tokenizer.
        model: the weights; None while there are none in memory.

    Raises:
        TextEncoderError: a part is missing or doesn't fit, or a setting is impossible; names folder and reason.
        CheckpointError: there is no such path, or the hub doesn't give it.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    folder_names: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        path: str | os.PathLike[str],
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        quantization: Quantization | None = None,
        offload: Offload = "cpu",
    ) -> None:
        super().__init__()
        if offload not in get_args(Offload):
            raise TextEncoderError(f"offload is {offload!r}; it can be {', '.join(get_args(Offload))}")
        if quantization and offload == "cpu":
            raise TextEncoderError("quantized weights can't move to the CPU; offload must be 'free' or 'none'")
        self.quantization_config = quantization_config(quantization, dtype) if quantization else None
        self.folders = encoder_folders(path, self.folder_names)
        self.config = _read_config(self.folders.weights, self.name, self.model_types)
        self.tokenizer = load_tokenizer(self.folders.tokenizer)
        self.model: nn.Module | None = None
        self.dtype, self.device = dtype, torch.device(device)
        self.quantization, self.offload = quantization, offload
        self._warned = False

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> TextTokens:
        """Encode B prompts, as `hy_plugins.protocols.TextEncoder` says."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Width D of the token states."""

    @abstractmethod
    def _read_model(self) -> nn.Module:
        """Read the weights, to the CPU unless they are quantized."""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides what `encode` gives, as JSON values: weights and tokenizer by their sha256.

        The first access reads the files.
        """
        parts = self._parts
        digests = {folder: folder_digest(folder) for folder in dict.fromkeys(parts.values())}
        return {
            "encoder": self.name,
            **{part: digests[folder] for part, folder in parts.items()},
            "dtype": str(self.dtype or self.config.dtype or "as stored").removeprefix("torch."),
            "quantization": self.quantization,
        } | dict(self._settings)

    @property
    def _parts(self) -> Mapping[str, Path]:
        """The folders that decide what an encoder gives."""
        return {"weights": self.folders.weights, "tokenizer": self.folders.tokenizer}

    @property
    def _settings(self) -> Mapping[str, Any]:
        """What an encoder's identity has besides, as JSON values."""
        return {}

    def load(self) -> Self:
        """Read the weights now, if they are not in memory; return the encoder."""
        if self.model is None:
            self.model = self._read_model().eval().requires_grad_(False)
            if self.quantization is None:
                self.model.to(self.device)
        return self

    @contextmanager
    def _in_use(self) -> Iterator[Any]:
        """Lend the model, on the device; afterwards it goes where `offload` says."""
        model = self.load().model
        assert model is not None
        if self.offload == "cpu":
            model.to(self.device)
        try:
            yield model
        finally:
            if self.offload == "cpu":
                model.to("cpu")
            elif self.offload == "free":
                self.model = None

    def _pretrained(self, model_class: Any, config: Any) -> nn.Module:
        """Read weights through a class of transformers; every one that it has must be in the files.

        Raises:
            TextEncoderError: there are no safetensors, or weights are missing or of another shape.
        """
        options: dict[str, Any] = {"dtype": self.dtype or "auto"}
        if self.quantization_config is not None:
            options |= {"quantization_config": self.quantization_config, "device_map": {"": self.device}}
        folder = self.folders.weights
        try:
            with _without_report():
                model, report = model_class.from_pretrained(
                    folder,
                    config=config,
                    use_safetensors=True,
                    local_files_only=True,
                    output_loading_info=True,
                    **options,
                )
        except Exception as error:  # transformers, safetensors and quantizers raise errors of many types
            raise TextEncoderError(f"{folder}: the weights don't load as {model_class.__name__}: {error}") from error
        if missing := sorted(report["missing_keys"]):
            few = ", ".join(missing[:3])
            raise TextEncoderError(
                f"{folder}: {len(missing)} weights of {model_class.__name__} are missing, among them {few}"
            )
        return model

    def _warn_of_cut(self, dropped: Sequence[int], kept: int) -> None:
        """Warn, once in an encoder's life, that of a prompt only the beginning is read."""
        if max(dropped) > 0 and not self._warned:
            self._warned = True
            message = f"{self.name}: the last {max(dropped)} tokens of a prompt are not read; it keeps the first {kept}"
            warnings.warn(message, stacklevel=3)


def _read_config(folder: Path, name: str, model_types: Sequence[str]) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as many types as there are fields
        raise TextEncoderError(f"{folder / 'config.json'}: can't be read: {error}") from error
    if config.model_type not in model_types:
        needed = " or ".join(model_types)
        raise TextEncoderError(f"{folder / 'config.json'}: model_type is {config.model_type}; {name} needs {needed}")
    return config


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from listing weights that are left out: those of the layers that no encoder runs."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
