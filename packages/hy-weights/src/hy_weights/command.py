"""`hyvideo verify`: is this checkpoint whole, and what is it?"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hy_weights.errors import CheckpointError
from hy_weights.manifest import MANIFEST_FILE, file_states, read_manifest, require_whole
from hy_weights.progress import tell
from hy_weights.reading import CONFIG_FILE, read_config
from hy_weights.training_states import is_hidden, require_none_torn, state_folders, table

if TYPE_CHECKING:
    from hy_weights.stored import StoredTensors


def main(argv: Sequence[str]) -> int:
    """Say what a checkpoint is, and fail if it isn't whole.

    A published folder is compared with its manifest, and so is every training checkpoint beneath a folder. Every
    checkpoint of a model, be it a file or beneath a folder, is read: what it holds is printed, and must be finite and,
    if an installed package knows the model, exactly the model's.

    Raises:
        CheckpointError: A file is missing, changed or damaged, a number isn't finite, or keys don't fit the model.
    """
    parser = argparse.ArgumentParser(
        prog="hyvideo verify", description="Say what a checkpoint is, and whether it is whole."
    )
    kinds = (
        "a folder, of a model or of a training's checkpoints, a .safetensors or .pt file, an index of several, "
        "or hf://org/name[@revision][/folder or file]"
    )
    parser.add_argument("place", help=kinds)

    from hy_weights.hub import located

    path = located(parser.parse_args(argv).place)
    published = (path / MANIFEST_FILE).is_file()
    if published:
        _compare(path)
    states = [] if path.is_file() else state_folders(path)
    found = [path] if path.is_file() else [place for place in _checkpoints(path) if place not in states]
    if not found and not states and not published:
        raise CheckpointError(f"{path}: holds no checkpoint")
    if states and not published:
        _compare_states(states, path)
    for checkpoint in found:
        _describe(checkpoint, path)
    if published:
        _print_provenance(path, with_config=path not in found)
    compared = published or (states and not found)
    print(f"{path} is {'whole' if compared else f'sound; it has no {MANIFEST_FILE} to compare it with'}.")
    return 0


def _compare_states(folders: Sequence[Path], within: Path) -> None:
    rows, torn = table(folders, within)
    _print_table(rows)
    print()
    require_none_torn(torn, within)


def _compare(folder: Path) -> None:
    states = file_states(folder, tell)
    _print_table([("file", "bytes", "state"), *((file.path, f"{file.size:,}", file.state) for file in states)])
    print()
    require_whole(folder, states)


def _checkpoints(folder: Path) -> list[Path]:
    """The folders at and beneath `folder` that hold a checkpoint, and the files of those that hold several."""
    from hy_weights.stored import SUFFIXES, checkpoint_file

    weights = sorted(file for file in folder.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    weights = [file for file in weights if not is_hidden(file, folder)]
    found: list[Path] = []
    for holder in sorted({file.parent for file in weights}):
        try:
            checkpoint_file([file.name for file in holder.iterdir() if file.is_file()], holder)
            found.append(holder)
        except CheckpointError:
            found += [file for file in weights if file.parent == holder]
    return found


def _describe(checkpoint: Path, within: Path) -> None:
    """Print what a checkpoint is; then read all of it, and compare it with the model it is."""
    from hy_weights.known import recognise  # not before it is needed: torch takes seconds
    from hy_weights.lora.reading import lora_in_words
    from hy_weights.stored import StoredTensors

    stored = StoredTensors(checkpoint)
    found = recognise(checkpoint)
    name = str(checkpoint.relative_to(within)) if checkpoint != within else checkpoint.name
    if found is not None:
        model, config = f"{found[0].name}, {found[1].layout}", found[1].config
    else:
        model = lora_in_words(stored) or "none that an installed package knows"
        config = read_config(checkpoint) if (checkpoint / CONFIG_FILE).is_file() else {}
    rows = [("weights", name, _contents(stored)), ("model", name, model)]
    _print_table(rows + [("config", str(key), str(value)) for key, value in config.items()])
    print()
    if found is not None:
        found[0].check(found[1], checkpoint)
    _read(stored)


def _contents(stored: "StoredTensors") -> str:
    tensors = [stored[key] for key in stored]
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})
    numbers = sum(tensor.numel() for tensor in tensors)
    return f"{len(tensors)} tensors, {numbers:,} numbers, {', '.join(dtypes) or 'empty'}"


def _read(stored: "StoredTensors") -> None:
    from hy_weights.finite import require_finite

    done, total = 0, sum(stored[key].nbytes for key in stored)
    for key in stored:
        tensor = stored[key]
        require_finite({key: tensor}, source=stored.path)
        done += tensor.nbytes
        tell(done, total)


def _print_provenance(folder: Path, *, with_config: bool) -> None:
    manifest = read_manifest(folder)
    told = {"provenance": manifest["provenance"], "written with": manifest["packages"]}
    if with_config:
        told = {"config": manifest.get("config") or {}, **told}
    _print_table([(what, str(key), str(value)) for what, values in told.items() for key, value in values.items()])
    print()


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
