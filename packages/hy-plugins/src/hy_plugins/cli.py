"""The `hyvideo` command: runs the component of kind `command` with that name, and imports nothing else."""

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version

from hy_plugins.components import PLUGIN_API
from hy_plugins.errors import HyError
from hy_plugins.registry import Plugins, one_line

_HELP = """usage: hyvideo COMMAND [ARGUMENT ...]

commands:
{commands}

`hyvideo COMMAND --help` explains a command; `hyvideo --version` prints the versions.
In the environment: HYVIDEO_DEBUG=1 shows tracebacks, HY_PLUGINS_DISABLE=a,b (or *) leaves plugins out,
HY_PLUGINS_STRICT=1 stops at the first broken plugin."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `hyvideo` and return its exit code: a foreseen error is one message, a bug keeps its traceback."""
    try:
        code = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader (`head`, say) has left; Python must not flush into the pipe again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except (Exception, KeyboardInterrupt) as error:
        code, message = _judge(error)
        if code is None:
            raise
        if os.environ.get("HYVIDEO_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        print(message, file=sys.stderr)
        return code


def _judge(error: BaseException) -> tuple[int | None, str]:
    """Exit code and message of an error that a user can act on; the code of a bug is None."""
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    of_a_file = isinstance(error, OSError) and (error.filename or error.errno in (errno.ENOSPC, errno.EDQUOT))
    code = getattr(error, "exit_code", 2 if of_a_file else None)  # structural: not every package can import HyError
    message = str(error).removeprefix(f"[Errno {getattr(error, 'errno', '')}] ") or type(error).__name__
    return code if isinstance(code, int) else None, f"error: {message}"


def _dispatch(argv: Sequence[str]) -> int:
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        commands = [(f"  {command.name}", command.summary) for command in Plugins().components("command")]
        print(_HELP.format(commands=_columns(commands or [("  none: no plugin offers one",)])))
    elif name == "--version":
        print("hyvideo {} (plugin API {}.{})".format(version("hy-plugins"), *PLUGIN_API))
    elif name.startswith("-"):
        raise HyError(f"unknown option '{name}'; see `hyvideo --help`")
    else:
        return Plugins().load("command", name)(rest)
    return 0


def list_plugins(argv: Sequence[str]) -> int:
    """Run `hyvideo plugins`."""
    argparse.ArgumentParser("hyvideo plugins", description="List plugins and what they offer.").parse_args(argv)
    plugins = Plugins()
    rows = [("PLUGIN", "DISTRIBUTION", "VERSION", "API", "COMPONENT", "SUMMARY")]
    for plugin in plugins.loaded:
        lines = [(f"{component.kind} {component.name}", component.summary) for component in plugin.components]
        origin = (plugin.name, plugin.distribution, plugin.version, "{}.{}".format(*plugin.api))
        rows.append((*origin, *(lines or [("-", "")])[0]))
        rows += [("", "", "", "", *line) for line in lines[1:]]
    rows += [(p.name, p.distribution, p.version, "-", "broken", one_line(p.error)) for p in plugins.broken]
    rows += [(name, "-", "-", "-", "disabled", "by HY_PLUGINS_DISABLE") for name in plugins.disabled]
    print(_columns(rows))
    return 0


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
