"""Batches for pre-training the transformer: buckets, stages, latents from a cache. Needs the extra `train`."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric.utilities.rank_zero import rank_zero_only

from hy_data.batch_plan import BatchPlan
from hy_data.captions import captions_of, short_caption
from hy_data.curriculum import Curriculum, Stage
from hy_data.errors import DataError
from hy_data.held_out import hold_out
from hy_data.index import Fault, StoredClip, index_shards
from hy_data.ledger import Ledger, LedgerEntry
from hy_data.lightning.batches import NumberedBatches
from hy_data.lightning.item_batches import (
    HeldOutBatches,
    Latents,
    PlannedBatches,
    Reader,
    ValidationNumbers,
    require_latents,
)
from hy_data.lightning.promotion import require_promotion
from hy_data.places import is_remote
from hy_data.staged_items import StageItems, require_items, stage_items

log = logging.getLogger(__name__)

LEFT_OUT = "left_out.jsonl"


class BucketedShards(NumberedBatches):
    """Clips from shards for pre-training, stage by stage, in buckets; as latents from a cache, or as pixels.

    Batch `n` depends only on the seed, the stage and how many batches the stage had before: not on the number of
    ranks or of worker processes, nor on interruptions. Each item of a stream comes once per epoch of that stream. The
    callback `Promotion` ends stages; validation shows held-out clips in the current stage's buckets, which is what a
    stage with patience looks at: `Promotion(monitor="val/loss", mode="min")`.

    What can't be used is reported when training begins, and written to `left_out.jsonl` in the trainer's folder; an
    item that can't be read later is reported, and the next one of its bucket takes its place.

    Args:
        shards: folders, tars and URLs, see `find_shards`; also webdataset of others: videos or pictures with a txt or
            a json. Pictures are clips of one frame.
        stages: the curriculum.
        latents: a cache of latents; None gives pixels, for the model to encode.
        caption: makes the text of a clip's structured caption and the number of a variant, which is how often the
            item was seen before, modulo `caption.variants`, or 0 without such; the default takes `short`.
        steps: batches per epoch on each rank.
        validation_shards: shards to validate on.
        held_out: otherwise: how many videos, and how many stills, to validate on and not to train on, see `hold_out`.
        index: a folder for what is known of the shards; None keeps it beside those of this machine, and reads URLs
            anew each time.
        num_workers: processes that load; 0 loads in the training process.
        prefetch: batches that each of these has ready; None is PyTorch's two.
        seed: another seed deals other batches.

    Attributes:
        curriculum: the stages, and where the training stands; part of a checkpoint.

    Raises:
        ValueError: for a count or a stage out of range.
    """

    def __init__(
        self,
        shards: str | list[str],
        stages: list[Stage],
        *,
        latents: Latents | None = None,
        caption: Callable[[Mapping[str, Any], int], str] = short_caption,
        steps: int = 100,
        validation_shards: list[str] | None = None,
        held_out: int = 0,
        index: str | Path | None = None,
        num_workers: int = 0,
        prefetch: int | None = None,
        seed: int = 0,
    ) -> None:
        """Check the settings; the shards are looked at in `setup`."""
        if steps < 1 or held_out < 0 or num_workers < 0:
            raise ValueError(f"need {steps=} of at least 1, {held_out=} and {num_workers=} of at least 0")
        if held_out and validation_shards:
            raise ValueError("give validation_shards or held_out, not both")
        self.curriculum = Curriculum(stages)
        super().__init__(
            None, None, steps=steps, num_workers=num_workers, curriculum=self.curriculum, prefetch=prefetch
        )
        self.shards = shards
        self.latents = latents
        self.caption = caption
        self.validation_shards = validation_shards
        self.held_out = held_out
        self.index = index
        self.seed = seed
        self._clips: list[StoredClip] | None = None
        self._faults: list[Fault] = []

    def prepare_data(self) -> None:
        """Index the shards, so that the other ranks need not."""
        self._clips = self._indexed(self.shards)

    def setup(self, stage: str) -> None:
        """Cut the clips into items, and check that every stage has what it needs.

        Raises:
            DataError: when a stage finds no clips for its buckets, a latent is missing, or nobody ends the stages.
        """
        if self._train is not None:
            return
        if stage == "fit":
            require_promotion(self.trainer, self.curriculum)
        clips = self._clips if self._clips is not None else self._indexed(self.shards)
        trained, shown = hold_out(clips, self.held_out) if self.held_out else (clips, [])
        if self.validation_shards:
            shown = self._indexed(self.validation_shards)
        stages = self.curriculum.stages
        train = [stage_items(one, trained) for one in stages]
        self._report(train)
        for one, found in zip(stages, train, strict=True):
            require_items(one, found)
        validation = [stage_items(one, shown) for one in stages] if shown else []
        if self.latents is not None:
            require_latents(self.latents, (item for found in [*train, *validation] for item in found.all_items()))
        reader = Reader(self.latents, self.caption)
        plans = [
            BatchPlan(found.items, found.weights, batch_size=one.batch_of, seed=_seed(self.seed, number))
            for number, (one, found) in enumerate(zip(stages, train, strict=True))
        ]
        self._train = PlannedBatches(plans, reader)
        self._validation = self._held_out(validation, reader)

    def val_dataloader(self) -> Any:
        """The held-out clips in the buckets of the current stage; nothing where none are held out."""
        if self._validation is None:
            return []
        counts = [len(batches) for batches in self._validation.batches]
        sampler = ValidationNumbers(counts, self.curriculum, **self._ranks())
        return self._loader(self._validation, sampler)

    def captions(self) -> Iterator[str]:
        """Every caption that a batch may hold; after `setup`."""
        clips = {item.clip: None for batches in self._sources() for item in batches.items()}
        return captions_of((clip.description["captions"] for clip in clips), self.caption)

    def read_texts(self, reader: Callable[[Sequence[str]], Any]) -> None:
        """Let whoever makes batches read text states too: what this makes of their captions is their `text`."""
        for batches in self._sources():
            batches.reader.texts = reader

    def _sources(self) -> list[Any]:
        return [batches for batches in (self._train, self._validation) if batches is not None]

    def state_dict(self) -> dict[str, Any]:
        """How many batches were trained on, and where the curriculum stands."""
        return {**super().state_dict(), "curriculum": self.curriculum.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            DataError: when it is the state of another curriculum.
        """
        self.curriculum.load_state_dict(state_dict["curriculum"])
        super().load_state_dict(state_dict)

    def _indexed(self, places: str | list[str]) -> list[StoredClip]:
        return index_shards(places, folder=self.index, report=self._faults.append)

    def _held_out(self, validation: Sequence[StageItems], reader: Reader) -> HeldOutBatches | None:
        stages = self.curriculum.stages
        for one, found in zip(stages, validation, strict=False):
            if not found.all_items():
                raise DataError(f"stage {one.name!r}: none of the held-out clips fills a bucket of its; hold out more")
        return HeldOutBatches(list(zip(stages, validation, strict=True)), reader) if validation else None

    @rank_zero_only
    def _report(self, train: Sequence[StageItems]) -> None:
        """Say what is left out, and write it down."""
        entries = [_entry("", 0, f"{fault.reason}", f"{fault.shard}: {fault.key}") for fault in self._faults]
        for stage, found in zip(self.curriculum.stages, train, strict=True):
            for stream, items in zip(found.streams, found.items, strict=True):
                clips = len({id(item.clip) for item in items})
                log.info("stage %s, %s: %d items of %d clips", stage.name, stream.name, len(items), clips)
            entries += [
                _entry(
                    str(one.clip.description["source"]), one.clip.frames, f"{stage.name}: {one.reason}", one.clip.where
                )
                for one in found.left_out()
            ]
        for reason, count in Counter(entry.reason for entry in entries).most_common():
            examples = [entry.key for entry in entries if entry.reason == reason][:3]
            log.warning("%d left out: %s (%s)", count, reason, ", ".join(examples) + (" …" if count > 3 else ""))
        folder = self.trainer.default_root_dir if self.trainer else None
        if entries and folder is not None and not is_remote(str(folder)):
            Ledger(entries).save(Path(folder) / LEFT_OUT)


def _entry(source: str, stop: int, reason: str, key: str) -> LedgerEntry:
    return LedgerEntry(source=source, start=0, stop=stop, accepted=False, reason=reason, key=key)


def _seed(seed: int, stage: int) -> int:
    """A seed of each stage's own."""
    return int(np.random.SeedSequence((seed, stage)).generate_state(1, np.uint64)[0])
