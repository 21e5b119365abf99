"""`hyvideo finetune prepare`: its options, and what they mean."""

import argparse
import math
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hyvideo_finetune.errors import FinetuneError

_ABOUT = """Look at a folder of videos (or pictures) with a text file each, say what every clip becomes,
and write what a training needs: shards, encoded latents and texts, and a recipe."""

_NOTES = """Nothing is trained yet, and nothing is left out without a word: report.json and
clips.png in the new folder tell the bucket, the frames and the crop of each clip, and why
another is refused.

examples:
  hyvideo finetune prepare my-clips --model demo/checkpoint --out room
  hyvideo finetune prepare my-clips --model checkpoint --size 960x544 --frames 33 --quantize int8 --out room
  hyvideo finetune prepare my-clips --model checkpoint --captions captions.csv --full --out room
then
  hyvideo finetune fit --config room/recipe.yaml"""

_RANK = 32
_FORMATS = ("comfy", "diffusers", "kohya")


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit code: 0, or 1 if some clips were refused.

    Raises:
        FinetuneError: an option is wrong, or nothing in the folder can be used.
        HyError, CheckpointError: the model can't be used, or the place not be written.
    """
    asked = _parser().parse_args(argv)
    if asked.frames < 1 or asked.frames % 4 != 1:
        raise FinetuneError(f"frames is {asked.frames}; it must be 4n+1, such as 17, 33 or 65; 1 is pictures alone")
    _require_training(asked)
    needing = {"--eight-bit-optimizer": asked.eight_bit_optimizer, "--quantize nf4": asked.quantize == "nf4"}
    for option, is_given in needing.items():
        if is_given and find_spec("bitsandbytes") is None:
            raise FinetuneError(f"{option} needs bitsandbytes: pip install 'hyvideo-finetune[bitsandbytes]'")
    if asked.out.resolve().is_relative_to(asked.folder.resolve()):
        raise FinetuneError(f"{asked.out} lies in {asked.folder}, whose files are all looked at; give another --out")
    if asked.folder.resolve().is_relative_to((asked.out / "shards").resolve()):
        raise FinetuneError(f"{asked.folder} lies where the shards of {asked.out} go; give another --out")
    if asked.captions is not None and not asked.captions.is_file():
        raise FinetuneError(f"{asked.captions}: no such file")

    from hyvideo_finetune.prepare.session import run  # brings torch, which takes seconds

    return run(asked)


def _require_training(asked: argparse.Namespace) -> None:
    """Refuse what no training can be made with; say what a LoRA has if nothing is asked for."""
    if asked.full and (asked.quantize or asked.offload):
        raise FinetuneError("--quantize and --offload are for a base that stays as it is; leave them out, or --full")
    if asked.full and (asked.rank is not None or asked.lora_format is not None):
        raise FinetuneError("--rank and --lora-format are of a LoRA; leave them out, or --full")
    asked.rank = _RANK if asked.rank is None else asked.rank
    asked.lora_format = asked.lora_format or _FORMATS[0]
    if min(asked.rank, asked.steps, asked.batch) < 1:
        raise FinetuneError("rank, steps and batch must be at least 1")
    if asked.learning_rate is not None and not 0 < asked.learning_rate < math.inf:
        raise FinetuneError(f"learning rate is {asked.learning_rate:g}; it must be above 0, such as 1e-4")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyvideo finetune prepare",
        description=_ABOUT,
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="videos and pictures; sub-folders count")
    text = "what is trained: a bundled name, a folder as `hyvideo sample` takes it, or hf://org/name"
    parser.add_argument("--model", metavar="MODEL", required=True, help=text)
    parser.add_argument("--out", metavar="ROOM", type=Path, required=True, help="a new folder for all of it")
    parser.add_argument("--overwrite", action="store_true", help="replace shards and recipe of a folder that is there")

    words = parser.add_argument_group("captions")
    text = "a table (CSV) with columns file and caption, instead of a text file beside each video"
    words.add_argument("--captions", metavar="FILE", type=Path, help=text)
    text = "make the captions that are missing: a name of `hyvideo plugins`, kind captioner"
    words.add_argument("--captioner", metavar="NAME", help=text)
    text = "of the captioner, such as base_url=URL; see `hyvideo caption --help`"
    words.add_argument(
        "--captioner-option",
        dest="captioner_options",
        metavar="NAME=VALUE",
        type=_option,
        action="append",
        default=[],
        help=text,
    )

    clips = parser.add_argument_group("clips")
    text = "area of a frame; each clip keeps its aspect, nearly (default: what the model is made for)"
    clips.add_argument("--size", metavar="WIDTHxHEIGHT", type=_size, help=text)
    text = "longest clip for training, 4n+1; shorter videos give shorter ones (default 33)"
    clips.add_argument("--frames", metavar="N", type=int, default=33, help=text)
    clips.add_argument("--batch", metavar="N", type=int, default=1, help="clips per step (default 1)")

    training = parser.add_argument_group("training")
    training.add_argument("--full", action="store_true", help="train all weights, not a LoRA")
    training.add_argument("--rank", metavar="R", type=int, help=f"of the LoRA (default {_RANK})")
    training.add_argument("--steps", metavar="N", type=int, default=1500, help="of the optimizer (default 1500)")
    text = "learning rate (default 1e-4; with --full 1e-5)"
    training.add_argument("--learning-rate", metavar="X", type=float, help=text)
    text = "keep the base in 8 bits (half the memory, a little error) or 4 (nf4: less of one, more of the other)"
    training.add_argument("--quantize", choices=("fp8", "int8", "nf4"), help=text)
    text = "keep the base's blocks on the host, two on the device at a time: slower"
    training.add_argument("--offload", action="store_true", help=text)
    text = "keep AdamW's moments in 8 bits: a quarter of the memory (needs bitsandbytes)"
    training.add_argument("--eight-bit-optimizer", action="store_true", help=text)
    text = f"whose keys the LoRA's file has (default {_FORMATS[0]})"
    training.add_argument("--lora-format", choices=_FORMATS, help=text)
    text = "what samples show, before and after; several times for several (default: two of the captions)"
    training.add_argument("--prompt", dest="prompts", metavar="TEXT", action="append", default=[], help=text)
    text = "leave encoding to `hyvideo encode --config ROOM/recipe.yaml`"
    training.add_argument("--no-encode", dest="encode", action="store_false", help=text)
    return parser


def _size(text: str) -> tuple[int, int]:
    matched = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if not matched:
        raise argparse.ArgumentTypeError(f"'{text}' is not WIDTHxHEIGHT, such as 960x544")
    return int(matched[1]), int(matched[2])


def _option(text: str) -> tuple[str, str | float]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE, such as model=models/vlm")
    number = int(value) if value.isdecimal() else float(value) if re.fullmatch(r"\d+\.\d+", value) else value
    return name.replace("-", "_"), number
