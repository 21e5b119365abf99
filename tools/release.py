"""Prepare, check and describe the release of one member. CONTRIBUTING.md says when to use which.

A release is named by its tag, such as hy-vae3d-v0.4.0, before that tag exists: the workflow release.yml builds,
verifies and publishes under the name, and sets the tag last, so that a failed release leaves no tag that lies.
"""

import argparse
import datetime
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

from members import ROOT, Member, read_members

TAG = re.compile(r"(?P<name>[a-z0-9-]+)-v(?P<version>\d+\.\d+\.\d+)")
UNRELEASED = re.compile(r"^## .*\bunreleased\b.*$", re.IGNORECASE | re.MULTILINE)


class ReleaseError(Exception):
    """A release that must not happen; the message says why and what would be right."""


def member_of(name: str, members: Mapping[str, Member]) -> Member:
    """The member of that name."""
    if name not in members:
        raise ReleaseError(f"no member is called {name!r}; there are {', '.join(members)}")
    return members[name]


def section(member: Member, version: str) -> str:
    """What the member's CHANGELOG.md says about a dated version."""
    changelog = (member.folder / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = rf"^## {re.escape(version)} \(\d{{4}}-\d{{2}}-\d{{2}}\)$"
    found = re.search(heading + r"\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None or not found.group(1).strip():
        raise ReleaseError(f"{member.name}'s CHANGELOG.md has no filled section '## {version} (YYYY-MM-DD)'")
    return found.group(1).strip()


def prepare(member: Member, version: str, today: datetime.date) -> None:
    """Set the version and date the changelog's unreleased section."""
    if TAG.fullmatch(f"{member.name}-v{version}") is None:
        raise ReleaseError(f"{version!r} is no version; write major.minor.patch, such as 0.4.0")
    changelog = member.folder / "CHANGELOG.md"
    dated, headings = UNRELEASED.subn(f"## {version} ({today.isoformat()})", changelog.read_text(encoding="utf-8"))
    if headings != 1:
        raise ReleaseError(f"{changelog.relative_to(member.folder)} has {headings} unreleased headings; it needs one")
    project = member.folder / "pyproject.toml"
    text = re.sub(
        r'^version = ".*"$', f'version = "{version}"', project.read_text(encoding="utf-8"), count=1, flags=re.M
    )
    changelog.write_text(dated, encoding="utf-8")
    project.write_text(text, encoding="utf-8")


def check(tag: str, members: Mapping[str, Member], existing: Sequence[str]) -> Member:
    """The member that a tag releases, if this commit may be released under it.

    Args:
        tag: the release's name.
        members: the workspace.
        existing: the tags that there are already.

    Raises:
        ReleaseError: the tag is malformed or taken, or names another version, or the changelog is silent about it.
    """
    named = TAG.fullmatch(tag)
    if named is None:
        raise ReleaseError(f"{tag!r} names no release; write <package>-v<major.minor.patch>, such as hy-vae3d-v0.4.0")
    member = member_of(named["name"], members)
    if named["version"] != member.version:
        raise ReleaseError(f"{member.name} is at {member.version} in this commit, not at {named['version']}")
    if tag in existing:
        raise ReleaseError(f"{tag} is released already; prepare a new version")
    section(member, member.version)
    return member


def existing_tags() -> list[str]:
    """The repository's tags."""
    listed = subprocess.run(["git", "tag", "--list"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    preparing = verbs.add_parser("prepare", help="set a member's version and date its changelog section")
    preparing.add_argument("package", help="such as hy-vae3d")
    preparing.add_argument("version", help="such as 0.4.0")
    checking = verbs.add_parser("check", help="print the package that a tag may release from this commit, or fail")
    checking.add_argument("tag", help="such as hy-vae3d-v0.4.0")
    describing = verbs.add_parser("notes", help="print a release's changelog section")
    describing.add_argument("tag", help="such as hy-vae3d-v0.4.0")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks."""
    options = parse(argv)
    members = read_members()
    try:
        if options.verb == "prepare":
            prepare(member_of(options.package, members), options.version, datetime.date.today())
        elif options.verb == "check":
            print(check(options.tag, members, existing_tags()).name)
        else:
            member = check(options.tag, members, [])
            print(section(member, member.version))
    except ReleaseError as problem:
        print(f"release: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
