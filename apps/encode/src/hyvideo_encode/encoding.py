"""What a run works on, whatever it encodes: the parts of the sources, and who encodes them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

from hy_weights import TensorStore

U = TypeVar("U")
"""What has an entry of its own in the store: a prompt, a clip in a bucket's size."""
U_contra = TypeVar("U_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Piece(Generic[U]):
    """A stretch of a source: what is in it, or why that can't be read.

    Attributes:
        units: what is in it, each once.
        size: how much of all the sources it is, for the display of progress.
        damage: where and what is wrong; empty where nothing is.
    """

    units: tuple[U, ...]
    size: int
    damage: str = ""


class Coder(Protocol[U_contra]):
    """Encodes in one process; before `load` it only makes keys.

    Attributes:
        float32_bytes: what all that it has encoded would take as float32.
    """

    float32_bytes: int

    def keys(self, units: Sequence[U_contra]) -> list[str]:
        """Give the store's key of each unit."""
        ...

    def fills(self, units: Collection[U_contra]) -> bool:
        """Whether so much is enough for a worker at a time."""
        ...

    def load(self) -> None:
        """Load what encodes, if it isn't yet.

        Raises:
            HyError, CheckpointError: it can't be loaded.
        """
        ...

    def encode(self, units: Sequence[U_contra]) -> None:
        """Encode units, and put the results into the store."""
        ...

    def name(self, unit: U_contra) -> str:
        """Say which unit that is, for messages."""
        ...


class Encoding(Protocol[U_contra]):
    """One kind of thing to encode, known before anything is loaded; goes to the workers.

    Attributes:
        noun: what its units are called, in the plural.
        step: what `Piece.size` counts, in the plural; empty if that is nothing to tell.
        whole: whether the units of a piece go to one worker together.
    """

    noun: ClassVar[str]
    step: ClassVar[str]
    whole: ClassVar[bool]

    def open(self, store: TensorStore, device: str, batch_size: int) -> Coder[U_contra]:
        """Make a coder that works on a device and keeps its results in a store.

        Args:
            store: where results go.
            device: where it works.
            batch_size: units that it encodes at once, at most.
        """
        ...


class Sources(Protocol[U]):
    """Where the units come from.

    Attributes:
        total: the size of all pieces.
    """

    @property
    def total(self) -> int: ...  # noqa: D102

    def pieces(self) -> Iterator[Piece[U]]:
        """Go through them; what is damaged is told, and the rest goes on."""
        ...


@dataclass(frozen=True, slots=True)
class Task(Generic[U]):
    """What one round of a run does.

    Attributes:
        encoding: what is encoded.
        sources: where it comes from.
        store: the folder that keeps it.
        max_size: bound of the store in bytes; None leaves it to the command line.
    """

    encoding: Encoding[U]
    sources: Sources[U]
    store: Path
    max_size: int | None = None
