"""The text encoder of a run: which it is, known before its weights are needed, and loaded where it works."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hy_plugins import Plugins
from hy_textenc import load_text_encoder
from hy_textenc.cached import IdentifiedEncoder
from hy_weights import located

_FOLDERS = ("text_encoder",)
"""What a whole model's folder calls the part that is meant."""


@dataclass(frozen=True, slots=True)
class EncoderPlace:
    """Where an encoder lies, and how it is to be loaded; goes to the workers.

    Attributes:
        path: its folder.
        dtype: of its weights; None leaves the stored one.
    """

    path: Path
    dtype: torch.dtype | None

    def load(self, device: str) -> IdentifiedEncoder:
        """Load it to a device.

        Raises:
            CheckpointError: a file is missing, damaged, or doesn't fit.
        """
        return load_text_encoder(self.path, dtype=self.dtype, device=device)

    def identity(self) -> Mapping[str, Any]:
        """Say what decides its states."""
        return dict(self.load("cpu").identity)


def find_encoder(model: str, dtype: str | None, plugins: Plugins) -> EncoderPlace:
    """Find the encoder that a command line names; one on the hub is downloaded.

    Args:
        model: a bundled name, a path or a hub id.
        dtype: a name of torch's, or None.
        plugins: bundled models are their components of kind `model`.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    place = Path(plugins.load("model", model)()) if model in plugins.names("model") else model
    return EncoderPlace(located(place, _FOLDERS), getattr(torch, dtype) if dtype else None)
