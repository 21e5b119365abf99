"""One run of the command: find clips, describe those that have no caption yet, keep each as it comes, and report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import Any

from hy_data import replace_captions
from hy_plugins.protocols import Captioner
from hy_textenc.captions import CaptionerError, caption_from
from hy_textenc.captions.validation import clean
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from hyvideo_caption.cli import Request
from hyvideo_caption.clips import Clip, find_clips, has_shards
from hyvideo_caption.errors import CaptionCommandError
from hyvideo_caption.options import make_captioner, told_options
from hyvideo_caption.records import Records

_IN_A_ROW = 10
"""So many clips in a row that the captioner could not work on mean that it can't work at all."""

_MOST_REASON = 500


@dataclass(kw_only=True)
class Count:
    """How many clips there were of each kind.

    Attributes:
        described: got a caption in this run.
        before: had one.
        failed: have none.
    """

    described: int = 0
    before: int = 0
    failed: int = 0


def run(request: Request) -> int:
    """Do what a command line asks for.

    Returns:
        0; 1 if a clip could not be described, or a shard not be read.

    Raises:
        HyError: the source, the captioner or the output can't be used, or the captioner stopped working.
    """
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    if request.list_options or request.source is None:
        console.print(told_options(request.captioner), markup=False)
        return 0
    clips, faults = find_clips(request.source, request.frames)
    _check_shards(request)
    for fault in faults:
        errors.print(fault, markup=False, soft_wrap=True)
    with errors.status(f"prepare {request.captioner}"):
        captioner, options = make_captioner(request.captioner, request.options)
    with Records(request.out, request.captioner, overwrite=request.overwrite) as records:
        todo = [clip for clip in clips if clip.key not in records.done]
        count = Count(before=len(clips) - len(todo), failed=len(faults))
        todo = todo[: request.limit]
        _describe(todo, captioner, options, records, request.workers, errors, count)
        if request.shards is not None:
            with errors.status(f"write {request.shards}"):
                replaced = replace_captions(request.source, request.shards, records.captions())
            console.print(f"{request.shards}: shards with {replaced} of these captions", markup=False, soft_wrap=True)
    told = f"{count.described} described, {count.before} had a caption, {count.failed} failed"
    console.print(f"{request.out}: {told}", markup=False, soft_wrap=True)
    return 1 if count.failed else 0


def _check_shards(request: Request) -> None:
    """Refuse shards that could not be written, before anything is asked of a model."""
    if request.shards is None or request.source is None:
        return
    if not has_shards(request.source):
        raise CaptionCommandError(f"--shards copies shards, and {request.source} holds none; pack the videos first")
    if request.shards.exists():
        raise CaptionCommandError(f"{request.shards} is there already; name a folder to make")


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What came of a clip: its caption, or what went wrong with it."""

    key: str
    caption: Mapping[str, Any] = field(default_factory=dict)
    error: BaseException | None = None


def _describe(
    clips: Sequence[Clip],
    captioner: Captioner,
    options: Mapping[str, Any],
    records: Records,
    workers: int,
    console: Console,
    count: Count,
) -> None:
    """Describe clips, write each down as it comes, and say what is wrong with those that fail."""
    in_a_row = 0
    # Its threads die with the process: an interrupted run waits for no server. Clips are read in the threads.
    with ThreadPool(workers) as pool, _progress(console) as progress:
        task = progress.add_task("describe", total=len(clips))
        for outcome in pool.imap_unordered(partial(_attempt, captioner), clips):
            progress.advance(task)
            if outcome.error is None:
                records.add(outcome.key, {"caption": outcome.caption, "options": options})
                count.described += 1
                in_a_row = 0
                continue
            reason = clean(f"{type(outcome.error).__name__}: {outcome.error}")[:_MOST_REASON]
            records.add(outcome.key, {"error": reason})
            count.failed += 1
            progress.console.print(f"{clean(outcome.key)}: {reason}", markup=False, soft_wrap=True)
            in_a_row = in_a_row + 1 if isinstance(outcome.error, CaptionerError) else 0
            if in_a_row == _IN_A_ROW:
                raise CaptionerError(f"{in_a_row} clips in a row failed, the last with: {reason}; run again to go on")


def _attempt(captioner: Captioner, clip: Clip) -> _Outcome:
    """Read and describe one clip."""
    try:
        return _Outcome(key=clip.key, caption=caption_from(captioner.caption(clip.load()), clip.key).to_mapping())
    except BaseException as error:  # a captioner is a stranger's code, and a thread that it ends is waited for in vain
        return _Outcome(key=clip.key, error=error)


class _Rate(ProgressColumn):
    """Clips per second, or per minute where they are slow."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f} clips/s" if speed >= 1 else f"{60 * speed:.1f} clips/min")


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
