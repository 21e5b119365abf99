"""The workspace's members, as their pyproject.toml files describe them. Standard library only: CI reads it bare."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One package or app.

    Attributes:
        name: distribution name, such as ``hy-vae3d``.
        folder: where it lives.
        version: the static version.
        dependencies: runtime requirements, as written.
        extras: requirements of each extra, as written.
        groups: requirements of each dependency group, as written.
    """

    name: str
    folder: Path
    version: str
    dependencies: tuple[str, ...]
    extras: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, tuple[str, ...]]

    @property
    def module(self) -> str:
        """The import name: the distribution name with underscores."""
        return self.name.replace("-", "_")

    @property
    def source(self) -> Path:
        """The folder of the importable package."""
        return self.folder / "src" / self.module

    @property
    def requirements(self) -> tuple[str, ...]:
        """Every requirement: runtime, extras and groups."""
        optional = [*self.extras.values(), *self.groups.values()]
        return (*self.dependencies, *(requirement for listed in optional for requirement in listed))


def read_member(folder: Path) -> Member:
    """Read one member's pyproject.toml."""
    content: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    project = content["project"]
    return Member(
        name=project["name"],
        folder=folder,
        version=project["version"],
        dependencies=tuple(project.get("dependencies", ())),
        extras={extra: tuple(listed) for extra, listed in project.get("optional-dependencies", {}).items()},
        groups={group: tuple(listed) for group, listed in content.get("dependency-groups", {}).items()},
    )


def read_members(root: Path = ROOT) -> dict[str, Member]:
    """All members by name, in alphabetical order; packages first, then apps."""
    files = [*sorted(root.glob("packages/*/pyproject.toml")), *sorted(root.glob("apps/*/pyproject.toml"))]
    found = [read_member(file.parent) for file in files]
    return {member.name: member for member in found}


def required_name(requirement: str) -> str:
    """The normalised distribution name that a requirement such as ``hy-dit[x]>=0.1`` asks for."""
    named = re.match(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)", requirement)
    if named is None:
        raise ValueError(f"{requirement!r} does not begin with a distribution name")
    return re.sub(r"[-_.]+", "-", named.group(1)).lower()


def siblings(requirements: Iterable[str], members: Mapping[str, Member]) -> list[str]:
    """The workspace members among some requirements, each once."""
    return list(dict.fromkeys(name for name in map(required_name, requirements) if name in members))


def closure(name: str, members: Mapping[str, Member]) -> list[str]:
    """A member and every member it needs, for running and for its tests; dependencies come first."""
    ordered: list[str] = []

    def visit(current: str, path: tuple[str, ...]) -> None:
        if current in ordered or current in path:
            return
        for sibling in siblings(members[current].requirements, members):
            visit(sibling, (*path, current))
        ordered.append(current)

    visit(name, ())
    return ordered


def dependants(names: Iterable[str], members: Mapping[str, Member]) -> list[str]:
    """The given members and every member that needs one of them, in the workspace's order."""
    wanted = set(names)
    return [name for name in members if wanted & set(closure(name, members))]
