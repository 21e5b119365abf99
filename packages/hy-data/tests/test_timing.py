from fractions import Fraction

import pytest
from hy_data.timing import timeline

MS = Fraction(1, 1000)


def ticks(timing, times, rate):
    return [timing.tick(time, Fraction(rate)) for time in times]


def test_a_constant_rate_keeps_every_frame_once():
    timing = timeline([512 * n for n in range(250)], [512] * 250, Fraction(1, 12800), [Fraction(25)])
    assert (timing.rate, timing.constant, timing.count(timing.rate)) == (25, True, 250)
    assert ticks(timing, [n / Fraction(25) for n in range(250)], 25) == list(range(250))


def test_timestamps_rounded_to_milliseconds_are_still_a_constant_rate():
    rate = Fraction(30000, 1001)
    stamps = [round(n * 1000 / rate) for n in range(100)]
    timing = timeline(stamps, [33] * 100, MS, [rate])
    assert (timing.rate, timing.constant, timing.count(rate)) == (rate, True, 100)
    assert ticks(timing, [timing.time(s, 0) for s in stamps], rate) == list(range(100))


def test_a_stated_rate_that_does_not_fit_the_timestamps_is_not_believed():
    timing = timeline([40 * n for n in range(50)], [40] * 50, MS, [Fraction(90000), Fraction(30), None])
    assert timing.rate == 25


def test_order_and_offset_of_the_timestamps_do_not_matter():
    timing = timeline([1080, 1000, 1040, 1120], [40] * 4, MS, [Fraction(25)])
    assert (timing.first, timing.last, timing.count(timing.rate)) == (1000, 1120, 4)
    assert timing.time(1040, 7) == Fraction(40, 1000)


def test_a_variable_rate_is_read_at_its_usual_interval():
    stamps = [0, 33, 67, 100, 133, 400, 433, 467, 500]
    timing = timeline(stamps, [33] * 9, MS, [Fraction(18)])
    assert (timing.rate, timing.constant) == (30, False)
    assert timing.count(timing.rate) == 16  # 533 ms
    assert ticks(timing, [timing.time(s, 0) for s in stamps], 30) == [0, 1, 2, 3, 4, 12, 13, 14, 15]


def test_one_frame_left_out_makes_a_rate_variable():
    stamps = [40 * n for n in range(30) if n != 15]
    timing = timeline(stamps, [40] * 29, MS, [Fraction(25)])
    assert (timing.constant, timing.rate, timing.count(timing.rate)) == (False, 25, 30)


def test_an_unusual_rate_stays_what_it_is_and_bursts_are_capped():
    assert timeline([0, 100, 200, 900], [100] * 4, MS, []).rate == 10
    assert timeline([0, 1, 2, 3, 900], [1] * 5, MS, []).rate == 240


@pytest.mark.parametrize(("rate", "shown"), [("12.5", [0, 2, 4, 6, 8]), ("10", [0, 2, 5, 7]), ("50", None)])
def test_resampling_shows_what_is_on_screen(rate, shown):
    timing = timeline([40 * n for n in range(10)], [40] * 10, MS, [Fraction(25)])
    starts = ticks(timing, [n * Fraction(1, 25) for n in range(10)], rate)
    count = timing.count(Fraction(rate))
    on_screen = [max(k for k in range(10) if starts[k] <= tick) for tick in range(count)]
    assert on_screen == (shown or [k for k in range(10) for _ in range(2)])


def test_one_frame_takes_the_stated_rate_or_25():
    assert timeline([0], [512], Fraction(1, 12800), [None, Fraction(24)]).rate == 24
    one = timeline([0], [0], Fraction(1, 12800), [])
    assert (one.rate, one.count(Fraction(25)), one.count(Fraction(1))) == (25, 1, 1)


def test_without_timestamps_frames_are_counted():
    timing = timeline([None] * 20, [None] * 20, Fraction(1, 1200000), [Fraction(50)])
    assert (timing.first, timing.rate, timing.count(Fraction(50))) == (None, 50, 20)
    assert timing.time(None, 3) == Fraction(3, 50)


def test_equal_timestamps_do_not_divide_by_zero():
    timing = timeline([5, 5, 5], [0, 0, 0], MS, [])
    assert timing.count(timing.rate) >= 1
