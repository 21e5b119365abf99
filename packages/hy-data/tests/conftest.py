"""Functions for the tests, as fixtures.

Most videos made here have frames of one grey that tells the frame's number, so that it is known after lossy coding.

Shapes: T frames, H height, W width, C channels.
"""

from fractions import Fraction

import av
import numpy as np
import pytest

STEP, BASE = 6, 10


def _numbered(count, height=48, width=64):
    """Frames (T, H, W, C) that carry their numbers, up to 40 of them."""
    greys = (BASE + STEP * np.arange(count)).astype(np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (count, height, width, 3)).copy()


def _numbers(frames_THWC):
    """The numbers that frames carry."""
    return np.round((np.asarray(frames_THWC, float).mean(axis=(1, 2, 3)) - BASE) / STEP).astype(int).tolist()


def _encode(
    path,
    frames_THWC,
    *,
    rate=Fraction(25),
    milliseconds=None,
    codec="libx264",
    container=None,
    gop=250,
    faststart=False,
):
    """Write a video with PyAV alone, at a constant rate or with a timestamp per frame."""
    with av.open(str(path), "w", format=container, options={"movflags": "faststart"} if faststart else {}) as output:
        stream = output.add_stream(codec, rate=rate, options={"crf": "4"} if codec == "libx264" else {})
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt, stream.gop_size, stream.bit_rate = "yuv420p", gop, 0 if codec == "libx264" else 4_000_000
        if milliseconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, frame_HWC in enumerate(frames_THWC):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            if milliseconds is None:
                frame.pts, frame.time_base = number, 1 / rate
            else:
                frame.pts, frame.time_base = milliseconds[number], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def _cut(path, share):
    """Keep only the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


@pytest.fixture
def numbered():
    return _numbered


@pytest.fixture
def numbers():
    return _numbers


@pytest.fixture
def encode():
    return _encode


@pytest.fixture
def cut():
    return _cut


@pytest.fixture(scope="session")
def textured():
    """A function that makes frames (T, H, W, C) of smooth random texture that drifts to the right."""

    def make(count=9, height=48, width=64, seed=0, shift=2):
        rng = np.random.default_rng(seed)
        cells = (height // 8 + 2, (width + count * shift) // 8 + 2)
        light_HW1, colour_HWC = rng.uniform(30, 225, (*cells, 1)), rng.uniform(-20, 20, (*cells, 3))
        wide_HWC = light_HW1 + colour_HWC
        wide_HWC = wide_HWC.repeat(8, axis=0).repeat(8, axis=1)
        for axis in (0, 1):
            wide_HWC = sum(np.roll(wide_HWC, step, axis) for step in range(-3, 4)) / 7
        starts = [(count - 1 - number) * shift for number in range(count)]
        return np.stack([wide_HWC[:height, start : start + width] for start in starts]).astype(np.uint8)

    return make
