"""Reading and writing video files: exact frame counts and rates, bounded memory, settings inside the file.

A video here is RGB frames, upright as a player shows them, at one constant rate (`hy_data.timing` says how any other
timing becomes one). Colours follow the file's own tags; pixels that are not square stay as stored.

Shapes: T frames, H height, W width, C channels (red, green, blue).
"""

import io
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from hy_data.container import Inspection, Source, decode_from, inspect, name_of, opened
from hy_data.errors import CannotWrite, NoSettings, TruncatedVideo
from hy_data.files import staged

Frame = npt.NDArray[np.uint8]
"""One picture, shape (H, W, 3), RGB."""

_FULL_CHROMA = 0x04 | 0x2000 | 0x4000 | 0x40000
"""libswscale's flags bicubic, full chroma interpolation, full chroma input and accurate rounding. Its default repeats
colour samples instead: three times the error (1.4 against 0.5 levels, mean, on footage of 150 x 64)."""
_BT709 = 1
_LIMITED_RANGE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a file holds, read without decoding it.

    Attributes:
        height: height in pixels, as shown.
        width: width in pixels, as shown.
        fps: frames per second that it is read at unless asked otherwise.
        frames: how many frames that gives.
        constant_rate: whether the file's own rate is constant; if not, frames are held or left out.
        truncated: whether the file ends before its stated end; reading it whole raises TruncatedVideo.
        metadata: the container's tags, names in lower case.
    """

    height: int
    width: int
    fps: Fraction
    frames: int
    constant_rate: bool
    truncated: bool
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A stretch of video in memory: frames (T, H, W, 3) uint8 RGB, their rate, and the container's tags."""

    frames_THWC: npt.NDArray[np.uint8]
    fps: Fraction
    metadata: dict[str, str]


def probe(source: Source) -> VideoInfo:
    """Say what a video holds; only its first frame is decoded.

    Args:
        source: a file's path, or its content.

    Raises:
        NotAVideo: when it isn't a video file.
        EmptyVideo: when it holds no frame.
        TruncatedVideo: when it breaks off before its first frame.
    """
    return _info(inspect(source))


def iter_frames(
    source: Source, *, fps: Fraction | float | None = None, start: int = 0, stop: int | None = None
) -> Iterator[Frame]:
    """Read frames one after another, with memory for a few of them.

    Args:
        source: a file's path, or its content.
        fps: frames per second to read at; None takes the file's own rate (see `probe`).
        start: number of the first frame, counted at that rate.
        stop: number after the last frame; None, or anything past the end, means the end.

    Returns:
        an iterator over frames of shape (H, W, 3), uint8 RGB.

    Raises:
        NotAVideo: when it isn't a video file.
        EmptyVideo: when it holds no frame.
        TruncatedVideo: after the last readable frame, when the file breaks off before `stop`; from the call itself,
            when no frame is readable.
        ValueError: for a negative start, a stop before it, or a rate that isn't positive.
    """
    return _stretch(source, inspect(source), fps, start, stop)[1]


def read_video(source: Source, *, fps: Fraction | float | None = None, start: int = 0, stop: int | None = None) -> Clip:
    """Read a video, or the frames `start` to `stop` of it, into memory.

    Arguments and errors are those of `iter_frames`; use that for what doesn't fit in memory. A truncated file raises
    before anything is returned: read up to the error's `readable` to save what is there.
    """
    seen = inspect(source)
    rate, incoming = _stretch(source, seen, fps, start, stop)
    frames = list(incoming)
    info = _info(seen)
    frames_THWC = np.stack(frames) if frames else np.empty((0, info.height, info.width, 3), np.uint8)
    return Clip(frames_THWC=frames_THWC, fps=rate, metadata=info.metadata)


def read_settings(source: Source) -> dict[str, Any]:
    """Read back the settings that `write_video` stored in a file.

    Raises:
        NoSettings: when the file carries none.
        NotAVideo: when it isn't a video file.
    """
    with opened(source) as (container, _):
        comment = {key.lower(): value for key, value in container.metadata.items()}.get("comment", "")
    try:
        settings = json.loads(comment)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise NoSettings(f"{name_of(source)} carries no settings; only videos that hyvideo wrote do")
    return settings


