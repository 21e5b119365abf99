"""Opening, checking and decoding one video file with PyAV; `hy_data.video` is the face of it."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from hy_data.errors import EmptyVideo, NotAVideo, TruncatedVideo
from hy_data.timing import Timeline, timeline

Source = str | Path | bytes
"""A video file's path, or its content."""

_TEXT_FORMATS = frozenset({"tty"})
"""Demuxers that turn any text into pictures of text: no footage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What is known of a file after its packets were listed and its first frame was decoded.

    Attributes:
        timing: when each frame is shown.
        truncated: whether the file ends before what its header or index announces.
        height: stored height in pixels, before turning.
        width: stored width in pixels, before turning.
        quarter_turns: anticlockwise quarter turns that put the stored frames upright.
        metadata: the container's tags, names in lower case.
    """

    timing: Timeline
    truncated: bool
    height: int
    width: int
    quarter_turns: int
    metadata: dict[str, str]


def name_of(source: Source) -> str:
    """What messages call a source."""
    return "a video in memory" if isinstance(source, bytes) else str(source)


@contextmanager
def opened(source: Source) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and find its footage: the first video stream that isn't a cover picture.

    Raises:
        NotAVideo: when there is no such file, it can't be read, or it holds no video stream.
        EmptyVideo: when the file has no content at all.
        TruncatedVideo: when the file breaks off before its index.
    """
    _check_exists(source)
    try:
        container = av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source), "r")
    except (FFmpegError, OSError) as error:
        _refuse_cut_mp4(source)
        reason = getattr(error, "strerror", None) or str(error)
        raise NotAVideo(f"{name_of(source)} is not a video that can be read: {reason}") from error
    with container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams or container.format.name in _TEXT_FORMATS:
            _refuse_cut_mp4(source)
            raise NotAVideo(f"{name_of(source)} has no video stream; a file with moving pictures is needed")
        if streams[0].codec_context is None:
            raise NotAVideo(f"{name_of(source)} uses a video codec that this build of PyAV can't decode")
        yield container, streams[0]


def inspect(source: Source) -> Inspection:
    """List a file's packets without decoding them, and decode its first frame.

    Raises:
        NotAVideo: as `opened` does.
        EmptyVideo: when it holds not one decodable frame.
        TruncatedVideo: when it breaks off before the first frame is complete.
    """
    with opened(source) as (container, stream):
        timing, truncated = _list_packets(source, container, stream)
        metadata = {key.lower(): value for key, value in {**stream.metadata, **container.metadata}.items()}
    with opened(source) as (container, stream):
        first = next(decode(container, stream), None) if timing else None
    if timing is None or first is None:
        if truncated:
            raise TruncatedVideo(
                f"{name_of(source)} breaks off within its first frame: no frame is readable", readable=0
            )
        raise EmptyVideo(f"{name_of(source)} holds no frame that can be decoded")
    return Inspection(
        timing=timing,
        truncated=truncated,
        height=first.height,
        width=first.width,
        quarter_turns=round(first.rotation / 90) % 4,
        metadata=metadata,
    )


def decode(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Decode frames in the order they are shown, up to the end or the first damaged packet."""
    stream.thread_type = "AUTO"
    with suppress(FFmpegError):
        for packet in container.demux(stream):
            yield from packet.decode()
    # Frames that the decoder holds back for reordering; it refuses when the end of the file already flushed it.
    with suppress(FFmpegError):
        yield from stream.decode(None)


def decode_from(source: Source, timing: Timeline, time: Fraction) -> Iterator[tuple[Fraction, VideoFrame]]:
    """Decode frames with their times, from one that is on screen at `time` or before it."""
    if time > 0 and timing.first is not None:
        with opened(source) as (container, stream):
            container.seek(timing.first + int(time / timing.time_base), stream=stream)
            frames = decode(container, stream)
            first = next(frames, None)
            # Some containers land behind the place asked for; then the file is read from its beginning, below.
            if first is not None and first.pts is not None and timing.time(first.pts, 0) <= time:
                yield timing.time(first.pts, 0), first
                yield from ((timing.time(frame.pts, 0), frame) for frame in frames)
                return
    with opened(source) as (container, stream):
        for number, frame in enumerate(decode(container, stream)):
            yield timing.time(frame.pts, number), frame


