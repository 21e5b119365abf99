"""Whether a file can be read to its end."""

from pathlib import Path

from hy_data import DataError, iter_frames
from hy_data.samples import PICTURES, decode_picture


def is_picture(file: Path) -> bool:
    """Whether a file's name is one of a picture."""
    return file.suffix.lower().lstrip(".") in PICTURES


def damage(file: Path) -> str | None:
    """Decode a video or picture once, a few frames in memory; say what is wrong with it, or nothing."""
    try:
        if is_picture(file):
            decode_picture(file.read_bytes())
        else:
            for _ in iter_frames(file):
                pass
    except OSError as error:
        return f"it can't be read: {error.strerror or error}"
    except DataError as error:
        return str(error)
    return None
