"""`hyvideo convert`: a checkpoint in one form, wherever it came from, to another."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hy_weights.errors import CheckpointError

if TYPE_CHECKING:
    import torch

    from hy_weights.formats import ModelFormat, OpenModel

FORMS = {
    "ours": "a folder with model.safetensors, config.json and manifest.json",
    "diffusers": "a folder that diffusers' from_pretrained takes",
    "single": "one .safetensors file with the released key names",
}
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def main(argv: Sequence[str]) -> int:
    """Convert one model's checkpoint; tensors pass through one by one.

    Raises:
        CheckpointError: The input can't be read or is no model that an installed package knows; or the output's place
            is taken or can't be written.
    """
    asked = _parser().parse_args(argv)
    if asked.to == "single" and asked.output.suffix != ".safetensors":
        raise CheckpointError(f"{asked.output}: a single file's name ends in .safetensors")
    _require_free(asked.output, asked.to)
    import torch

    known, model = _open(asked.input)
    if asked.to == "diffusers":
        model = known.to_diffusers(model)
    dtype = getattr(torch, DTYPES[asked.dtype]) if asked.dtype else None
    provenance = {"converted from": asked.input, "model": known.name}
    _write(model, asked.input, asked.output, asked.to, dtype, provenance)
    print(f"{asked.input} -> {asked.output}: {known.name}, {len(model.tensors)} tensors, {asked.to}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyvideo convert",
        description="Write a model's checkpoint in another form. What the input is, is read off its keys.",
        epilog="\n".join(f"  {name:10} {what}" for name, what in FORMS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = "a released .pt, .safetensors, an index of several, a folder, or hf://org/name[@revision][/folder or file]"
    parser.add_argument("input", help=kinds)
    parser.add_argument("output", type=Path, help="where the result goes; nothing of yours is overwritten")
    parser.add_argument("--to", required=True, choices=FORMS, help="see below")
    parser.add_argument("--dtype", choices=DTYPES, help="number format of the weights (default: as they are)")
    return parser


def _require_free(output: Path, form: str) -> None:
    empty = form != "single" and output.is_dir() and not any(output.iterdir())
    if output.exists() and not empty:
        raise CheckpointError(f"{output}: already there, and never overwritten; choose another name or remove it")


def _open(place: str) -> "tuple[ModelFormat, OpenModel]":
    from hy_weights.hub import located
    from hy_weights.known import known_formats, recognise

    path = located(place)
    found = recognise(path)
    if found is None:
        names = ", ".join(known.name for known in known_formats()) or "none: install hy-dit or hy-vae3d"
        raise CheckpointError(f"{path}: is no model that an installed package knows (known: {names})")
    known, model = found
    known.check(model, path)
    return known, model


def _write(
    model: "OpenModel", source: str, output: Path, form: str, dtype: "torch.dtype | None", provenance: dict[str, str]
) -> None:
    import json

    from hy_weights.manifest import write_manifest
    from hy_weights.progress import tell
    from hy_weights.publish import staged, staged_file
    from hy_weights.reading import CONFIG_FILE
    from hy_weights.stored import CONFIG_KEY, FOLDER_FILES
    from hy_weights.stream import write_stream

    config = json.dumps(dict(model.config), indent=2, ensure_ascii=False)
    try:
        if form == "single":
            with staged_file(output) as partial:
                own = {CONFIG_KEY: json.dumps(dict(model.config))}
                write_stream(partial, model.tensors, dtype, tell, own, source)
                _require_free(output, form)  # it may have come to be meanwhile
            return
        with staged(output) as inside:
            ours, diffusers = FOLDER_FILES
            file = inside / (ours if form == "ours" else diffusers)
            write_stream(file, model.tensors, dtype, tell, source=source)
            (inside / CONFIG_FILE).write_text(config + "\n", encoding="utf-8")
            write_manifest(inside, provenance)
            _require_free(output, form)
    except OSError as error:
        raise CheckpointError(f"{output}: can't be written ({error})") from error
