"""The procedural world as shards, so that training on it goes the way of any footage.

Shapes: T frames, H height, W width, C channels (red, green, blue).
"""

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

from hy_data.shards import ClipSample, ShardWriter
from hy_data.video import encode_video
from hy_data.world import Split, World

FPS = Fraction(8)
_AT_ONCE = 256


def pack_world(
    folder: str | Path,
    clips: int,
    *,
    size: tuple[int, int] = (48, 48),
    frames: int = 9,
    split: Split = "train",
    seed: int = 0,
    crf: int = 12,
    threads: int | None = None,
    overwrite: bool = False,
    report: Callable[[int], None] | None = None,
) -> None:
    """Render clips of the world and write them to shards, with their captions and what is true of each.

    The same arguments give the same bytes, whatever the number of threads.

    Args:
        folder: where the shards go.
        clips: how many; clip `n` is `World.clip(n)`.
        size: frame height and width in pixels.
        frames: frames per clip; one gives stills, whose captions name no motion.
        split: "train" leaves the held-out combinations away, "held-out" has only them.
        seed: another seed is another supply.
        crf: quality, as `write_video`.
        threads: how many render and encode; None takes one for each core.
        overwrite: replace shards that the folder holds already.
        report: called with the number of clips written, now and then.

    Raises:
        CannotWrite: when the folder can't be written to, or holds shards.
        ValueError: for a size, a number of frames or a split out of range.
    """
    world = World(size=size, frames=frames, split=split, seed=seed)

    def encoded(number: int) -> tuple[ClipSample, bytes]:
        sample = _sample(world, number, split)
        return sample, encode_video(sample.frames_THWC, sample.fps, crf=crf)

    with ShardWriter(folder, overwrite=overwrite) as writer, ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for numbers in _parts(clips):
            for sample, mp4 in pool.map(encoded, numbers):
                writer.write_encoded(sample, mp4)
            if report is not None:
                report(numbers[-1] + 1)


def _sample(world: World, number: int, split: Split) -> ClipSample:
    clip = world.clip(number)
    scene = clip.scene
    truth = {"colour": scene.colour, "shape": scene.shape, "motion": scene.motion, "background": scene.background}
    return ClipSample(
        key=f"{number:08d}",
        frames_THWC=clip.frames_THWC,
        fps=FPS,
        captions={"short": clip.caption, **truth},
        source=f"world {split} seed {world.seed} clip {number}",
    )


def _parts(count: int) -> Iterator[range]:
    """Ranges of numbers, so that a bounded number of clips wait to be written."""
    edges = [*range(0, count, _AT_ONCE), count]
    return itertools.starmap(range, itertools.pairwise(edges))
