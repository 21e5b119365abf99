"""The file of captions: a line of JSON per clip, appended as each is done, so that a run can be taken up again."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from hyvideo_caption.errors import CaptionCommandError


class Records:
    """A file of captions that is being written; use it in a `with` statement.

    A line is appended in one write. What a killed run left unfinished, the end of the last line, is cut off. A second
    process is refused while one writes.

    Args:
        path: the file; made when missing.
        captioner: who writes; a file by another one is refused.
        overwrite: begin with an empty file.

    Attributes:
        done: keys of the clips that have a caption.

    Raises:
        CaptionCommandError: the file can't be written, is no file of captions, or is somebody else's.
    """

    def __init__(self, path: Path, captioner: str, *, overwrite: bool) -> None:
        self.path = path
        self.captioner = captioner
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise CaptionCommandError(f"{path} can't be written: {error.strerror}; choose another --out") from error
        try:
            self._take(overwrite)
            self.done = {key for key, line in self._lines().items() if "caption" in line}
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let others write."""
        os.close(self._file)

    def add(self, key: str, values: Mapping[str, Any]) -> None:
        """Append a clip's line.

        Raises:
            OSError: the disk is full.
        """
        line = json.dumps({"key": key, **values, "captioner": self.captioner}, ensure_ascii=False, default=str)
        content = f"{line}\n".encode("utf-8", "surrogatepass")  # names of files may hold broken characters
        while content:
            content = content[os.write(self._file, content) :]

    def captions(self) -> dict[str, Mapping[str, Any]]:
        """The captions by key."""
        return {key: line["caption"] for key, line in self._lines().items() if "caption" in line}

    def _take(self, overwrite: bool) -> None:
        """Become the one who writes, and cut off what was left unfinished."""
        if not _locked(self._file):
            raise CaptionCommandError(
                f"{self.path} is being written by another process; wait for it, or choose another"
            )
        if overwrite:
            os.ftruncate(self._file, 0)
        content = self.path.read_bytes()
        os.ftruncate(self._file, content.rfind(b"\n") + 1)

    def _lines(self) -> dict[str, dict[str, Any]]:
        """The last line of each clip."""
        found: dict[str, dict[str, Any]] = {}
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    values = json.loads(line)
                    found[values["key"]] = values
                    other = values["captioner"]
                except (ValueError, KeyError, TypeError) as error:
                    told = f"{self.path} is no file of captions: line {number} ({error}); choose another --out"
                    raise CaptionCommandError(told) from error
                if other != self.captioner:
                    told = f"{self.path} holds captions by '{other}', not '{self.captioner}'"
                    raise CaptionCommandError(f"{told}; choose another --out, or give --overwrite to begin anew")
        return found


def _locked(file: int) -> bool:
    """Take the lock of an open file; False if another process holds it."""
    try:
        import fcntl  # only POSIX has it
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
