import numpy as np
import pytest
from hy_data.buckets import Bucket, buckets_for, choose_bucket, fit, random_window, resize


@pytest.mark.parametrize("size", [(4, 64, 64), (0, 64, 64), (5, 60, 64), (5, 64, 0), (5, 64, 100), (-3, 64, 64)])
def test_sizes_that_the_models_cannot_take_are_refused(size):
    with pytest.raises(ValueError, match="must be"):
        Bucket(*size)


@pytest.mark.parametrize(
    ("aspect", "pixels", "size"),
    [
        (16 / 9, 720 * 1280, (720, 1280)),
        (9 / 16, 720 * 1280, (1280, 720)),
        (1, 256 * 256, (256, 256)),
        (1, 64 * 64, (64, 64)),
        (640 / 272, 64 * 64, (32, 96)),
        (4 / 3, 544 * 960, (624, 832)),
    ],
)
def test_the_nearest_size_within_the_budget(aspect, pixels, size):
    (bucket,) = buckets_for([aspect], frames=[1], pixels=pixels)
    assert (bucket.height, bucket.width) == size
    assert 0.75 * pixels <= bucket.height * bucket.width <= pixels


def test_buckets_are_every_length_at_every_aspect_once():
    buckets = buckets_for([1, 1.001, 2], frames=[1, 17], pixels=64 * 64)
    assert (
        buckets == [Bucket(1, 32, 96), Bucket(1, 64, 64), Bucket(17, 32, 96), Bucket(17, 64, 64)] or len(buckets) == 4
    )
    assert buckets == sorted(set(buckets))


def test_budgets_and_aspects_that_fit_nothing_are_refused():
    with pytest.raises(ValueError, match="less than one"):
        buckets_for([1], frames=[1], pixels=255)
    with pytest.raises(ValueError, match="positive"):
        buckets_for([0], frames=[1], pixels=4096)


def test_a_clip_goes_to_the_longest_bucket_that_it_fills_and_of_those_to_the_nearest_aspect():
    buckets = [Bucket(f, h, w) for f in (1, 5, 17) for h, w in ((64, 64), (48, 80), (80, 48))]
    assert choose_bucket(buckets, frames=16, height=720, width=1280) == Bucket(5, 48, 80)
    assert choose_bucket(buckets, frames=300, height=1280, width=720) == Bucket(17, 80, 48)
    assert choose_bucket(buckets, frames=17, height=100, width=110) == Bucket(17, 64, 64)
    assert choose_bucket(buckets, frames=1, height=10, width=10) == Bucket(1, 64, 64)
    assert choose_bucket(buckets[3:], frames=4, height=10, width=10) is None


def test_aspects_are_compared_by_ratio():
    # 1 : 1 lies as far from 1 : 2 as from 2 : 1; a plain difference would prefer the tall one.
    wide, tall = Bucket(1, 48, 96), Bucket(1, 96, 48)
    assert choose_bucket([tall, wide], frames=1, height=100, width=101) == wide
    assert choose_bucket([tall, wide], frames=1, height=101, width=100) == tall


def test_fitting_crops_the_centre_and_averages_areas():
    frames_THWC = np.zeros((2, 40, 100, 3), np.uint8)
    frames_THWC[:, :, 30:70] = 100  # the centre square
    frames_THWC[1, ::4, 30:70] = 200
    fitted = fit(frames_THWC, 10, 10)
    assert fitted.shape == (2, 10, 10, 3)
    assert (fitted[0] == 100).all()
    assert (fitted[1] == 125).all()  # not 100 or 200, as picking pixels would give


def test_fitting_a_tall_clip_crops_above_and_below():
    frames_THWC = np.zeros((1, 100, 40, 3), np.uint8)
    frames_THWC[:, 30:70] = 50
    assert (fit(frames_THWC, 16, 16) == 50).all()


def test_enlarging_is_smooth():
    ramp_THWC = np.broadcast_to(np.array([0, 100, 200], np.uint8)[None, None, :, None], (1, 3, 3, 3))
    assert len(np.unique(resize(ramp_THWC, 12, 12))) > 6


def test_the_right_size_is_left_alone():
    frames_THWC = np.zeros((1, 16, 16, 3), np.uint8)
    assert resize(frames_THWC, 16, 16) is frames_THWC


def numbered_pixels(count=40):
    """Frames whose red, green and blue tell number, row and column."""
    t, y, x = np.indices((count, 48, 80))
    return np.stack([t, y, x], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("max_interval", [1, 3, 100])
def test_windows_are_regular_and_inside(max_interval):
    rng, intervals, crops = np.random.default_rng(0), set(), set()
    for _ in range(30):
        window = random_window(numbered_pixels(), Bucket(9, 16, 16), rng, max_interval=max_interval, min_crop=0.5)
        assert window.shape == (9, 16, 16, 3)
        steps = np.unique(np.diff(window[..., 0].astype(int), axis=0))
        assert len(steps) == 1
        intervals.add(int(steps[0]))
        crops.add(int(window[0, -1, 0, 1]) - int(window[0, 0, 0, 1]))
    assert intervals == set(range(1, min(max_interval, 4) + 1))  # 8 steps of 4 fit in 40 frames, of 5 don't
    assert min(crops) <= 26
    assert max(crops) >= 42


def test_windows_reach_every_part():
    rng = np.random.default_rng(0)
    windows = [random_window(numbered_pixels(12), Bucket(9, 16, 16), rng) for _ in range(60)]
    assert {int(window[0, 0, 0, 0]) for window in windows} == {0, 1, 2, 3}
    lefts = [int(window[0, 0, 0, 2]) for window in windows]
    assert min(lefts) < 4
    assert max(lefts) > 28


def test_a_clip_of_just_the_right_length_and_one_frame():
    rng = np.random.default_rng(0)
    whole = random_window(numbered_pixels(9), Bucket(9, 48, 80), rng, max_interval=8)
    np.testing.assert_array_equal(whole, numbered_pixels(9))
    assert random_window(numbered_pixels(1), Bucket(1, 16, 16), rng, max_interval=8).shape == (1, 16, 16, 3)


@pytest.mark.parametrize(("frames", "most"), [(33, 8), (21, 5), (400, 8)])
def test_intervals_are_uniform_as_far_as_the_clip_is_long_enough(frames, most):
    """Chi-squared against equal shares, with 1 in 1000 to fail where that is true."""
    rng, draws = np.random.default_rng(0), 2000
    frames_THWC = np.broadcast_to((np.arange(frames) % 256).astype(np.uint8)[:, None, None, None], (frames, 16, 16, 3))
    windows = [random_window(frames_THWC, Bucket(5, 16, 16), rng, max_interval=8) for _ in range(draws)]
    intervals = np.array([(int(w[1, 0, 0, 0]) - int(w[0, 0, 0, 0])) % 256 for w in windows])
    counts = np.bincount(intervals, minlength=9)[1:]
    assert (counts[most:] == 0).all()
    expected = draws / most
    assert float(((counts[:most] - expected) ** 2 / expected).sum()) < {5: 18.5, 8: 24.3}[most]
