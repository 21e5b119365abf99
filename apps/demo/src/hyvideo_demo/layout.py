"""Where the demo puts things, and what it was asked for."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from hy_plugins import HyError

RECORD = "demo.json"


class DemoError(HyError):
    """The demo cannot go on with what it was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the demo was asked for; kept in `demo.json`, so that `--resume` goes on with the same.

    Attributes:
        video: Footage to learn from; empty for the street clip.
        captions: A text file with one line per shot; empty for the street clip's own, or measured ones.
        frames: Frames of the sampled videos, 4n+1; shorter shots give shorter ones.
        vae_steps: Steps that adapt the autoencoder.
        dit_steps: Steps that train the transformer.
        seed: Of everything random.
    """

    video: str
    captions: str
    frames: int
    vae_steps: int
    dit_steps: int
    seed: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of a demo folder."""

    root: Path

    @property
    def shards(self) -> Path:
        """The clips, as shards."""
        return self.root / "shards"

    @property
    def cut(self) -> Path:
        """Says that all shots are cut: an interrupted cutting leaves the shards it had."""
        return self.shards / "complete"

    @property
    def latents(self) -> Path:
        """The clips, compressed: a store."""
        return self.root / "latents"

    @property
    def vae(self) -> Path:
        """The adapted autoencoder, its latents brought to deviation one."""
        return self.root / "vae"

    @property
    def adapted(self) -> Path:
        """What the autoencoder's training publishes, its latents as they came out."""
        return self.run("vae") / "model"

    @property
    def checkpoint(self) -> Path:
        """What `hyvideo sample` takes."""
        return self.root / "checkpoint"

    @property
    def samples(self) -> Path:
        """The sampled videos and the image."""
        return self.root / "samples"

    def run(self, name: str) -> Path:
        """A training run's folder: its recipe, its losses, its last checkpoint."""
        return self.root / "runs" / name

    def recipe(self, name: str) -> Path:
        """What a training run is told."""
        return self.run(name) / "recipe.yaml"


def open_folder(root: Path, options: Options, *, resume: bool, overwrite: bool) -> Options:
    """Make the demo folder, or take up an old one.

    Returns:
        The options to go on with: those given, or with `resume` those the folder was begun with.

    Raises:
        DemoError: The folder holds a demo already, or anything else, or nothing to resume, or can't be written; or the
            footage or captions are not there.
    """
    record, layout = root / RECORD, Layout(root)
    if resume:
        if not record.is_file():
            raise DemoError(f"{root} holds no demo to resume; run without --resume")
        return _read(record)
    for path in (options.video, options.captions):
        if path and not Path(path).exists():
            raise DemoError(f"{path}: no such file")
    # A demo that failed before its first clip (a mistyped path, say) leaves nothing worth keeping.
    if record.is_file() and any(layout.shards.glob("*.tar")) and not overwrite:
        raise DemoError(
            f"{root} holds a demo already: --resume goes on with it, --overwrite begins anew, --out elsewhere"
        )
    if not record.is_file() and root.exists() and (not root.is_dir() or any(root.iterdir())):
        what = "is not empty and not a demo's folder" if root.is_dir() else "is a file"
        raise DemoError(f"{root} {what}; choose another with --out")
    try:
        root.mkdir(parents=True, exist_ok=True)
        if record.is_file():  # a demo's folder: what an older one made would be taken for the new one's by --resume
            for old in (layout.shards, layout.latents, layout.vae, layout.checkpoint, layout.samples, layout.run("")):
                shutil.rmtree(old, ignore_errors=True)
        staged = record.with_suffix(".tmp")
        staged.write_text(json.dumps(asdict(options), indent=2) + "\n", encoding="utf-8")
        staged.replace(record)
    except OSError as error:
        raise DemoError(
            f"{root}: no folder can be made or written there ({error.strerror}); choose with --out"
        ) from error
    return options


def _read(record: Path) -> Options:
    try:
        return Options(**json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DemoError(f"{record} is damaged ({error}); --overwrite begins anew") from error
