"""Prompts are rewritten into what the model was trained on, before anything of the model is loaded."""

from collections.abc import Mapping
from pathlib import Path

from hy_rewrite import RewriterUnavailable, explained, load_rewriter

from hyvideo_sample.cli import Request
from hyvideo_sample.progress import Stages


def rewrite_prompts(prompts: Mapping[Path, str], request: Request, stages: Stages) -> dict[Path, str]:
    """Rewrite each file's prompt; the rewriter is gone when this returns.

    Args:
        prompts: by file.
        request: says how, and by which rewriter.
        stages: shows progress, and each prompt that was kept as it is.

    Raises:
        RewriteError: the rewriter can't be made, or gives no answer to the only prompt.
        UnknownComponent: no plugin offers it.
    """
    with stages.stage("load the rewriter"):
        mode = {} if request.rewrite == "normal" else {"mode": request.rewrite}  # a plugin's may have no modes
        rewriter = load_rewriter(request.rewriter, {**mode, **request.rewriter_options})
    rewritten = {}
    with stages.stage("rewrite", len(prompts), "prompts") as prompt_done:
        for out, prompt in prompts.items():
            rewritten[out] = prompt
            try:
                told = explained(rewriter, prompt)
            except RewriterUnavailable as error:  # one prompt's failure costs no other its sample
                if len(prompts) == 1:
                    raise
                stages.note(f"the prompt {prompt!r} is kept as it is: {error}")
            else:
                rewritten[out] = told.rewritten
                if told.fallback:
                    stages.note(f"the prompt {prompt!r} is kept as it is: {told.fallback}")
            prompt_done()
    return rewritten
