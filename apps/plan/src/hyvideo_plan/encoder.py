"""The text encoder that works beside a training: what a device holds of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hy_plugins.protocols import TextEncoder
from hy_weights import unallocated
from jsonargparse import ArgumentParser

_CACHED = "load_cached_text_encoder"
_FOLDERS = ("text_encoder", "text_encoder_2", "text_encoder_i2v")


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A text encoder on the device of a training.

    Attributes:
        resident: bytes of weights that stay as they are.
        trained: weights that are trained together with the transformer's.
    """

    resident: int = 0
    trained: int = 0


def read_encoder(named: Mapping[str, Any], *, frozen: bool) -> tuple[Encoder, tuple[str, ...]]:
    """Say what a device holds of the encoder that a recipe names: it is built, without memory for its weights.

    Args:
        named: its class_path and init_args.
        frozen: whether the training leaves it as it is.

    Returns:
        The encoder, and what of it is not planned for.
    """
    given = named.get("init_args") or {}
    if str(named.get("class_path")).rpartition(".")[2] == _CACHED:
        encodes = given.get("missing", "error") == "encode" and str(given.get("device", "cpu")) != "cpu"
        return _stored(given) if encodes else (Encoder(), ())
    try:
        built = _built(named)
    except Exception as error:  # whatever another package's class raises
        return Encoder(), (f"the text encoder is not counted: {' '.join(str(error).split())}",)
    weights: list[Any] = [*built.parameters()] if hasattr(built, "parameters") else []
    if not weights:
        return _stored(given)
    trained = [] if frozen else [weight for weight in weights if weight.requires_grad]
    size = sum(weight.nbytes for weight in weights) - sum(weight.nbytes for weight in trained)
    found = Encoder(resident=size, trained=sum(weight.numel() for weight in trained))
    return found, ("of the text encoder's own work nothing is counted, only its weights and what belongs to them",)


def _built(named: Mapping[str, Any]) -> Any:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--encoder", type=TextEncoder)
    with unallocated():
        return parser.instantiate(parser.parse_object({"encoder": dict(named)})).encoder


def _stored(given: Mapping[str, Any]) -> tuple[Encoder, tuple[str, ...]]:
    """One that reads its weights from a folder when it first encodes."""
    folder = Path(str(given.get("path", "")))
    parts = [folder / name for name in _FOLDERS if (folder / name).is_dir()] or [folder]
    size = sum(file.stat().st_size for part in parts for file in part.glob("*.safetensors"))
    if not size:
        return Encoder(), (f"the text encoder is not counted: {folder} holds no weights that it could have",)
    return Encoder(resident=size), (
        "of the text encoder only the weights are counted, as they are stored, and none of its work",
    )
