"""One run of the command: find everything, encode what the stores lack, report."""

from collections.abc import Iterator
from typing import Any, Generic

from hy_data import Bucket
from hy_data.lightning.latent_cache import LatentCache
from hy_data.recipes import recipe_file
from hy_weights import TensorStore
from rich.console import Console

from hyvideo_encode.cli import Request
from hyvideo_encode.encoding import Piece, Task, U
from hyvideo_encode.errors import EncodeError
from hyvideo_encode.latents import clips_of, latents_of
from hyvideo_encode.places import ready_store
from hyvideo_encode.pool import Pool, devices, threads
from hyvideo_encode.progress import Tally
from hyvideo_encode.prompts import Prompts, find_sources
from hyvideo_encode.texts import find_encoder
from hyvideo_encode.worker import Job, Outcome


class _Batch(Generic[U]):
    """Units by their keys, none of which the store has, and how much of the sources they stand for."""

    def __init__(self) -> None:
        self.units: dict[str, U] = {}
        self.size = 0


def run(request: Request) -> int:
    """Do what a command line asks for.

    Returns:
        0, or 1 if something could not be read or encoded.

    Raises:
        HyError: a source, an encoder or a store can't be used, or a worker died. What was stored stays.
        CheckpointError: an encoder can't be read.
    """
    places = devices(request.device)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    # All of it is found before anything is encoded; then text encoder and autoencoder are not in memory together.
    tasks = list(_tasks(request, console) if request.config is None else _recipe_tasks(request.config, console))
    return max(_done(task, request, places) for task in tasks)


def _recipe_tasks(recipe: str, console: Console) -> Iterator[Task[Any]]:
    from hyvideo_encode.recipe import recipe_tasks  # brings Lightning, which takes seconds

    return recipe_tasks(recipe_file(recipe), console)


def _tasks(request: Request, console: Console) -> Iterator[Task[Any]]:
    """What the options name."""
    sources, store = find_sources(request.sources), ready_store(request.store)
    if request.encoder is not None:
        settings = {"media": request.media, "quantization": request.quantization}
        yield Task(find_encoder(request.encoder, request.dtype, settings), Prompts(sources, request.captions), store)
    if request.vae is not None:
        shards = [source for source in sources if source.suffix == ".tar"]
        if not shards:
            raise EncodeError("latents are made of shards (*.tar); name some, or leave out --vae")
        cache = LatentCache(store, request.vae, dtype=request.vae_dtype, tiling=request.tiling, format=request.format)
        try:
            sizes = [Bucket(*size) for size in request.buckets]
        except ValueError as error:
            raise EncodeError(str(error)) from error
        yield Task(latents_of(cache, console), clips_of(shards, sizes, console.print), store)


def _done(task: Task[Any], request: Request, places: list[str]) -> int:
    """Do one task; gives the exit code."""
    encoding, workers = task.encoding, request.workers or len(places)
    bound = request.max_size or task.max_size
    tally = Tally(task.sources.total, encoding.noun, encoding.step)
    store = TensorStore(task.store, bound, report=tally.note)
    job = Job(
        encoding=encoding,
        store=task.store,
        max_size=bound,
        devices=places,
        threads=threads(workers),
        batch_size=request.batch_size,
    )
    try:
        with tally, Pool[_Batch[Any]](job, workers) as pool:
            _Session(task, request.batch_size, store, pool, tally).run()
    finally:
        print(f"{task.store}: {tally.told}")
    return 1 if tally.failed else 0


class _Session(Generic[U]):
    """What the store lacks goes to the workers, in batches; the rest is only counted."""

    def __init__(self, task: Task[U], batch_size: int, store: TensorStore, pool: Pool[_Batch[U]], tally: Tally) -> None:
        self._task, self._store, self._pool, self._tally = task, store, pool, tally
        self._coder = task.encoding.open(store, "cpu", batch_size)  # it loads nothing here: the workers encode
        self._batch: _Batch[U] = _Batch()
        self._waiting: set[str] = set()

    def run(self) -> None:
        for piece in self._task.sources.pieces():
            self._take(piece)
        self._hand_in()
        for batch, outcome in self._pool.drain():
            self._settle(batch, outcome)

    def _take(self, piece: Piece[U]) -> None:
        """Put what the store lacks of a piece, and nobody is encoding yet, into the batch; hand that in when full."""
        if piece.damage:
            self._tally.fail(piece.damage)
        keys = self._coder.keys(piece.units)
        missing = {
            key: unit
            for key, unit in zip(keys, piece.units, strict=True)
            if key not in self._waiting and key not in self._store
        }
        self._tally.count(0 if missing else piece.size, found=len(keys) - len(missing))
        self._batch.size += piece.size if missing else 0
        for part in [missing] if self._task.encoding.whole else [{key: unit} for key, unit in missing.items()]:
            self._batch.units |= part
            self._waiting |= part.keys()
            if self._coder.fills(self._batch.units.values()):
                self._hand_in()

    def _hand_in(self) -> None:
        batch, self._batch = self._batch, _Batch()
        if batch.units:
            for done, outcome in self._pool.submit(list(batch.units.values()), batch):
                self._settle(done, outcome)

    def _settle(self, batch: _Batch[U], outcome: Outcome) -> None:
        self._waiting -= batch.units.keys()
        for note in outcome.notes:
            self._tally.note(note)
        for failure in outcome.failed:
            self._tally.fail(failure)
        others = len(batch.units) - outcome.encoded - len(outcome.failed)
        if outcome.unstored:
            raise EncodeError(f"what is encoded can't be stored: {'; '.join(outcome.notes)}")
        self._tally.bytes_written += outcome.bytes_written
        self._tally.float32_bytes += outcome.float32_bytes
        self._tally.count(batch.size, found=others, encoded=outcome.encoded)
        if outcome.evicted:
            self._tally.note("the store is full: what was used longest ago goes; see --max-size")
