"""What a plugin says about itself: one hook that lists components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

GROUP = "hy_plugins"
"""The entry-point group, and the name of the pluggy project."""

PLUGIN_API = (1, 0)
"""The contract's version: a plugin needs the same major and at most this minor."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One thing that a plugin offers.

    Attributes:
        kind: `condition`, `backbone`, `autoencoder` …: see `hy_plugins.protocols.KINDS`; the set is open.
        name: kebab-case, unique within its kind: what a human types.
        target: "package.module:attribute", imported only when asked for.
        summary: one line, for `hyvideo plugins`.
    """

    kind: str
    name: str
    target: str
    summary: str


@hookspec
def hy_components() -> Iterable[Component]:  # pyright: ignore[reportReturnType] - a specification has no body
    """List the components of this plugin. Import nothing heavy here: targets are strings."""
