"""Finding plugins, one at a time: a broken one is reported by name and leaves the rest working."""

import functools
import importlib
import os
import sys
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import pluggy

from hy_plugins import components as specification
from hy_plugins.components import GROUP, PLUGIN_API, Component
from hy_plugins.errors import PluginError, UnknownComponent

_print_once = functools.cache(print)  # a command makes its own `Plugins` after the dispatcher did


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A plugin: where it comes from and what it offers."""

    name: str
    distribution: str
    version: str
    api: tuple[int, int] = PLUGIN_API
    components: tuple[Component, ...] = ()

    def __str__(self) -> str:
        return f"plugin '{self.name}' ({self.distribution} {self.version})"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenPlugin(Plugin):
    """A plugin that cannot be used, and why."""

    error: BaseException

    def __str__(self) -> str:
        return f"{Plugin.__str__(self)} is broken: {one_line(self.error)}"


class Plugins:
    """The plugins of this environment: `loaded`, `broken` (each reported once on stderr) and `disabled` (their names).

    There is no global: make one where it is needed.

    Args:
        discover: load the entry points of group `hy_plugins`, but those that `HY_PLUGINS_DISABLE=a,b` (or `*`) names.
        strict: raise at the first broken plugin instead of collecting it; None asks `HY_PLUGINS_STRICT`.
    """

    def __init__(self, *, discover: bool = True, strict: bool | None = None) -> None:
        self.loaded: list[Plugin] = []
        self.broken: list[BrokenPlugin] = []
        self.disabled: list[str] = []
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(specification)
        if discover:
            self._discover(os.environ.get("HY_PLUGINS_STRICT", "0") not in ("", "0") if strict is None else strict)

    def _discover(self, strict: bool) -> None:
        from importlib.metadata import entry_points  # here, since it costs as much as all our other imports

        disabled = {name.strip() for name in os.environ.get("HY_PLUGINS_DISABLE", "").split(",")}
        for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.dist.name if p.dist else "")):
            if disabled & {"*", point.name}:
                self.disabled.append(point.name)
                continue
            distribution, version = (point.dist.name, point.dist.version) if point.dist else ("unpackaged", "-")
            try:
                self.register(point.load(), name=point.name, distribution=distribution, version=version)
            except (Exception, SystemExit) as error:
                broken = BrokenPlugin(name=point.name, distribution=distribution, version=version, error=error)
                if strict:
                    raise PluginError(str(broken)) from error
                self.broken.append(broken)
                _print_once(f"hyvideo: {broken}", file=sys.stderr)

    def register(self, plugin: object, *, name: str, distribution: str = "unpackaged", version: str = "-") -> None:
        """Add `plugin`, a module with `PLUGIN_API` and `hy_components`: wholly, or it raises and nothing is added."""
        if twin := next((other for other in self.loaded if other.name == name), None):
            raise PluginError(f"the name '{name}' is taken by {twin}")
        api: Any = getattr(plugin, "PLUGIN_API", None)
        if api not in (accepted := [(PLUGIN_API[0], minor) for minor in range(PLUGIN_API[1] + 1)]):
            raise PluginError(f"PLUGIN_API is {api!r}; this hy-plugins takes {accepted[0]} to {accepted[-1]}")
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
            listed = self._listed(plugin)
        except BaseException:
            self._manager.unregister(name=name)
            raise
        self.loaded.append(Plugin(name=name, distribution=distribution, version=version, api=api, components=listed))

    def _listed(self, plugin: object) -> tuple[Component, ...]:
        """Call this plugin's hook alone, and hold its answer against what the others offer."""
        others = self._manager.get_plugins() - {plugin}
        answers: list[Any] = self._manager.subset_hook_caller("hy_components", others)()
        if not answers:
            raise PluginError("there is no `@hookimpl def hy_components()`, or it returned None")
        taken = {(c.kind, c.name): str(other) for other in self.loaded for c in other.components}
        listed: list[Component] = []
        for component in answers[0]:
            if not isinstance(component, Component):
                raise PluginError(f"hy_components gave {component!r}, which is no Component")
            if twin := taken.get((component.kind, component.name)):
                raise PluginError(f"{component.kind} '{component.name}' is offered already by {twin}")
            taken[component.kind, component.name] = "itself"
            listed.append(component)
        return tuple(listed)

    def unregister(self, name: str) -> None:
        """Remove a plugin and its components."""
        if self._manager.unregister(name=name) is None:
            raise PluginError(f"no plugin '{name}' is loaded")
        self.loaded = [plugin for plugin in self.loaded if plugin.name != name]

    def components(self, kind: str) -> list[Component]:
        """The components of that kind, sorted by name."""
        found = (component for plugin in self.loaded for component in plugin.components if component.kind == kind)
        return sorted(found, key=attrgetter("name"))

    def names(self, kind: str) -> list[str]:
        """The names of that kind's components, sorted."""
        return [component.name for component in self.components(kind)]

    def load(self, kind: str, name: str) -> Any:
        """Import the target of that component.

        Raises:
            UnknownComponent: no plugin offers it; chained to what broke those that might have.
            PluginError: the target cannot be imported; chained to the reason.
        """
        for plugin in self.loaded:
            for component in plugin.components:
                if (component.kind, component.name) == (kind, name):
                    return _imported(component, plugin)
        errors = [broken.error for broken in self.broken]
        cause = errors[0] if len(errors) == 1 else BaseExceptionGroup("broken plugins", errors) if errors else None
        raise UnknownComponent(self._unknown(kind, name)) from cause

    def _unknown(self, kind: str, name: str) -> str:
        import difflib

        known = self.names(kind)
        hint = "".join(f"; did you mean '{near}'?" for near in difflib.get_close_matches(name, known, n=1))
        lines = [f"no {kind} '{name}'{hint}", f"known: {', '.join(known) or 'none'}", *map(str, self.broken)]
        lines += [f"plugin '{plugin}' is switched off by HY_PLUGINS_DISABLE" for plugin in self.disabled]
        return "\n  ".join(lines)


def _imported(component: Component, plugin: Plugin) -> Any:
    module, _, attribute = component.target.partition(":")
    try:
        return attrgetter(attribute)(importlib.import_module(module))
    except Exception as error:
        what = f"{component.kind} '{component.name}' of {plugin} cannot be imported from '{component.target}'"
        raise PluginError(f"{what}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The error's type and message without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())
