"""`hyvideo sample`: its options, and what they mean."""

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hy_weights.lora.spelling import lora_with_strength

from hyvideo_sample.settings import SampleError, Settings

_USAGE = """hyvideo sample PROMPT --model MODEL [--out FILE] [option ...]
       hyvideo sample --prompts FILE --model MODEL --out FOLDER [option ...]
       hyvideo sample --replay FILE [--out FILE] [option ...]
       hyvideo sample --decode FILE [--out FILE] [option ...]"""

_ABOUT = "Turn a prompt into a video, many prompts into many, or repeat a video from the settings stored in it."

_NOTES = """A setting that is not given is the model's own (`sampling` in its config.json), or
else the default above. The settings go into the file: --replay repeats them, and on
the same machine and versions gives the same frames. Until a sample is written, its
latent lies beside it as NAME.latent.safetensors: --decode finishes what was interrupted.

examples:
  hyvideo sample "a white van drives to the right" --model demo/checkpoint --out van.mp4
  hyvideo sample "a red ball" --model demo/checkpoint --size 96x64 --frames 1 --out ball.png
  hyvideo sample --prompts captions.txt --model demo/checkpoint --out clips
  hyvideo sample "a van in my look" --model demo/checkpoint --lora look.safetensors=0.8
  hyvideo sample --replay van.mp4 --seed 1 --out another-van.mp4"""

_OF_DECODING = {"device", "tiling"}
"""Settings that may still be chosen when a latent is decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asks for.

    Attributes:
        given: the settings that were given.
        model: a bundled name, a folder or a hub id.
        loras: files to add to the transformer, each with its strength.
        any_base: whether LoRAs that were trained on another model are taken.
        noise_file: noise to start from.
        prompts: a file with one prompt per line.
        replay: a sample to repeat.
        decode: a latent to finish.
        store: a folder of text states; None keeps none.
        rewrite: how prompts are rewritten; None leaves them as they are.
        rewriter: by whom.
        rewriter_options: what the rewriter is made with.
        keep_latents: whether latents stay beside their samples.
        out: a file; with `prompts`, a folder.
        overwrite: whether existing files may be replaced.
        threads: CPU threads; None leaves it to torch.
    """

    given: dict[str, Any]
    model: str | None
    loras: list[tuple[Path, float]]
    any_base: bool
    noise_file: Path | None
    prompts: Path | None
    replay: Path | None
    decode: Path | None
    store: Path | None
    rewrite: str | None
    rewriter: str
    rewriter_options: Mapping[str, str | float]
    keep_latents: bool
    out: Path | None
    overwrite: bool
    threads: int | None


def main(argv: Sequence[str]) -> int:
    """Run `hyvideo sample`.

    Returns:
        0, or 1 if some prompts of a file failed.

    Raises:
        HyError: what was asked for can't be made; the message says what would be right.
        CheckpointError: the model is damaged.
    """
    request = parse(argv)
    from hyvideo_sample.session import run  # brings torch, which takes seconds: not for --help or a wrong option

    return run(request)


def parse(argv: Sequence[str]) -> Request:
    """Read the command line.

    Raises:
        SampleError: options contradict each other, one is missing, or a setting has a wrong value.
    """
    options = vars(_parser().parse_args(argv))
    given = {field.name: options.pop(field.name) for field in dataclasses.fields(Settings) if field.name in options}
    _name_the_rewriter(options)
    if size := options.pop("size", None):
        given["width"], given["height"] = size
    if interval := options.pop("guidance_interval", None):
        given["guidance_low"], given["guidance_high"] = interval
    request = Request(given=given, **options)
    _require_one_task(request)
    if request.prompts and request.out is None:
        raise SampleError("--prompts needs --out, the folder that its videos go to")
    if request.threads is not None and request.threads < 1:
        raise SampleError(f"threads is {request.threads}; it must be at least 1")
    Settings(**given)
    return request


