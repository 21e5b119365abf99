"""`hyvideo rewrite`: its options, and what they mean."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hy_rewrite import RewriteError

_ABOUT = "Rewrite a prompt into one like the training captions, and check that nothing is lost or invented."

_NOTES = """Who rewrites: with --base-url a server that speaks the OpenAI protocol; with --model a language model on
this machine, a folder or hf://org/name, which is downloaded if need be; else `template`, which needs no model and only
puts the prompt's own words in order. --rewriter names any rewriter of `hyvideo plugins`.

examples:
  hyvideo rewrite "a red fox runs through snow, golden hour, close-up" --explain
  hyvideo rewrite "一只狐狸在雪中奔跑" --mode master --model models/instruct --explain
  hyvideo rewrite "a red fox" --base-url http://127.0.0.1:8000/v1 --model NAME --key-variable MY_KEY --json
  hyvideo rewrite collect prompts.txt --out pairs.jsonl --base-url http://127.0.0.1:8000/v1 --model NAME --workers 8
  hyvideo rewrite evaluate pairs.jsonl
  hyvideo rewrite evaluate pairs.jsonl --model models/instruct --adapter runs/rewrite-lora/adapter"""

# The options that a rewriter may take, see `hy_rewrite.local_rewriter` and `hy_rewrite.server_rewriter`.
_OF_REWRITERS = (
    ("mode", str, "NAME", "normal keeps the intent; master adds composition, lighting, camera (default normal)"),
    ("language", str, "NAME", "what the video model reads (default English)"),
    ("rounds", int, "N", "how often a rewrite is compared with the prompt and corrected (default 2)"),
    ("max-length", int, "N", "characters that a rewrite may have (default 1200)"),
    ("model", str, "MODEL", "a folder, hf://org/name, or the server's name for a model"),
    ("adapter", str, "FOLDER", "a LoRA for a local model"),
    ("dtype", str, "NAME", "of a local model: auto, float32, bfloat16, float16 (default auto)"),
    ("device", str, "NAME", "of a local model: auto, cpu, cuda (default auto)"),
    ("base-url", str, "URL", "where a server is"),
    ("key-variable", str, "NAME", "environment variable that holds its key (default: none is sent)"),
    ("timeout", float, "S", "seconds that one of its answers may take (default 60)"),
    ("retries", int, "N", "how often to ask it again (default 3)"),
    ("max-new-tokens", int, "N", "tokens that one answer may have (default 768)"),
)


def main(argv: Sequence[str]) -> int:
    """Run `hyvideo rewrite`.

    Returns:
        0; 1 if none of the collected prompts was rewritten.

    Raises:
        RewriteError: an option, a file or a model is not what it must be, or a model gives no answer.
        UnknownComponent: there is no such rewriter.
    """
    task, *rest = argv or [""]
    if task == "collect":
        return _collect(rest)
    if task == "evaluate":
        return _evaluate(rest)
    return _rewrite(argv)


def _rewrite(argv: Sequence[str]) -> int:
    parser = _parser("", _ABOUT, _NOTES)
    parser.add_argument("prompt", metavar="PROMPT", help="in any language; in quotation marks")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--explain", action="store_true", help="show the original, the rewrite and the revision's notes")
    shown.add_argument("--json", action="store_true", help="print all of that as JSON")
    given = parser.parse_args(argv)
    from hyvideo_rewrite import tasks  # brings rich: not for --help or a wrong option

    tasks.rewrite(given.prompt, _name(given), _options(given), explain=given.explain, as_json=given.json)
    return 0


def _collect(argv: Sequence[str]) -> int:
    parser = _parser(" collect", "Rewrite many prompts, and keep the good pairs to fine-tune a rewriter on.")
    parser.add_argument("prompts", metavar="PROMPTS", type=Path, help="a text file, one prompt a line")
    text = "pairs are added here, one JSON object a line; prompts that it has are left out, so a run can go on"
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help=text)
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="prompts at once, for a server (default 1)")
    given = parser.parse_args(argv)
    if not 1 <= given.workers <= 256:
        raise RewriteError(f"workers is {given.workers}; it must be from 1 to 256")
    from hyvideo_rewrite import tasks

    return tasks.collect_pairs(given.prompts, given.out, _name(given), _options(given), given.workers)


def _evaluate(argv: Sequence[str]) -> int:
    about = "Measure the fidelity, structure and language of pairs; or of a rewriter's first answers to their prompts."
    parser = _parser(" evaluate", about)
    parser.add_argument("pairs", metavar="PAIRS", type=Path, help="a file that `collect` wrote")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args(argv)
    options = _options(given)
    from hyvideo_rewrite import tasks

    name = _name(given) if options or given.rewriter else None
    tasks.evaluate_pairs(given.pairs, name, options, as_json=given.json)
    return 0


def _parser(task: str, about: str, notes: str | None = None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"hyvideo rewrite{task}",
        description=about,
        epilog=notes,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--rewriter", metavar="NAME", help="local, server, template, or a plugin's")
    for name, kind, metavar, text in _OF_REWRITERS:
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, default=None, help=text)
    return parser


def _options(given: argparse.Namespace) -> dict[str, object]:
    """The rewriter's options that were given."""
    names = [name.replace("-", "_") for name, *_ in _OF_REWRITERS]
    return {name: getattr(given, name) for name in names if getattr(given, name) is not None}


def _name(given: argparse.Namespace) -> str:
    return given.rewriter or ("server" if given.base_url else "local" if given.model else "template")
