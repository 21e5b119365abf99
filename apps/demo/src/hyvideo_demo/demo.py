"""The demo's stages, one after the other.

Shapes: T frames, H W height, width, C channels.
"""

import time
from collections.abc import Sequence

from hy_data import Bucket, StoredClip
from hy_data.ledger import LedgerEntry
from hy_plugins import Plugins
from hy_tiny import vae_folder
from hy_vae3d import load_vae
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hyvideo_demo import footage, latents, report, training
from hyvideo_demo.layout import DemoError, Layout, Options

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
        clips, buckets = footage.clips_and_buckets(self.layout.shards, self.options.frames)
        if len(clips) == footage.MOST_SHOTS:
            self.console.print(f"    at most {footage.MOST_SHOTS} shots are used, the first ones")
        self._adapt(buckets)
        shots = self._encode(clips, buckets)
        self._train(shots)
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

    def _adapt(self, buckets: Sequence[Bucket]) -> None:
        self._heading("Adapt the bundled tiny autoencoder to the shots")
        if self.resume and (self.layout.vae / "manifest.json").is_file():
            return
        sizes = [[bucket.frames, bucket.height, bucket.width] for bucket in buckets]
        values = {
            "weights": str(vae_folder()),
            "buckets": sizes,
            "steps": self.options.vae_steps,
            "seed": self.options.seed,
        }
        training.fit(self.plugins, self.layout, "vae", values, resume=self.resume)

    def _encode(self, clips: Sequence[StoredClip], buckets: Sequence[Bucket]) -> list[latents.Shot]:
        self._heading("Compress the clips")
        with self._progress() as progress:
            task = progress.add_task("clips", total=len(clips))
            if not (self.resume and (self.layout.vae / "manifest.json").is_file()):
                latents.standardize(self.layout.adapted / "vae", self.layout.vae, clips, buckets)
            vae = load_vae(self.layout.vae)
            latents.encode(vae, clips, buckets, self.layout.latents, lambda: progress.advance(task))
        shots = latents.rebuild(vae, clips, buckets)
        self.console.print(f"    reconstruction: {sum(shot.psnr for shot in shots) / len(shots):.1f} dB PSNR")
        return shots

    def _train(self, shots: Sequence[latents.Shot]) -> None:
        self._heading("Train the tiny transformer and its text encoder from nothing")
        if self.resume and (self.layout.checkpoint / "manifest.json").is_file():
            return
        height, width = shots[0].real_THWC.shape[1:3]
        most = max(shot.frames for shot in shots)
        sampling = {"width": width, "height": height, "frames": most, "fps": shots[0].fps}
        sampling |= {"steps": 30, "shift": 3.0, "guidance": 2.0}
        values = {"sampling": sampling, "steps": self.options.dit_steps, "seed": self.options.seed}
        training.fit(self.plugins, self.layout, "dit", values, resume=self.resume)
        steps, values = training.losses(self.layout, "dit", "train/loss")
        self.console.print(f"    loss {report.final_loss(values):.3f} after {steps[-1] + 1} steps")

    def _sample(self, shots: Sequence[latents.Shot]) -> list[str]:
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
