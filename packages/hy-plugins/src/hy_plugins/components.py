"""What a plugin says about itself: one hook that lists components."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pluggy

from hy_plugins.errors import PluginError

GROUP = "hy_plugins"  # the entry-point group, and pluggy's project name
PLUGIN_API = (1, 0)  # a plugin needs this major and at most this minor

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

_PATTERNS = {
    "kind": re.compile(r"[a-z][a-z0-9_]*"),
    "name": re.compile(r"[a-z0-9]+(-[a-z0-9]+)*"),
    "target": re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*"),
    "summary": re.compile(r"\S.*"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One thing that a plugin offers; a malformed field raises `PluginError`."""

    kind: str  # snake_case; an open set; `hy_plugins.protocols` says what each must do
    name: str  # kebab-case, unique within its kind: what a human types
    target: str  # "package.module:attribute", imported only when asked for
    summary: str  # one line, for `hyvideo plugins`

    def __post_init__(self) -> None:
        for field, pattern in _PATTERNS.items():
            value = getattr(self, field)
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise PluginError(f"component {self.kind} {self.name}: {field}={value!r} must match {pattern.pattern}")


@hookspec
def hy_components() -> Iterable[Component]:
    """List the plugin's components. Import nothing heavy for it: targets are strings."""
    return ()
