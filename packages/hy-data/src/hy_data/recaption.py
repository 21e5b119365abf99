"""Shards with other captions: what another captioner said of the same clips."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hy_data.errors import CannotWrite, DataError
from hy_data.files import cannot_write
from hy_data.shards import LEDGER, shard_paths


def replace_captions(folder: str | Path, out: str | Path, captions: Mapping[str, Mapping[str, Any]]) -> int:
    """Copy a folder's shards and give clips other captions; everything else is copied byte for byte.

    The new folder takes its name when it is whole.

    Args:
        folder: a folder with shards.
        out: the folder to make; it must not be there yet.
        captions: a structured caption, `short` among its fields, per key of a clip; clips that are not named keep
            theirs.

    Returns:
        how many clips got another caption.

    Raises:
        CannotWrite: when `out` is there already, or its place is forbidden or full.
        DataError: when the folder holds no shards, or one is damaged.
    """
    paths, final = shard_paths(folder), Path(out)
    if final.exists():
        raise CannotWrite(f"{final} is there already; name a folder to make")
    room = final.with_name(f".{final.name}.{os.getpid()}")
    try:
        room.mkdir(parents=True)
        replaced = sum(_copy(path, room / path.name, captions) for path in paths)
        ledger = Path(folder) / LEDGER
        if ledger.exists():
            shutil.copy(ledger, room / LEDGER)
        room.rename(final)
    except OSError as error:
        raise cannot_write(final, error) from error
    finally:
        shutil.rmtree(room, ignore_errors=True)
    return replaced


def _copy(source: Path, target: Path, captions: Mapping[str, Mapping[str, Any]]) -> int:
    """Copy one shard; gives the number of captions that were replaced."""
    replaced = 0
    try:
        with tarfile.open(source) as old, tarfile.open(target, "w") as fresh:
            for member in old:
                file = old.extractfile(member)
                key, _, suffix = member.name.partition(".")
                if file is not None and suffix == "json" and key in captions:
                    description = json.load(file) | {"captions": dict(captions[key])}
                    content = json.dumps(description, ensure_ascii=False).encode()
                    file, member.size = io.BytesIO(content), len(content)
                    replaced += 1
                fresh.addfile(member, file)
    except (tarfile.TarError, ValueError, TypeError) as error:
        raise DataError(f"{source} is not a whole shard: {error}") from error
    return replaced
