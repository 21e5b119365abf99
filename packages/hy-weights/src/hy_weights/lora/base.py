"""Which checkpoint a LoRA was trained on, as its file tells, and whether that is the one at hand."""

import os
from collections.abc import Mapping
from pathlib import Path

from hy_weights.digest import folder_digest
from hy_weights.errors import LoRAError
from hy_weights.lora.factors import LoRA

_NAME, _DIGEST = "base", "base_sha256"
_MERGED, _MERGED_DIGEST = "merged", "merged_sha256"
_ALL_THE_SAME = "If it shall be used all the same, say so with --any-base (in a recipe any_base: true)"


def base_metadata(
    path: str | os.PathLike[str], name: str | None = None, merged: Mapping[str, float] | None = None
) -> dict[str, str]:
    """Say in a LoRA's metadata what it was trained on.

    Args:
        path: the base model's file or folder.
        name: what its user calls it, such as a hub id; None: the path.
        merged: LoRAs by file that were merged into it first, each with its strength.

    Raises:
        CheckpointError: it can't be read.
    """
    told = {_NAME: name or str(path), _DIGEST: folder_digest(Path(path))}
    if merged:
        told[_MERGED] = ", ".join(f"{file}={strength:g}" for file, strength in merged.items())
        told[_MERGED_DIGEST] = _digest_of(merged)
    return told


def require_base(
    lora: LoRA, path: str | os.PathLike[str], source: object, merged: Mapping[str, float] | None = None
) -> None:
    """Refuse a LoRA that was trained on other weights; one whose file does not tell is taken.

    Args:
        lora: as `read_lora` gives it.
        path: the model that it is put on.
        source: the LoRA's file, for the message.
        merged: LoRAs by file that are merged into that model, each with its strength.

    Raises:
        LoRAError: its base is another, or had LoRAs merged into it that this one has not; names both.
        CheckpointError: the model can't be read.
    """
    name, wanted = lora.metadata.get(_NAME, "a base"), lora.metadata.get(_DIGEST)
    if wanted is not None and wanted != (found := folder_digest(Path(path))):
        raise LoRAError(
            f"{source} was trained on {name} with SHA-256 {wanted[:12]}…; {path} has {found[:12]}…: other weights, or "
            f"the same in other files. {_ALL_THE_SAME}"
        )
    within = lora.metadata.get(_MERGED)
    if within is not None and lora.metadata.get(_MERGED_DIGEST) != _digest_of(merged or {}):
        raise LoRAError(
            f"{source} was trained on {name} with LoRAs merged into it, {within}, which {path} is without. Merge those "
            f"first, at these strengths. {_ALL_THE_SAME}"
        )


def _digest_of(merged: Mapping[str, float]) -> str:
    return ", ".join(f"{folder_digest(Path(file))}={strength:g}" for file, strength in merged.items())