def _name_the_rewriter(options: dict[str, Any]) -> None:
    """Where no rewriter is named, its options tell which is meant."""
    given = options["rewriter_options"] = dict(options["rewriter_options"])
    if not options["rewrite"] and (given or options["rewriter"]):
        raise SampleError("a rewriter is named, but nothing is to be rewritten: give --rewrite normal or master too")
    meant = "server" if "base_url" in given else "local" if "model" in given else "template"
    options["rewriter"] = options["rewriter"] or meant


def _require_one_task(request: Request) -> None:
    if request.prompts and (request.replay or request.decode or "prompt" in request.given):
        raise SampleError("--prompts stands alone: leave out the PROMPT, --replay and --decode")
    if request.rewrite and (request.decode or (request.replay and "prompt" not in request.given)):
        raise SampleError("--rewrite rewrites a prompt that is given; a sample's own stays as it is")
    if request.decode and request.replay:
        raise SampleError("--decode and --replay are two tasks; give one of them")
    given = {*request.given, *({"noise"} if request.noise_file else ()), *({"lora"} if request.loras else ())}
    if request.decode and (set_already := sorted(given - _OF_DECODING)):
        names = ", ".join(set_already)
        raise SampleError(f"--decode finishes a sample whose settings are set; leave out {names}")
    if not (request.prompts or request.replay or request.decode or "prompt" in request.given):
        raise SampleError(
            "nothing to sample: give a PROMPT, --prompts, --replay or --decode; see `hyvideo sample --help`"
        )


