"""The filter kit passes a good filter, and sees each way to break a promise. No torch is needed here."""

import pytest
from hy_plugins.testing import FilterContract
from hy_plugins.types import Verdict


class LongEnough:
    """Keeps clips of a second or more."""

    reads = ("frames", "fps")

    def keep(self, sample):
        seconds = len(sample["frames"]) / sample["fps"]
        return Verdict(seconds >= 1, seconds, "" if seconds >= 1 else "shorter than a second")


class FilterKit(FilterContract):
    def make(self):
        return LongEnough()

    def samples(self):
        return [{"frames": [0] * count, "fps": 8.0, "name": f"clip of {count}"} for count in (4, 16)]


class TestLongEnough(FilterKit):
    pass


class KeepsAll(LongEnough):
    def keep(self, sample):
        return Verdict(True, 1.0)


class RejectsAll(LongEnough):
    def keep(self, sample):
        return Verdict(False, 1.0, "no")


class NoReason(LongEnough):
    def keep(self, sample):
        return Verdict(super().keep(sample).keep, 1.0)


class NotANumber(LongEnough):
    def keep(self, sample):
        verdict = super().keep(sample)
        return Verdict(verdict.keep, 1.0 if verdict.keep else float("nan"), verdict.reason)


class PlainBool(LongEnough):
    def keep(self, sample):
        return super().keep(sample).keep


class Changes(LongEnough):
    def keep(self, sample):
        verdict = super().keep(sample)
        sample["score"] = verdict.score
        return verdict


class Counts(LongEnough):
    def __init__(self):
        self.seen = 0

    def keep(self, sample):
        self.seen += 1
        verdict = super().keep(sample)
        return Verdict(verdict.keep, self.seen, verdict.reason)


class ForgetsWhenCopied(LongEnough):
    def __init__(self):
        self.scale = 2.0

    def __getstate__(self):
        return {"scale": 1.0}

    def keep(self, sample):
        verdict = super().keep(sample)
        return Verdict(verdict.keep, verdict.score * self.scale, verdict.reason)


class HoldsAFunction(LongEnough):
    def __init__(self):
        self.score = lambda seconds: seconds


class ReadsMore(LongEnough):
    reads = ("frames",)


class PeeksAtMore(LongEnough):
    def keep(self, sample):
        verdict = super().keep(sample)
        return Verdict(verdict.keep, verdict.score, verdict.reason + sample.get("name", ""))


@pytest.mark.parametrize(
    ("filter_class", "broken", "message"),
    [
        (KeepsAll, "verdicts", "what is decided: {True}, not {False, True}"),
        (RejectsAll, "verdicts", "what is decided: {False}, not {False, True}"),
        (NoReason, "verdicts", "a rejection gives no reason"),
        (NotANumber, "verdicts", "a score is not finite"),
        (PlainBool, "verdicts", "'bool' object has no attribute 'score'"),
        (Changes, "pure_and_picklable", "the filter changed its sample"),
        (Counts, "pure_and_picklable", "asked again: "),
        (ForgetsWhenCopied, "pure_and_picklable", "asked of a copy: "),
        (HoldsAFunction, "pure_and_picklable", "pickle"),
        (ReadsMore, "reads_what_it_says", "KeyError: 'fps'"),
        (PeeksAtMore, "reads_what_it_says", "by `reads` alone: "),
    ],
)
def test_a_broken_filter_is_seen(broken_promises, filter_class, broken, message):
    class Kit(FilterKit):
        def make(self):
            return filter_class()

    assert message in broken_promises(Kit)[f"test_{broken}"]
