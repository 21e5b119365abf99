"""`hyvideo plan`: its options, and what they mean."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_ABOUT = "Say what a run needs, in memory, arithmetic and time, and what makes it fit, before anything is allocated."

_NOTES = """Memory is measured, not guessed: the true modules run on tensors that have shapes and no
data. Activations are what a run itself holds beside weights, gradients and AdamW's moments; a
phase's total is what a device must hold then. Not counted: what an allocator and its
libraries keep for themselves (0.5 to 2 GB on a GPU). Training reads latents and text states
that were encoded before, in a run of their own.

Knobs, cheapest first: one part at a time, VAE tiling, 8-bit optimizer, shards, sequence
parallel, bfloat16 weights, recompute, 8-bit weights, 4-bit weights, block offload, LoRA. With
--memory (or the memory of --device) the cheapest that fit are looked for, beside those that are
turned already.

`hyvideo plan batches` finds the largest batch of each bucket of a recipe: see its own --help.

examples:
  hyvideo plan --device h100
  hyvideo plan --memory 24GB --size 960x544
  hyvideo plan train --devices 8 --device h100 --frames 65
  hyvideo plan train --lora 16 --precision bfloat16 --recompute --memory 80GB --size 624x352 --frames 49
  hyvideo plan train --model t2x-1.6b --batch 64 --json
  hyvideo plan batches --config recipe.yaml --device h100"""

_ABOUT_BATCHES = "Find the largest batch of every bucket of a recipe's stages that a device's memory holds."

_NOTES_BATCHES = """The recipe says model, number format, recompute, averaged weights, devices, text encoder, and
whether the optimizer is an 8-bit one; of `hyvideo finetune`, adapters, rounding and block offload
too. Three runs without data, as `hyvideo plan train` makes them, tell what every moment of a step
holds for any number of clips of any size. Latents are taken for encoded before (`hyvideo encode
--config`), AdamW for the optimizer, and every device for its own copy of the weights, besides which several
hold DDP's buckets. With --out every bucket must hold a clip, or nothing is written.

