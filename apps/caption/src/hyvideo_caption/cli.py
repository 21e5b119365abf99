"""`hyvideo caption`: its options, and what they mean."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyvideo_caption.errors import CaptionCommandError

_ABOUT = "Describe the clips of shards, or the videos of a folder, with structured captions."

_NOTES = """Each line of the output is a clip: its key with a caption, or the reason why there is none. Run the same
command again to go on: clips that have a caption are left out, the others tried again.

examples:
  hyvideo caption shards --captioner measured
  hyvideo caption shards --captioner vlm-server -o base_url=http://127.0.0.1:8000/v1 -o model=my-vlm --workers 8
  hyvideo caption footage --captioner vlm-local -o model=path/to/vlm
  hyvideo caption --captioner vlm-server --list-options"""

OUT = Path("captions.jsonl")
FRAMES = 257
MOST_WORKERS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asks for.

    Attributes:
        source: a folder with shards, a folder with videos, or a video.
        captioner: a component of kind `captioner`.
        options: what it is made with, as `name=value`.
        list_options: whether only those are to be shown.
        out: the file of captions.
        shards: where to put shards with these captions in; None makes none.
        workers: how many clips at a time.
        frames: how many frames of a video are read, from its beginning.
        limit: how many clips at most in this run; None is all.
        overwrite: whether to begin anew.
    """

    source: Path | None
    captioner: str
    options: list[str]
    list_options: bool
    out: Path
    shards: Path | None
    workers: int
    frames: int
    limit: int | None
    overwrite: bool


def main(argv: Sequence[str]) -> int:
    """Run `hyvideo caption`.

    Returns:
        0; 1 if a clip could not be described.

    Raises:
        HyError: the source, the captioner or the output can't be used.
    """
    request = parse(argv)
    from hyvideo_caption.session import run  # brings the video libraries: not for --help or a wrong option

    return run(request)


def parse(argv: Sequence[str]) -> Request:
    """Read the command line.

    Raises:
        CaptionCommandError: a number is out of its range, or the source is missing.
    """
    request = Request(**vars(_parser().parse_args(argv)))
    for name, most in (("workers", MOST_WORKERS), ("frames", None), ("limit", None)):
        value = getattr(request, name)
        if value is not None and not 1 <= value <= (most or value):
            raise CaptionCommandError(
                f"{name} is {value}; it must be at least 1" + (f", at most {most}" if most else "")
            )
    if request.source is None and not request.list_options:
        raise CaptionCommandError("name what is to be described: a folder with shards or videos, or a video")
    return request


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyvideo caption",
        description=_ABOUT,
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "source", metavar="SOURCE", nargs="?", type=Path, help="a folder with shards or videos, or a video"
    )
    text = "who describes: a component of kind captioner (`hyvideo plugins`)"
    parser.add_argument("--captioner", metavar="NAME", required=True, help=text)
    text = "an option of the captioner; may be given several times"
    parser.add_argument("-o", "--option", metavar="NAME=VALUE", dest="options", action="append", default=[], help=text)
    parser.add_argument("--list-options", action="store_true", help="show the captioner's options and end")
    text = f"the file of captions, one clip a line (default {OUT})"
    parser.add_argument("--out", metavar="FILE", type=Path, default=OUT, help=text)
    text = "then copy the shards to this folder, with these captions in"
    parser.add_argument("--shards", metavar="FOLDER", type=Path, help=text)
    text = "how many clips at a time, each in memory; several for a server (default 1)"
    parser.add_argument("--workers", metavar="N", type=int, default=1, help=text)
    text = f"how many frames of a video are read, from its beginning; shards are read whole (default {FRAMES})"
    parser.add_argument("--frames", metavar="N", type=int, default=FRAMES, help=text)
    parser.add_argument("--limit", metavar="N", type=int, help="describe at most so many clips, then end")
    parser.add_argument("--overwrite", action="store_true", help="begin anew instead of going on")
    return parser
