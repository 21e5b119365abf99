"""What a training leaves out, and why: said when it begins, and written down."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hy_data.index import Fault
from hy_data.ledger import Ledger, LedgerEntry
from hy_data.places import is_remote
from hy_data.stage import Stage
from hy_data.staged_items import StageItems

log = logging.getLogger(__name__)

_FILE = "left_out.jsonl"


def report_left_out(
    stages: Sequence[Stage], found: Sequence[StageItems], faults: Sequence[Fault], folder: str | Path | None
) -> None:
    """Log what is left out, by reason, and what each stream of each stage holds.

    Args:
        stages: of the curriculum.
        found: their items.
        faults: of the shards.
        folder: where `left_out.jsonl` is written, a ledger; nowhere if it is None or a URL, or nothing is left out.

    Raises:
        CannotWrite: when the folder is forbidden or full.
    """
    entries = [_entry("", 0, fault.reason, f"{fault.shard}: {fault.key}") for fault in faults]
    for stage, items_of in zip(stages, found, strict=True):
        for stream, items in zip(items_of.streams, items_of.items, strict=True):
            clips = len({id(item.clip) for item in items})
            log.info("stage %s, %s: %d items of %d clips", stage.name, stream.name, len(items), clips)
        entries += [
            _entry(str(one.clip.description["source"]), one.clip.frames, f"{stage.name}: {one.reason}", one.clip.where)
            for one in items_of.left_out()
        ]
    for reason, count in Counter(entry.reason for entry in entries).most_common():
        examples = [entry.key for entry in entries if entry.reason == reason][:3]
        log.warning("%d left out: %s (%s)", count, reason, ", ".join(examples) + (" …" if count > 3 else ""))
    if entries and folder is not None and not is_remote(str(folder)):
        Ledger(entries).save(Path(folder) / _FILE)


def _entry(source: str, stop: int, reason: str, key: str) -> LedgerEntry:
    return LedgerEntry(source=source, start=0, stop=stop, accepted=False, reason=reason, key=key)
