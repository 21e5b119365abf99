import errno
import os
import struct
import tracemalloc
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from hy_data.errors import CannotWrite, DataError, EmptyVideo, NoSettings, NotAVideo, TruncatedVideo
from hy_data.video import encode_video, iter_frames, probe, read_settings, read_video, write_video


@pytest.mark.parametrize("fps", [25, Fraction(30000, 1001), Fraction(24000, 1001), 23.976, 8, 12.5, 60])
@pytest.mark.parametrize("count", [1, 2, 13])
def test_count_rate_and_size_come_back_exactly(tmp_path, fps, count, numbered, numbers):
    write_video(tmp_path / "a.mp4", numbered(count), fps)
    clip = read_video(tmp_path / "a.mp4")
    assert clip.frames_THWC.shape == (count, 48, 64, 3)
    assert clip.frames_THWC.dtype == np.uint8
    assert clip.fps == Fraction(fps).limit_denominator(1001)
    assert numbers(clip.frames_THWC) == list(range(count))


@pytest.mark.parametrize(("height", "width"), [(271, 635), (271, 634), (48, 65), (17, 33), (33, 18)])
def test_odd_sizes_come_back_exactly(tmp_path, textured, height, width):
    frames = textured(3, height, width)
    write_video(tmp_path / "a.mp4", frames, 25)
    back = read_video(tmp_path / "a.mp4").frames_THWC
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() < 3


def test_default_quality_is_near_lossless_and_crf_trades_size(textured):
    frames = textured(9, 64, 64)
    best, rough = encode_video(frames, 25), encode_video(frames, 25, crf=40)
    assert np.abs(read_video(best).frames_THWC.astype(int) - frames).mean() < 2.5
    assert len(rough) < len(best) * 0.7  # of which 1.1 kB are the container's


def test_lossless_keeps_every_bit(textured):
    frames = textured(4, 33, 50)
    np.testing.assert_array_equal(read_video(encode_video(frames, 25, lossless=True)).frames_THWC, frames)


def test_colours_are_kept_and_tagged(tmp_path):
    frames = np.zeros((2, 32, 96, 3), np.uint8)
    frames[:, :, :32], frames[:, :, 32:64], frames[:, :, 64:] = (230, 25, 25), (25, 230, 25), (25, 25, 230)
    back = read_video(encode_video(frames, 25)).frames_THWC
    for left, colour in ((10, (230, 25, 25)), (42, (25, 230, 25)), (74, (25, 25, 230))):
        np.testing.assert_allclose(back[0, 16, left], colour, atol=4)


def test_colour_has_detail_too(textured):
    frames = np.full((1, 64, 64, 3), 128, np.uint8)
    frames[..., 0], frames[..., 2] = textured(1, 64, 64, seed=1)[..., 0], textured(1, 64, 64, seed=2)[..., 0]
    assert np.abs(read_video(encode_video(frames, 25, crf=0)).frames_THWC.astype(int) - frames).mean() < 3


def test_the_same_frames_give_the_same_bytes(tmp_path, textured):
    frames = textured(3, 160, 160)
    write_video(tmp_path / "a.mp4", frames, 25, metadata={"seed": 1})
    write_video(tmp_path / "b.mp4", iter(list(frames)), 25, metadata={"seed": 1})
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    # x264 writes its settings into the file; the number of threads changes the bytes.
    assert b" threads=1 " in (tmp_path / "a.mp4").read_bytes()


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (7, 9), (12, None), (29, 30), (25, 99), (30, None), (4, 4)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_a_stretch_is_the_same_as_the_slice(tmp_path, suffix, start, stop, numbered, numbers, encode):
    # A key frame every 8 frames, so that seeking has somewhere to land.
    codec = "mpeg4" if suffix == "avi" else "libx264"
    path = encode(tmp_path / f"a.{suffix}", numbered(30), codec=codec, gop=8)
    assert numbers(read_video(path, start=start, stop=stop).frames_THWC) == list(range(30))[start:stop]


