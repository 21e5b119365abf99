"""The manifest: what a published folder holds, by hash; a torn, edited or half-copied one can't pass for whole."""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hy_weights.digest import Meter, file_sha256
from hy_weights.errors import CheckpointError
from hy_weights.reading import CONFIG_FILE, read_json

MANIFEST_FILE = "manifest.json"
_FORMAT = "hyvideo-manifest/1"
_PACKAGES = ("torch", "safetensors", "lightning")  # beside our own, named hy-* and hyvideo*


@dataclass(frozen=True)
class FileState:
    """One file of a published folder: its path inside it, the size the manifest gives, and what was found."""

    path: str
    size: int
    state: str  # "ok", "missing", "changed", or "not listed" (there, but unknown to the manifest)


def write_manifest(
    folder: str | os.PathLike[str],
    provenance: Mapping[str, Any] | None = None,
    known: Mapping[str, str] | None = None,
) -> None:
    """Write `manifest.json` over all files of a folder, subfolders included.

    It holds the SHA-256 and size of each file, the folder's configuration, and the versions of the packages in use
    as it is written.

    Args:
        folder: Where the files are.
        provenance: Any JSON values that say how the contents came to be; kept in the manifest.
        known: The SHA-256 of files that were hashed as they were written, by path; the others are read.
    """
    folder = Path(folder)
    config = folder / CONFIG_FILE
    known = known or {}
    manifest = {
        "format": _FORMAT,
        "files": {
            name: {"sha256": known.get(name) or file_sha256(folder / name), "size": (folder / name).stat().st_size}
            for name in _files(folder)
        },
        "config": read_json(config) if config.is_file() else None,
        "packages": _package_versions(),
        "provenance": dict(provenance or {}),
    }
    staged_file = folder / f".{MANIFEST_FILE}.tmp"
    staged_file.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(staged_file, folder / MANIFEST_FILE)


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a folder's manifest without checking the files against it.

    Raises:
        CheckpointError: there is no manifest, or it isn't one of ours.
    """
    file = Path(folder) / MANIFEST_FILE
    if not file.is_file():
        raise CheckpointError(f"{folder}: no {MANIFEST_FILE}; not a published folder, or its writing was cut short")
    manifest = read_json(file)
    if manifest.get("format") != _FORMAT or not isinstance(manifest.get("files"), dict):
        raise CheckpointError(f"{file}: not a manifest of this project (expected format {_FORMAT!r})")
    return manifest


def file_states(
    folder: str | os.PathLike[str], progress: Callable[[int, int], None] = lambda done, total: None
) -> list[FileState]:
    """Compare each file of a folder with its manifest, by size and SHA-256.

    Args:
        folder: a published folder.
        progress: called now and then with the bytes that were read and all there are.

    Raises:
        CheckpointError: there is no readable manifest.
    """
    folder = Path(folder)
    listed = read_manifest(folder)["files"]
    entries = {name: _entry(folder, name, entry) for name, entry in sorted(listed.items())}
    meter = Meter(sum(size for _, size in entries.values()), progress)
    states = [_file_state(folder, name, *entry, meter) for name, entry in entries.items()]
    extra = (name for name in _files(folder) if name not in listed)
    return states + [FileState(name, (folder / name).stat().st_size, "not listed") for name in extra]


def verify(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Check a published folder against its manifest. Files that the manifest does not list are no error.

    Returns:
        The manifest.

    Raises:
        CheckpointError: there is no manifest, or a file is missing or differs from it; names each such file.
    """
    require_whole(folder, file_states(folder))
    return read_manifest(folder)


def require_whole(folder: str | os.PathLike[str], states: Iterable[FileState]) -> None:
    """Refuse a folder of which a file is missing or changed.

    Raises:
        CheckpointError: names each such file.
    """
    bad = [f"{file.path} is {file.state}" for file in states if file.state in ("missing", "changed")]
    if bad:
        raise CheckpointError(f"{folder}: does not match its {MANIFEST_FILE}: {', '.join(bad)}")


def is_published(folder: Path) -> bool:
    """Whether a folder carries a manifest of this project, be its files whole or not."""
    try:
        read_manifest(folder)
    except CheckpointError:
        return False
    return True


def _entry(folder: Path, name: str, entry: Any) -> tuple[str, int]:
    """A listed file's hash and size."""
    inside = not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
    if not inside or not isinstance(entry, dict) or not isinstance(entry.get("size"), int):
        raise CheckpointError(f"{folder / MANIFEST_FILE}: the entry for {name!r} is damaged")
    return str(entry.get("sha256")), entry["size"]


def _file_state(folder: Path, name: str, sha256: str, size: int, meter: Meter) -> FileState:
    file = folder / name
    if not file.is_file():
        return FileState(name, size, "missing")
    same = file.stat().st_size == size and file_sha256(file, meter) == sha256
    return FileState(name, size, "ok" if same else "changed")


def _files(folder: Path) -> list[str]:
    files = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return sorted(name for name in files if name != MANIFEST_FILE)


def _package_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for module in sorted(sys.modules):
        if module in _PACKAGES or ("." not in module and module.startswith(("hy_", "hyvideo"))):
            name = module.replace("_", "-")
            with suppress(importlib.metadata.PackageNotFoundError):
                versions[name] = importlib.metadata.version(name)
    return versions
