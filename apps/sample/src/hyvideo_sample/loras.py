"""LoRAs of the transformer that samples: as a sample remembers them, and on the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyvideo_sample.settings import SampleError


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenLoRA:
    """A LoRA that a sample is made with.

    Attributes:
        file: where it lies.
        sha256: of that file.
        strength: what it is multiplied by.
    """

    file: str
    sha256: str
    strength: float


def choose(given: Sequence[tuple[Path, float]], remembered: Sequence[ChosenLoRA]) -> tuple[ChosenLoRA, ...]:
    """Take what is given, else what a sample that is repeated was made with.

    Raises:
        SampleError: a file is not there, or not what it was.
    """
    from hy_weights.digest import file_sha256

    chosen = []
    for file, strength, known in [
        *((file, strength, None) for file, strength in given),
        *((Path(one.file), one.strength, one.sha256) for one in remembered if not given),
    ]:
        if not file.is_file():
            hint = "" if known is None else "; give --lora with its place now"
            raise SampleError(f"{file}: no such LoRA file{hint}")
        sha256 = file_sha256(file)
        if known not in (None, sha256):
            raise SampleError(
                f"{file} is not the LoRA that the sample was made with; give --lora to use it all the same"
            )
        chosen.append(ChosenLoRA(file=str(file), sha256=sha256, strength=strength))
    return tuple(chosen)


def chosen_from(values: Any, source: object) -> tuple[ChosenLoRA, ...]:
    """Read back what a sample's file tells.

    Raises:
        SampleError: it is no list of LoRAs.
    """
    try:
        return tuple(
            ChosenLoRA(file=str(one["file"]), sha256=str(one["sha256"]), strength=float(one["strength"]))
            for one in values
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SampleError(f"{source}: its LoRAs can't be read from {values!r}") from error


def put_on(dit: Any, loras: Sequence[ChosenLoRA], base: Path, *, any_base: bool) -> None:
    """Add LoRAs to a transformer: to its weights, or, where these are in 8 bits, beside them.

    Args:
        dit: the transformer; changed.
        loras: what to add.
        base: its file or folder.
        any_base: whether LoRAs that were trained on another base are taken.

    Raises:
        CheckpointError: a LoRA can't be read, doesn't fit, or was trained on another base.
    """
    from hy_dit import load_lora
    from hy_weights import insert_lora, merge_loras, require_base

    read = [(load_lora(one.file, dit), one) for one in loras]
    for lora, one in read:
        if not any_base:
            require_base(lora, base, one.file)
    if all(weight.element_size() > 1 for weight in dit.parameters()):
        merge_loras(dit, [(lora, one.strength) for lora, one in read], keep_on=None)
        return
    for number, (lora, one) in enumerate(read):
        insert_lora(dit, lora, f"lora_{number}", strength=one.strength)
