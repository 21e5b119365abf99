"""Which of the training checkpoints beneath a folder are whole, for `hyvideo verify`."""

from collections.abc import Sequence
from pathlib import Path

from hy_weights.errors import CheckpointError, listing
from hy_weights.manifest import file_states, read_manifest, require_whole
from hy_weights.progress import tell
from hy_weights.state_names import STATE_FILE, TENSORS_FILE


def state_folders(folder: Path) -> list[Path]:
    """Return the folders at and beneath `folder` that hold a training's state, whole or torn.

    What a killed writer left under a hidden name is none.
    """
    found = {file.parent for name in (STATE_FILE, TENSORS_FILE) for file in folder.rglob(name)}
    return sorted(path for path in found if not is_hidden(path, folder))


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a path beneath a folder goes through a hidden name, such as what a killed writer left."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def table(folders: Sequence[Path], within: Path) -> tuple[list[tuple[str, ...]], list[Path]]:
    """Compare each folder with its manifest.

    Args:
        folders: As `state_folders` gives them.
        within: Where they lie; names are told from there.

    Returns:
        Rows of a table, its head first, and the folders that are torn.
    """
    rows: list[tuple[str, ...]] = [("checkpoint", "also", "step", "bytes", "state")]
    torn: list[Path] = []
    for folder in folders:
        name = str(folder.relative_to(within)) if folder != within else folder.name
        try:
            step, size, state = _whole(folder)
        except CheckpointError as error:
            step, size, state = "", "", f"torn: {str(error).removeprefix(f'{folder}: ')}"
            torn.append(folder)
        rows.append((name, ", ".join(_links(folder)), step, size, state))
    return rows, torn


def require_none_torn(torn: Sequence[Path], within: Path) -> None:
    """Refuse torn checkpoints.

    Raises:
        CheckpointError: There are some; names them.
    """
    if torn:
        raise CheckpointError(f"{within}: torn checkpoints: {listing([folder.name for folder in torn])}")


def _whole(folder: Path) -> tuple[str, str, str]:
    states = file_states(folder, tell)
    require_whole(folder, states)
    return str(read_manifest(folder)["provenance"].get("step", "")), f"{sum(s.size for s in states):,}", "whole"


def _links(folder: Path) -> list[str]:
    """Names beside a folder that lead to it, such as `latest`."""
    return sorted(path.name for path in folder.parent.iterdir() if path.is_symlink() and path.resolve() == folder)