def test_another_rate_holds_or_leaves_out_frames(tmp_path, numbered, numbers, encode):
    path = encode(tmp_path / "a.mp4", numbered(10))
    assert numbers(read_video(path, fps=12.5).frames_THWC) == [0, 2, 4, 6, 8]
    doubled = read_video(path, fps=50)
    assert (numbers(doubled.frames_THWC), doubled.fps) == ([n for n in range(10) for _ in range(2)], 50)
    assert numbers(read_video(path, fps=50, start=5, stop=9).frames_THWC) == [2, 3, 3, 4]
    first, held, _ = iter_frames(path, fps=50, stop=3)
    first[:] = 0
    assert held.any()  # a frame that is shown twice is given as two arrays


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_rate_becomes_constant(tmp_path, suffix, numbered, numbers, encode):
    stamps = [0, 40, 80, 240, 280, 320, 400]
    path = encode(tmp_path / f"a.{suffix}", numbered(7), milliseconds=stamps)
    info = probe(path)
    assert (info.fps, info.constant_rate, info.frames) == (25, False, 11)
    assert numbers(read_video(path).frames_THWC) == [0, 1, 2, 2, 2, 2, 3, 4, 5, 5, 6]
    assert numbers(read_video(path, start=4, stop=8).frames_THWC) == [2, 2, 3, 4]


def test_frames_without_timestamps_are_read_in_order(tmp_path, numbered, numbers, encode):
    path = encode(tmp_path / "a.h264", numbered(12), container="h264")
    assert numbers(read_video(path).frames_THWC) == list(range(12))
    assert numbers(read_video(path, start=5, stop=8).frames_THWC) == [5, 6, 7]


