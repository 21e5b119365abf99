"""Tensors that stay on disk until they are used, in every form that checkpoints are handed around in."""

import os
import pickle
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hy_weights.errors import CheckpointError, listing
from hy_weights.finite import require_finite
from hy_weights.reading import CONFIG_FILE, parse_object, read_config, read_json

WEIGHTS_FILE = "model.safetensors"
FOLDER_FILES = (WEIGHTS_FILE, "diffusion_pytorch_model.safetensors")
"""What a model folder's only file of weights is called: by us, by diffusers."""

SUFFIXES = (".safetensors", ".pt", ".pth")
INDEX_SUFFIX = ".index.json"

CONFIG_KEY = "hyvideo_config"
"""Under which a single file of ours carries its configuration, in the metadata that safetensors files may have."""

WRAPPERS = ("module", "ema", "state_dict")
"""Top-level keys under which released pickled checkpoints keep their tensors, the first that is there counts."""


_ZIPPED, _PICKLED = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9"
"""How files begin that `torch.save` wrote: since PyTorch 1.6, and before. In a safetensors file, byte 8 is a brace."""


class StoredTensors(Mapping[str, Tensor]):
    """A checkpoint's tensors by stored name, each mapped from its file when it is asked for.

    Asking for a tensor reads nothing yet: its memory is the file's, and the system loads a page when it is touched.

    Args:
        path: A `.safetensors` file; a pickled `.pt` or `.pth` file, opened with `weights_only`, so that nothing in it
            is ever executed; the index of several such files; or a folder with one checkpoint, see `checkpoint_file`.

    Raises:
        CheckpointError: There is no such file, it is damaged or truncated, or holds other things than tensors.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._files: dict[str, Any] = {}
        for file, only in _files_of(self.path).items():
            opened = _open(file)
            keys = set(opened.keys())
            if only is not None and (lacking := sorted(only - keys)):
                raise CheckpointError(f"{file}: does not hold what the index places there: {listing(lacking)}")
            if only is not None and (extra := sorted(keys - only)):
                raise CheckpointError(f"{file}: holds what the index does not place there: {listing(extra)}")
            self._files.update(dict.fromkeys(opened.keys(), opened))

    def config(self) -> dict[str, Any] | None:
        """Return what the folder's `config.json` holds, or a single file of ours says of itself; None without either.

        Raises:
            CheckpointError: It is no JSON object.
        """
        if (self.path / CONFIG_FILE).is_file():
            return read_config(self.path)
        text = self.metadata().get(CONFIG_KEY)
        return None if text is None else parse_object(text, self.path)

    def metadata(self) -> dict[str, str]:
        """Return what a single safetensors file says of itself; nothing for several files, and for pickled ones."""
        files = list({id(opened): opened for opened in self._files.values()}.values())
        return {} if len(files) != 1 or isinstance(files[0], dict) else files[0].metadata() or {}

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


def checkpoint_file(names: Collection[str], place: object, beneath: Sequence[str] = ()) -> str:
    """Return which of a folder's files holds its checkpoint, or is the index of those that do.

    That is one with a usual name, ours or diffusers', or else an index with such a name, or else the only file that
    can hold weights.

    Args:
        names: Of the folder's files.
        place: The folder; it opens the error message.
        beneath: Names of its folders, to be told if it holds nothing itself.

    Raises:
        CheckpointError: There is none, or there are several and nothing tells them apart.
    """
    usual = [name for name in FOLDER_FILES if name in names]
    indexes = [name + INDEX_SUFFIX for name in FOLDER_FILES if name + INDEX_SUFFIX in names]
    found = usual or indexes or sorted(name for name in names if name.endswith(SUFFIXES))
    if not found:
        hint = f"; name one of its folders: {listing(beneath)}" if beneath else ""
        raise CheckpointError(
            f"{place}: holds neither {' nor '.join(FOLDER_FILES)}, nor an index of several such files, nor another "
            f"file of weights ({', '.join(SUFFIXES)}){hint}"
        )
    if len(found) > 1:
        raise CheckpointError(f"{place}: holds several checkpoints; name the one you mean: {listing(found)}")
    return found[0]


def _files_of(path: Path) -> dict[Path, set[str] | None]:
    """The files that hold a checkpoint's tensors, and which of each file's; None means all."""
    if path.is_dir():
        beneath = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
        path /= checkpoint_file([file.name for file in path.iterdir() if file.is_file()], path, beneath)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file or folder")
    if path.name.endswith(INDEX_SUFFIX):
        return _indexed(path)
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"{path}: weights are read from .safetensors, .pt and .pth files and from folders")
    return {path: None}


def _indexed(index: Path) -> dict[Path, set[str] | None]:
    """What an index file says: which file holds which tensors."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{index}: not an index of weights: it has no 'weight_map' from tensors to files")
    files: dict[Path, set[str] | None] = {}
    for key, name in places.items():
        if Path(name).name != name:
            raise CheckpointError(f"{index}: places {key!r} in {name!r}, outside its own folder")
        if not name.endswith(SUFFIXES):
            raise CheckpointError(f"{index}: places {key!r} in {name!r}, which is no file of {', '.join(SUFFIXES)}")
        keys = files.setdefault(index.parent / name, set())
        assert keys is not None
        keys.add(key)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{index}: files that it names are not beside it: {listing(missing)}")
    return files


def _open(file: Path) -> Any:
    """Map a file's tensors; what kind of file it is, its first bytes tell."""
    try:
        with file.open("rb") as stream:
            start = stream.read(len(_PICKLED))
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror})") from error
    if not start:
        raise CheckpointError(f"{file}: damaged or truncated: it is empty")
    mapped = start.startswith(_ZIPPED) and start[8:9] != b"{"
    if not mapped and start != _PICKLED:
        return _open_safetensors(file)
    if file.suffix == ".safetensors":  # torch.load goes by this name too, and would fail without saying why
        raise CheckpointError(f"{file}: was written by torch.save and is no safetensors file; rename it to .pt")
    return _open_pickle(file, mapped=mapped)


def _open_safetensors(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt", device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        other = "" if file.suffix == ".safetensors" else ", and wasn't written by torch.save"
        raise CheckpointError(
            f"{file}: damaged or truncated, can't be read as safetensors{other} ({_first_line(error)})"
        ) from error


def _open_pickle(file: Path, *, mapped: bool) -> dict[str, Tensor]:
    """Map the tensors of a file that `torch.save` wrote."""
    try:
        content = torch.load(file, map_location="cpu", mmap=mapped, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file}: holds more than tensors and plain values, and such files can execute code; it is not opened "
            f"{_asked_for(error)}. Ask its author for safetensors"
        ) from error
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to ask for
        raise CheckpointError(
            f"{file}: damaged, truncated, or not written by torch.save ({_first_line(error)})"
        ) from error
    wrapper = next((name for name in WRAPPERS if isinstance(content, dict) and name in content), None)
    content = content[wrapper] if wrapper else content
    if not isinstance(content, dict) or not all(map(_is_named_tensor, content.items())):
        raise CheckpointError(f"{file}: not a state dict: expected names with a tensor each, bare or under {WRAPPERS}")
    return content


def _asked_for(error: Exception) -> str:
    """What a refused pickle wanted to call; torch's own message goes on to advise how to run it."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f" (it asks for {found[1]})" if found else ""


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _is_named_tensor(item: tuple[object, object]) -> bool:
    name, value = item
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