def _parser() -> argparse.ArgumentParser:
    usual = Settings()
    parser = argparse.ArgumentParser(
        prog="hyvideo sample",
        usage=_USAGE,
        description=_ABOUT,
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # only what was given replaces the model's or the video's own
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what to sample")
    what.add_argument("prompt", metavar="PROMPT", nargs="?", help="what the video shows")
    what.add_argument("--prompts", metavar="FILE", type=Path, default=None, help="one prompt per line")
    text = "repeat this video or picture; settings that are given too replace its own"
    what.add_argument("--replay", metavar="FILE", type=Path, default=None, help=text)
    text = "finish a sample whose latent was kept, NAME.latent.safetensors; the file stays"
    what.add_argument("--decode", metavar="FILE", type=Path, default=None, help=text)
    text = "a bundled name (`hyvideo plugins`, kind model), a folder or hf://org/name. --replay and --decode know it"
    what.add_argument("--model", metavar="MODEL", default=None, help=text)
    text = "add this LoRA, times STRENGTH (default 1), to the transformer; several times for several"
    what.add_argument(
        "--lora",
        dest="loras",
        metavar="FILE[=STRENGTH]",
        type=lora_with_strength,
        action="append",
        default=[],
        help=text,
    )
    text = "take LoRAs that say they were trained on another model, too"
    what.add_argument("--any-base", action="store_true", default=False, help=text)

    words = parser.add_argument_group("rewriting the prompt, before anything else")
    text = "into one like the training captions: normal keeps the intent; master adds composition, lighting, camera"
    words.add_argument("--rewrite", metavar="MODE", choices=("normal", "master"), default=None, help=text)
    text = "who does: local, server, template or a plugin's (default: as the options below tell; without them template)"
    words.add_argument("--rewriter", metavar="NAME", default=None, help=text)
    text = "such as model=FOLDER for local, base_url=URL and model=NAME for server; see `hyvideo rewrite --help`"
    words.add_argument(
        "--rewriter-option",
        dest="rewriter_options",
        metavar="NAME=VALUE",
        type=_option,
        action="append",
        default=[],
        help=text,
    )

    picture = parser.add_argument_group("settings: the video")
    picture.add_argument("--size", metavar="WIDTHxHEIGHT", type=_size, help=f"multiples of 16 (default {usual.size})")
    text = f"4n+1, such as 17, 33 or 129; 1 is a picture (default {usual.frames})"
    picture.add_argument("--frames", metavar="N", type=int, help=text)
    picture.add_argument("--fps", metavar="F", type=float, help=f"frames per second (default {usual.fps:g})")

    _add_way(parser.add_argument_group("settings: the way there"), usual)

    rest = parser.add_argument_group("the rest")
    text = "an .mp4, or a .png for one frame; with --prompts a folder (default: named after prompt and seed)"
    rest.add_argument("--out", metavar="PLACE", type=Path, default=None, help=text)
    text = "leave each latent beside its sample, as NAME.latent.safetensors"
    rest.add_argument("--keep-latents", action="store_true", default=False, help=text)
    text = "look the prompts' text states up in this folder, and keep new ones there; `hyvideo encode` fills one"
    rest.add_argument("--store", metavar="FOLDER", type=Path, default=None, help=text)
    rest.add_argument("--overwrite", action="store_true", default=False, help="replace files that exist")
    rest.add_argument("--threads", metavar="N", type=int, default=None, help="CPU threads (default: torch decides)")
    return parser


def _add_way(way: argparse._ArgumentGroup, usual: Settings) -> None:
    way.add_argument("--seed", metavar="N", type=int, help=f"of the noise it starts from (default {usual.seed})")
    text = "counter, by which a seed is the same on every device; or diffusers, or released, which draw as those do"
    way.add_argument("--noise-source", metavar="HOW", help=f"{text} (default {usual.noise_source})")
    text = "euler, heun (two calls per step), dpmpp-2m, unipc, or a plugin's: `hyvideo plugins`, kind sampler"
    way.add_argument("--sampler", metavar="NAME", help=f"{text} (default {usual.sampler})")
    way.add_argument("--steps", metavar="N", type=int, help=f"more are slower and finer (default {usual.steps})")
    text = "of the noise levels: shifted, as released, or linear-quadratic, which has no shift"
    way.add_argument("--schedule", metavar="NAME", help=f"{text} (default {usual.schedule})")
    text = "more spends more steps on layout, fewer on detail; 1 is even; auto is 17 for up to 20 steps, 7 from 50"
    way.add_argument("--shift", metavar="X", type=_shift, help=f"{text} (default {usual.shift:g})")
    text = f"how strictly the prompt is followed; 1 is off and twice as fast (default {usual.guidance:g})"
    way.add_argument("--guidance", metavar="X", type=float, help=text)
    way.add_argument("--negative", metavar="TEXT", help="what it must not show (default nothing)")
    text = "how strictly the negative prompt is avoided by a model that has learned its guidance; twice as slow"
    way.add_argument("--true-cfg", metavar="X", type=float, help=f"{text} (default {usual.true_cfg:g}, off)")
    text = "guide at noise levels from LOW to HIGH only, within 0 and 1; the other steps take half the time"
    way.add_argument("--guidance-interval", metavar=("LOW", "HIGH"), nargs=2, type=float, help=text)
    text = "against overexposure by strong guidance, from 0, off, to 1; such as 0.7"
    way.add_argument("--guidance-rescale", metavar="X", type=float, help=text)
    text = "start from this noise, a .safetensors file with one tensor of the latent's size, instead of the seed's"
    way.add_argument("--noise", dest="noise_file", metavar="FILE", type=Path, default=None, help=text)
    text = f"float32, or half its memory: bfloat16, float16 (default {usual.dtype})"
    way.add_argument("--dtype", metavar="TYPE", help=text)
    way.add_argument("--device", metavar="NAME", help="cpu, cuda, or auto: cuda when there is one (default auto)")
    text = "decode in overlapping tiles: on, off, or auto: where the memory asks for it (default auto)"
    way.add_argument("--tiling", metavar="HOW", help=text)


def _option(text: str) -> tuple[str, str | float]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE, such as model=models/instruct")
    number = int(value) if value.isdecimal() else float(value) if re.fullmatch(r"\d+\.\d+", value) else value
    return name.replace("-", "_"), number


def _shift(text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number nor auto") from None


def _size(text: str) -> tuple[int, int]:
    matched = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if not matched:
        raise argparse.ArgumentTypeError(f"'{text}' is not WIDTHxHEIGHT, such as 112x48")
    return int(matched[1]), int(matched[2])
