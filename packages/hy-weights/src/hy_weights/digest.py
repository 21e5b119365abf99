"""What a model on disk is, by SHA-256: the contents of the files that decide it.

Hashing a large model takes as long as reading it, so each file's digest is remembered between processes, in
`$XDG_CACHE_HOME/hyvideo/digests`, for as long as the file's size, times and inode stay the same.
"""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hy_weights.errors import CheckpointError
from hy_weights.progress import tell

_CHUNK = 2**24
_PATIENCE = 2.0  # seconds before progress is shown
_SETTLED = 2.0  # seconds after which another change of a file surely changes its times, on any file system
_PICKLES = (".bin", ".pt", ".pth")
_TOKENIZER = (".model", "merges.txt", "vocab.txt")


class Meter:
    """Counts the bytes that are read.

    Args:
        total: bytes there are.
        progress: called with the bytes that were read and all there are.
    """

    def __init__(self, total: int, progress: Callable[[int, int], None]) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def advance(self, size: int) -> None:
        """Count `size` bytes more."""
        self._done += size
        self._progress(self._done, self._total)


def file_sha256(file: Path, meter: Meter | None = None) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            if meter is not None:
                meter.advance(len(chunk))
    return digest.hexdigest()


def json_sha256(values: Any) -> str:
    """Return the SHA-256 of JSON values in their canonical form: sorted keys, no spaces, ASCII.

    Raises:
        TypeError, ValueError: they hold something else, such as bytes, a tensor, or a number that is not finite.
    """
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def folder_digest(path: str | os.PathLike[str], progress: Callable[[int, int], None] = tell) -> str:
    """Return what tells one model from another: a SHA-256 over the names and contents of the files that decide it.

    These are a folder's weights, JSON files and tokenizer files; its subfolders, its `manifest.json` and texts for
    people do not count, nor do pickled weights beside safetensors. A manifest is not believed: it says what the files
    were. What is believed is this package's memory of a file whose size, times and inode have not changed since.

    Args:
        path: a folder of a model or of a part of it, such as its tokenizer; or one file of weights.
        progress: called, once it takes more than two seconds, with the bytes that were read and all there are.

    Raises:
        CheckpointError: there is no such folder or file, it holds none of a model, or a file can't be read.
    """
    files = _deciding_files(Path(path))
    try:
        meter = Meter(sum(file.stat().st_size for file in files.values()), _patient(progress))
        return json_sha256({name: _remembered_sha256(file, meter) for name, file in files.items()})
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error})") from error


def _deciding_files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {"": path}  # whatever a single file is called, it is the same model
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file or folder")
    names = sorted(file.name for file in path.iterdir() if file.is_file())
    weights = [name for name in names if name.endswith(".safetensors")]
    weights = weights or [name for name in names if name.endswith(_PICKLES)]
    settings = [name for name in names if name.endswith((".json", *_TOKENIZER)) and name != "manifest.json"]
    if not weights and not settings:
        raise CheckpointError(f"{path}: holds no file of a model: neither weights, nor JSON, nor a tokenizer's")
    return {name: path / name for name in [*weights, *settings]}


def _patient(progress: Callable[[int, int], None]) -> Callable[[int, int], None]:
    started = time.monotonic()

    def after_a_while(done: int, total: int) -> None:
        if time.monotonic() - started > _PATIENCE:
            progress(done, total)

    return after_a_while


def _remembered_sha256(file: Path, meter: Meter) -> str:
    real = Path(os.path.realpath(file))
    seen = _state(real)
    note = _memory() / f"{json_sha256(str(real))}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(note.read_text(encoding="utf-8"))
        if told["file"] == seen and isinstance(told["sha256"], str):
            meter.advance(seen["size"])
            return told["sha256"]
    sha256 = file_sha256(real, meter)
    if _state(real) == seen and time.time_ns() - seen["mtime_ns"] > _SETTLED * 1e9:
        with suppress(OSError):  # without a home the digest is computed each time
            _write(note, json.dumps({"file": seen, "sha256": sha256}))
    return sha256


def _state(file: Path) -> dict[str, Any]:
    """What a file looks like from outside. A change of its content changes the last of these, whoever sets times."""
    found = file.stat()
    times = {"mtime_ns": found.st_mtime_ns, "ctime_ns": found.st_ctime_ns}
    return {"path": str(file), "size": found.st_size, "inode": found.st_ino, **times}


def _memory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hyvideo" / "digests"


def _write(note: Path, text: str) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    partial = note.with_name(f".{note.name}.{secrets.token_hex(4)}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, note)
