"""One digest of everything in a folder."""

import hashlib
import os
from pathlib import Path


def folder_digest(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a folder's files, of their names and what they hold, in hexadecimal."""
    whole = hashlib.sha256()
    for file in sorted(file for file in Path(path).rglob("*") if file.is_file()):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{file.relative_to(path).as_posix()}\n{digest}\n".encode())
    return whole.hexdigest()
