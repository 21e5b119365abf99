"""What can be turned to make a run fit: what each knob saves, and at what cost."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from hyvideo_plan.estimate import Estimate, at_least, estimate
from hyvideo_plan.models import Model
from hyvideo_plan.setup import Setup
from hyvideo_plan.video import Video

LORA_RANK = 16
RESIDENT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One change of the setup.

    Attributes:
        name: what a person calls it.
        saves: what it saves.
        costs: at what cost.
        by: what does it, here or elsewhere.
        price: how much that is, beside other knobs: the cheapest sum of prices is tried first.
        can_turn: whether it changes anything in a setup.
        turn: the setup with it.
    """

    name: str
    saves: str
    costs: str
    by: str
    price: int
    can_turn: Callable[[Setup], bool]
    turn: Callable[[Setup], Setup]


KNOBS = (
    Knob(
        name="one part at a time",
        by="hyvideo sample",
        saves="the weights of text encoder, transformer and VAE, but the largest of them",
        costs="loading them anew for every run",
        price=1,
        can_turn=lambda setup: setup.keep_all and not setup.training,
        turn=lambda setup: replace(setup, keep_all=False),
    ),
    Knob(
        name="VAE tiling",
        by="hyvideo sample --tiling on, vae.tiling",
        saves="nearly all that the VAE holds for large or long clips",
        costs="more of the VAE's arithmetic, by half to twice; blended seams",
        price=1,
        can_turn=lambda setup: not setup.tiled,
        turn=lambda setup: replace(setup, tiled=True),
    ),
    Knob(
        name="8-bit optimizer",
        by="optimizer: bitsandbytes.optim.AdamW8bit",
        saves="three quarters of AdamW's moments in float32, half of them in bfloat16",
        costs="rounded moments",
        price=2,
        can_turn=lambda setup: setup.training and not setup.eight_bit_optimizer,
        turn=lambda setup: replace(setup, eight_bit_optimizer=True),
    ),
    Knob(
        name="shards",
        by="not yet here: FSDP2 of PyTorch",
        saves="weights, gradients and moments are divided by the devices, but two blocks",
        costs="every block's weights travel at every step",
        price=3,
        can_turn=lambda setup: setup.devices > 1 and not setup.sharded and not setup.resident_blocks,
        turn=lambda setup: replace(setup, sharded=True),
    ),
    Knob(
        name="sequence parallel",
        by="not yet here",
        saves="activations of video tokens are divided by the devices",
        costs="queries, keys and values travel in every block; the devices share one batch",
        price=3,
        can_turn=lambda setup: setup.devices > 1 and not setup.sequence_parallel,
        turn=lambda setup: replace(setup, sequence_parallel=True),
    ),
    Knob(
        name="bfloat16 weights",
        by="load_dit(dtype=...)",
        saves="half of weights, gradients and moments",
        costs="small updates of a training round to nothing",
        price=4,
        can_turn=lambda setup: setup.precision != "bfloat16",
        turn=lambda setup: replace(setup, precision="bfloat16"),
    ),
    Knob(
        name="recompute",
        by="hy_parallel.recompute_blocks",
        saves="the activations inside blocks; one block's input each is kept",
        costs="a third more arithmetic",
        price=4,
        can_turn=lambda setup: setup.training and not setup.recompute,
        turn=lambda setup: replace(setup, recompute=True),
    ),
    Knob(
        name="8-bit weights",
        by="hy_dit.quantize_, load_dit(quantize_to=...)",
        saves="half of the blocks' bfloat16 weights, where they are frozen",
        costs="a little quality; widening each layer when it is used",
        price=4,
        can_turn=lambda setup: setup.frozen and setup.rounded_bytes is None,
        turn=lambda setup: replace(setup, eight_bit_weights=True),
    ),
    Knob(
        name="4-bit weights",
        by="hy_dit.quantize_, load_dit(quantize_to='nf4')",
        saves="seven tenths of the blocks' bfloat16 weights, where they are frozen",
        costs="more quality; widening each layer when it is used",
        price=5,
        can_turn=lambda setup: setup.frozen and not setup.four_bit_weights,
        turn=lambda setup: replace(setup, eight_bit_weights=False, four_bit_weights=True),
    ),
    Knob(
        name="block offload",
        by="hy_parallel.BlockOffload",
        saves=f"the weights of all blocks but {RESIDENT}, where they are frozen",
        costs="host memory for the rest, which travels at every step",
        price=6,
        can_turn=lambda setup: setup.frozen and not setup.resident_blocks and not setup.sharded,
        turn=lambda setup: replace(setup, resident_blocks=RESIDENT),
    ),
    Knob(
        name=f"LoRA of rank {LORA_RANK}",
        by="hy_weights.insert_lora",
        saves="nearly all gradients and moments",
        costs="adapters are trained, not the weights",
        price=20,
        can_turn=lambda setup: setup.training and not setup.lora_rank,
        turn=lambda setup: replace(setup, lora_rank=LORA_RANK),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The cheapest knobs that make a run fit, or those that need least if nothing does.

    Attributes:
        knobs: to turn, of those in `KNOBS`.
        estimate: what the run needs then.
        fits: whether that is within the memory.
    """

    knobs: tuple[Knob, ...]
    estimate: Estimate
    fits: bool


def advise(
    model: Model, video: Video, setup: Setup, memory: int, measuring: Callable[[Setup], None] = lambda setup: None
) -> Advice:
    """Find the cheapest knobs with which a run fits.

    Args:
        model: what runs.
        video: on what.
        setup: how it is set up so far.
        memory: bytes of one device.
        measuring: called before each setup is estimated, for a display of progress.
    """
    choices = list(_setups(setup))
    for knobs, turned in choices:
        if at_least(model, turned) <= memory:
            measuring(turned)
            found = estimate(model, video, turned)
            if found.peak <= memory:
                return Advice(knobs=knobs, estimate=found, fits=True)
    most = [(knobs, turned) for knobs, turned in choices if not any(knob.can_turn(turned) for knob in KNOBS)]
    needed = []
    for knobs, turned in most:  # a knob takes away or does nothing, so the least is among these
        measuring(turned)
        needed.append(Advice(knobs=knobs, estimate=estimate(model, video, turned), fits=False))
    return min(needed, key=lambda advice: advice.estimate.peak)


def _setups(setup: Setup) -> Iterator[tuple[tuple[Knob, ...], Setup]]:
    """All sets of knobs that can be turned one after the other, the cheapest first."""
    for knobs in sorted(_sets(), key=lambda some: (sum(knob.price for knob in some), len(some))):
        turned = setup
        for knob in sorted(knobs, key=lambda knob: -knob.price):  # LoRA freezes, which lets others turn
            if not knob.can_turn(turned):
                break
            turned = knob.turn(turned)
        else:
            yield knobs, turned


def _sets() -> Iterator[tuple[Knob, ...]]:
    for size in range(len(KNOBS) + 1):
        yield from combinations(KNOBS, size)
