"""Batches for pre-training the transformer: buckets, stages, latents from a cache. Needs the extra `train`."""

import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hy_data.batch_plan import BatchPlan
from hy_data.captions import captions_of, short_caption
from hy_data.curriculum import Curriculum, Stage
from hy_data.differences import differences
from hy_data.errors import DataError
from hy_data.held_out import hold_out
from hy_data.index import Fault, StoredClip
from hy_data.left_out import report_left_out
from hy_data.lightning.batches import NumberedBatches
from hy_data.lightning.item_batches import Latents, PlannedBatches, Reader, ValidationNumbers, require_latents
from hy_data.lightning.promotion import require_promotion
from hy_data.lightning.ranks import on_first_rank
from hy_data.staged_items import StageItems, require_held_out, require_items, stage_items
from hy_data.subsets import Shards, index_subsets, require_subsets

log = logging.getLogger(__name__)

_VALIDATION = 0
"""The seed of validation, whatever that of the training: runs with others are told apart by the same batches."""


class BucketedShards(NumberedBatches):
    """Clips from shards for pre-training, stage by stage, in buckets; as latents from a cache, or as pixels.

    Batch `n` depends only on the seed, the stage and how many batches the stage had before: not on the number of
    ranks or of worker processes, nor on interruptions. Each item of a stream comes once per epoch of that stream. The
    callback `Promotion` ends stages; validation shows held-out clips in the current stage's buckets, which is what a
    stage with patience looks at: `Promotion(monitor="val/loss", mode="min")`.

    What can't be used is reported when training begins, and written to `left_out.jsonl` in the trainer's folder; an
    item that can't be read later is reported, and the next one of its bucket takes its place. The first rank looks at
    the shards and at the cache, for all; the others need to reach what they read.

    Args:
        shards: folders, tars and URLs, see `find_shards`; also webdataset of others: videos or pictures with a txt or
            a json. Pictures are clips of one frame. Of a mapping, each is a subset, which a stage's `subsets` weighs.
        stages: the curriculum.
        latents: a cache of latents; None gives pixels, for the model to encode.
        caption: makes the text of a clip's structured caption and the number of a variant, which is how often the
            item was seen before, modulo `caption.variants`, or 0 without such; the default takes `short`.
        steps: batches per epoch on each rank.
        validation_shards: shards to validate on, in all stages alike.
        held_out: otherwise: the share of the sources to validate on and not to train on, below 1, see `hold_out`; 0 is
            no validation.
        validation_batches: the most in a validation, over all ranks. They are the same each time, drawn from the
            streams in the shares of training, so that the mean over them is of what is trained on.
        index: a folder for what is known of the shards; None keeps it beside those of this machine, and reads URLs
            anew each time.
        num_workers: processes that load; 0 loads in the training process.
        prefetch: batches that each of these has ready; None is PyTorch's two.
        seed: another seed deals other batches.

    Attributes:
        curriculum: the stages, and where the training stands; part of a checkpoint.
        stand_ins: how many items of this process's batches could not be read so far, so that others took their places.

    Raises:
        ValueError: for a count, a share or a stage out of range.
    """

    def __init__(
        self,
        shards: Shards,
        stages: list[Stage],
        *,
        latents: Latents | None = None,
        caption: Callable[[Mapping[str, Any], int], str] = short_caption,
        steps: int = 100,
        validation_shards: list[str] | None = None,
        held_out: float = 0.0,
        validation_batches: int = 100,
        index: str | Path | None = None,
        num_workers: int = 0,
        prefetch: int | None = None,
        seed: int = 0,
    ) -> None:
        """Check the settings; the shards are looked at in `setup`."""
        if min(steps, validation_batches) < 1 or num_workers < 0:
            raise ValueError(f"need {steps=} and {validation_batches=} of at least 1, {num_workers=} of at least 0")
        if not 0 <= held_out < 1:
            raise ValueError(f"held_out is a share of the sources, at least 0 and below 1; got {held_out}")
        if held_out and validation_shards:
            raise ValueError("give validation_shards or held_out, not both")
        require_subsets(shards, stages)
        self.curriculum = Curriculum(stages)
        super().__init__(
            None, None, steps=steps, num_workers=num_workers, curriculum=self.curriculum, prefetch=prefetch
        )
        self.shards = shards
        self.latents = latents
        self.caption = caption
        self.validation_shards = validation_shards
        self.held_out = held_out
        self.validation_batches = validation_batches
        self.index = index
        self.seed = seed
        self.stand_ins = 0
        self.prepare_data_per_node = False
        self._clips: tuple[list[StoredClip], list[StoredClip]] | None = None
        self._faults: list[Fault] = []
        self._made_of: list[dict[str, Any]] = []
        self._told: set[str] = set()

    def prepare_data(self) -> None:
        """Index the shards, on the first rank: here the others wait for it as long as it takes."""
        with suppress(DataError):  # which `setup` raises, on all ranks
            self._clips = self._parted()

    def setup(self, stage: str) -> None:
        """Cut the clips into items, and check that every stage has what it needs.

        Raises:
            DataError: when a stage finds no clips for its buckets, a latent is missing, or nobody ends the stages.
        """
        if self._train is not None:
            return
        if stage == "fit":
            require_promotion(self.trainer, self.curriculum, validates=bool(self.held_out or self.validation_shards))
        trained, shown = on_first_rank(self.trainer, lambda: self._clips or self._parted())
        stages = self.curriculum.stages
        train = [stage_items(one, trained) for one in stages]
        mixed = [replace(one, subsets={}) for one in stages] if self.validation_shards else stages
        validation = [stage_items(one, shown) for one in mixed] if shown else []
        on_first_rank(self.trainer, partial(self._examine, train, validation))
        if self.latents is not None:
            self.latents.key(train[0].items[0][0])  # hashes the autoencoder here, and not in every worker
        self._made_of = [
            {"seed": self.seed, "items": found.content(), "held_out": held.content() if held else {}}
            for found, held in itertools.zip_longest(train, validation)
        ]
        reader = Reader(self.latents, self.caption)
        self._train = PlannedBatches(list(self._plans(train, self.seed)), reader)
        self._validation = PlannedBatches(list(self._plans(validation, _VALIDATION)), reader) if validation else None

    def val_dataloader(self) -> Any:
        """The held-out clips in the buckets of the current stage; nothing where none are held out."""
        if self._validation is None:
            return []
        counts = [min(plan.enough(), self.validation_batches) for plan in self._validation.plans]
        sampler = ValidationNumbers(counts, self.curriculum, **self._ranks())
        return self._loader(self._validation, sampler)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Report what could not be read: what worker processes log is lost."""
        for told in batch.get("stand_ins", ()) if isinstance(batch, Mapping) else ():
            self.stand_ins += 1
            if told not in self._told:
                self._told.add(told)
                log.warning("%s (%d stand-ins so far)", told, self.stand_ins)
        return batch

    @property
    def digest(self) -> str:
        """The sha256 (hex) of what the batches of all stages are made of: clips, captions, windows; after `setup`."""
        items = [made_of["items"] for made_of in self._made_of]
        return hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest()

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
        """How many batches were trained on, where the curriculum stands, and what its batches are made of."""
        return {
            **super().state_dict(),
            "curriculum": self.curriculum.state_dict(),
            "made_of": self._made_of[self.curriculum.stage],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            DataError: when it is the state of another curriculum, or of other clips: the batches to come would not be
                those of the run. The message says how they differ.
        """
        self.curriculum.load_state_dict(state_dict["curriculum"])
        changes = differences(state_dict.get("made_of", {}), self._made_of[self.curriculum.stage])
        if changes:
            raise DataError(
                f"the checkpoint's batches were made of something else: {'; '.join(changes)}; give what they were made "
                "of, or begin a new run with its weights: `hyvideo pretrain publish` writes them, the callback "
                "hyvideo_pretrain.start_from.StartFrom loads them"
            )
        super().load_state_dict(state_dict)

    def _parted(self) -> tuple[list[StoredClip], list[StoredClip]]:
        """The clips to train on, and those to validate on."""
        self._faults.clear()
        clips = self._indexed(self.shards)
        if self.validation_shards:
            return clips, self._indexed(self.validation_shards)
        return hold_out(clips, self.held_out) if self.held_out else (clips, [])

    def _indexed(self, places: Shards) -> list[StoredClip]:
        return index_subsets(places, folder=self.index, report=self._faults.append)

    def _examine(self, train: Sequence[StageItems], validation: Sequence[StageItems]) -> None:
        """Report what is left out, and refuse what lacks something."""
        stages = self.curriculum.stages
        folder = self.trainer.default_root_dir if self.trainer else None
        report_left_out(stages, train, self._faults, folder)
        for one, found in zip(stages, train, strict=True):
            require_items(one, found)
        for one, found in zip(stages, validation, strict=False):
            require_held_out(one, found)
        if self.latents is not None:
            require_latents(self.latents, (item for found in [*train, *validation] for item in found.all_items()))

    def _plans(self, staged: Sequence[StageItems], seed: int) -> Iterator[BatchPlan]:
        for number, (one, found) in enumerate(zip(self.curriculum.stages, staged, strict=True)):
            filled = [(items, weight) for items, weight in zip(found.items, found.weights, strict=True) if items]
            items, weights = zip(*filled, strict=True)
            yield BatchPlan(items, weights, batch_size=one.batch_of, seed=_seed(seed, number))


def _seed(seed: int, stage: int) -> int:
    """A seed of each stage's own."""
    return int(np.random.SeedSequence((seed, stage)).generate_state(1, np.uint64)[0])
