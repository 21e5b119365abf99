"""Choosing a rewriter by name, whoever brings it."""

import inspect
from collections.abc import Mapping

from hy_plugins import Plugins
from hy_plugins.protocols import Rewriter

from hy_rewrite.errors import RewriteError
from hy_rewrite.result import Rewrite


def load_rewriter(name: str, options: Mapping[str, object]) -> Rewriter:
    """Build the rewriter that a plugin offers under that name.

    Args:
        name: Such as `local`, `server` or `template`.
        options: What it is built with.

    Raises:
        UnknownComponent: No plugin offers it.
        RewriteError: It doesn't take such an option, or needs another one; or refuses a value.
    """
    build = Plugins().load("rewriter", name)
    taken = inspect.signature(build).parameters
    unknown = [option for option in options if option not in taken]
    if unknown:
        known = ", ".join(taken) or "no options"
        raise RewriteError(f"the rewriter {name!r} takes no {', '.join(unknown)}; it takes {known}")
    needed = [one.name for one in taken.values() if one.default is one.empty and one.name not in options]
    if needed:
        raise RewriteError(f"the rewriter {name!r} needs {', '.join(needed)}")
    try:
        return build(**options)
    except TypeError as error:
        raise RewriteError(f"the rewriter {name!r} refuses an option's type: {error}") from error


def explained(rewriter: Rewriter, prompt: str) -> Rewrite:
    """Rewrite a prompt with any rewriter; one that can't explain itself tells its text alone."""
    explain = getattr(rewriter, "explain", None)
    if explain is not None:
        return explain(prompt)
    return Rewrite(original=prompt, rewritten=rewriter.rewrite(prompt), by=type(rewriter).__name__, mode="")
