"""Stores are looked at before anything is computed for them."""

from pathlib import Path
from tempfile import TemporaryFile

from hy_weights import TensorStore

from hyvideo_encode.errors import EncodeError


def ready_store(store: Path) -> Path:
    """Return the folder of a store that could be written to.

    Raises:
        EncodeError: it could not.
        CheckpointError: it is a file.
    """
    TensorStore(store)
    folder = next(folder for folder in (store.absolute(), *store.absolute().parents) if folder.exists())
    try:
        TemporaryFile(dir=folder).close()  # permissions alone do not tell: a file system may be read-only or full
    except OSError as error:
        raise EncodeError(f"{store} can't be written: {folder}: {error.strerror}; choose another store") from error
    return store
