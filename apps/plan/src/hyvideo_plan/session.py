"""One run of the command: find, estimate, advise, print."""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rich.console import Console

from hyvideo_plan.devices import Device, find_device
from hyvideo_plan.errors import PlanError
from hyvideo_plan.estimate import Estimate, estimate
from hyvideo_plan.knobs import Advice, advise
from hyvideo_plan.measure import count_weights
from hyvideo_plan.models import Model, find_model
from hyvideo_plan.report import as_json, print_report
from hyvideo_plan.setup import Setup
from hyvideo_plan.video import Video


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that the command found out.

    Attributes:
        model: what runs.
        parameters: of its transformer.
        video: on what.
        estimate: what that needs as it is set up.
        device: on which it runs, if it has a name.
        rate: operations per second of one device, if known.
        memory: bytes of one device, if known.
        advice: what makes it fit there.
    """

    model: Model
    parameters: int
    video: Video
    estimate: Estimate
    device: Device | None
    rate: float | None
    memory: int | None
    advice: Advice | None


def run(options: Mapping[str, Any]) -> int:
    """Do what a command line asks for.

    Args:
        options: by name: task, model, device, memory, tflops, json, and what is given of size, frames and of the
            fields of `Setup`.

    Returns:
        0, or 1 if nothing fits the memory that was given.

    Raises:
        PlanError: a setting has a wrong value.
        CheckpointError: a checkpoint can't be read.
    """
    plan = make_plan(options)
    if options["json"]:
        print(json.dumps(as_json(plan), indent=2))
    else:
        print_report(plan)
    return 1 if plan.advice and not plan.advice.fits else 0


def make_plan(options: Mapping[str, Any]) -> Plan:
    """Find, estimate and advise, with a line of progress on stderr; see `run`."""
    model = find_model(options["model"])
    usual = model.usual_video
    width, height = options.get("size", (usual.width, usual.height))
    video = Video(width=width, height=height, frames=options.get("frames", usual.frames))
    setup = _setup(options)
    device = find_device(options["device"]) if options["device"] else None
    memory = options["memory"]
    if memory is not None and memory < 1:
        raise PlanError("memory is 0; give what one device has, such as 24GB")
    memory = memory or (device.memory if device else None)
    rate = device.rate if device else None
    if options["tflops"] is not None:
        rate = options["tflops"] * 1e12
        if not 0 < rate < math.inf:
            raise PlanError(f"tflops is {options['tflops']}; it must be a number above 0")
    with Console(file=sys.stderr).status("running the modules without data") as status:
        found = estimate(model, video, setup)
        tried: list[Setup] = []

        def measuring(turned: Setup) -> None:
            tried.append(turned)
            status.update(f"looking for knobs that fit: {len(tried)} setups tried")

        advice = advise(model, video, setup, memory, measuring) if memory else None
    parameters = count_weights(model.dit).total
    return Plan(
        model=model,
        parameters=parameters,
        video=video,
        estimate=found,
        device=device,
        rate=rate,
        memory=memory,
        advice=advice,
    )


def _require_effect(setup: Setup) -> None:
    """Refuse knobs that do nothing in this task."""
    if setup.training:
        turned = {"--keep-all": setup.keep_all, "--no-guidance": not setup.guidance}
    else:
        turned = {
            "--recompute": setup.recompute,
            "--eight-bit-optimizer": setup.eight_bit_optimizer,
            "--lora": setup.lora_rank > 0,
            "--ema": setup.average_bytes > 0,
        }
    if idle := [name for name, is_turned in turned.items() if is_turned]:
        other = "sampling" if setup.training else "training"
        raise PlanError(f"{idle[0]} is for {other}; the task is {setup.task}")


def _setup(options: Mapping[str, Any]) -> Setup:
    given = {field.name: options[field.name] for field in fields(Setup) if field.name in options}
    if given["task"] == "train":
        given.setdefault("precision", "mixed")
    setup = Setup(**given)
    _require_effect(setup)
    if setup.devices == 1 and (setup.sharded or setup.sequence_parallel):
        raise PlanError("--shards and --sequence-parallel divide over several devices; give --devices")
    if setup.resident_blocks and setup.sharded:
        raise PlanError("--offload and --shards both say where weights are; give one of them")
    if setup.eight_bit_weights and setup.four_bit_weights:
        raise PlanError("weights are in 8 bits or in 4; give one of --eight-bit-weights and --four-bit-weights")
    if not setup.frozen and (setup.rounded_bytes or setup.resident_blocks):
        raise PlanError(
            "--eight-bit-weights, --four-bit-weights and --offload are for frozen weights; --lora trains adapters"
        )
    return setup
