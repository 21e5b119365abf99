"""Check that packages stand alone: from their wheels, in a bare environment outside the workspace.

For each package: build the wheel, look into it, install it with nothing but its own dependencies, import it, list what
came along, then add its test group and run its tests from a copy outside the repository. A shared environment hides
what this finds: an import that was never declared, a file that is not packed, a bound that excludes a sibling.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from members import ROOT, Member, closure, read_members

UV = os.environ.get("UV", "uv")  # `uv run` tells its children where it is
MARKERS = "slow: takes more than half a minute"


class IsolationError(Exception):
    """A package that does not stand alone; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the environments of one run have in common.

    Attributes:
        python: interpreter version or path, as ``uv venv --python`` takes it.
        resolution: ``highest``, or ``lowest-direct`` for the floors that the package declares.
        wheels: one wheel for each member that is not to come from the package index.
        pins: requirement lines that hold third-party versions.
        date: options that hide what the index received after the workspace's date.
    """

    python: str
    resolution: str
    wheels: Mapping[str, Path]
    pins: str
    date: Sequence[str]


def run(command: Sequence[str | Path], cwd: Path, *, show: bool = False) -> str:
    """Run a command without the caller's Python settings; its output is shown, or returned and shown on failure."""
    kept = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    kept["HY_PLUGINS_STRICT"] = "1"
    kept.setdefault("OMP_NUM_THREADS", "1")  # as the workspace's conftest.py, which does not come along
    output = None if show else subprocess.PIPE
    sys.stdout.flush()
    done = subprocess.run(command, cwd=cwd, env=kept, stdout=output, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise IsolationError(f"exit code {done.returncode} from: {' '.join(map(str, command))}\n{done.stdout or ''}")
    return done.stdout or ""


def build(names: Iterable[str], members: Mapping[str, Member], dist: Path) -> dict[str, Path]:
    """Build each member's sdist, and its wheel from that; return the wheels."""
    wheels: dict[str, Path] = {}
    for name in names:
        run([UV, "build", "--quiet", "--package", name, "--no-sources", "--out-dir", dist], ROOT)
        wheels[name] = dist / f"{members[name].module}-{members[name].version}-py3-none-any.whl"
    return wheels


def check_wheel(member: Member, wheel: Path) -> None:
    """Refuse a wheel without ``py.typed``, with tests, or with anything beside the package."""
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
    if f"{member.module}/py.typed" not in files:
        raise IsolationError(f"{wheel.name} lacks {member.module}/py.typed")
    tests = [file for file in files if "tests" in Path(file).parts or Path(file).name.startswith(("test_", "conftest"))]
    if tests:
        raise IsolationError(f"{wheel.name} contains tests: {', '.join(tests)}")
    strangers = {file.split("/")[0] for file in files} - {member.module, f"{member.module}-{member.version}.dist-info"}
    if strangers:
        raise IsolationError(f"{wheel.name} contains more than {member.module}: {', '.join(sorted(strangers))}")


def install(setup: Setup, room: Path, *requested: str | Path) -> None:
    """Install into the room's environment; members come from their wheels, bounds between them included."""
    held = [f"{name} @ {wheel.as_uri()}" for name, wheel in setup.wheels.items()]
    (room / "constraints.txt").write_text("\n".join([*held, setup.pins]), encoding="utf-8")
    command = [UV, "pip", "install", "--quiet", "--python", room / "venv", "--no-sources", "--no-build"]
    command += ["--constraints", room / "constraints.txt", "--resolution", setup.resolution]
    run([*command, *setup.date, *requested], room)


def check_bare(member: Member, setup: Setup, room: Path) -> None:
    """Install the wheel with its own dependencies only, import it, and print everything that came along."""
    run([UV, "venv", "--quiet", "--no-project", "--python", setup.python, room / "venv"], room)
    install(setup, room, setup.wheels[member.name], *member.dependencies)
    run([UV, "pip", "check", "--quiet", "--python", room / "venv"], room)
    run([room / "venv/bin/python", "-I", "-c", f"import {member.module}"], room)
    if (room / "venv/bin/hyvideo").exists():
        run([room / "venv/bin/hyvideo", "plugins"], room)
    listed = run([UV, "pip", "freeze", "--quiet", "--python", room / "venv"], room)
    print("  installed:", " ".join(line.partition(" @ ")[0] for line in listed.splitlines()))


def run_tests(member: Member, setup: Setup, room: Path) -> None:
    """Add the test group and run the package's tests from a copy that has no ``src`` beside it."""
    if not any(member.folder.glob("tests/**/test_*.py")):
        print("  no tests yet")
        return
    copy = room / member.folder.name
    shutil.copytree(member.folder, copy, ignore=shutil.ignore_patterns("src", "__pycache__"))
    install(setup, room, setup.wheels[member.name], *member.dependencies, "--group", f"{copy / 'pyproject.toml'}:test")
    options = ["-q", "--import-mode=importlib", "--strict-markers", "-o", f"markers={MARKERS}", "-m", "not slow"]
    run([room / "venv/bin/python", "-P", "-m", "pytest", "-p", "no:cacheprovider", *options, "tests"], copy, show=True)


def locked_pins() -> str:
    """The third-party versions of uv.lock, one requirement per line."""
    everything = ["--all-packages", "--all-groups", "--all-extras", "--no-emit-workspace"]
    return run([UV, "export", "--quiet", *everything, "--no-hashes", "--no-annotate", "--no-header"], ROOT)


def parse(argv: Sequence[str] | None, members: Mapping[str, Member]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="+", metavar="PACKAGE", choices=list(members), help="such as hy-vae3d")
    parser.add_argument("--python", default="3.11", help="interpreter of the bare environment (default: %(default)s)")
    parser.add_argument(
        "--resolution",
        choices=["highest", "lowest-direct"],
        default="highest",
        help="install the newest versions that the workspace admits, or the floors that the package declares",
    )
    parser.add_argument("--dist", type=Path, help="take the packages' wheels from here instead of building them")
    parser.add_argument(
        "--from-index",
        action="store_true",
        help="install as users will: siblings too from the package index, and everything as of today",
    )
    return parser.parse_args(argv)


def collect_wheels(options: argparse.Namespace, members: Mapping[str, Member], built: Path) -> dict[str, Path]:
    """The wheels under test, and those of the siblings they need unless these come from the index."""
    wanted = list(options.packages)
    if not options.from_index:
        wanted = list(dict.fromkeys(name for package in wanted for name in closure(package, members)))
    given = {} if options.dist is None else {name: options.dist.resolve() for name in options.packages}
    wheels = build([name for name in wanted if name not in given], members, built)
    for name, folder in given.items():
        wheels[name] = folder / f"{members[name].module}-{members[name].version}-py3-none-any.whl"
    return wheels


def set_up(options: argparse.Namespace, members: Mapping[str, Member], built: Path) -> Setup:
    """Build what is needed, and settle which versions the environments get."""
    root = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pins = locked_pins() if options.resolution == "highest" and not options.from_index else ""
    return Setup(
        python=options.python,
        resolution=options.resolution,
        wheels=collect_wheels(options, members, built),
        pins=pins,
        # Pins need no date, and some indexes know no dates of some files, which a date then hides.
        date=[] if options.from_index or pins else ["--exclude-newer", root["tool"]["uv"]["exclude-newer"]],
    )


def check_package(member: Member, setup: Setup, room: Path) -> None:
    """Do everything that the opening docstring says, for one package."""
    started = time.monotonic()
    print(f"{member.name}: Python {setup.python}, {setup.resolution}")
    room.mkdir()
    check_wheel(member, setup.wheels[member.name])
    check_bare(member, setup, room)
    run_tests(member, setup, room)
    shutil.rmtree(room)
    print(f"  {member.name} stands alone ({time.monotonic() - started:.0f} s)")


def main(argv: Sequence[str] | None = None) -> int:
    """Check each package, also after one has failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a stopped job, too, removes its environments
    members = read_members()
    options = parse(argv, members)
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="hy-isolation-") as folder:
        try:
            setup = set_up(options, members, Path(folder, "dist"))
        except IsolationError as problem:
            print(f"isolation: {problem}", file=sys.stderr)
            return 1
        for name in options.packages:
            try:
                check_package(members[name], setup, Path(folder, name))
            except IsolationError as problem:
                print(f"  {name} does not stand alone: {problem}", file=sys.stderr)
                failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
