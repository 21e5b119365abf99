"""One run of the command: look, tell, write, encode.

Shapes: T frames, H height, W width, C channels.
"""

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from hy_data import Item, Row, StoredClip, index_shards, write_contact_sheet
from hy_data.files import staged
from hy_data.stage import Stage, tokens
from hy_data.staged_items import stage_items
from hy_plugins import Plugins
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from hyvideo_finetune.errors import FinetuneError
from hyvideo_finetune.prepare.base import RATE, Base, find_base, frame_size
from hyvideo_finetune.prepare.becoming import Becoming, become
from hyvideo_finetune.prepare.captioner import describer
from hyvideo_finetune.prepare.folder import Found, Refused, look_into
from hyvideo_finetune.prepare.reading import damage
from hyvideo_finetune.prepare.recipe import Wishes, recipe_text
from hyvideo_finetune.prepare.shards import digest, key_of, packed_aside, write_shards
from hyvideo_finetune.prepare.sizes import stage_for

RECIPE, REPORT, SHEET, SHARDS = "recipe.yaml", "report.json", "clips.png", "shards"
_SHOWN = 24
_PROMPTS = 2


def run(asked: Namespace) -> int:
    """Do what a command line asks for; return 0, or 1 if some clips were refused, or could not be encoded.

    Raises:
        FinetuneError: nothing in the folder can be used, or the room is taken.
        HyError, CheckpointError: the model can't be used, or the place not be written.
    """
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    _require_own(asked.out, asked.overwrite)
    describe = describer(asked.captioner, dict(asked.captioner_options))
    base = find_base(asked.model)
    if asked.full and base.few_bits:
        raise FinetuneError(f"{asked.model} has weights of 8 bits or fewer, which don't train; leave --full out")
    size = frame_size(asked.size, base)
    found, refused = look_into(asked.folder, asked.captions, describe)
    with packed_aside(asked.out / SHARDS) as shards:
        found = _sound(found, refused, console)
        clips = _packed(found, shards.folder, refused, console) if found else []
        stage = stage_for(clips, size, asked.frames, asked.batch) if clips else None
        used, without_bucket = become(stage, clips, float(base.sampling.get("fps", RATE))) if stage else ([], {})
        refused += [Refused(name=name, reason=reason) for name, reason in without_bucket.items()]
        _tell(console, used, refused)
        if stage is None or not used:
            raise FinetuneError(f"{asked.folder}: none of its clips can be used; the reasons are above")
        text = recipe_text(asked.out / RECIPE, base, stage, _wishes(asked, base, stage, used), digest(found))
        _write_report(asked.out, used, refused, {one.name: one.told_by for one in found})
        write_contact_sheet(asked.out / SHEET, _rows(stage, clips))
        shards.put_in_place()
    with staged(asked.out / RECIPE) as partial:
        partial.write_text(text, encoding="utf-8")
    plugins = Plugins()
    plugins.load("command", "plan")(_planned(asked, base, stage))
    failed = bool(asked.encode and plugins.load("command", "encode")(["--config", str(asked.out / RECIPE)]))
    print(f"{asked.out}: {len(used)} clips, {len(refused)} refused")
    print(_next(asked.out / RECIPE, failed))
    return 1 if refused or failed else 0


def _require_own(room: Path, overwrite: bool) -> None:
    """Refuse a room that holds what would be replaced, unless that is meant."""
    kinds = {RECIPE: "a recipe", SHARDS: "shards"}
    there = next((kind for name, kind in kinds.items() if (room / name).exists()), None)
    if there is not None and not overwrite:
        raise FinetuneError(f"{room} holds {there} already; name another folder, or give --overwrite to replace that")


def _next(recipe: Path, failed: bool) -> str:
    if failed:
        return f"not everything was encoded; mend what is told above, then: hyvideo encode --config {recipe}"
    return f"next: hyvideo finetune fit --config {recipe}"