examples:
  hyvideo plan batches --config recipe.yaml --memory 80GB
  hyvideo plan batches --config recipe.yaml --device h100 --out batches.yaml
  hyvideo pretrain fit --config recipe.yaml --config batches.yaml"""

_UNITS = {"MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}


def main(argv: Sequence[str]) -> int:
    """Run `hyvideo plan`.

    Returns:
        0, or 1 if nothing fits the memory that was given, or of some bucket nothing.

    Raises:
        HyError: there is no such model, or a setting has a wrong value; the message says what would be right.
        CheckpointError: a checkpoint can't be read.
    """
    if argv and argv[0] == "batches":
        options = vars(_batches_parser().parse_args(argv[1:]))
        from hyvideo_plan.batches_session import run_batches

        return run_batches(options)
    options = vars(_parser().parse_args(argv))
    from hyvideo_plan.session import run  # brings torch, which takes seconds: not for --help or a wrong option

    return run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyvideo plan",
        description=_ABOUT,
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what runs")
    text = "sample (the default) or train"
    what.add_argument("task", metavar="TASK", nargs="?", choices=("sample", "train"), default="sample", help=text)
    text = "hunyuan-video-cfgdistill (default), hunyuan-video, tiny, t2x-92m … t2x-6.6b, or a checkpoint's path"
    what.add_argument("--model", metavar="MODEL", default="hunyuan-video-cfgdistill", help=text)
    what.add_argument("--size", metavar="WIDTHxHEIGHT", type=_size, help="multiples of 16 (default 1280x720)")
    what.add_argument("--frames", metavar="N", type=int, help="4n+1; 1 is an image (default 129)")
    what.add_argument("--steps", metavar="N", type=int, help="per video, or of the optimizer (default 50)")
    what.add_argument("--batch", metavar="N", type=int, help="clips at once on each device (default 1)")
    text = "float32, bfloat16, or mixed: float32 weights under bfloat16 autocast (default bfloat16; train: mixed)"
    what.add_argument("--precision", metavar="TYPE", choices=("float32", "bfloat16", "mixed"), help=text)
    text = "one branch per step even if the model is not guidance-distilled"
    what.add_argument("--no-guidance", dest="guidance", action="store_false", help=text)

    where = parser.add_argument_group("where")
    text = "h100, h200, a100, a100-40gb, rtx4090 or cpu: memory, and data-sheet rate times an assumed share"
    where.add_argument("--device", metavar="NAME", default=None, help=text)
    where.add_argument("--devices", metavar="N", type=int, help="how many of them (default 1)")
    text = "of one device, such as 24GB or 80GiB: says what makes it fit (default: --device's)"
    where.add_argument("--memory", metavar="SIZE", type=_memory, default=None, help=text)
    text = "rate that one device reaches, in 10^12 operations per second (default: --device's)"
    where.add_argument("--tflops", metavar="X", type=float, default=None, help=text)

    knobs = parser.add_argument_group("knobs that are turned already")
    for option, field, text in (
        ("--tiling", "tiled", "the VAE works in overlapping tiles"),
        ("--recompute", "recompute", "blocks' activations are computed again for their gradients"),
        ("--eight-bit-weights", "eight_bit_weights", "frozen linear layers take one byte per weight"),
        ("--four-bit-weights", "four_bit_weights", "or half a byte (nf4)"),
        ("--eight-bit-optimizer", "eight_bit_optimizer", "AdamW's moments take one byte each"),
        ("--shards", "sharded", "weights, gradients and moments are divided over the devices"),
        ("--sequence-parallel", "sequence_parallel", "video tokens are divided over the devices"),
        ("--keep-all", "keep_all", "text encoder, transformer and VAE stay in memory together"),
    ):
        knobs.add_argument(option, dest=field, action="store_true", help=text)
    text = "only K blocks' weights are on the device, the others on the host"
    knobs.add_argument("--offload", dest="resident_blocks", metavar="K", type=int, help=text)
    text = "train adapters of rank R instead of the weights"
    knobs.add_argument("--lora", dest="lora_rank", metavar="R", type=int, help=text)
    text = "a moving average of the weights (EMA) on the device, in that number format"
    knobs.add_argument("--ema", dest="average_bytes", metavar="TYPE", type=_bytes, help=text)
    parser.add_argument("--json", action="store_true", default=False, help="print everything as one JSON object")
    return parser


def _batches_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyvideo plan batches",
        description=_ABOUT_BATCHES,
        epilog=_NOTES_BATCHES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    text = "a recipe of `hyvideo pretrain` whose data has stages: a file, or a bundled one's name"
    parser.add_argument("--config", metavar="RECIPE", required=True, help=text)
    text = "of one device, such as 80GB or 80GiB"
    parser.add_argument("--memory", metavar="SIZE", type=_memory, help=text)
    text = "h100, h200, a100, a100-40gb, rtx4090 or cpu, for its memory"
    parser.add_argument("--device", metavar="NAME", help=text)
    text = "share of the memory that is left to allocators and libraries (default 0.1)"
    parser.add_argument("--margin", metavar="SHARE", type=float, default=0.1, help=text)
    text = "write the stages with these batch sizes, as a config to give after the recipe's"
    parser.add_argument("--out", metavar="FILE", type=Path, help=text)
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    return parser


def _size(text: str) -> tuple[int, int]:
    matched = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if not matched:
        raise argparse.ArgumentTypeError(f"'{text}' is not WIDTHxHEIGHT, such as 1280x720")
    return int(matched[1]), int(matched[2])


def _bytes(text: str) -> int:
    widths = {"float32": 4, "bfloat16": 2}
    if text not in widths:
        raise argparse.ArgumentTypeError(f"'{text}' is not {' or '.join(widths)}")
    return widths[text]


def _memory(text: str) -> int:
    matched = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text)
    unit: Any = _UNITS.get(matched[2].upper()) if matched else None
    if not matched or unit is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size such as 24GB, 80GiB or 800MB")
    return int(float(matched[1]) * unit)
