"""What this transformer tells those who spread it over devices or over a device and its host: its parts, by path."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DiTParallelPlan:
    """A `ParallelPlan` of every `DiT`, whatever its size.

    Attributes:
        blocks: the units of sharding, recomputing and offloading, in the order in which they compute.
        tensor: how layers are split within a block; empty, since no such split has been worked out.
    """

    blocks: tuple[str, ...] = ("txt_in.individual_token_refiner.blocks.*", "double_blocks.*", "single_blocks.*")
    tensor: Mapping[str, str] = field(default_factory=dict)
