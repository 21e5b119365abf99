"""How a run is set up: everything that changes what it needs, except the model and the video."""

from dataclasses import dataclass
from typing import Literal

from hyvideo_plan.errors import PlanError

Precision = Literal["float32", "bfloat16", "mixed"]
"""Of weights and arithmetic; mixed is float32 weights under bfloat16 autocast."""

MOST_RANK = 4096
"""Of an adapter: above the widths of these models it would be no saving."""

Task = Literal["sample", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The settings that knobs turn.

    Attributes:
        task: sampling, or training with latents and text states from a cache.
        precision: of weights and arithmetic.
        batch: clips at once, on each device.
        steps: calls of the transformer per video; of a training, optimizer steps.
        guidance: whether an undistilled model is sampled with classifier-free guidance.
        devices: how many there are.
        keep_all: whether text encoder, transformer and VAE stay in memory together.
        tiled: whether the VAE works in overlapping tiles.
        recompute: whether each block's activations are computed again for its gradients.
        eight_bit_weights: whether the blocks' linear layers are stored in one byte per weight (fp8, int8).
        four_bit_weights: whether they are stored in half a byte, and a scale for each 64 (nf4).
        eight_bit_optimizer: whether AdamW's two moments are stored in one byte each.
        resident_blocks: how many blocks' weights are on the device, the others wait on the host; 0 keeps all.
        sharded: whether weights, gradients and moments are divided over the devices (FSDP).
        sequence_parallel: whether the video's tokens are divided over the devices.
        lora_rank: of the adapters that are trained instead of the weights; 0 trains the weights.
        average_bytes: of each weight's moving average on the device (EMA): 4, 2, or 0 for none.
    """

    task: Task = "sample"
    precision: Precision = "bfloat16"
    batch: int = 1
    steps: int = 50
    guidance: bool = True
    devices: int = 1
    keep_all: bool = False
    tiled: bool = False
    recompute: bool = False
    eight_bit_weights: bool = False
    four_bit_weights: bool = False
    eight_bit_optimizer: bool = False
    resident_blocks: int = 0
    sharded: bool = False
    sequence_parallel: bool = False
    lora_rank: int = 0
    average_bytes: int = 0

    def __post_init__(self) -> None:
        for name, most in (("batch", 100_000), ("steps", 10_000_000), ("devices", 1_000_000)):
            if not 1 <= getattr(self, name) <= most:
                raise PlanError(f"{name} is {getattr(self, name)}; it must be 1 to {most:,}")
        if not 0 <= self.lora_rank <= MOST_RANK:
            raise PlanError(f"lora is {self.lora_rank}; a rank is 1 to {MOST_RANK}, and 0 is full training")
        if self.resident_blocks < 0:
            raise PlanError(f"offload is {self.resident_blocks}; it must be at least 1 block on the device")

    @property
    def training(self) -> bool:
        """Whether gradients are computed."""
        return self.task == "train"

    @property
    def frozen(self) -> bool:
        """Whether the transformer's own weights stay as they are."""
        return not self.training or self.lora_rank > 0

    @property
    def weight_bytes(self) -> int:
        """Bytes per weight of the transformer and the VAE, where it is not rounded."""
        return 2 if self.precision == "bfloat16" else 4

    @property
    def rounded_bytes(self) -> float | None:
        """Bytes per weight of the blocks' linear layers, their scales included; None where they are not rounded."""
        if self.four_bit_weights:
            return 1 / 2 + 4 / 64
        return 1.0 if self.eight_bit_weights else None

    @property
    def swapped_bytes(self) -> int:
        """Bytes per weight that are kept aside in a validation, where its average can't take the weight's place."""
        return self.weight_bytes if self.average_bytes not in (0, self.weight_bytes) else 0

    @property
    def trained_bytes(self) -> int:
        """Bytes per trained weight, and of each gradient and moment: adapters are always in float32."""
        return 4 if self.lora_rank else self.weight_bytes