def turn(path, matrix):
    """Write a display matrix into an mp4's track header; ISO/IEC 14496-12: x' = a x + c y, y' = b x + d y."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 4 + 5 * 4 + 4 * 4
    assert struct.unpack_from(">9i", content, place) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    a, b, c, d = (value * 65536 for value in matrix)
    struct.pack_into(">9i", content, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("matrix", "corner"), [((0, 1, -1, 0), (0, -1)), ((0, -1, 1, 0), (-1, 0)), ((-1, 0, 0, -1), (-1, -1))]
)
def test_rotation_is_applied(tmp_path, matrix, corner):
    frames = np.full((3, 48, 80, 3), 20, np.uint8)
    frames[:, :16, :16] = 220  # the stored top left; `corner` is where a player shows it
    write_video(tmp_path / "a.mp4", frames, 25)
    path = turn(tmp_path / "a.mp4", matrix)
    info, back = probe(path), read_video(path).frames_THWC
    assert back.shape[1:3] == (info.height, info.width) == ((48, 80) if matrix[0] else (80, 48))
    bright = np.argwhere(back[0].mean(axis=-1) > 120).mean(axis=0) / back.shape[1:3]
    assert tuple(np.where(bright < 0.5, 0, -1)) == corner


def test_settings_travel_inside_the_file(tmp_path, numbered):
    settings = {"prompt": "a café, „quoted“\nsecond line", "seed": 7, "sigmas": [1.0, 0.5], "hash": None}
    write_video(tmp_path / "a.mp4", numbered(2), 25, metadata=settings)
    assert read_settings(tmp_path / "a.mp4") == settings
    assert "comment" in read_video(tmp_path / "a.mp4").metadata


def test_a_file_without_settings_is_an_error_that_names_it(tmp_path, numbered):
    write_video(tmp_path / "a.mp4", numbered(2), 25)
    with pytest.raises(NoSettings, match=r"a\.mp4"):
        read_settings(tmp_path / "a.mp4")


def test_long_files_are_read_with_little_memory(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, (np.full((120, 160, 3), n % 256, np.uint8) for n in range(200)), 25, crf=30)
    tracemalloc.start()
    count = sum(1 for _ in iter_frames(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 200
    assert peak < 20 * 120 * 160 * 3  # of 200 frames


# What is broken.


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(NotAVideo, match=r"none\.mp4 does not exist"):
        read_video(tmp_path / "none.mp4")
    with pytest.raises(NotAVideo, match="is a folder"):
        read_video(tmp_path)


@pytest.mark.parametrize("content", [b"this is text\n" * 50, np.random.default_rng(0).bytes(5000)])
@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.mkv"])
def test_what_is_no_video(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NotAVideo, match=name) as caught:
        read_video(tmp_path / name)
    assert caught.value.exit_code == 2


def test_zero_bytes(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(EmptyVideo, match="0 bytes"):
        read_video(tmp_path / "a.mp4")
    with pytest.raises(EmptyVideo, match="0 bytes"):
        read_video(b"")


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=48000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 48000
        output.mux(stream.encode(sound))
        output.mux(stream.encode())
    with pytest.raises(NotAVideo, match="no video stream"):
        read_video(tmp_path / "a.mp4")


def packets(path):
    """The whole packets of a file's video."""
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size and not packet.is_corrupt]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_file_cut_short_says_how_much_is_readable(tmp_path, textured, suffix, encode, cut):
    frames = np.concatenate([textured(1, seed=number // 2) for number in range(30)])  # some of them B-frames
    path = tmp_path / f"a.{suffix}"
    encode(path, frames, codec="mpeg4" if suffix == "avi" else "libx264", faststart=suffix == "mp4")
    whole = read_video(path).frames_THWC
    assert len(whole) == 30
    cut(path, 0.6)
    assert probe(path).truncated
    with pytest.raises(TruncatedVideo, match=r"frames are readable \(stop=") as caught:
        read_video(path)
    readable = caught.value.readable
    assert 10 <= readable < 30
    assert len(packets(path)) - 4 < readable <= len(packets(path))
    assert suffix != "avi" or readable == len(packets(path))  # no frame there waits for a later one
    np.testing.assert_array_equal(read_video(path, stop=readable).frames_THWC, whole[:readable])
    seen = []
    with pytest.raises(TruncatedVideo):
        seen.extend(iter_frames(path))
    assert len(seen) == readable
    with pytest.raises(TruncatedVideo):
        read_video(path, start=readable - 2, stop=30)


def test_a_file_cut_between_two_frames_gives_those_before_which_none_is_missing(tmp_path, numbered, numbers, encode):
    path = encode(tmp_path / "a.mp4", numbered(30), faststart=True)
    shown = [packet.pts // 512 for packet in packets(path)]
    content, places = path.read_bytes(), [packet.pos for packet in packets(path)]
    assert shown != sorted(shown)  # some frames are stored before others that are shown earlier
    for count in range(5, 25):
        path.write_bytes(content[: places[count]])
        complete = next(number for number in range(30) if number not in shown[:count])
        with pytest.raises(TruncatedVideo) as caught:
            read_video(path)
        assert complete - 3 <= caught.value.readable <= complete
        assert numbers(read_video(path, stop=caught.value.readable).frames_THWC) == list(range(caught.value.readable))


@pytest.mark.parametrize(("length_ms", "start", "shown"), [(600, 0, range(15)), (400, 10, range(10, 20))])
def test_a_trimmed_recording_is_whole(tmp_path, numbered, numbers, encode, length_ms, start, shown):
    path = encode(tmp_path / "a.mp4", numbered(30), gop=10)
    content = bytearray(path.read_bytes())
    place = content.index(b"elst") + 12  # of the edit list: its length in milliseconds, its start in 1/12800 s
    whole_ms, begins = struct.unpack_from(">Ii", content, place)
    assert whole_ms == 1200
    struct.pack_into(">Ii", content, place, length_ms, begins + start * 512)
    path.write_bytes(content)
    assert not probe(path).truncated
    assert numbers(read_video(path).frames_THWC) == list(shown)


def test_a_codec_that_is_not_known_here(tmp_path, numbered, encode):
    path = encode(tmp_path / "a.mkv", numbered(3))
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XXX"))
    with pytest.raises(NotAVideo, match="codec"):
        read_video(path)


def test_a_file_that_may_not_be_read(tmp_path, numbered, encode, monkeypatch):
    path = encode(tmp_path / "a.mp4", numbered(3))

    def refuse(path, *arguments, **settings):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("pathlib.Path.open", refuse)  # the superuser may read anything, so the refusal is played
    with pytest.raises(NotAVideo, match=r"a\.mp4 can't be read: Permission denied"):
        read_video(path)


def test_a_file_cut_before_its_index(tmp_path, numbered, encode, cut):
    path = encode(tmp_path / "a.mp4", numbered(20))
    before = tmp_path / "before.mp4"
    before.write_bytes(path.read_bytes()[: path.read_bytes().index(b"moov") - 4])
    cut(path, 0.6)
    for source in (path, path.read_bytes(), before):
        with pytest.raises(TruncatedVideo, match="before its index") as caught:
            read_video(source)
        assert caught.value.readable == 0


def test_a_whole_file_with_longer_sound_is_not_truncated(tmp_path, numbered):
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        video, audio = output.add_stream("libx264", rate=25), output.add_stream("aac", rate=48000)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        for number, frame_HWC in enumerate(numbered(10)):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            frame.pts = number
            output.mux(video.encode(frame))
        output.mux(video.encode())
        for number in range(150):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 48000, 1024 * number
            output.mux(audio.encode(sound))
        output.mux(audio.encode())
    assert len(read_video(tmp_path / "a.mkv").frames_THWC) == 10


def test_a_stretch_that_makes_no_sense(tmp_path, numbered, encode):
    path = encode(tmp_path / "a.mp4", numbered(3))
    for wrong in ({"start": -1}, {"start": 2, "stop": 1}, {"fps": 0}):
        with pytest.raises(ValueError, match="need fps > 0"):
            iter_frames(path, **wrong)


# Writing where it can't be done.


@pytest.mark.parametrize(
    "frames",
    [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 8, 8, 4), np.uint8)],
)
def test_frames_that_are_none_are_refused_and_leave_nothing(tmp_path, frames):
    with pytest.raises(ValueError, match="frame"):
        write_video(tmp_path / "a.mp4", frames, 25)
    assert list(tmp_path.iterdir()) == []


def test_changing_sizes_are_refused_and_keep_the_older_file(tmp_path, numbered):
    write_video(tmp_path / "a.mp4", numbered(3), 25)
    with pytest.raises(ValueError, match="first one's size"):
        write_video(tmp_path / "a.mp4", [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 10, 3), np.uint8)], 25)
    assert len(read_video(tmp_path / "a.mp4").frames_THWC) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_other_containers_are_refused(tmp_path, numbered):
    with pytest.raises(CannotWrite, match=r"as \.mp4"):
        write_video(tmp_path / "a.avi", numbered(2), 25)


