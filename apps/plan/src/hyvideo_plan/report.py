"""What the command prints: tables for people, an object for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from hyvideo_plan.estimate import Estimate, Phase

if TYPE_CHECKING:
    from hyvideo_plan.knobs import Advice
    from hyvideo_plan.session import Plan

_PARTS = ("weights", "gradients", "buckets", "optimizer", "activations", "total")
_WHAT = {
    "text": "encode the prompt",
    "denoise": "denoise",
    "decode": "decode the video",
    "encode": "encode the clips",
    "step": "train",
}


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything, in bytes, operations and seconds."""
    advice = plan.advice
    return {
        "model": plan.model.name,
        "parameters": plan.parameters,
        "video": asdict(plan.video) | {"tokens": plan.video.tokens},
        "memory": plan.memory,
        "operations_per_second": plan.rate,
        **_estimate_as_json(plan, plan.estimate),
        "advice": None
        if advice is None
        else {
            "fits": advice.fits,
            "knobs": [{"name": knob.name, "saves": knob.saves, "costs": knob.costs} for knob in advice.knobs],
            **_estimate_as_json(plan, advice.estimate),
        },
    }


def _estimate_as_json(plan: Plan, found: Estimate) -> dict[str, Any]:
    return {
        "setup": asdict(found.setup),
        "phases": [asdict(phase) | {"total": phase.total} for phase in found.phases],
        "peak": found.peak,
        "flops_per_step": found.step_flops,
        "flops": found.flops,
        "seconds": seconds(plan, found),
    }


def seconds(plan: Plan, found: Estimate) -> Mapping[str, float] | None:
    """How long a step takes, and all steps with what is before or after them, if the rate is known."""
    if plan.rate is None:
        return None
    # Only sequence parallelism shortens a step: sharded devices do a batch each.
    rate = plan.rate * (found.setup.devices if found.setup.sequence_parallel else 1)
    rest = sum(phase.flops for phase in found.phases if phase.name == "decode") / plan.rate
    step = found.step_flops / rate
    return {"step": step, "run": step * found.setup.steps + rest}


def print_report(plan: Plan) -> None:
    """Print what a run needs, and what makes it fit."""
    console = Console(highlight=False)
    video, setup = plan.video, plan.estimate.setup
    length = f"{video.frames} frames" if video.frames > 1 else "an image"
    devices = f", {setup.devices} devices" if setup.devices > 1 else ""
    console.print(
        f"{plan.model.name}: {plan.parameters / 1e9:.2f} B parameters; {video}, {length} = {video.tokens:,} tokens"
    )
    console.print(f"{setup.task}, {setup.precision}, batch {setup.batch}{devices}; per device:")
    _print_phases(console, plan.estimate)
    _print_work(console, plan, plan.estimate)
    if plan.memory and plan.advice:
        _print_advice(console, plan, plan.advice, plan.memory)


def _print_phases(console: Console, found: Estimate) -> None:
    table = Table("GB", *_PARTS, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for phase in found.phases:
        table.add_row(_WHAT[phase.name], *(_cell(phase, part) for part in _PARTS))
    console.print(table)


def _cell(phase: Phase, part: str) -> str:
    size = getattr(phase, part)
    return f"{size / 1e9:.2f}" if size else "–"


def _print_work(console: Console, plan: Plan, found: Estimate) -> None:
    setup = found.setup
    for_all = "for a video" if setup.task == "sample" else f"for {setup.steps} steps"
    console.print(f"arithmetic: {_operations(found.step_flops)} per step, {_operations(found.flops)} {for_all}")
    times = seconds(plan, found)
    if times is None or plan.rate is None:
        console.print("time: give --device or --tflops")
        return
    per = "per video" if setup.task == "sample" else f"for {setup.steps} steps"
    line = f"time: {_duration(times['step'])} per step, {_duration(times['run'])} {per}"
    console.print(f"{line}, at {plan.rate / 1e12:,.4g} TFLOP/s")
    device = plan.device
    if device and plan.rate == device.rate:
        peak = f"{device.peak / 1e12:g} TFLOP/s of {device.name}'s data sheet"
        console.print(f"  assumption: {device.share:.0%} of the {peak} ({device.source})")


def _print_advice(console: Console, plan: Plan, advice: Advice, memory: int) -> None:
    limit = f"{memory / 1e9:.1f} GB"
    if not advice.knobs and advice.fits:
        console.print(f"[green]it fits[/green] in {limit}, with {(memory - plan.estimate.peak) / 1e9:.1f} GB to spare")
        return
    if advice.fits:
        console.print(f"\nit needs {plan.estimate.peak / 1e9:.1f} GB; [green]it fits[/green] in {limit} with:")
    else:
        missing = (advice.estimate.peak - memory) / 1e9
        console.print(f"\n[red]nothing makes it fit[/red] in {limit}; {missing:.1f} GB are missing even with:")
    table = Table("knob", "saves", "costs", "by", box=None, pad_edge=False)
    for knob in advice.knobs:
        table.add_row(knob.name, knob.saves, knob.costs, knob.by)
    console.print(table)
    _print_phases(console, advice.estimate)
    _print_work(console, plan, advice.estimate)


def _operations(count: int) -> str:
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12)):
        if count >= size / 10:
            return f"{count / size:,.2f} {unit}"
    return f"{count / 1e9:,.2f} GFLOP"


def _duration(time: float) -> str:
    if time < 120:
        return f"{time:.3g} s"
    return f"{time / 60:.1f} min" if time < 7200 else f"{time / 3600:.1f} h"
