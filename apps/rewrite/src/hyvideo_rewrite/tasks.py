"""What `hyvideo rewrite` does: rewrite one prompt, collect pairs, evaluate them."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from hy_rewrite import (
    ChatRewriter,
    RewriteError,
    collect,
    drafts,
    evaluate,
    explained,
    load_rewriter,
    read_pairs,
    read_prompts,
    remaining,
)
from rich.console import Console

from hyvideo_rewrite.progress import counted
from hyvideo_rewrite.show import show_evaluation, show_rewrite


def rewrite(prompt: str, name: str, options: Mapping[str, object], *, explain: bool, as_json: bool) -> None:
    """Print a prompt's rewrite, or all that is known of it.

    Args:
        prompt: any text.
        name: the rewriter's.
        options: what it is built with.
        explain: show the original, the rewrite and the revision.
        as_json: the same as JSON.

    Raises:
        RewriteError: see `hyvideo_rewrite.cli.main`.
    """
    errors = Console(stderr=True)
    with errors.status(f"rewriting: {name}"):
        result = explained(load_rewriter(name, options), prompt)
    if as_json:
        print(json.dumps(result.as_dict(), indent=2))
    elif explain:
        show_rewrite(result)
    else:
        if result.fallback is not None:
            errors.print(f"note: the prompt stays as it is: {result.fallback}", markup=False, highlight=False)
        print(result.rewritten)


def collect_pairs(prompts: Path, out: Path, name: str, options: Mapping[str, object], workers: int) -> int:
    """Rewrite the prompts of a file that have no pair yet, and say how it went.

    Returns:
        1 if there were some and none became a pair; else 0.

    Raises:
        RewriteError: see `hyvideo_rewrite.cli.main`.
    """
    errors = Console(stderr=True, highlight=False)
    listed = read_prompts(prompts)
    rewriter = _model(name, options)
    left = remaining(listed, out, rewriter.options)
    if len(left) < len(listed):
        errors.print(f"{out}: has {len(listed) - len(left)} of them already", markup=False)
    kept, rejected = 0, 0
    for found in counted(collect(rewriter, left, out, workers=workers), len(left), "prompts", errors):
        if found.pair is not None:
            kept += 1
            continue
        rejected += 1
        errors.print(f"rejected: {found.prompt[:60]!r}: {found.reason}", markup=False)
    print(f"{out}: {kept} pairs added, {rejected} prompts rejected")
    return 1 if left and not kept else 0


def evaluate_pairs(pairs: Path, name: str | None, options: Mapping[str, object], *, as_json: bool) -> None:
    """Show how good pairs are, or a rewriter's first answers to their prompts.

    Raises:
        RewriteError: see `hyvideo_rewrite.cli.main`.
    """
    measured = read_pairs(pairs)
    if name is not None:
        answers = drafts(_model(name, options), measured)
        measured = list(counted(answers, len(measured), "prompts", Console(stderr=True)))
    found = evaluate(measured)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        show_evaluation(found, len(measured))


def _model(name: str, options: Mapping[str, object]) -> ChatRewriter:
    rewriter = load_rewriter(name, options)
    if not isinstance(rewriter, ChatRewriter):
        raise RewriteError(f"the rewriter {name!r} asks no model, so there is nothing to learn from it; give --model")
    return rewriter
