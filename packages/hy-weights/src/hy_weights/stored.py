"""Tensors that stay on disk until they are used, in every form that checkpoints are handed around in."""

import os
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hy_weights.errors import CheckpointError
from hy_weights.finite import require_finite
from hy_weights.reading import read_json

WEIGHTS_FILE = "model.safetensors"
FOLDER_FILES = (WEIGHTS_FILE, "diffusion_pytorch_model.safetensors")
"""What a model folder's only file of weights is called: by us, by diffusers."""

WRAPPERS = ("module", "ema", "state_dict")
"""Top-level keys under which released pickled checkpoints keep their tensors, the first that is there counts."""


class StoredTensors(Mapping[str, Tensor]):
    """A checkpoint's tensors by stored name, each mapped from its file when it is asked for.

    Asking for a tensor reads nothing yet: its memory is the file's, and the system loads a page when it is touched.

    Args:
        path: A `.safetensors` file; a pickled `.pt` or `.pth` file, opened with `weights_only`, so that nothing in it
            is ever executed; a folder of ours or diffusers', its weights in one file or in several with an index.

    Raises:
        CheckpointError: There is no such file, it is damaged or truncated, or holds other things than tensors.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._files: dict[str, Any] = {}
        for file, only in _files_of(self.path).items():
            opened = _open_pickle(file) if file.suffix in (".pt", ".pth") else _open_safetensors(file)
            keys = list(opened.keys())
            if only is not None and (lacking := sorted(only - set(keys))):
                raise CheckpointError(f"{file}: the index says that it holds {lacking[0]!r}, but it does not")
            self._files.update(dict.fromkeys(keys if only is None else only, opened))

    def __getitem__(self, key: str) -> Tensor:
        opened = self._files[key]
        return opened[key] if isinstance(opened, dict) else opened.get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read every tensor of a checkpoint, on the CPU, in the dtype it is stored in.

    Args:
        path: What `StoredTensors` takes.

    Returns:
        The tensors by their stored names.

    Raises:
        CheckpointError: As `StoredTensors`; or a tensor holds NaN or infinity.
    """
    tensors = dict(StoredTensors(path))
    require_finite(tensors, source=path)
    return tensors


def _files_of(path: Path) -> dict[Path, set[str] | None]:
    """The files that hold a checkpoint's tensors, and which of each file's; None means all."""
    if path.is_file():
        if path.name.endswith(".index.json"):
            return _indexed(path)
        if path.suffix not in (".safetensors", ".pt", ".pth"):
            raise CheckpointError(f"{path}: weights are read from .safetensors, .pt and .pth files and from folders")
        return {path: None}
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file or folder")
    for name in FOLDER_FILES:
        if (path / name).is_file():
            return {path / name: None}
    indexes = [path / f"{name}.index.json" for name in FOLDER_FILES]
    found = next((index for index in indexes if index.is_file()), None)
    if found is None:
        raise CheckpointError(f"{path}: holds neither {' nor '.join(FOLDER_FILES)}, nor an index of several such files")
    return _indexed(found)


def _indexed(index: Path) -> dict[Path, set[str] | None]:
    """What an index file says: which file holds which tensors."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{index}: not an index of weights: it has no 'weight_map' from tensors to files")
    files: dict[Path, set[str] | None] = {}
    for key, name in places.items():
        if Path(name).name != name:
            raise CheckpointError(f"{index}: places {key!r} in {name!r}, outside its own folder")
        keys = files.setdefault(index.parent / name, set())
        assert keys is not None
        keys.add(key)
    return files


def _open_safetensors(file: Path) -> Any:
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file, though the index beside it names it")
    try:
        return safe_open(file, framework="pt", device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{file}: damaged or truncated, can't be read as safetensors ({error})") from error


def _open_pickle(file: Path) -> dict[str, Tensor]:
    """Map the tensors of a file that `torch.save` wrote."""
    try:
        content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{file}: holds more than tensors and plain values, and such files can execute code; it is not opened "
            f"({first}). Ask its author for safetensors"
        ) from error
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{file}: damaged, truncated, or not written by torch.save ({error})") from error
    wrapper = next((name for name in WRAPPERS if isinstance(content, dict) and name in content), None)
    content = content[wrapper] if wrapper else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{file}: not a state dict: expected names with a tensor each, bare or under {WRAPPERS}")
    return content
