"""The text encoder of a run: which it is, known before its weights are needed, and loaded where it works."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hy_plugins import Plugins
from hy_plugins.protocols import TextEncoder
from hy_textenc import load_text_encoder
from hy_textenc.folders import CLIP_FOLDERS, MLLM_FOLDERS
from hy_weights import located_folder

from hyvideo_encode.cli import Request
from hyvideo_encode.errors import EncodeError


@dataclass(frozen=True, slots=True)
class EncoderPlace:
    """Where an encoder lies, and how it is to be loaded; goes to the workers.

    Attributes:
        path: its folder, or the pipeline's.
        dtype: of its weights; None leaves the stored one.
        settings: what it is given besides.
    """

    path: Path
    dtype: torch.dtype | None
    settings: Mapping[str, str]

    def load(self, device: str) -> TextEncoder:
        """Load it to a device, where it stays.

        Raises:
            HyError, CheckpointError: a file is missing, damaged, or doesn't fit.
        """
        encoder = self._made(device)
        if hasattr(encoder, "load"):  # weights that would be read by the first prompt: a fault is none of that prompt's
            encoder.load()
        return encoder

    def identity(self) -> Mapping[str, Any]:
        """Say what decides its states."""
        return dict(self._made("cpu").identity)

    def _made(self, device: str) -> Any:
        try:
            return load_text_encoder(self.path, self.dtype, device, offload="none", **self.settings)
        except TypeError as error:
            given = ", ".join(f"--{name} {value}" for name, value in self.settings.items())
            raise EncodeError(f"{self.path}: this encoder has no setting for {given} ({error})") from error


def find_encoder(request: Request, plugins: Plugins) -> EncoderPlace:
    """Find the encoder that a command line names; one on the hub is downloaded.

    Args:
        request: the command line.
        plugins: bundled models are their components of kind `model`.

    Raises:
        CheckpointError: there is no such folder.
    """
    place: str | Path = request.encoder
    if place in plugins.names("model"):
        place = plugins.load("model", place)()
    dtype = getattr(torch, request.dtype) if request.dtype else None
    chosen = {"media": request.media, "quantization": request.quantization}
    settings = {name: value for name, value in chosen.items() if value is not None}
    return EncoderPlace(located_folder(place, (*MLLM_FOLDERS, *CLIP_FOLDERS)), dtype, settings)
