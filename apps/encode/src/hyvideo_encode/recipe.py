"""What a training by a recipe of `hyvideo pretrain` will look up: every latent and every text state, and no others."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from hy_data.index import StoredClip
from hy_data.items import Item
from hy_data.lightning import BucketedShards
from hy_data.lightning.latent_cache import LatentCache
from hy_data.stage import Stage
from hy_data.staged_items import stage_items
from hy_data.subsets import Shards, index_subsets
from hy_plugins import HyError
from hy_textenc import load_cached_text_encoder
from jsonargparse import ArgumentError, ArgumentParser
from lightning import LightningDataModule
from rich.console import Console

from hyvideo_encode.encoding import Task
from hyvideo_encode.errors import EncodeError
from hyvideo_encode.latents import Clips, latents_of
from hyvideo_encode.places import ready_store
from hyvideo_encode.prompts import Listed
from hyvideo_encode.texts import find_encoder

_PARTS = ("model", "data", "trainer", "optimizer", "lr_scheduler")
_OPTIONS = ("seed_everything", "ckpt_path")
_CACHED = "hy_textenc.load_cached_text_encoder"


def recipe_tasks(file: Path, console: Console) -> Iterator[Task[Any]]:
    """Read a recipe, and say what has to be encoded for it: first the texts, then the clips.

    Args:
        file: the recipe.
        console: where it is said what takes so long.

    Raises:
        EncodeError: it is no recipe, its data is of another kind, or it looks up nothing.
        DataError: there are no shards, or no clip in them can be used.
        CheckpointError: there is no such encoder.
    """
    recipe = _read(file)
    data, encoder = _data(recipe, file), _encoder(recipe, file)
    if data.latents is None and encoder is None:
        raise EncodeError(
            f"{file}: it looks up nothing: data.init_args.latents is no hy_data.lightning.LatentCache, and "
            f"model.init_args.text_encoder is not {_CACHED}"
        )
    damages: list[str] = []
    with console.status("look at the shards"):
        items = [item for stage, clips in _staged(data, damages) for item in stage_items(stage, clips).all_items()]
    if encoder is not None:
        store = ready_store(Path(encoder["store"]))
        settings = {name: encoder[name] for name in ("media", "quantization")}
        texts = find_encoder(encoder["path"], encoder["dtype"], settings)
        prompts = dict.fromkeys(["", *_prompts(recipe), *_captions(data, items, damages)])  # "": a dropped caption
        yield Task(texts, Listed(list(prompts), damages), store)
    if data.latents is not None:
        cache = _cache(data, file)
        store = ready_store(cache.store.folder)
        told = [] if encoder is not None else damages
        yield Task(latents_of(cache, console), Clips(items, told), store, cache.store.max_bytes)


def _read(file: Path) -> Mapping[str, Any]:
    """The parts of a recipe, as they are written; nothing is built."""
    parser = ArgumentParser(exit_on_error=False)
    for part in _PARTS:
        parser.add_argument(f"--{part}", type=dict[str, Any])
    for name in _OPTIONS:
        parser.add_argument(f"--{name}", type=Any)
    try:
        return parser.parse_path(file).as_dict()
    except (ArgumentError, OSError, TypeError) as error:
        raise EncodeError(f"{file}: no recipe of `hyvideo pretrain`: {_short(error)}") from error


def _data(recipe: Mapping[str, Any], file: Path) -> BucketedShards:
    """The data module, built as a training would build it."""
    if recipe["data"] is None:
        raise EncodeError(f"{file}: it has no data")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=LightningDataModule)
    try:
        data = parser.instantiate(parser.parse_object({"data": recipe["data"]})).data
    except (ArgumentError, TypeError, ValueError) as error:
        raise EncodeError(f"{file}: {_short(error)}") from error
    if not isinstance(data, BucketedShards):
        wanted = "what hy_data.lightning.BucketedShards reads can be encoded"
        raise EncodeError(f"{file}: its data is a {type(data).__name__}; {wanted}")
    return data


def _short(error: Exception) -> str:
    return " ".join(str(error).split())


def _cache(data: BucketedShards, file: Path) -> LatentCache:
    if not isinstance(data.latents, LatentCache):
        raise EncodeError(f"{file}: data.init_args.latents should be a hy_data.lightning.LatentCache")
    return data.latents


def _encoder(recipe: Mapping[str, Any], file: Path) -> Mapping[str, Any] | None:
    """The arguments of `load_cached_text_encoder`; None where the recipe has another encoder."""
    found = ((recipe["model"] or {}).get("init_args") or {}).get("text_encoder")
    if not isinstance(found, Mapping) or not _is_cached(str(found.get("class_path"))):
        return None
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(load_cached_text_encoder, "encoder")
    try:
        return vars(parser.parse_object({"encoder": dict(found.get("init_args") or {})}).encoder)
    except ArgumentError as error:
        raise EncodeError(f"{file}: model.init_args.text_encoder: {_short(error)}") from error


def _is_cached(class_path: str) -> bool:
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(import_module(module), name, None) is load_cached_text_encoder
    except (ImportError, ValueError):
        return False


def _staged(data: BucketedShards, damages: list[str]) -> Iterator[tuple[Stage, list[StoredClip]]]:
    """Each stage with the clips to train on, and with those of shards to validate on, which are in no subset."""

    def indexed(shards: Shards) -> list[StoredClip]:
        return index_subsets(shards, folder=data.index, report=lambda fault: damages.append(str(fault)))

    trained, shown = indexed(data.shards), indexed(data.validation_shards) if data.validation_shards else []
    for stage in data.curriculum.stages:
        yield stage, trained
        yield replace(stage, subsets={}), shown


def _captions(data: BucketedShards, items: Iterable[Item], damages: list[str]) -> Iterator[str]:
    """Every text that a clip may be shown with; clips of which none can be made are added to the damages."""
    clips: dict[int, StoredClip] = {id(item.clip): item.clip for item in items}
    for clip in clips.values():
        try:
            for number in range(getattr(data.caption, "variants", 1)):
                yield data.caption(clip.description["captions"], number)
        except HyError as error:
            damages.append(f"{clip.where}: {error}")


def _prompts(recipe: Mapping[str, Any]) -> Iterator[str]:
    """What callbacks will sample."""
    for callback in (recipe["trainer"] or {}).get("callbacks") or ():
        if isinstance(callback, Mapping):
            yield from (callback.get("init_args") or {}).get("prompts") or ()