def _check_exists(source: Source) -> None:
    """Say what is wrong with a source before PyAV is asked."""
    if isinstance(source, bytes):
        size = len(source)
    else:
        path = Path(source)
        if path.is_dir():
            raise NotAVideo(f"{path} is a folder; name a video file")
        if not path.is_file():
            raise NotAVideo(f"{path} does not exist; name a video file")
        try:
            with path.open("rb") as file:
                size = file.seek(0, io.SEEK_END)
        except OSError as error:
            raise NotAVideo(f"{path} can't be read: {error.strerror}") from error
    if size == 0:
        raise EmptyVideo(f"{name_of(source)} is empty: 0 bytes")


def _is_cut_mp4(source: Source) -> bool:
    """Whether the content is an mp4 or mov file without an index, or one whose last part is cut short."""
    with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        start, kinds = 0, []
        while start + 8 <= size:
            file.seek(start)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length == 1 and start + 16 <= size:
                length = struct.unpack(">Q", file.read(8))[0]
            kinds.append(kind)
            # A length of 0 means up to the end of the file; others below 8 can't be, so this is no such file.
            start = size if length == 0 else start + length if length >= 8 else size
    return kinds[:1] == [b"ftyp"] and (start > size or b"moov" not in kinds)


def _refuse_cut_mp4(source: Source) -> None:
    """Raise TruncatedVideo where a cut index makes a file look like no video at all."""
    if _is_cut_mp4(source):
        raise TruncatedVideo(
            f"{name_of(source)} breaks off before its index is complete: no frame is readable", readable=0
        )


class _Stamp(NamedTuple):
    """The timing of one packet, in the stream's time base: when it is shown, when it is decoded, for how long."""

    pts: int | None
    dts: int | None
    duration: int | None


def _list_packets(source: Source, container: InputContainer, stream: VideoStream) -> tuple[Timeline | None, bool]:
    """Read every packet's timing, None when no packet is whole, and whether the file breaks off early."""
    stamps: list[_Stamp] = []
    packets, last_end, broken = 0, Fraction(0), False
    try:
        for packet in container.demux():
            if packet.dts is None and packet.size == 0:
                continue
            if packet.pts is not None and packet.time_base is not None:
                last_end = max(last_end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream.index != stream.index:
                continue
            packets += 1
            broken = broken or packet.is_corrupt
            if packet.size and not packet.is_discard and not packet.is_corrupt:
                stamps.append(_Stamp(packet.pts, packet.dts, packet.duration))
    except FFmpegError:
        broken = True
    rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    if "mp4" in container.format.name:
        # Its count of frames is no help: a trimmed recording announces those that its edit list hides.
        truncated = broken or _is_cut_mp4(source)
    else:
        truncated = broken or _announces_more(container, stream, packets, last_end)
    if not stamps:
        return None, truncated
    known = _without_gaps(stamps) if truncated else stamps
    return timeline(
        [s.pts for s in known], [s.duration for s in known], stream.time_base or Fraction(1, 1000), rates
    ), truncated


def _announces_more(container: InputContainer, stream: VideoStream, packets: int, last_end: Fraction) -> bool:
    """Whether the file's index, or else its stated duration, promises more than its packets give."""
    if stream.frames:
        return stream.frames > packets
    if not container.duration or not last_end:
        return False
    stated = Fraction(container.duration + (container.start_time or 0), av.time_base)
    return stated - last_end > max(2 / (stream.average_rate or Fraction(25)), stated / 50)


def _without_gaps(stamps: list[_Stamp]) -> list[_Stamp]:
    """Of a file that breaks off, the frames before which none can be missing.

    Frames are stored in the order of decoding, and none is shown before it is decoded: what is lost would have been
    shown after the last decoding time that is there.
    """
    last_dts = next((stamp.dts for stamp in reversed(stamps) if stamp.dts is not None), None)
    if last_dts is None:
        return stamps
    return [stamp for stamp in stamps if stamp.pts is None or stamp.pts <= last_dts] or stamps[:1]
