import numpy as np
import pytest
from hy_data import DataError, fit
from hyvideo_reconstruct.cli import parse
from hyvideo_reconstruct.errors import ReconstructError
from hyvideo_reconstruct.footage import find_footage
from PIL import Image


def found(*argv, source="in.mp4"):
    return find_footage(parse([source, "out.mp4", *argv]))


def test_a_video_is_read_as_it_is(frames_THWC):
    footage = found()
    assert (footage.fps, footage.frames, footage.left, footage.is_picture) == (12.5, 7, 0, False)
    np.testing.assert_array_equal(np.stack(list(footage.read())), frames_THWC)


def test_a_stretch_of_it(frames_THWC):
    footage = found("--start", "2", "--frames", "3")
    assert (footage.frames, footage.left) == (3, 2)
    np.testing.assert_array_equal(np.stack(list(footage.read())), frames_THWC[2:5])


def test_sizes(frames_THWC):
    cropped = np.stack(list(found("--size", "16x16").read()))
    np.testing.assert_array_equal(cropped, fit(frames_THWC, 16, 16))
    whole = found("--short-side", "16")
    assert (whole.width, whole.height) == (24, 16)
    assert next(whole.read()).shape == (16, 24, 3)


def test_a_picture_stands_upright(frames_THWC):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(frames_THWC[0]).save("turned.png", exif=exif)
    footage = found(source="turned.png")
    assert (footage.is_picture, footage.width, footage.height, footage.frames) == (True, 32, 48, 1)
    np.testing.assert_array_equal(next(footage.read()), np.rot90(frames_THWC[0], -1))


def test_transparency_and_palettes_become_colours():
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save("clear.png")
    assert next(found(source="clear.png").read()).shape == (16, 16, 3)
    Image.new("P", (16, 16)).save("palette.png")
    assert next(found(source="palette.png").read()).shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("source", "argv", "error", "message"),
    [
        ("none.mp4", [], ReconstructError, "none.mp4: no such file"),
        (".", [], ReconstructError, "no such file"),
        ("text.mp4", [], DataError, "text.mp4 is not a video"),
        ("in.mp4", ["--start", "7"], ReconstructError, "has 7 frames; --start 7 is behind the last, 6"),
        ("in.mp4", ["--size", "20000x8"], ReconstructError, "20000x8 pixels; sides of 8 to"),
        ("dot.png", [], ReconstructError, "2x2 pixels"),
    ],
)
def test_what_can_not_be_read_is_said(source, argv, error, message):
    with open("text.mp4", "w") as file:
        file.write("hello")
    Image.new("RGB", (2, 2)).save("dot.png")
    with pytest.raises(error, match=message):
        found(*argv, source=source)


def test_a_damaged_picture_is_said():
    with open("in.png", "rb") as file:
        content = file.read()
    with open("cut.png", "wb") as file:
        file.write(content[: len(content) // 2])
    with pytest.raises(ReconstructError, match=r"cut.png: the picture is damaged"):
        found(source="cut.png")
