"""A folder that holds a nested state, such as a training's: `state.json`, `state.safetensors`, `manifest.json`."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hy_weights.errors import CheckpointError
from hy_weights.manifest import verify, write_manifest
from hy_weights.publish import staged
from hy_weights.reading import read_json
from hy_weights.state import unflatten_state
from hy_weights.state_names import STATE_FILE, TENSORS_FILE
from hy_weights.stored import StoredTensors
from hy_weights.stream import write_stream

_FORMAT = "hyvideo-state/1"


def write_state(
    folder: str | os.PathLike[str], document: Any, tensors: Mapping[str, Tensor], provenance: Mapping[str, Any]
) -> None:
    """Publish a state that `flatten_state` took apart, replacing an older one of the same name.

    Tensors are written one after the other, from where they are; no copy of the whole is made.

    Args:
        folder: The final place.
        document: The state's JSON values.
        tensors: Its tensors, of any shape, dtype and device; those that are not finite included.
        provenance: JSON values that say how the state came to be; kept in the manifest.

    Raises:
        CheckpointError: The place can't be written or is not ours to replace, or safetensors can't hold a tensor.
    """
    with staged(folder) as inside:
        try:
            digest = hashlib.sha256()
            write_stream(inside / TENSORS_FILE, tensors, source=folder, finite=False, digest=digest)
            text = json.dumps({"format": _FORMAT, "state": document})
            (inside / STATE_FILE).write_text(text + "\n", encoding="utf-8")
            write_manifest(inside, provenance, known={TENSORS_FILE: digest.hexdigest()})
        except OSError as error:
            raise CheckpointError(f"{folder}: can't be written ({error})") from error


def read_state(folder: str | os.PathLike[str], *, check: bool = True) -> Any:
    """Read a state, on the CPU.

    Args:
        folder: As `write_state` left it.
        check: Compare every file with the manifest first.

    Raises:
        CheckpointError: It is torn, changed, or no state.
    """
    if check:
        verify(folder)
    tensors = StoredTensors(Path(folder) / TENSORS_FILE)
    # Copies: what is mapped would hold on to the file, and to its room on the disk, after it was removed.
    return unflatten_state(read_document(folder), {name: tensors[name].clone() for name in tensors}, source=folder)


def read_document(folder: str | os.PathLike[str]) -> Any:
    """Read a state's JSON values, with the names of its tensors; see `hy_weights.state`.

    Raises:
        CheckpointError: The file is missing, damaged, or of another format.
    """
    file = Path(folder) / STATE_FILE
    content = read_json(file)
    if content.get("format") != _FORMAT or "state" not in content:
        raise CheckpointError(f"{file}: not a state of this project (expected format {_FORMAT!r})")
    return content["state"]
