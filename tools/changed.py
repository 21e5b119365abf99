"""Print, as a JSON list, the members that a change touches, together with those that depend on them."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from members import ROOT, Member, dependants, read_members

# A change here can break any member; a change elsewhere outside the members (documents, benchmarks) breaks none.
SHARED = ("pyproject.toml", ".python-version", "conftest.py", ".ci", ".github", "tools")


def changed_paths(base: str) -> list[str] | None:
    """The paths that differ between the fork point from ``base`` and HEAD; None where git does not know ``base``."""
    command = ["git", "diff", "--name-only", "--no-renames", f"{base}...HEAD"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        print(f"no common history with {base!r}, so every member counts as changed", file=sys.stderr)
        return None
    return answer.stdout.splitlines()


def affected(paths: Iterable[str], members: Mapping[str, Member]) -> list[str]:
    """The members that a change of ``paths`` (relative to the root) can break."""
    owners = {member.folder.relative_to(ROOT).as_posix(): name for name, member in members.items()}
    touched: set[str] = set()
    for path in map(PurePosixPath, paths):
        if path.parts[0] in SHARED:
            return list(members)
        owner = owners.get("/".join(path.parts[:2]))
        if owner is not None:
            touched.add(owner)
    return dependants(touched, members)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", help="the branch or commit to compare HEAD with, such as origin/main")
    members = read_members()
    paths = changed_paths(parser.parse_args(argv).base)
    print(json.dumps(list(members) if paths is None else affected(paths, members)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
