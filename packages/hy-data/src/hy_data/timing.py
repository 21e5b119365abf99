"""When each frame of a video is on screen, and how any timing becomes a constant rate.

Model input is a plain stack of frames, so every video is read at one constant rate. The rule is sample and hold: frame
`n` of the result is what a player would show at time `n / rate`. A file whose timestamps already have a constant rate,
give or take a quarter of a frame, keeps every frame exactly once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

COMMON_RATES = tuple(
    Fraction(rate) for rate in ("24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60")
)
MAX_RATE = Fraction(240)
"""The highest rate that a variable frame rate is read at unless asked: bursts of timestamps would explode otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The timing of one file. Times are in seconds after its first frame.

    Attributes:
        first: timestamp of the first frame, in `time_base`; None when the file has no timestamps.
        last: timestamp of the last frame; None when the file has no timestamps.
        time_base: seconds per timestamp unit.
        interval: usual time between two frames (the median).
        end: when the last frame leaves the screen.
        rate: frames per second that the file is read at by default.
        constant: whether the file's own rate is constant.
        frames: number of frames in the file.
    """

    first: int | None
    last: int | None
    time_base: Fraction
    interval: Fraction
    end: Fraction
    rate: Fraction
    constant: bool
    frames: int

    def time(self, timestamp: int | None, number: int) -> Fraction:
        """Time of a frame from its timestamp, or from its number where the file has no timestamps."""
        if self.first is None or timestamp is None:
            return number * self.interval
        return (timestamp - self.first) * self.time_base

    def tick(self, time: Fraction, rate: Fraction) -> int:
        """The first frame number at `rate` that shows the frame which comes on screen at `time`."""
        # A quarter of an interval is allowed for timestamps that were rounded, to milliseconds for instance.
        return max(0, math.ceil((time - self.interval / 4) * rate))

    def count(self, rate: Fraction) -> int:
        """How many frames the whole file gives at `rate`; at least 1."""
        return max(1, self.tick(self.end, rate))


def timeline(
    timestamps: Sequence[int | None],
    durations: Sequence[int | None],
    time_base: Fraction,
    stated_rates: Sequence[Fraction | None],
) -> Timeline:
    """Work out a file's timing from the timestamps of its packets.

    Args:
        timestamps: presentation timestamps in any order, at least one; None where the file has none.
        durations: how long each frame is shown, in the same order and unit; None or 0 where unknown.
        time_base: seconds per unit.
        stated_rates: rates that the file states, the most trusted first; believed where they fit the timestamps.

    Returns:
        The timing. A constant rate is exact; a variable one is read at the rate of its median interval, taken to the
        nearest of COMMON_RATES within 2 %.
    """
    count = len(timestamps)
    stated = [rate for rate in stated_rates if rate]
    known = [(stamp, duration or 0) for stamp, duration in zip(timestamps, durations, strict=True) if stamp is not None]
    if len(known) < count or count == 1:
        rate = stated[0] if stated else Fraction(25)
        first = known[0][0] if len(known) == count else None
        return Timeline(
            first=first,
            last=first,
            time_base=time_base,
            interval=1 / rate,
            end=count / rate,
            rate=rate,
            constant=True,
            frames=count,
        )
    known.sort()
    stamps = np.array([stamp for stamp, _ in known], np.int64) - known[0][0]
    span = int(stamps[-1])
    interval = max(Fraction(float(np.median(np.diff(stamps)))), Fraction(1)) * time_base
    deviation = np.abs(stamps * (count - 1) - np.arange(count) * span).max()
    constant = span > 0 and bool(4 * deviation <= span)
    if constant:
        rate = _constant_rate(span * time_base, count - 1, 2 * time_base, stated)
        interval, end = 1 / rate, count / rate
    else:
        rate = _usual_rate(interval)
        end = span * time_base + (known[-1][1] * time_base or interval)
    return Timeline(
        first=known[0][0],
        last=known[-1][0],
        time_base=time_base,
        interval=interval,
        end=end,
        rate=rate,
        constant=constant,
        frames=count,
    )


def _constant_rate(span: Fraction, intervals: int, rounding: Fraction, stated: Sequence[Fraction]) -> Fraction:
    """The stated rate that fits the timestamps, else the simplest that does."""
    for rate in stated:
        if abs(intervals / rate - span) <= rounding:
            return rate
    return (intervals / span).limit_denominator(1001)


def _usual_rate(interval: Fraction) -> Fraction:
    """The rate that a variable frame rate is read at by default."""
    rate = min(1 / interval, MAX_RATE)
    nearest = min(COMMON_RATES, key=lambda common: abs(common / rate - 1))
    return nearest if abs(nearest / rate - 1) <= Fraction(1, 50) else rate.limit_denominator(1001)
