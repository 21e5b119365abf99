"""The same weights under other names, cut otherwise: rules that hold in both directions.

Some releases store one tensor of ours as several, or with its halves swapped. A `Layout` says how, as data, and gives
views that rename, join and cut a tensor when it is asked for: nothing is held in memory twice.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from hy_weights.errors import CheckpointError, listing


@dataclass(frozen=True, slots=True)
class Rule:
    """How one layer of ours is stored elsewhere; its weight and its bias alike.

    Attributes:
        ours: The layer's name, `{}` for a block's number.
        theirs: Their name, or several whose rows follow each other in ours; `{}` as in `ours`.
        swapped: The first and the second half of the rows change places.
    """

    ours: str
    theirs: tuple[str, ...]
    swapped: bool = False


@dataclass(frozen=True)
class Layout:
    """One way to store a kind of model.

    Attributes:
        name: Whose it is, for messages.
        rules: One for each layer of the model.
    """

    name: str
    rules: tuple[Rule, ...]
    _by_ours: dict[str, Rule] = field(init=False, repr=False)
    _by_theirs: dict[str, Rule] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Index the rules by name."""
        object.__setattr__(self, "_by_ours", {rule.ours: rule for rule in self.rules})
        object.__setattr__(self, "_by_theirs", {name: rule for rule in self.rules for name in rule.theirs})

    def to_ours(self, tensors: Mapping[str, Tensor]) -> "View":
        """Return the tensors under our names; a key without a rule keeps its own, and will be unexpected.

        Raises:
            CheckpointError: Parts of joint tensors are missing, or one is there under both names.
        """
        entries: dict[str, Entry] = {}
        lacking: set[str] = set()
        for key in tensors:
            pattern, numbers, kind = _pattern(key)
            rule = self._by_theirs.get(pattern)
            if rule is None:
                entries[key] = Entry((key,))
                continue
            parts = tuple(_key(name, numbers, kind) for name in rule.theirs)
            lacking.update(part for part in parts if part not in tensors)
            ours = _key(rule.ours, numbers, kind)
            if ours in tensors and ours not in parts:
                raise CheckpointError(f"keys {key!r}, of the layout of {self.name}, and {ours!r} mean the same weight")
            entries[ours] = Entry(parts, _join(rule))
        if lacking:
            raise CheckpointError(
                f"in the layout of {self.name}, parts of joint tensors are missing: {listing(sorted(lacking))}"
            )
        return View(tensors, entries)

    def from_ours(self, tensors: Mapping[str, Tensor], width: int) -> "View":
        """Return our tensors under this layout's names.

        Args:
            tensors: By our names.
            width: Rows of every part of a joint tensor but the last, which has the rest.

        Raises:
            CheckpointError: A key has no rule.
        """
        entries: dict[str, Entry] = {}
        unknown = [key for key in tensors if _pattern(key)[0] not in self._by_ours]
        if unknown:
            raise CheckpointError(f"keys not known to the layout of {self.name}: {listing(unknown)}")
        for key in tensors:
            pattern, numbers, kind = _pattern(key)
            rule = self._by_ours[pattern]
            for place, name in enumerate(rule.theirs):
                entries[_key(name, numbers, kind)] = Entry((key,), _cut(rule, place, width))
        return View(tensors, entries)


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a view: which tensors it is made from, and how; one tensor is taken as it is."""

    sources: tuple[str, ...]
    make: Callable[..., Tensor] = lambda tensor: tensor


class View(Mapping[str, Tensor]):
    """Tensors made from others when they are asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], entries: Mapping[str, Entry]) -> None:
        self._tensors = tensors
        self._entries = entries

    def __getitem__(self, key: str) -> Tensor:
        entry = self._entries[key]
        return entry.make(*(self._tensors[source] for source in entry.sources))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def outline(self, key: str) -> Tensor:
        """Return a tensor of the same shape and dtype, on `meta`; nothing is read."""
        entry = self._entries[key]
        return entry.make(*(outline(self._tensors, source) for source in entry.sources))


def outline(tensors: Mapping[str, Tensor], key: str) -> Tensor:
    """Return the shape and dtype of a mapping's tensor, as a tensor on `meta`."""
    return tensors.outline(key) if isinstance(tensors, View) else torch.empty_like(tensors[key], device="meta")


def prefix_before(keys: Iterable[str], marks: Collection[str]) -> str | None:
    """Return what a checkpoint's keys begin with besides a model's own names, such as "module." or "".

    Args:
        keys: The checkpoint's.
        marks: Keys of the model, of which every checkpoint of it has one.

    Returns:
        What stands before a mark; None if no key is one or ends in one.
    """
    for key in keys:
        for mark in marks:
            if key == mark or key.endswith(f".{mark}"):
                return key.removesuffix(mark)
    return None


def renamed(
    tensors: Mapping[str, Tensor],
    substitutions: Iterable[tuple[str, str]],
    make: Callable[[str], Callable[..., Tensor]] | None = None,
) -> View:
    """Return tensors under other names.

    Args:
        tensors: By stored name.
        substitutions: Regular expressions and what replaces their matches in a key, one after the other.
        make: From a new name to what is done with its tensor; None leaves all as they are.

    Raises:
        CheckpointError: Two keys get the same name.
    """
    rules = [(re.compile(pattern), by) for pattern, by in substitutions]
    entries: dict[str, Entry] = {}
    for key in tensors:
        name = key
        for pattern, by in rules:
            name = pattern.sub(by, name)
        if name in entries:
            raise CheckpointError(f"keys {entries[name].sources[0]!r} and {key!r} are both {name!r}; one is too many")
        entries[name] = Entry((key,), make(name)) if make else Entry((key,))
    return View(tensors, entries)


def _pattern(key: str) -> tuple[str, tuple[str, ...], str]:
    """Part "blocks.7.norm.weight" into "blocks.{}.norm", ("7",) and "weight"; only numbers of blocks become braces."""
    name, _, kind = key.rpartition(".")
    numbers = tuple(match[1] for match in re.finditer(r"blocks\.(\d+)\.", name))
    return re.sub(r"blocks\.\d+\.", "blocks.{}.", name), numbers, kind


def _key(name: str, numbers: Iterable[str], kind: str) -> str:
    return f"{name.format(*numbers)}.{kind}"


def _join(rule: Rule) -> Callable[..., Tensor]:
    def make(*parts: Tensor) -> Tensor:
        joint = parts[0] if len(parts) == 1 else _stack(parts)
        return _swap(joint) if rule.swapped else joint

    return make


def _cut(rule: Rule, place: int, width: int) -> Callable[..., Tensor]:
    last = place == len(rule.theirs) - 1

    def make(tensor: Tensor) -> Tensor:
        if rule.swapped:
            tensor = _swap(tensor)
        return tensor[place * width :] if last else tensor[place * width : (place + 1) * width]

    return make


def _swap(tensor: Tensor) -> Tensor:
    first, second = tensor.chunk(2)
    return _stack((second, first))


def _stack(parts: Sequence[Tensor]) -> Tensor:
    """Rows after rows. On `meta`, torch.cat would import PyTorch's symbolic maths first, which takes seconds."""
    if not parts[0].is_meta:
        return torch.cat(list(parts))
    dtype = reduce(torch.promote_types, (part.dtype for part in parts))
    return parts[0].new_empty((sum(len(part) for part in parts), *parts[0].shape[1:]), dtype=dtype)
