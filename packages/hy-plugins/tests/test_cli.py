"""`hyvideo` as a person meets it: what it prints, where, and its exit code."""

import sys

import pytest
from hy_plugins.cli import main

FAILING = """
import errno
from hy_plugins import HyError
class Foreign(Exception):
    exit_code = 3
class Odd(Exception):
    exit_code = "two"
ERRORS = {
    "house": HyError("frames=3 must be 4n+1\\n  in clip.mp4"),
    "silent": HyError(),
    "foreign": Foreign("no such key"),
    "odd": Odd("a bug"),
    "bug": KeyError("x"),
    "denied": PermissionError(13, "Permission denied", "/out.mp4"),
    "full": OSError(28, "No space left on device"),
    "quota": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "unnamed": OSError(5, "Input/output error"),
    "interrupt": KeyboardInterrupt(),
}
def main(argv):
    raise ERRORS[argv[0]]
"""


@pytest.fixture
def commands(site):
    """Two commands: `echo` prints its arguments and returns their number, `fail` raises the error that it is told."""
    site.plugin(
        "apps",
        "command echo echo_target:main",
        "command fail fail_target:main",
        echo_target="def main(argv):\n    print(argv)\n    return len(argv)",
        fail_target=FAILING,
    )
    return site


def test_a_command_gets_its_arguments_and_gives_its_exit_code(commands, capsys):
    assert main(["echo", "a", "--help"]) == 2
    assert capsys.readouterr().out == "['a', '--help']\n"
    assert "fail_target" not in sys.modules


def test_arguments_come_from_the_command_line(commands, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hyvideo", "echo"])
    assert main() == 0
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_help_lists_the_commands_with_their_summaries(commands, capsys, argv):
    assert main(argv) == 0
    usage, commands, notes = capsys.readouterr().out.split("\n\n")
    assert usage == "usage: hyvideo COMMAND [ARGUMENT ...]"
    assert commands == "commands:\n  echo  a summary\n  fail  a summary"
    assert "HYVIDEO_DEBUG=1" in notes
    assert "HY_PLUGINS_STRICT=1" in notes
    assert not {"echo_target", "fail_target"} & set(sys.modules)


def test_version(commands, monkeypatch, capsys):
    monkeypatch.setattr("hy_plugins.cli.version", {"hy-plugins": "9.8.7"}.get)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "hyvideo 9.8.7 (plugin API 1.0)\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["ecko"], "error: no command 'ecko'; did you mean 'echo'?\n  known: echo, fail\n"),
        (["--vresion"], "error: unknown option '--vresion'; see `hyvideo --help`\n"),
        (["fail", "house"], "error: frames=3 must be 4n+1\n  in clip.mp4\n"),
        (["fail", "silent"], "error: HyError\n"),
        (["fail", "denied"], "error: Permission denied: '/out.mp4'\n"),
        (["fail", "full"], "error: No space left on device\n"),
        (["fail", "quota"], "error: Disk quota exceeded\n"),
    ],
)
def test_a_foreseen_error_is_one_message_and_exit_code_2(commands, capsys, argv, message):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", message)


def test_any_exception_may_carry_its_exit_code(commands, capsys):
    assert main(["fail", "foreign"]) == 3
    assert capsys.readouterr().err == "error: no such key\n"


@pytest.mark.parametrize(("name", "error"), [("bug", KeyError), ("odd", Exception), ("unnamed", OSError)])
def test_a_bug_keeps_its_traceback(commands, name, error):
    with pytest.raises(error):
        main(["fail", name])