def _sound(found: Sequence[Found], refused: list[Refused], console: Console) -> list[Found]:
    """The files that can be read to their end; the others are refused."""
    sound: list[Found] = []
    with Progress(console=console, transient=True) as progress:
        for one in progress.track(found, description="read every clip"):
            reason = damage(one.file)
            if reason is None:
                sound.append(one)
            else:
                refused.append(Refused(name=one.name, reason=reason))
    return sound


def _packed(found: Sequence[Found], folder: Path, refused: list[Refused], console: Console) -> list[StoredClip]:
    """Write shards and index them; what is damaged is refused."""
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("pack", total=len(found))
        write_shards(found, folder, lambda: progress.advance(task))
    names = {key_of(one): one.name for one in found}
    with console.status("look at every clip"):
        return index_shards(
            [folder],
            report=lambda fault: refused.append(Refused(name=names.get(fault.key, fault.key), reason=fault.reason)),
        )


def _tell(console: Console, used: Sequence[Becoming], refused: Sequence[Refused]) -> None:
    """What each clip becomes, and what is refused, on the terminal."""
    table = Table("clip", "has", "becomes", "frames used", "cropped", "caption", box=None, pad_edge=False)
    for one in used:
        frames, height, width = one.size
        windows = f"{one.windows} of {one.bucket}"
        table.add_row(
            one.name,
            f"{frames}x{height}x{width}",
            windows,
            f"{one.frames_used} of {frames}",
            f"{one.cropped:.0%}",
            one.caption[:60],
        )
    console.print(table)
    for one in used:
        for remark in one.remarks:
            console.print(f"{one.name}: {remark}")
    for one in refused:
        console.print(f"refused {one.name}: {one.reason}")


def _write_report(room: Path, used: Sequence[Becoming], refused: Sequence[Refused], told_by: Mapping[str, str]) -> None:
    report = {
        "used": [{**asdict(one), "caption_from": told_by[one.name]} for one in used],
        "refused": [asdict(one) for one in refused],
    }
    with staged(room / REPORT) as partial:
        partial.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _rows(stage: Stage, clips: Sequence[StoredClip]) -> list[Row]:
    """The first window of the first clips, as the training will see them."""
    first: dict[str, Item] = {}
    for item in stage_items(stage, clips).all_items():
        first.setdefault(item.clip.where, item)
    return [
        Row(f"{item.clip.description['source']}: {item.clip.description['captions']['short']}", item.frames())
        for item in islice(first.values(), _SHOWN)
    ]


def _wishes(asked: Namespace, base: Base, stage: Stage, used: Sequence[Becoming]) -> Wishes:
    largest = max(stage.sizes(), key=lambda size: (size.frames, size.height * size.width, size.width))
    return Wishes(
        full=asked.full,
        rank=asked.rank,
        steps=asked.steps,
        learning_rate=asked.learning_rate,
        quantize_to=asked.quantize,
        offload=asked.offload,
        eight_bit_optimizer=asked.eight_bit_optimizer,
        lora_format=asked.lora_format,
        prompts=asked.prompts or list(dict.fromkeys(one.caption for one in used))[:_PROMPTS],
        size=(largest.width, largest.height),
        frames=largest.frames,
        fps=base.sampling.get("fps", RATE),
    )


def _planned(asked: Namespace, base: Base, stage: Stage) -> list[str]:
    """Ask `hyvideo plan` what a step with the largest clips needs."""
    largest = max(stage.sizes(), key=tokens)
    precision = "mixed" if asked.full or base.parts.published else "bfloat16"
    options = ["train", "--model", str(base.parts.dit), "--precision", precision, "--recompute"]
    options += ["--size", f"{largest.width}x{largest.height}", "--frames", str(largest.frames)]
    options += ["--batch", str(stage.batch_of(largest)), "--steps", str(asked.steps)]
    bits = "four" if asked.quantize == "nf4" else "eight"
    options += [f"--{bits}-bit-weights"] * bool(asked.quantize) + ["--offload", "2"] * asked.offload
    options += ["--eight-bit-optimizer"] * asked.eight_bit_optimizer
    return options if asked.full else [*options, "--lora", str(asked.rank)]
