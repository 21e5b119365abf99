"""A folder that holds a nested state, such as a training's: `state.json`, `state.safetensors`, `manifest.json`."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hy_weights.errors import CheckpointError, listing
from hy_weights.manifest import verify, write_manifest
from hy_weights.publish import staged
from hy_weights.reading import read_json
from hy_weights.state import tensor_names, unflatten_state
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
        CheckpointError: The place can't be written or is not ours to replace, safetensors can't hold a tensor, or the
            document asks for other tensors than there are.
    """
    asked = tensor_names(document)
    if asked != tensors.keys():
        lacking, extra = listing(sorted(asked - tensors.keys())), listing(sorted(tensors.keys() - asked))
        raise CheckpointError(
            f"{folder}: document and tensors are not of one state, as flatten_state gives them: it asks for tensors "
            f"that are not there: {lacking or 'none'}; and for these it does not: {extra or 'none'}"
        )
    with staged(folder) as inside:
        try:
            digest = hashlib.sha256()
            write_stream(inside / TENSORS_FILE, tensors, source=folder, finite=False, digest=digest)
            text = json.dumps({"format": _FORMAT, "state": document})
            (inside / STATE_FILE).write_text(text + "\n", encoding="utf-8")
            write_manifest(inside, provenance, known={TENSORS_FILE: digest.hexdigest()})
        except OSError as error:
            raise CheckpointError(f"{folder}: can't be written ({error})") from error


def read_state(folder: str | os.PathLike[str], *, check: bool = True, mapped: bool = False) -> Any:
    """Read a state, on the CPU.

    Args:
        folder: As `write_state` left it.
        check: Compare every file with the manifest first.
        mapped: Leave tensors where they are until they are looked at, for one who copies them to their place: they are
            views of the file, which keeps its room on the disk until the last one is gone. Processes that read the same
            state share this memory.

    Raises:
        CheckpointError: It is torn, changed, or no state.
    """
    if check:
        verify(folder)
    tensors = StoredTensors(Path(folder) / TENSORS_FILE)
    found = {name: tensors[name] if mapped else tensors[name].clone() for name in tensors}
    return unflatten_state(read_document(folder), found, source=folder)


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
