"""A recipe for a user's clips and model: the bundled one with its values filled in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hy_data.stage import Stage

from hyvideo_finetune.configs import folder
from hyvideo_finetune.prepare.base import Base

_HEADER = """# Written by `hyvideo finetune prepare`; yours to change.
#   hyvideo encode --config {file}
#   hyvideo finetune fit --config {file}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a user chooses of a training.

    Attributes:
        full: train all weights, not a LoRA.
        rank: of the LoRA.
        steps: of the optimizer.
        learning_rate: None: the bundled recipe's.
        quantize_to: fp8, int8 or nf4 for a LoRA's base; None: as it is.
        offload: keep the blocks' weights on the host.
        eight_bit_optimizer: keep AdamW's moments in 8 bits.
        lora_format: whose keys the LoRA's file has.
        prompts: of the samples.
        size: width and height of the samples.
        frames: of the samples.
        fps: of the samples.
    """

    full: bool
    rank: int
    steps: int
    learning_rate: float | None
    quantize_to: str | None
    offload: bool
    eight_bit_optimizer: bool
    lora_format: str
    prompts: Sequence[str]
    size: tuple[int, int]
    frames: int
    fps: float


def recipe_text(file: Path, base: Base, stage: Stage, wishes: Wishes, data_sha256: str) -> str:
    """Give the recipe of a training; its paths are absolute, so that it works from any folder.

    Args:
        file: where it will lie: beside the shards, the store and the run.
        base: what is trained.
        stage: the buckets.
        wishes: what the user chose.
        data_sha256: of the clips and captions.
    """
    room = file.parent.resolve()
    recipe: dict[str, Any] = yaml.safe_load((folder() / ("full.yaml" if wishes.full else "lora.yaml")).read_text())
    _fill_model(recipe["model"]["init_args"], base, wishes, room)
    _fill_data(recipe["data"]["init_args"], base, stage, room)
    _fill_trainer(recipe["trainer"], base, wishes, room)
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=120)
    return _HEADER.format(file=file) + f"# clips and captions: {data_sha256}\n" + text


def _fill_model(arguments: dict[str, Any], base: Base, wishes: Wishes, room: Path) -> None:
    parts = base.parts
    encoder = arguments["text_encoder"]["init_args"]
    encoder |= {"path": str(parts.text_encoder.resolve()), "store": str(room / "store")}
    if parts.published:
        del encoder["dtype"]  # a bundled encoder is as it is stored
    if isinstance(shift := base.sampling.get("shift"), int | float):
        arguments["shift"] = float(shift)  # trained where it will be sampled
    if wishes.eight_bit_optimizer:
        arguments["optimizer"]["class_path"] = "bitsandbytes.optim.AdamW8bit"
    if wishes.learning_rate is not None:
        arguments["optimizer"]["init_args"]["lr"] = wishes.learning_rate
    if wishes.full:
        arguments["backbone"]["init_args"]["path"] = str(parts.dit.resolve())
        arguments["embedded_guidance"] = 1.0 if base.guidance_embed else None
    else:
        arguments |= {"base": str(parts.dit.resolve()), "rank": wishes.rank, "quantize_to": wishes.quantize_to}
        arguments["dtype"] = "float32" if parts.published else "bfloat16"


def _fill_data(arguments: dict[str, Any], base: Base, stage: Stage, room: Path) -> None:
    arguments["shards"] = str(room / "shards")
    latents = arguments["latents"]["init_args"]
    latents |= {"store": str(room / "store"), "autoencoder": str(base.parts.vae.resolve())}
    arguments["stages"] = [_as_values(stage)]


def _as_values(stage: Stage) -> dict[str, Any]:
    values = {
        "name": stage.name,
        "scales": list(stage.scales),
        "frames": list(stage.frames),
        "image_fraction": stage.image_fraction,
        "frames_as_images": stage.frames_as_images,
        "batch_size": stage.batch_size,
    }
    return {name: value for name, value in values.items() if value is not None and value != []}


def _fill_trainer(trainer: dict[str, Any], base: Base, wishes: Wishes, room: Path) -> None:
    run = room / "run"
    trainer |= {"max_steps": wishes.steps, "default_root_dir": str(run)}
    trainer["logger"][0]["init_args"]["save_dir"] = str(run)
    callbacks = {one["class_path"].rpartition(".")[2]: one for one in trainer["callbacks"]}
    places = {"SampleSheets": "samples", "Checkpoints": "checkpoints", "Publish": "model"}
    for name, place in places.items():
        if name in callbacks:
            callbacks[name]["init_args"]["folder"] = str(run / place)
    if "SaveLoRA" in callbacks:
        callbacks["SaveLoRA"]["init_args"] |= {
            "file": str(run / "lora.safetensors"),
            "lora_format": wishes.lora_format,
        }
    if "Publish" in callbacks and base.parts.published:
        callbacks["Publish"]["init_args"] |= _whole(base)
    width, height = wishes.size
    callbacks["SampleSheets"]["init_args"] |= {
        "prompts": list(wishes.prompts),
        "autoencoder": str(base.parts.vae.resolve()),
        "width": width,
        "height": height,
        "frames": wishes.frames,
        "fps": wishes.fps,
        **_usual(base.sampling),
    }
    if wishes.offload:
        blocks = callbacks["Recompute"]["init_args"]["blocks"]
        trainer["callbacks"].insert(1, {"class_path": "hy_parallel.lightning.Offload", "init_args": {"blocks": blocks}})


def _whole(base: Base) -> Mapping[str, Any]:
    """What makes a model that `hyvideo sample` takes of the trained transformer."""
    parts = {"vae": base.parts.vae, "text_encoder": base.parts.text_encoder}
    return {
        "include": {name: str(place.resolve()) for name, place in parts.items()},
        "sampling": {name: value for name, value in base.sampling.items() if isinstance(value, int | float)},
    }


def _usual(sampling: Mapping[str, Any]) -> Mapping[str, Any]:
    """How the model is sampled, where it says."""
    return {name: sampling[name] for name in ("steps", "shift", "guidance") if name in sampling}
