"""Collecting pairs of prompts and rewrites without any training: the model is asked, and good answers are kept.

What is written stays: each pair is one line, written at once; a run that is killed goes on where it was.
"""

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import IO

from hy_rewrite.errors import RewriteError, RewriterUnavailable
from hy_rewrite.pairs import Pair, read_pairs
from hy_rewrite.result import Rewrite
from hy_rewrite.rewriter import ChatRewriter, Options

GIVE_UP = 10  # prompts in a row without any answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What became of one prompt.

    Attributes:
        prompt: The prompt.
        pair: The pair that was kept; None if there is none.
        reason: Why not.
    """

    prompt: str
    pair: Pair | None = None
    reason: str | None = None


def read_prompts(file: str | os.PathLike[str]) -> list[str]:
    """Read prompts, one a line; empty lines are left out, and so are repeated ones.

    Raises:
        RewriteError: The file can't be read, or holds none.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RewriteError(f"{file}: can't be read as UTF-8 text ({error})") from error
    prompts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not prompts:
        raise RewriteError(f"{file}: holds no prompt; it must have one a line")
    return prompts


def remaining(prompts: Sequence[str], file: str | os.PathLike[str], options: Options) -> list[str]:
    """Return the prompts that the file of pairs has no rewrite of, in this mode and language.

    A line that a killed run left half written is taken away first.

    Raises:
        RewriteError: The file holds something else.
    """
    if not Path(file).exists():
        return list(prompts)
    with _appending(Path(file)):
        done = {
            pair.prompt for pair in read_pairs(file) if (pair.mode, pair.language) == (options.mode, options.language)
        }
    return [prompt for prompt in prompts if prompt not in done]


def collect(
    rewriter: ChatRewriter, prompts: Sequence[str], file: str | os.PathLike[str], *, workers: int = 1
) -> Iterator[Collected]:
    """Rewrite prompts, and add those that came out well to a file of pairs.

    A prompt that is not well rewritten goes to `NAME.rejected.jsonl` beside it, with the reason and the versions; that
    file tells of the last run only.

    Args:
        rewriter: A model that rewrites.
        prompts: What to rewrite, see `remaining`.
        file: Where pairs are added.
        workers: How many prompts to rewrite at once.

    Yields:
        What became of each prompt, as soon as it is known and written.

    Raises:
        RewriterUnavailable: `GIVE_UP` prompts in a row got no answer.
        RewriteError: Another process adds to the file, or it can't be written.
    """
    file = Path(file)
    rejected = file.with_suffix(".rejected.jsonl")
    rejected.unlink(missing_ok=True)
    with _appending(file) as stream, _each(rewriter, prompts, workers) as results:
        unanswered = 0
        for prompt, result in results:
            found, versions, answered = _outcome(prompt, result, rewriter.options)
            if found.pair is not None:
                _write(stream, found.pair.line())
            else:
                with rejected.open("a", encoding="utf-8") as beside:
                    entry = {"prompt": prompt, "reason": found.reason, "rounds": versions}
                    _write(beside, json.dumps(entry, ensure_ascii=False) + "\n")
            yield found
            unanswered = 0 if answered else unanswered + 1
            if unanswered == GIVE_UP:
                raise RewriterUnavailable(f"{GIVE_UP} prompts in a row got no answer; the last one: {found.reason}")


def _outcome(prompt: str, result: Rewrite | Exception, options: Options) -> tuple[Collected, list[object], bool]:
    """What became of a prompt, its versions, and whether the model answered."""
    if isinstance(result, RewriteError):
        return Collected(prompt=prompt, reason=str(result)), [], not isinstance(result, RewriterUnavailable)
    if isinstance(result, Exception):
        raise result
    if result.fallback is not None:
        return Collected(prompt=prompt, reason=result.fallback), [asdict(one) for one in result.rounds], True
    pair = Pair(prompt=prompt, fields=result.fields, mode=options.mode, language=options.language, by=result.by)
    return Collected(prompt=prompt, pair=pair), [], True


@contextmanager
def _each(
    rewriter: ChatRewriter, prompts: Sequence[str], workers: int
) -> Iterator[Iterator[tuple[str, Rewrite | Exception]]]:
    """Rewrite prompts in threads, which begin nothing more once the block is left, and which nothing waits for."""
    waiting, done = Queue[str](), Queue[tuple[str, Rewrite | Exception]]()
    for prompt in prompts:
        waiting.put(prompt)
    left = threading.Event()

    def work() -> None:
        while not left.is_set():
            try:
                prompt = waiting.get_nowait()
            except Empty:
                return
            try:
                done.put((prompt, rewriter.explain(prompt)))
            except Exception as error:
                done.put((prompt, error))

    for _ in range(workers):
        threading.Thread(target=work, daemon=True).start()
    try:
        yield (done.get() for _ in prompts)
    finally:
        left.set()


@contextmanager
def _appending(file: Path) -> Iterator[IO[str]]:
    """Open a file of lines for adding to, alone, after its last whole line."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        stream = file.open("a+", encoding="utf-8", newline="\n")
    except OSError as error:
        raise RewriteError(f"{file}: can't be written ({error})") from error
    with stream:
        _lock(stream, file)
        content = file.read_bytes()
        torn = content[content.rfind(b"\n") + 1 :]
        if torn and _is_json(torn):
            _write(stream, "\n")
        elif torn:
            stream.truncate(len(content) - len(torn))
        yield stream


def _lock(stream: IO[str], file: Path) -> None:
    try:
        import fcntl  # only POSIX has it
    except ImportError:
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RewriteError(f"{file}: another process is adding to it") from error


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _write(stream: IO[str], line: str) -> None:
    stream.write(line)
    stream.flush()
