"""Prompt rewriting for video models.

The names below are imported when first used: listing this package's plugin must not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hy_rewrite.checks import Detail
    from hy_rewrite.choice import explained, load_rewriter
    from hy_rewrite.collecting import Collected, collect, read_prompts, remaining
    from hy_rewrite.dialogue import Chat
    from hy_rewrite.errors import RewriteError, RewriterUnavailable
    from hy_rewrite.evaluation import Evaluation, drafts, evaluate
    from hy_rewrite.fields import FIELDS, clean, prompt_text
    from hy_rewrite.local import local_rewriter
    from hy_rewrite.pairs import Pair, read_pairs
    from hy_rewrite.result import Rewrite, Round
    from hy_rewrite.rewriter import ChatRewriter, Options
    from hy_rewrite.server import server_rewriter
    from hy_rewrite.template import TemplateRewriter

__all__ = [
    "FIELDS",
    "Chat",
    "ChatRewriter",
    "Collected",
    "Detail",
    "Evaluation",
    "Options",
    "Pair",
    "Rewrite",
    "RewriteError",
    "RewriterUnavailable",
    "Round",
    "TemplateRewriter",
    "clean",
    "collect",
    "drafts",
    "evaluate",
    "explained",
    "load_rewriter",
    "local_rewriter",
    "prompt_text",
    "read_pairs",
    "read_prompts",
    "remaining",
    "server_rewriter",
]

_HOME = {
    "Chat": "hy_rewrite.dialogue",
    "ChatRewriter": "hy_rewrite.rewriter",
    "Collected": "hy_rewrite.collecting",
    "Detail": "hy_rewrite.checks",
    "Evaluation": "hy_rewrite.evaluation",
    "FIELDS": "hy_rewrite.fields",
    "Options": "hy_rewrite.rewriter",
    "Pair": "hy_rewrite.pairs",
    "Rewrite": "hy_rewrite.result",
    "RewriteError": "hy_rewrite.errors",
    "RewriterUnavailable": "hy_rewrite.errors",
    "Round": "hy_rewrite.result",
    "TemplateRewriter": "hy_rewrite.template",
    "clean": "hy_rewrite.fields",
    "collect": "hy_rewrite.collecting",
    "drafts": "hy_rewrite.evaluation",
    "evaluate": "hy_rewrite.evaluation",
    "explained": "hy_rewrite.choice",
    "load_rewriter": "hy_rewrite.choice",
    "local_rewriter": "hy_rewrite.local",
    "prompt_text": "hy_rewrite.fields",
    "read_pairs": "hy_rewrite.pairs",
    "read_prompts": "hy_rewrite.collecting",
    "remaining": "hy_rewrite.collecting",
    "server_rewriter": "hy_rewrite.server",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
