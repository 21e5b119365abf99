"""`hyvideo verify`: is this folder whole, and what is in it?"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hy_weights.errors import CheckpointError
from hy_weights.manifest import MANIFEST_FILE, file_states, read_manifest, require_whole


def main(argv: Sequence[str]) -> int:
    """Print each file of a published folder with its state, and what the folder is; fail if it isn't whole.

    Raises:
        CheckpointError: there is no manifest, a file is missing or changed, or weights can't be read.
    """
    parser = argparse.ArgumentParser(
        prog="hyvideo verify", description=f"Check a model folder against its {MANIFEST_FILE} and say what it is."
    )
    parser.add_argument("folder", type=Path, help="a folder that has a manifest.json")
    folder: Path = parser.parse_args(argv).folder
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; verify takes a model folder, with its {MANIFEST_FILE}")
    states = file_states(folder)
    _print_table([("file", "bytes", "state"), *((file.path, f"{file.size:,}", file.state) for file in states)])
    require_whole(folder, states)
    manifest = read_manifest(folder)
    weights = [file.path for file in states if file.path.endswith(".safetensors") and file.state == "ok"]
    print()
    _print_table(
        [
            *(("weights", name, _describe(folder / name)) for name in weights),
            *(("config", str(key), str(value)) for key, value in (manifest.get("config") or {}).items()),
            *(("provenance", str(key), str(value)) for key, value in manifest["provenance"].items()),
            *(("written with", str(key), str(value)) for key, value in manifest["packages"].items()),
        ]
    )
    print(f"\n{folder} is whole.")
    return 0


def _describe(file: Path) -> str:
    from hy_weights.stored import read_tensors  # not before it is needed: torch takes seconds

    tensors = read_tensors(file)
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    numbers = sum(tensor.numel() for tensor in tensors.values())
    return f"{len(tensors)} tensors, {numbers:,} numbers, {', '.join(dtypes)}"


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
