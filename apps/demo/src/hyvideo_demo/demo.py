"""The demo's stages, one after the other.

Shapes: T frames, H W height, width, C channels.
"""

import time
from collections.abc import Sequence

from hy_data import Item
from hy_data.ledger import LedgerEntry
from hy_plugins import Plugins
from hy_tiny import vae_folder
from hy_vae3d import load_vae
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hyvideo_demo import footage, report, training
from hyvideo_demo.layout import DemoError, Layout, Options
from hyvideo_demo.shots import Shot, rebuild, standardize

STAGES = 6


class Demo:
    """The stages in order; with `resume`, cutting and training are passed over where they were done."""

    def __init__(self, layout: Layout, options: Options, *, resume: bool) -> None:
        self.layout, self.options, self.resume = layout, options, resume
        self.plugins = Plugins()
        self.console = Console(stderr=True)
        self.stage = 0

    def run(self) -> None:
        """Run all stages and say what came of them."""
        started = time.monotonic()
        self._footage()
        windows, buckets = footage.shots_and_buckets(self.layout.shards, self.options.frames)
        if len(windows) == footage.MOST_SHOTS:
            self.console.print(f"    at most {footage.MOST_SHOTS} shots are used, the first ones")
        sizes = [[bucket.frames, bucket.height, bucket.width] for bucket in buckets]
        self._adapt(sizes)
        shots = self._compress(windows, sizes)
        self._train()
        videos = self._sample(shots)
        self._heading("Draw the contact sheet and the losses")
        report.write_sheet(self.layout, shots, videos)
        report.write_plot(self.layout)
        seconds = None if self.resume else time.monotonic() - started
        results = report.write_readme(self.layout, shots, seconds)
        self.console.print(f"[bold]Done:[/] {results}. Look at {self.layout.root / 'sheet.png'}")

    def _heading(self, text: str) -> None:
        self.stage += 1
        self.console.print(f"[bold cyan]{self.stage}/{STAGES}[/] {text}", highlight=False)

    def _footage(self) -> None:
        self._heading(f"Cut the footage into shots: {self.options.video or 'the street clip'}")
        if self.resume and self.layout.cut.is_file():
            return
        with self._progress() as progress:
            task = progress.add_task("shots", total=None)

            def tell(entry: LedgerEntry) -> None:
                progress.advance(task)
                fate = "kept" if entry.accepted else f"refused: {entry.reason}"
                progress.console.print(f"    frames {entry.start}-{entry.stop}: {fate}", highlight=False)

            footage.cut(self.options, self.layout.shards, tell)
        self.layout.cut.touch()

    def _adapt(self, buckets: Sequence[Sequence[int]]) -> None:
        self._heading("Adapt the bundled tiny autoencoder to the shots")
        if self.resume and (self.layout.vae / "manifest.json").is_file():
            return
        values = {
            "weights": str(vae_folder()),
            "buckets": buckets,
            "steps": self.options.vae_steps,
            "seed": self.options.seed,
        }
        training.write_recipe(self.layout, "vae", values)
        training.fit(self.plugins, self.layout, "vae", resume=self.resume)

    def _compress(self, windows: Sequence[Item], buckets: Sequence[Sequence[int]]) -> list[Shot]:
        self._heading("Compress the clips")
        with self._progress() as progress:
            task = progress.add_task("shots", total=2 * len(windows))
            if not (self.resume and (self.layout.vae / "manifest.json").is_file()):
                standardize(self.layout.adapted / "vae", self.layout.vae, windows, lambda: progress.advance(task))
            progress.update(task, completed=len(windows))
            shots = rebuild(load_vae(self.layout.vae), windows, lambda: progress.advance(task))
        self.console.print(f"    reconstruction: {sum(shot.psnr for shot in shots) / len(shots):.1f} dB PSNR")
        if not self._trained:
            self._encode(shots, buckets)
        return shots

    def _encode(self, shots: Sequence[Shot], buckets: Sequence[Sequence[int]]) -> None:
        """Write the recipe of the training, and make the latents that it will ask for."""
        height, width = shots[0].real_THWC.shape[1:3]
        most = max(shot.frames for shot in shots)
        sampling = {"width": width, "height": height, "frames": most, "fps": shots[0].fps}
        sampling |= {"steps": 30, "shift": 3.0, "guidance": 2.0}
        values = {"buckets": buckets, "sampling": sampling, "steps": self.options.dit_steps, "seed": self.options.seed}
        recipe = training.write_recipe(self.layout, "dit", values)
        if self.plugins.load("command", "encode")(["--config", str(recipe)]):
            raise DemoError("some clips could not be compressed; see above")

    @property
    def _trained(self) -> bool:
        return self.resume and (self.layout.checkpoint / "manifest.json").is_file()

    def _train(self) -> None:
        self._heading("Train the tiny transformer and its text encoder from nothing")
        if self._trained:
            return
        training.fit(self.plugins, self.layout, "dit", resume=self.resume)
        steps, values = training.losses(self.layout, "dit", "train/loss")
        self.console.print(f"    loss {report.final_loss(values):.3f} after {steps[-1] + 1} steps")

    def _sample(self, shots: Sequence[Shot]) -> list[str]:
        self._heading(f"Sample {len(shots)} {'video' if len(shots) == 1 else 'videos'} and an image")
        videos = [str(self.layout.samples / f"{number:02d}.mp4") for number in range(1, len(shots) + 1)]
        for shot, video in zip(shots, videos, strict=True):
            self._draw(shot.caption, shot.frames, video)
        self._draw(shots[0].caption, 1, str(self.layout.samples / "image.png"))
        return videos

    def _draw(self, caption: str, frames: int, out: str) -> None:
        sample = self.plugins.load("command", "sample")
        common = ["--model", str(self.layout.checkpoint), "--seed", str(self.options.seed), "--overwrite"]
        if sample([*common, "--frames", str(frames), "--out", out, "--", caption]):
            raise DemoError(f"{out}: could not be sampled; see above")

    def _progress(self) -> Progress:
        columns = (TextColumn("    {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, TimeRemainingColumn(), console=self.console)
