"""`hyvideo finetune merge`: LoRAs become part of a model's weights."""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hy_weights.lora.spelling import lora_with_strength

_ABOUT = "Add LoRAs to a model's weights: each times its strength, summed in float32, rounded once."

_NOTES = """Of a published folder (dit, vae, text_encoder) a whole one is made, which `hyvideo sample`
takes; of a transformer alone, or of a pipeline in another layout, a folder of the
transformer.

examples:
  hyvideo finetune merge demo/checkpoint look.safetensors --out model-with-look
  hyvideo finetune merge base look.safetensors=0.8 motion.safetensors=0.5 --out merged --dtype bfloat16"""


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit code.

    Raises:
        CheckpointError: the base or a LoRA can't be read, they don't fit each other, or the place can't be written.
    """
    asked = _parser().parse_args(argv)

    import torch  # takes seconds: not for --help or a wrong option
    from hy_dit import load_dit, load_lora
    from hy_weights import located, merge_loras, require_base, require_replaceable, write_model
    from rich.progress import Progress

    require_replaceable(asked.out)
    folders = ("transformer", "dit")
    place = located(asked.base, folders)
    dit = load_dit(place)
    stored = dit.img_in.proj.weight.dtype
    dtype = stored if asked.dtype is None else getattr(torch, asked.dtype)
    dit.to(torch.promote_types(stored, dtype))  # summed in the wider of the two, so that it is rounded once
    loras = [(load_lora(file, dit), strength) for file, strength in asked.loras]
    for (lora, _), (file, _) in zip(loras, asked.loras, strict=True):
        if not asked.any_base:
            require_base(lora, place, file)
    with Progress(transient=True) as progress:
        task = progress.add_task("merge")
        merge_loras(
            dit, loras, keep_on=None, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
    dit.to(dtype)
    made_by = {"base": str(asked.base), "loras": {str(file): strength for file, strength in asked.loras}}
    whole = _published(asked.base, place)
    if whole is None:
        write_model(asked.out, dit.state_dict(), asdict(dit.config), made_by)
    else:
        _write_beside(whole, asked.out, dit, made_by)
    names = ", ".join(f"{file.name} at {strength:g}" for file, strength in asked.loras)
    print(f"{asked.out}: {asked.base} with {names}")
    return 0


def _published(base: str, place: Path) -> Path | None:
    """The published folder that a transformer is part of, if the whole was given."""
    whole = place.parent
    given = Path(base).resolve() == whole.resolve()
    return whole if given and place.name == "dit" and (whole / "manifest.json").is_file() else None


def _write_beside(whole: Path, out: Path, dit: Any, made_by: dict[str, Any]) -> None:
    """Publish a folder like `whole`, with this transformer."""
    from hy_weights import staged, write_manifest, write_model

    with staged(out) as inside:
        for part in whole.iterdir():
            if part.is_dir() and part.name != "dit":
                shutil.copytree(part, inside / part.name)
        write_model(inside / "dit", dit.state_dict(), asdict(dit.config), made_by)
        shutil.copy(whole / "config.json", inside)
        write_manifest(inside, made_by)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyvideo finetune merge",
        description=_ABOUT,
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("base", metavar="BASE", help="the model: a folder, a file of the transformer, or hf://org/name")
    text = "a LoRA, and what it is multiplied by (default 1)"
    parser.add_argument("loras", metavar="LORA[=STRENGTH]", nargs="+", type=lora_with_strength, help=text)
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="where the model goes")
    text = "number format of the weights (default: the base's)"
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help=text)
    parser.add_argument("--any-base", action="store_true", help="take LoRAs that were trained on another base too")
    return parser
