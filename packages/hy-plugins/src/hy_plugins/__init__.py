"""The contract of the hyvideo family: components, protocols, typed values, conformance kits and the hyvideo command."""

from hy_plugins.components import PLUGIN_API, Component, hookimpl, hy_components
from hy_plugins.errors import HyError, PluginError, UnknownComponent
from hy_plugins.registry import BrokenPlugin, Plugin, Plugins
from hy_plugins.types import TextTokens

__all__ = [
    "PLUGIN_API",
    "BrokenPlugin",
    "Component",
    "HyError",
    "Plugin",
    "PluginError",
    "Plugins",
    "TextTokens",
    "UnknownComponent",
    "hookimpl",
    "hy_components",
]