def write_video(
    path: str | Path,
    frames_THWC: Iterable[Frame],
    fps: Fraction | float,
    *,
    metadata: Mapping[str, Any] | None = None,
    crf: int = 12,
    lossless: bool = False,
) -> None:
    """Write an mp4 (H.264); the file appears under its name only when it is whole.

    Even sizes are written as 4:2:0, which every player shows. An odd height or width can't be halved, so such videos
    are written as 4:4:4, exact in size, which players built on FFmpeg show. The same frames give the same bytes.

    Args:
        path: where to; must end in .mp4. Missing folders are made.
        frames_THWC: frames of shape (H, W, 3), uint8 RGB, all of one size: an array (T, H, W, 3), or any iterable,
            which is written as it comes.
        fps: frames per second.
        metadata: settings to keep in the file, as JSON in its `comment` tag; `read_settings` gives them back.
        crf: quality, 0 (best) to 51; 12 shows no loss to the eye.
        lossless: keep every pixel exactly (RGB H.264, which few players show); `crf` is then not used.

    Raises:
        CannotWrite: when the place is forbidden or full, the name ends otherwise, or PyAV lacks the encoder.
        ValueError: for no frames, or frames of other types or changing sizes.
    """
    if Path(path).suffix.lower() != ".mp4":
        raise CannotWrite(f"cannot write {path}: videos are written as .mp4")
    with staged(path) as stage:
        _encode(str(stage), frames_THWC, fps, metadata, crf=crf, lossless=lossless)


def encode_video(
    frames_THWC: Iterable[Frame],
    fps: Fraction | float,
    *,
    metadata: Mapping[str, Any] | None = None,
    crf: int = 12,
    lossless: bool = False,
) -> bytes:
    """The content of the mp4 that `write_video` would write; same arguments and errors."""
    buffer = io.BytesIO()
    _encode(buffer, frames_THWC, fps, metadata, crf=crf, lossless=lossless)
    return buffer.getvalue()


def _info(seen: Inspection) -> VideoInfo:
    """What callers see of an inspection: the size as shown, the frames at the default rate."""
    upright = seen.quarter_turns % 2 == 0
    return VideoInfo(
        height=seen.height if upright else seen.width,
        width=seen.width if upright else seen.height,
        fps=seen.timing.rate,
        frames=seen.timing.count(seen.timing.rate),
        constant_rate=seen.timing.constant,
        truncated=seen.truncated,
        metadata=seen.metadata,
    )


def _stretch(
    source: Source, seen: Inspection, fps: Fraction | float | None, start: int, stop: int | None
) -> tuple[Fraction, Iterator[Frame]]:
    """The rate that a stretch is read at, and its frames; arguments are those of `iter_frames`."""
    rate = seen.timing.rate if fps is None else Fraction(fps).limit_denominator(1001)
    if rate <= 0 or start < 0 or (stop is not None and stop < start):
        raise ValueError(f"need fps > 0 and 0 <= start <= stop, got {fps=}, {start=}, {stop=}")
    # A truncated file has no known end: whoever wants all of it must hear that it breaks off.
    end = sys.maxsize if seen.truncated else seen.timing.count(rate)
    return rate, _show(source, seen, rate, start, end if stop is None else min(stop, end))


def _show(source: Source, seen: Inspection, rate: Fraction, start: int, stop: int) -> Iterator[Frame]:
    """Sample and hold: frame `n` is what is on screen at time `n / rate`."""
    timing, converter = seen.timing, VideoReformatter()
    held: VideoFrame | None = None
    tick, latest, last = start, Fraction(0), timing.time(timing.last, timing.frames - 1)
    for time, frame in decode_from(source, timing, start / rate):
        if time > last:
            break  # of a file that breaks off: a frame before this one may be missing
        begins = min(timing.tick(time, rate), stop)
        if held is not None and tick < begins:
            yield from _repeat(held, seen, converter, begins - tick)
            tick = begins
        if tick >= stop:
            return
        held, latest = frame, time
    broken = seen.truncated or latest < last
    end = min(timing.tick(latest, rate) + 1, stop) if broken else stop
    if held is not None and tick < end:
        yield from _repeat(held, seen, converter, end - tick)
    if end < stop:
        whole = "1 frame is" if end == 1 else f"{end} frames are"
        raise TruncatedVideo(f"{name_of(source)} breaks off: {whole} readable (stop={end})", readable=end)


