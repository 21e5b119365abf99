"""`hyvideo finetune extract`: the difference of two checkpoints as a LoRA."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hy_data.files import require_place

from hyvideo_finetune.errors import FinetuneError

if TYPE_CHECKING:
    from hy_weights import Extraction

_ABOUT = "Make a LoRA of the difference of two checkpoints of one model, by singular value decomposition."

_NOTES = """Told is how much of the difference the LoRA holds: its share of the sum of squares, layer by
layer and in all. What is low wants a higher rank; what no LoRA can hold (biases, norms) is
listed.

example:
  hyvideo finetune extract base finetuned --rank 64 --out look.safetensors"""

_LISTED = 8


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit code.

    Raises:
        FinetuneError: the output's name or the device is wrong, or the rank is below 1.
        CannotWrite: the output can't be written there.
        CheckpointError: a checkpoint can't be read, they are not of one model, or the file can't be written.
    """
    asked = _parser().parse_args(argv)
    if asked.out.suffix != ".safetensors":
        raise FinetuneError(f"{asked.out}: a LoRA's file ends in .safetensors")
    if asked.rank < 1:
        raise FinetuneError(f"rank is {asked.rank}; it must be at least 1")
    require_place(asked.out, overwrite=True)

    import torch  # takes seconds: not for --help or a wrong option
    from hy_dit import DiT, save_lora
    from hy_dit.load import open_dit
    from hy_dit.lora import layer_names
    from hy_weights import base_metadata, extract_lora, located, unallocated
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    try:
        torch.empty(1, device=asked.device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise FinetuneError(f"--device {asked.device} can't be used here: {reason}; cpu always can") from error
    folders = ("transformer", "dit")
    base, tuned = located(asked.base, folders), located(asked.tuned, folders)
    opened = open_dit(base)
    with unallocated():
        dit = DiT(opened.config)
    columns = (TextColumn("extract"), BarColumn(), MofNCompleteColumn(), TextColumn("tensors"), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("extract")
        found = extract_lora(
            opened.tensors,
            open_dit(tuned).tensors,
            layer_names(dit),
            rank=asked.rank,
            targets=tuple(asked.targets),
            device=asked.device,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    metadata = {
        **base_metadata(base, str(asked.base)),
        "extracted_from": str(asked.tuned),
        "energy": f"{found.share:.4f}",
    }
    dtype = getattr(torch, asked.dtype)
    save_lora(asked.out, found.lora, dit, style=asked.lora_format, metadata=metadata, dtype=dtype)
    for line in _report(found):
        print(line)
    print(f"{asked.out}: {len(found.lora.layers)} layers, rank {asked.rank}, {found.share:.1%} of the difference")
    return 0


def _report(found: "Extraction") -> list[str]:
    """The layers that lose most, and what no LoRA holds."""
    lines = [f"  {share:7.1%} of {layer}" for layer, share in _least(found.kept)]
    if lines:
        lines.insert(0, "least is kept:")
    if found.outside:
        lines.append(f"no LoRA holds what {len(found.outside)} tensors changed by: {', '.join(_first(found.outside))}")
    return lines


def _least(kept: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(kept.items(), key=lambda pair: pair[1])[:_LISTED]


def _first(outside: Mapping[str, Any]) -> list[str]:
    largest = sorted(outside, key=lambda key: -outside[key])
    return [*largest[:_LISTED], *(["…"] if len(largest) > _LISTED else [])]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyvideo finetune extract",
        description=_ABOUT,
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    text = "{}: a folder, a file of the transformer, or hf://org/name"
    parser.add_argument("base", metavar="BASE", help=text.format("the model that the LoRA will be used with"))
    parser.add_argument("tuned", metavar="TUNED", help=text.format("the one that was trained further"))
    parser.add_argument("--rank", metavar="R", type=int, default=32, help="of every layer (default %(default)s)")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="ends in .safetensors")
    text = "patterns of layers, such as 'double_blocks.*' (default: all that differ)"
    parser.add_argument("--targets", metavar="PATTERN", nargs="+", default=["*"], help=text)
    styles = ("comfy", "diffusers", "kohya")
    parser.add_argument("--lora-format", choices=styles, default="comfy", help="whose keys (default %(default)s)")
    text = "number format of the factors (default %(default)s)"
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16", help=text)
    parser.add_argument("--device", metavar="NAME", default="cpu", help="where it is computed (default %(default)s)")
    return parser
