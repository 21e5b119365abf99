"""`hyvideo encode`: its options, and what they mean."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyvideo_encode.errors import EncodeError

_ABOUT = "Encode the captions of shards, or the lines of text files, and keep their states in a store."

_NOTES = """What the store holds already is not encoded again: a run that was interrupted, or killed,
is continued by giving the same command again, and several may work on one store at once.

examples:
  hyvideo encode shards --encoder checkpoint/text_encoder --store states
  hyvideo encode shards/*.tar prompts.txt --encoder hf://org/name --caption short --store states --max-size 200GB
  hyvideo encode shards --encoder checkpoint/text_encoder --store states --workers 2 --batch-size 32"""

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
BATCH_SIZE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asks for.

    Attributes:
        sources: shards, folders of shards, and text files.
        encoder: a bundled name, a path or a hub id.
        store: the store's folder.
        captions: names of the captions to encode; empty for all.
        workers: how many processes encode; None is one, or one per CUDA device.
        batch_size: prompts per batch.
        max_size: bound of the store in bytes; None is none.
        device: auto, cpu or cuda.
        dtype: float32, bfloat16 or float16; None leaves the stored one.
        media: video or image, the template around each prompt; None leaves the encoder's own.
        quantization: 8bit or 4bit weights, or None.
    """

    sources: list[Path]
    encoder: str
    store: Path
    captions: list[str]
    workers: int | None
    batch_size: int
    max_size: int | None
    device: str
    dtype: str | None
    media: str | None
    quantization: str | None


def main(argv: Sequence[str]) -> int:
    """Run `hyvideo encode`.

    Returns:
        0, or 1 if some captions could not be read or encoded.

    Raises:
        HyError: a source, the encoder or the store can't be used, or a worker died.
        CheckpointError: the encoder can't be read.
    """
    request = parse(argv)
    from hyvideo_encode.session import run  # brings torch, which takes seconds: not for --help or a wrong option

    return run(request)


def parse(argv: Sequence[str]) -> Request:
    """Read the command line.

    Raises:
        EncodeError: a number is out of its range.
    """
    request = Request(**vars(_parser().parse_args(argv)))
    for name in ("workers", "batch_size", "max_size"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise EncodeError(f"{name.replace('_', '-')} is {value}; it must be at least 1")
    return request


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyvideo encode",
        description=_ABOUT,
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    text = "a shard (.tar), a folder of shards, or a text file (.txt) with one prompt per line"
    parser.add_argument("sources", metavar="SHARDS", nargs="+", type=Path, help=text)
    text = "of the text: a bundled model (`hyvideo plugins`, kind model), a folder, or hf://org/name"
    parser.add_argument("--encoder", metavar="MODEL", required=True, help=text)
    text = "the folder that keeps what was encoded; made when missing"
    parser.add_argument("--store", metavar="FOLDER", type=Path, required=True, help=text)
    text = "name of a caption in the shards, such as short; several times for several (default: each different text)"
    parser.add_argument("--caption", metavar="NAME", dest="captions", action="append", default=[], help=text)
    text = "processes, each with an encoder of its own (default: one per CUDA device, or one)"
    parser.add_argument("--workers", metavar="N", type=int, help=text)
    text = f"prompts that are encoded at once (default {BATCH_SIZE})"
    parser.add_argument("--batch-size", metavar="N", type=int, default=BATCH_SIZE, help=text)
    text = "bound of the store, such as 200GB; beyond it goes what was used longest ago (default: none)"
    parser.add_argument("--max-size", metavar="SIZE", type=_size, help=text)
    text = "auto takes cuda when there is one (default auto)"
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=text)
    text = "of the encoder and its states (default: as it is stored)"
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help=text)
    text = "what the prompts are of, for encoders that tell them apart (default: video)"
    parser.add_argument("--media", choices=("video", "image"), help=text)
    text = "weights of the language model in fewer bits (needs bitsandbytes)"
    parser.add_argument("--quantization", choices=("8bit", "4bit"), help=text)
    return parser


def _size(text: str) -> int:
    matched = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", text)
    if not matched:
        raise argparse.ArgumentTypeError(f"'{text}' is no size in bytes, such as 500MB, 200GB or 1.5TB")
    return int(float(matched[1]) * _UNITS[matched[2]])
