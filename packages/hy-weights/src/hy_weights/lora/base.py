"""Which checkpoint a LoRA was trained on, as its file tells, and whether that is the one at hand."""

import os
from pathlib import Path

from hy_weights.digest import folder_digest
from hy_weights.errors import LoRAError
from hy_weights.lora.factors import LoRA

_NAME, _DIGEST = "base", "base_sha256"


def base_metadata(path: str | os.PathLike[str], name: str | None = None) -> dict[str, str]:
    """Say in a LoRA's metadata what it was trained on.

    Args:
        path: the base model's file or folder.
        name: what its user calls it, such as a hub id; None: the path.

    Raises:
        CheckpointError: it can't be read.
    """
    return {_NAME: name or str(path), _DIGEST: folder_digest(Path(path))}


def require_base(lora: LoRA, path: str | os.PathLike[str], source: object) -> None:
    """Refuse a LoRA that was trained on other weights; one whose file does not tell is taken.

    Args:
        lora: as `read_lora` gives it.
        path: the model that it is put on.
        source: the LoRA's file, for the message.

    Raises:
        LoRAError: its base is another; names both.
        CheckpointError: the model can't be read.
    """
    wanted = lora.metadata.get(_DIGEST)
    if wanted is None or wanted == (found := folder_digest(Path(path))):
        return
    raise LoRAError(
        f"{source} was trained on {lora.metadata.get(_NAME, 'a base')} with SHA-256 {wanted[:12]}…; {path} has "
        f"{found[:12]}…: other weights, or the same in other files. If it shall be used all the same, say so with "
        "--any-base"
    )