def test_an_interrupt_is_one_line_and_130(commands, capsys):
    assert main(["fail", "interrupt"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
@pytest.mark.parametrize(("name", "code"), [("house", 2), ("interrupt", 130)])
def test_debug_shows_the_traceback_too(commands, monkeypatch, capsys, value, shown, name, code):
    monkeypatch.setenv("HYVIDEO_DEBUG", value)
    assert main(["fail", name]) == code
    err = capsys.readouterr().err
    assert ("Traceback (most recent call last)" in err and "fail_target.py" in err) is shown
    assert err.endswith("interrupted\n" if name == "interrupt" else "error: frames=3 must be 4n+1\n  in clip.mp4\n")


def test_the_table_of_plugins(site, monkeypatch, capsys):
    site.plugin("tools", "command plugins hy_plugins.cli:list_plugins", "model tiny x:y", distribution="hy-tools")
    site.plugin("empty")
    site.plugin("off")
    site.broken("bad", "raise RuntimeError('no\\nGPU')")
    monkeypatch.setenv("HY_PLUGINS_DISABLE", "off")
    assert main(["plugins"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "PLUGIN  DISTRIBUTION  VERSION  API  COMPONENT        SUMMARY",
        "empty   hy-empty      1.0      1.0  -",
        "tools   hy-tools      1.0      1.0  command plugins  a summary",
        "                                    model tiny       a summary",
        "bad     hy-bad        1.0      -    broken           RuntimeError: no GPU",
        "off     -             -        -    disabled         by HY_PLUGINS_DISABLE",
    ]
    with pytest.raises(SystemExit) as caught:
        main(["plugins", "--all"])
    assert caught.value.code == 2
    assert "usage: hyvideo plugins" in capsys.readouterr().err


def test_the_table_is_offered_by_our_own_plugin(capsys):
    from hy_plugins import Plugins, plugin

    plugins = Plugins(discover=False)
    plugins.register(plugin, name="plugins")
    with pytest.raises(SystemExit, match="0"):
        plugins.load("command", "plugins")(["--help"])
    assert "List plugins" in capsys.readouterr().out


def test_a_broken_plugin_is_one_line_and_commands_go_on(commands, capsys):
    commands.broken("bad", "import no_such_module_anywhere")
    assert main(["echo"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "[]\n"
    assert captured.err.startswith("hyvideo: plugin 'bad' (hy-bad 1.0) is broken: ModuleNotFoundError")
    assert captured.err.count("\n") == 1


def test_strict_stops_every_command(commands, monkeypatch, capsys):
    commands.broken("bad", "import no_such_module_anywhere")
    monkeypatch.setenv("HY_PLUGINS_STRICT", "1")
    assert main(["echo"]) == 2
    assert capsys.readouterr().err.startswith("error: plugin 'bad' (hy-bad 1.0) is broken")


HELP = """
import time
main(["--help"])
print(sorted({"torch", "pytest", "numpy", "hy_plugins.testing"} & set(sys.modules)), time.process_time())
"""


def test_help_is_quick_and_imports_no_torch(site):
    for number in range(20):
        target = {f"heavy{number}": "import torch\ndef main(argv):\n    return 0"}
        site.plugin(f"app{number}", f"command app{number} heavy{number}:main", **target)
    seconds = []
    while min(seconds, default=1) >= 0.3 and len(seconds) < 5:  # a busy machine takes longer, and counts in part
        done = site.run(code=HELP)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("a summary") == 20
        modules, measured = done.stdout.splitlines()[-1].split()
        assert modules == "[]"
        seconds.append(float(measured))
    assert min(seconds) < 0.3


CLOSED_PIPE = """
import os
read, write = os.pipe()
os.dup2(write, 1)
os.close(read)
os.close(write)
raise SystemExit(main())
"""


@pytest.mark.parametrize("lines", [1, 10**5])
def test_a_reader_that_leaves_is_no_error(site, lines):
    target = f"def main(argv):\n    for line in range({lines}):\n        print(line)\n    return 0"
    site.plugin("many", "command many many_target:main", many_target=target)
    done = site.run("many", code=CLOSED_PIPE)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_tracebacks_exit_code_is_not_2(commands):
    done = commands.run("fail", "bug")
    assert done.returncode == 1
    assert "KeyError: 'x'" in done.stderr
