"""What a recipe of a training says: the model, the stages, and how the trainer sets it up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hy_data.stage import Stage
from hy_dit import DiTConfig, T2XConfig
from hy_vae3d import VAE3DConfig
from hy_weights.reading import config_as
from jsonargparse import ArgumentError, ArgumentParser

from hyvideo_plan.encoder import Encoder, read_encoder
from hyvideo_plan.errors import PlanError
from hyvideo_plan.knobs import RESIDENT
from hyvideo_plan.models import Model, find_model
from hyvideo_plan.setup import Precision, Setup
from hyvideo_plan.spread import read_devices, views_buckets

_PARTS = ("model", "data", "trainer", "optimizer", "lr_scheduler")
_RANK = 32
"""Of LoRATuning's adapters, where a recipe does not say."""
_PRECISIONS: dict[str, Precision] = {
    "bf16-mixed": "mixed",
    "bf16-true": "bfloat16",
    "32-true": "float32",
    "32": "float32",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A training.

    Attributes:
        model: what is trained.
        stages: the curriculum, each stage as the recipe has it, and what it means.
        setup: number format, recompute, averaged weights, devices; of one clip at a time.
        encoder: what a device holds of the text encoder.
        bucket_views: whether gradients are views of DDP's buckets.
        notes: what of it is not planned for.
    """

    model: Model
    stages: Sequence[tuple[Mapping[str, Any], Stage]]
    setup: Setup
    encoder: Encoder
    bucket_views: bool
    notes: tuple[str, ...]


def read_recipe(file: Path) -> Recipe:
    """Read a recipe; nothing in it is built.

    Raises:
        PlanError: it is no recipe of a transformer's training by stages; names the part that is missing or wrong.
        CheckpointError: it names a checkpoint that can't be read.
    """
    values = _values(file)
    model, data, trainer = (values.get(part) or {} for part in ("model", "data", "trainer"))
    callbacks = _callbacks(trainer)
    recompute, notes = _recompute(callbacks)
    devices, about_devices = read_devices(trainer)
    encoder, about_encoder = _encoder(model)
    notes += about_devices + about_encoder
    setup = Setup(
        task="train",
        precision=_precision(trainer, file),
        recompute=recompute,
        eight_bit_optimizer=_is_eight_bit(_arguments(model).get("optimizer")),
        average_bytes=_average_bytes(callbacks, trainer),
        devices=devices,
    )
    setup = _as_lora(setup, _arguments(model), callbacks)
    if not _arguments(data).get("latents"):
        notes += ("batches of pixels: the autoencoder, which encodes them beside the training, is not counted",)
    return Recipe(
        model=_model(model, file),
        stages=_stages(data, file),
        setup=setup,
        encoder=encoder,
        bucket_views=devices > 1 and views_buckets(trainer),
        notes=notes,
    )


def _values(file: Path) -> dict[str, Any]:
    """The parts of a recipe as the trainer's own parser reads YAML, numbers such as 1e-3 included."""
    parser = ArgumentParser(exit_on_error=False)
    for part in _PARTS:
        parser.add_argument(f"--{part}", type=dict[str, Any])
    for name in ("seed_everything", "ckpt_path"):
        parser.add_argument(f"--{name}", type=Any)
    try:
        return parser.parse_path(file).as_dict()
    except (ArgumentError, OSError, TypeError) as error:
        raise PlanError(f"{file}: no recipe of `hyvideo pretrain`: {' '.join(str(error).split())}") from error


def _arguments(named: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of what has a class_path; none where it has none."""
    return named.get("init_args") or {}


def _model(model: Mapping[str, Any], file: Path) -> Model:
    if base := _arguments(model).get("base"):
        return find_model(str(base))
    backbone = _arguments(model).get("backbone")
    if not isinstance(backbone, Mapping):
        raise PlanError(
            f"{file}: model.init_args.backbone should name a transformer by class_path and init_args (a LoRA: base)"
        )
    given = _arguments(backbone)
    if "config" not in given:
        places = [given[name] for name in ("path", "name") if given.get(name)]
        if not places:
            raise PlanError(f"{file}: model.init_args.backbone.init_args has neither a config nor a path")
        return find_model(str(places[0]))
    kind = T2XConfig if "depth" in given["config"] else DiTConfig
    config = config_as(given["config"], kind, f"{file}: model.init_args.backbone")
    # A step has nothing to do with the autoencoder; what it has to do with the text encoder, see `_encoder`.
    return Model(name=file.stem, dit=config, vae=VAE3DConfig.preset("hunyuan-video"), text_encoder_bytes=0)


def _encoder(model: Mapping[str, Any]) -> tuple[Encoder, tuple[str, ...]]:
    named = _arguments(model).get("text_encoder")
    if not isinstance(named, Mapping):
        return Encoder(), ()
    return read_encoder(named, frozen=bool(_arguments(model).get("freeze_text_encoder")))


def _as_lora(setup: Setup, model: Mapping[str, Any], callbacks: Mapping[str, Mapping[str, Any]]) -> Setup:
    """The setup of a training of adapters, where the recipe's model has a base: `hyvideo_finetune.LoRATuning`."""
    if not model.get("base"):
        return setup
    rounded = model.get("quantize_to")
    return replace(
        setup,
        precision="bfloat16" if model.get("dtype", "bfloat16") == "bfloat16" else setup.precision,
        lora_rank=int(model.get("rank", _RANK)),
        eight_bit_weights=rounded in ("fp8", "int8"),
        four_bit_weights=rounded == "nf4",
        resident_blocks=RESIDENT if "Offload" in callbacks else 0,
    )


def _is_eight_bit(optimizer: Any) -> bool:
    """Whether it keeps its moments in 8 bits: torchao's and bitsandbytes' are called so."""
    name = optimizer.get("class_path") if isinstance(optimizer, Mapping) else optimizer
    return str(name).endswith("8bit")


def _stages(data: Mapping[str, Any], file: Path) -> list[tuple[Mapping[str, Any], Stage]]:
    given = _arguments(data).get("stages")
    if not isinstance(given, Sequence) or not given:
        raise PlanError(f"{file}: data.init_args.stages should list the stages of the training")
    stages: list[tuple[Mapping[str, Any], Stage]] = []
    for number, values in enumerate(given):
        try:
            stages.append((values, Stage(**values)))
        except (TypeError, ValueError) as error:
            raise PlanError(f"{file}: data.init_args.stages[{number}]: {error}") from error
    return stages


def _precision(trainer: Mapping[str, Any], file: Path) -> Precision:
    given = str(trainer.get("precision") or "32-true")
    if given not in _PRECISIONS:
        raise PlanError(f"{file}: trainer.precision is {given}; planned are {', '.join(_PRECISIONS)}")
    return _PRECISIONS[given]


def _callbacks(trainer: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The arguments of each callback by its class's name."""
    listed = trainer.get("callbacks") or []
    named = [one for one in listed if isinstance(one, Mapping) and "class_path" in one]
    return {str(one["class_path"]).rpartition(".")[2]: _arguments(one) for one in named}


def _average_bytes(callbacks: Mapping[str, Mapping[str, Any]], trainer: Mapping[str, Any]) -> int:
    """Bytes of each averaged weight on the device: none that waits on the host, nor without averaging."""
    if "EMA" in callbacks:
        kept = callbacks["EMA"]
        size = 2 if kept.get("precision") == "bfloat16" else 4
    elif "EMAWeightAveraging" in callbacks:
        kept = callbacks["EMAWeightAveraging"]
        size = 2 if trainer.get("precision") == "bf16-true" else 4
    else:
        return 0
    return 0 if kept.get("device") == "cpu" else size


def _recompute(callbacks: Mapping[str, Mapping[str, Any]]) -> tuple[bool, tuple[str, ...]]:
    """Whether every block is computed again; a part of that is planned as nothing, so that less is needed in truth."""
    if "Recompute" not in callbacks:
        return False, ()
    kept = callbacks["Recompute"]
    stacks = {str(path).rpartition(".*")[0].rpartition(".")[2] for path in kept.get("blocks", ())}
    whole = "blocks" in stacks or {"double_blocks", "single_blocks"} <= stacks
    if whole and kept.get("every", 1) == 1 and not kept.get("keep_attention"):
        return True, ()
    return False, ("some activations are computed again: less is held than is planned here",)
