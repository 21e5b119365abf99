"""Text states: which text encoder it is, known before its weights are needed, and loaded where it works.

Shapes: B batch, S text tokens, D width.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from hy_plugins import Plugins
from hy_plugins.protocols import TextEncoder
from hy_textenc import CachedTextEncoder, load_text_encoder
from hy_textenc.folders import CLIP_FOLDERS, MLLM_FOLDERS
from hy_weights import TensorStore, located_folder
from rich.console import Console

from hyvideo_encode.errors import EncodeError

_FLOAT32 = 4


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


@dataclass(frozen=True, slots=True)
class Texts:
    """Prompts to text states, as `CachedTextEncoder` reads them.

    Attributes:
        encoder: where it lies.
        identity: what decides its states.
    """

    encoder: EncoderPlace
    identity: Mapping[str, Any]
    noun: ClassVar[str] = "prompts"
    step: ClassVar[str] = ""
    whole: ClassVar[bool] = False

    def open(self, store: TensorStore, device: str, batch_size: int) -> "TextCoder":
        """Make a coder; nothing is loaded."""
        cached = CachedTextEncoder(lambda: self.encoder.load(device), store, identity=self.identity)
        return TextCoder(cached, batch_size)


class TextCoder:
    """Encodes prompts in batches.

    Args:
        cached: the encoder with its store.
        batch_size: prompts that a worker is given at a time.

    Attributes:
        float32_bytes: what all that it has encoded would take as float32.
    """

    def __init__(self, cached: CachedTextEncoder, batch_size: int) -> None:
        self._cached, self._batch_size = cached, batch_size
        self.float32_bytes = 0

    def keys(self, units: Sequence[str]) -> list[str]:
        """Give the store's key of each prompt."""
        return self._cached.keys(units) if units else []

    def fills(self, units: Collection[str]) -> bool:
        """Whether these are a batch."""
        return len(units) >= self._batch_size

    def load(self) -> None:
        """Load the encoder; errors are those of `EncoderPlace.load`."""
        self._cached.load()

    def encode(self, units: Sequence[str]) -> None:
        """Encode prompts, all at once."""
        text = self._cached.encode(units)
        numbers = int(text.mask_BS.sum()) * text.tokens_BSD.shape[2]
        numbers += text.pooled_BD.numel() if text.pooled_BD is not None else 0
        self.float32_bytes += _FLOAT32 * numbers

    def name(self, unit: str) -> str:
        """The prompt itself."""
        return repr(unit)


def find_encoder(place: str | Path, dtype: str | None, settings: Mapping[str, str | None]) -> Texts:
    """Find a text encoder; one on the hub is downloaded.

    Args:
        place: a bundled name (components of kind `model`), a path or a hub id.
        dtype: of its weights, as torch calls it; None leaves the stored one.
        settings: what it is given besides, where that is not None.

    Raises:
        HyError, CheckpointError: there is no such folder, or it holds no encoder.
    """
    plugins, path = Plugins(), str(place)
    if path in plugins.names("model"):
        path = plugins.load("model", path)()
    given = {name: value for name, value in settings.items() if value is not None}
    folder = located_folder(path, (*MLLM_FOLDERS, *CLIP_FOLDERS))
    encoder = EncoderPlace(folder, getattr(torch, dtype) if dtype else None, given)
    with Console(stderr=True).status("look at the encoder"):
        return Texts(encoder, encoder.identity())
