from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from hy_data.errors import MissingFootage
from hy_data.photos import KenBurns, folder_photographs, split_photographs, wheel_photographs


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for number, side in enumerate((80, 240, 160)):
        noise_HWC = rng.integers(0, 255, (side // 8, side // 6, 3), dtype=np.uint8)
        picture_HWC = cv2.resize(noise_HWC, (side * 4 // 3, side), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(tmp_path / f"photo_{number}.png"), picture_HWC)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_folder_gives_its_pictures_sorted(folder):
    assert [path.name for path in folder_photographs(folder)] == ["photo_0.png", "photo_1.png", "photo_2.png"]


def test_a_folder_without_pictures_is_an_error_that_names_it(tmp_path):
    with pytest.raises(MissingFootage, match=str(tmp_path)):
        folder_photographs(tmp_path)


def test_one_photograph_is_held_out():
    paths = [Path("b.png"), Path("coffee.png"), Path("z.png")]
    assert split_photographs(paths) == ([Path("b.png"), Path("z.png")], [Path("coffee.png")])
    assert split_photographs(paths[::2]) == ([Path("b.png")], [Path("z.png")])
    with pytest.raises(MissingFootage, match="at least two"):
        split_photographs(paths[:1])


@pytest.mark.parametrize(("size", "frames"), [((48, 64), 9), ((64, 48), 1), ((100, 100), 3)])
def test_clips_have_the_size_asked_for_and_depend_on_seed_and_number_only(folder, size, frames):
    paths = folder_photographs(folder)
    source = KenBurns(paths, size=size, frames=frames, seed=5)
    clips = [source.clip(index) for index in range(12)]
    assert {clip.shape for clip in clips} == {(frames, *size, 3)}
    assert {clip.dtype for clip in clips} == {np.dtype(np.uint8)}
    assert {source.name(index) for index in range(30)} == {"photo 0", "photo 1", "photo 2"}
    np.testing.assert_array_equal(KenBurns(paths, size=size, frames=frames, seed=5).clip(11), clips[11])
    assert not np.array_equal(KenBurns(paths, size=size, frames=frames, seed=6).clip(11), clips[11])


def test_windows_never_leave_the_photograph(tmp_path):
    # Outside, the picture is mirrored: a window that left it would show the dark rim away from its own border.
    rim_HWC = np.zeros((90, 120, 3), np.uint8)
    rim_HWC[2:-2, 2:-2] = 255
    cv2.imwrite(str(tmp_path / "a.png"), rim_HWC)
    source = KenBurns([tmp_path / "a.png"], size=(48, 64), frames=5)
    for index in range(40):
        dark_THW = source.clip(index).mean(axis=-1) < 128
        inner_THW = dark_THW[:, 6:-6, 6:-6]
        assert inner_THW.mean() < 0.02


@pytest.fixture
def measured_windows(tmp_path):
    """Frames over a photograph whose red tells the column and whose blue is a checkerboard; their scales."""
    columns, rows = np.meshgrid(np.arange(256), np.arange(256))
    checks = (columns + rows) % 2 * 255
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([checks, rows, columns]).astype(np.uint8))
    source = KenBurns([tmp_path / "a.png"], size=(32, 32), frames=3)
    frames = [frame_HWC.astype(float) for index in range(60) for frame_HWC in source.clip(index)]
    y, x = np.indices((32, 32)) - 15.5
    slopes = [((f[..., 0] * x).sum() / (x * x).sum(), (f[..., 0] * y).sum() / (y * y).sum()) for f in frames]
    return frames, np.hypot(*np.transpose(slopes))


def test_windows_are_even_grids_of_all_sizes(measured_windows):
    frames, scales = measured_windows
    largest = 256 / (32 * (np.cos(np.radians(6)) + np.sin(np.radians(6))))
    assert scales.min() < 1.1
    assert scales.max() == pytest.approx(largest, rel=0.01)
    for frame_HWC, scale in zip(frames, scales, strict=True):
        if scale > 0.998 * largest:  # such a window fits in one place only, the middle
            assert frame_HWC[..., :2].mean(axis=(0, 1)) == pytest.approx([127.5, 127.5], abs=1)


def test_shrinking_averages_instead_of_sparkling(measured_windows):
    frames, scales = measured_windows
    shrunk = [frame_HWC[..., 2] for frame_HWC, scale in zip(frames, scales, strict=True) if scale > 1.5]
    assert len(shrunk) > 60
    assert max(blue_HW.std() for blue_HW in shrunk) < 30
    assert np.mean(shrunk) == pytest.approx(127.5, abs=2)


def test_neighbouring_frames_are_alike_but_not_the_same(folder):
    source = KenBurns(folder_photographs(folder), size=(48, 48), frames=9)
    for index in range(10):
        clip = source.clip(index).astype(int)
        steps = np.abs(np.diff(clip, axis=0)).mean(axis=(1, 2, 3))
        assert 0 < steps.mean() < np.abs(clip[0] - clip[0, ::-1]).mean()


def test_grey_pictures_become_grey_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8))
    clip = KenBurns([tmp_path / "a.png"], size=(16, 16), frames=2).clip(0)
    assert (clip.max(axis=-1) == clip.min(axis=-1)).all()


def test_red_stays_red(tmp_path):
    red_HWC = np.zeros((64, 64, 3), np.uint8)
    red_HWC[..., 2] = 200  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / "a.png"), red_HWC)
    np.testing.assert_array_equal(KenBurns([tmp_path / "a.png"], size=(16, 16)).clip(0)[0, 0, 0], [200, 0, 0])


def test_what_is_no_picture_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(MissingFootage, match=r"a\.png"):
        KenBurns([tmp_path / "a.png"])


@pytest.mark.skipif(find_spec("skimage") is None, reason="needs the extra photos")
def test_the_wheel_carries_photographs():
    names = {path.name for path in wheel_photographs()}
    assert {"astronaut.png", "coffee.png", "rocket.jpg"} <= names


def test_without_the_wheel_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("hy_data.photos.find_spec", lambda name: None)
    with pytest.raises(MissingFootage, match=r"hy-data\[photos\]"):
        wheel_photographs()