def test_a_disk_that_refuses_leaves_nothing(tmp_path, textured):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # a real refusal by the system, for the superuser too
    try:
        with pytest.raises(CannotWrite, match=r"a\.mp4: the file would be larger"):
            write_video(tmp_path / "a.mp4", textured(20), 25, crf=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_frames_arrive_leaves_nothing(tmp_path):
    def frames():
        yield np.zeros((8, 8, 3), np.uint8)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CannotWrite, match="disk is full"):
        write_video(tmp_path / "a.mp4", frames(), 25)
    assert list(tmp_path.iterdir()) == []


def test_every_fault_is_one_family():
    assert all(issubclass(kind, DataError) for kind in (NotAVideo, EmptyVideo, TruncatedVideo, CannotWrite, NoSettings))


def test_the_same_frames_always_give_the_same_bytes():
    """Smooth moving pictures: on them the encoder's default settings differ from call to call."""
    rng = np.random.default_rng(0)
    grid_THWC = rng.integers(0, 255, (25, 3, 7, 3)).astype(np.uint8)
    frames_THWC = np.stack([cv2.resize(frame, (112, 48), interpolation=cv2.INTER_CUBIC) for frame in grid_THWC])
    assert len({encode_video(frames_THWC, 25) for _ in range(20)}) == 1
