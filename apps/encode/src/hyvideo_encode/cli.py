"""`hyvideo encode`: its options, and what they mean."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hyvideo_encode.errors import EncodeError

_ABOUT = "Encode the captions and clips of shards once, and keep text states and latents in a store."

_NOTES = """What the store holds already is not encoded again: a run that was interrupted, or killed,
is continued by giving the same command again, and several may work on one store at once.
With --config, what a training by that recipe will ask for is encoded, and nothing else.

examples:
  hyvideo encode --config recipe.yaml
  hyvideo encode shards --encoder checkpoint/text_encoder --store states
  hyvideo encode shards --vae checkpoint/vae --store states --buckets 1x256x256 33x256x256 --format int8
  hyvideo encode shards/*.tar prompts.txt --encoder hf://org/name --caption short --store states --max-size 200GB
  hyvideo encode shards --encoder checkpoint/text_encoder --store states --workers 2 --batch-size 32"""

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
BATCH_SIZE = 8
PRECISIONS = ("float32", "bfloat16", "float16")
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asks for.

    Attributes:
        sources: shards, folders of shards, and text files.
        config: a recipe's path or bundled name, which says all but workers, batch_size, max_size and device; or None.
        store: the store's folder.
        encoder: the text encoder, a bundled name, a path or a hub id; None encodes no text.
        captions: names of the captions to encode; empty for all.
        dtype: of the text encoder: float32, bfloat16 or float16; None leaves the stored one.
        media: video or image, the template around each prompt; None leaves the encoder's own.
        quantization: 8bit or 4bit weights of the text encoder, or None.
        vae: the autoencoder, a bundled name, a path or a hub id; None encodes no clips.
        buckets: frames, height and width that clips are brought to.
        format: how the numbers of latents are kept.
        vae_dtype: of the autoencoder.
        tiling: whether the autoencoder works in tiles.
        workers: how many processes encode; None is one, or one per CUDA device.
        batch_size: prompts, or clips of one size, per batch.
        max_size: bound of the store in bytes; None is none.
        device: auto, cpu or cuda.
    """

    sources: list[Path]
    config: str | None
    store: Path
    encoder: str | None
    captions: list[str]
    dtype: Precision | None
    media: str | None
    quantization: str | None
    vae: str | None
    buckets: list[tuple[int, int, int]]
    format: Literal["bf16", "int8"]
    vae_dtype: Precision
    tiling: bool
    workers: int | None
    batch_size: int
    max_size: int | None
    device: str


def main(argv: Sequence[str]) -> int:
    """Run `hyvideo encode`.

    Returns:
        0, or 1 if some captions or clips could not be read or encoded.

    Raises:
        HyError: a source, an encoder or a store can't be used, or a worker died.
        CheckpointError: an encoder can't be read.
    """
    request = parse(argv)
    from hyvideo_encode.session import run  # brings torch, which takes seconds: not for --help or a wrong option

    return run(request)


def parse(argv: Sequence[str]) -> Request:
    """Read the command line.

    Raises:
        EncodeError: an option is missing, or can't be beside another; or a number is out of its range.
    """
    parser = _parser()
    values = vars(parser.parse_args(argv))
    for name in ("workers", "batch_size", "max_size"):
        if values[name] is not None and values[name] < 1:
            raise EncodeError(f"{name.replace('_', '-')} is {values[name]}; it must be at least 1")
    if values["config"] is not None:
        _require_nothing_besides(values, parser)
    else:
        _require_enough(values)
    return Request(**values)


def _require_nothing_besides(values: Mapping[str, Any], parser: argparse.ArgumentParser) -> None:
    """Refuse what the recipe says, beside a recipe."""
    ours = {"config", "workers", "batch_size", "max_size", "device"}
    options = {action.dest: max(action.option_strings, default="SHARDS") for action in parser._actions}
    given = [options[name] for name in values.keys() - ours if values[name] != parser.get_default(name)]
    if given := [name for name in given if name != "SHARDS" or values["sources"]]:
        raise EncodeError(f"a recipe says what to encode; leave out {', '.join(sorted(given))}")


def _require_enough(values: Mapping[str, Any]) -> None:
    """Refuse a command line that does not say what to encode, of what, and where to."""
    if not values["sources"]:
        raise EncodeError("name shards, or give --config with a recipe")
    if values["store"] is None:
        raise EncodeError("--store is missing: the folder that keeps what is encoded")
    if values["encoder"] is None and values["vae"] is None:
        raise EncodeError("give --encoder to encode captions, --vae to encode clips, or both")
    if (values["vae"] is None) != (not values["buckets"]):
        raise EncodeError("--vae and --buckets go together: clips are encoded in the sizes of buckets")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyvideo encode",
        description=_ABOUT,
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    text = "a shard (.tar), a folder of shards, or a text file (.txt) with one prompt per line"
    parser.add_argument("sources", metavar="SHARDS", nargs="*", type=Path, help=text)
    text = "a recipe of `hyvideo pretrain`, a file or a bundled one, which says all of this"
    parser.add_argument("--config", metavar="RECIPE", help=text)
    text = "the folder that keeps what was encoded; made when missing"
    parser.add_argument("--store", metavar="FOLDER", type=Path, help=text)
    _add_text(parser.add_argument_group("captions"))
    _add_latents(parser.add_argument_group("clips"))
    _add_work(parser.add_argument_group("work"))
    return parser


def _add_text(group: argparse._ArgumentGroup) -> None:
    text = "of the text: a bundled model (`hyvideo plugins`, kind model), a folder, or hf://org/name"
    group.add_argument("--encoder", metavar="MODEL", help=text)
    text = "name of a caption in the shards, such as short; several times for several (default: each different text)"
    group.add_argument("--caption", metavar="NAME", dest="captions", action="append", default=[], help=text)
    text = "of the encoder and its states (default: as it is stored)"
    group.add_argument("--dtype", choices=PRECISIONS, help=text)
    text = "what the prompts are of, for encoders that tell them apart (default: video)"
    group.add_argument("--media", choices=("video", "image"), help=text)
    text = "weights of the language model in fewer bits (needs bitsandbytes)"
    group.add_argument("--quantization", choices=("8bit", "4bit"), help=text)


def _add_latents(group: argparse._ArgumentGroup) -> None:
    text = "the autoencoder: a bundled model, a folder or file, or hf://org/name"
    group.add_argument("--vae", metavar="MODEL", help=text)
    text = "FRAMESxHEIGHTxWIDTH that clips are brought to, each clip to the longest that it fills, nearest in aspect"
    group.add_argument("--buckets", metavar="SIZE", nargs="+", type=_bucket, default=[], help=text)
    text = "bf16, or int8: half of that, rounded to 256 levels per channel and frame (default bf16)"
    group.add_argument("--format", choices=("bf16", "int8"), default="bf16", help=text)
    text = "number format in which the autoencoder works (default float32)"
    group.add_argument("--vae-dtype", choices=PRECISIONS, default="float32", help=text)
    text = "the autoencoder works in overlapping tiles, for less memory; its latents differ a little"
    group.add_argument("--tiling", action="store_true", help=text)


def _add_work(group: argparse._ArgumentGroup) -> None:
    text = "processes, each with an encoder of its own (default: one per CUDA device, or one)"
    group.add_argument("--workers", metavar="N", type=int, help=text)
    text = f"prompts, or clips of one size, that are encoded at once; of large clips fewer (default {BATCH_SIZE})"
    group.add_argument("--batch-size", metavar="N", type=int, default=BATCH_SIZE, help=text)
    text = "bound of the store, such as 200GB; beyond it goes what was used longest ago (default: none)"
    group.add_argument("--max-size", metavar="SIZE", type=_size, help=text)
    text = "auto takes cuda when there is one (default auto)"
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=text)


def _bucket(text: str) -> tuple[int, int, int]:
    matched = re.fullmatch(r"(\d{1,6})x(\d{1,6})x(\d{1,6})", text)
    if not matched:
        raise argparse.ArgumentTypeError(f"'{text}' is not FRAMESxHEIGHTxWIDTH, such as 33x256x256")
    return int(matched[1]), int(matched[2]), int(matched[3])


def _size(text: str) -> int:
    matched = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", text)
    if not matched:
        raise argparse.ArgumentTypeError(f"'{text}' is no size in bytes, such as 500MB, 200GB or 1.5TB")
    return int(float(matched[1]) * _UNITS[matched[2]])
