"""One run of the command: find everything, encode what the store lacks, report."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile

from hy_plugins import Plugins
from hy_textenc import CachedTextEncoder
from hy_weights import TensorStore
from rich.console import Console

from hyvideo_encode.cli import Request
from hyvideo_encode.encoders import find_encoder
from hyvideo_encode.errors import EncodeError
from hyvideo_encode.pool import Pool, devices, threads
from hyvideo_encode.progress import Tally
from hyvideo_encode.prompts import Piece, find_sources, read_prompts
from hyvideo_encode.worker import Job, Outcome


class _Batch:
    """Prompts by their keys, none of which the store has, and the bytes of the sources that they stand for."""

    def __init__(self) -> None:
        self.prompts: dict[str, str] = {}
        self.size = 0


def run(request: Request) -> int:
    """Do what a command line asks for.

    Returns:
        0, or 1 if some captions could not be read or encoded.

    Raises:
        HyError: a source, the encoder or the store can't be used, or a worker died. What was stored stays.
        CheckpointError: the encoder can't be read.
    """
    sources = find_sources(request.sources)
    tally = Tally(sum(source.stat().st_size for source in sources))
    store = TensorStore(request.store, request.max_size, report=tally.note)
    _check_place(request.store)
    places = devices(request.device)
    workers = request.workers or len(places)
    encoder = find_encoder(request, Plugins())
    with Console(stderr=True).status("look at the encoder"):
        identity = encoder.identity()
    job = Job(
        encoder=encoder,
        identity=identity,
        store=request.store,
        max_size=request.max_size,
        devices=places,
        threads=threads(workers),
    )
    try:
        with tally, Pool[_Batch](job, workers) as pool:
            _Session(request, job, store, pool, tally).run(sources)
    finally:
        print(f"{request.store}: {tally.told}")
    return 1 if tally.failed else 0


class _Session:
    """What the store lacks goes to the workers, in batches; the rest is only counted."""

    def __init__(self, request: Request, job: Job, store: TensorStore, pool: Pool[_Batch], tally: Tally) -> None:
        self._request, self._store, self._pool, self._tally = request, store, pool, tally
        # It only makes keys here: to load the encoder is the workers' task.
        self._cached = CachedTextEncoder(lambda: job.encoder.load("cpu"), store, identity=job.identity)
        self._batch = _Batch()
        self._waiting: set[str] = set()

    def run(self, sources: Iterable[Path]) -> None:
        for source in sources:
            for piece in read_prompts(source, self._request.captions):
                self._take(piece)
        if self._batch.prompts:
            self._hand_in()
        for batch, outcome in self._pool.drain():
            self._settle(batch, outcome)

    def _take(self, piece: Piece) -> None:
        """Put what the store lacks of a piece, and nobody is encoding yet, into the batch."""
        if piece.damage:
            self._tally.fail(piece.damage)
        keys = self._cached.keys(piece.prompts) if piece.prompts else []
        missing = {
            key: prompt
            for key, prompt in zip(keys, piece.prompts, strict=True)
            if key not in self._waiting and key not in self._store
        }
        self._tally.count(0 if missing else piece.size, found=len(keys) - len(missing))
        self._batch.size += piece.size if missing else 0
        for key, prompt in missing.items():
            self._batch.prompts[key] = prompt
            self._waiting.add(key)
            if len(self._batch.prompts) == self._request.batch_size:
                self._hand_in()

    def _hand_in(self) -> None:
        batch, self._batch = self._batch, _Batch()
        for done, outcome in self._pool.submit(list(batch.prompts.values()), batch):
            self._settle(done, outcome)

    def _settle(self, batch: _Batch, outcome: Outcome) -> None:
        self._waiting -= batch.prompts.keys()
        for note in outcome.notes:
            self._tally.note(note)
        for prompt, reason in outcome.failed.items():
            self._tally.fail(f"{prompt!r}: {reason}")
        others = len(batch.prompts) - outcome.encoded - len(outcome.failed)
        if outcome.unstored:
            raise EncodeError(f"what is encoded can't be stored: {'; '.join(outcome.notes)}")
        self._tally.count(batch.size, found=others, encoded=outcome.encoded)
        self._tally.bytes_written += outcome.bytes_written
        if outcome.evicted:
            self._tally.note("the store is full: what was used longest ago goes; see --max-size")


def _check_place(store: Path) -> None:
    """Refuse a place that could not be written to, before anything is computed."""
    folder = next(folder for folder in (store.absolute(), *store.absolute().parents) if folder.exists())
    try:
        TemporaryFile(dir=folder).close()  # permissions alone do not tell: a file system may be read-only or full
    except OSError as error:
        raise EncodeError(f"{store} can't be written: {folder}: {error.strerror}; choose another store") from error