def _repeat(frame: VideoFrame, seen: Inspection, converter: VideoReformatter, times: int) -> Iterator[Frame]:
    """Convert a decoded frame to upright RGB at the size of the file's first frame, and give it so many times.

    A frame's own converter would be set up anew for each frame, which takes ten times as long for small ones.
    """
    if (frame.width, frame.height) != (seen.width, seen.height):
        frame = frame.reformat(width=seen.width, height=seen.height)
    stored_HWC = converter.reformat(frame, format="rgb24", interpolation=_FULL_CHROMA).to_ndarray()
    picture_HWC = np.ascontiguousarray(np.rot90(stored_HWC, seen.quarter_turns), np.uint8)
    for _ in range(times):
        yield picture_HWC.copy() if times > 1 else picture_HWC


_REPEATABLE = {"threads": "1", "x264-params": "no-mbtree=1"}
"""The number of threads changes the bytes; so does the encoder's macroblock tree, from one call to the next."""


def _encode(
    target: str | io.BytesIO,
    frames_THWC: Iterable[Frame],
    fps: Fraction | float,
    metadata: Mapping[str, Any] | None,
    *,
    crf: int,
    lossless: bool,
) -> None:
    """Encode frames as they come into an mp4 file or buffer."""
    rate = Fraction(fps).limit_denominator(1001)
    if rate <= 0:
        raise ValueError(f"fps must be positive, got {fps}")
    incoming = iter(frames_THWC)
    first_HWC = next(incoming, None)
    if first_HWC is None:
        raise ValueError("a video needs at least one frame, got none")
    height, width = _checked(first_HWC, None).shape[:2]
    even = height % 2 == 0 and width % 2 == 0
    pixel_format = "rgb24" if lossless else "yuv420p" if even else "yuv444p"
    # The index goes to the front, so that a file cut short still opens; a buffer can't be rewritten for that.
    options = {"movflags": "faststart"} if isinstance(target, str) else {}
    with av.open(target, "w", format="mp4", options=options) as container:
        if metadata is not None:
            container.metadata["comment"] = json.dumps(metadata, ensure_ascii=False)
        stream = _stream(container, rate, pixel_format, {"qp": "0"} if lossless else {"crf": str(crf)})
        stream.width, stream.height = width, height
        for number, frame_HWC in enumerate(itertools.chain([first_HWC], incoming)):
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(_checked(frame_HWC, (height, width))), format="rgb24")
            if not lossless:
                frame = frame.reformat(
                    format=pixel_format, dst_colorspace=Colorspace.ITU709, interpolation=_FULL_CHROMA
                )
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _stream(container: OutputContainer, rate: Fraction, pixel_format: str, options: dict[str, str]) -> VideoStream:
    """Add an H.264 stream that the same frames always give the same bytes."""
    codec = "libx264rgb" if pixel_format == "rgb24" else "libx264"
    try:
        stream = container.add_stream(codec, rate=rate, options={**options, **_REPEATABLE})
    except (FFmpegError, ValueError) as error:
        raise CannotWrite(f"this build of PyAV has no {codec} encoder; install PyAV from its own wheel") from error
    stream.pix_fmt = pixel_format
    if pixel_format != "rgb24":
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
    return stream


def _checked(frame_HWC: Frame, size: tuple[int, int] | None) -> Frame:
    """The frame itself, if it is a picture of the size that the video has."""
    if frame_HWC.dtype != np.uint8 or frame_HWC.ndim != 3 or frame_HWC.shape[2] != 3:
        raise ValueError(f"frames must be uint8 of shape (H, W, 3), got {frame_HWC.dtype} {frame_HWC.shape}")
    if size is not None and frame_HWC.shape[:2] != size:
        raise ValueError(f"all frames must have the first one's size {size}, got {frame_HWC.shape[:2]}")
    return frame_HWC
