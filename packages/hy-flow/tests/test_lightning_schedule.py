import math

import pytest

pytest.importorskip("lightning", reason="training is the extra hy-flow[train]")
from hy_flow.lightning.schedule import rate


def test_the_rate_rises_and_falls_along_a_cosine():
    assert [rate(step, 0, 4, "cosine", 20) for step in (0, 1, 3)] == [0.25, 0.5, 1.0]
    assert rate(4, 0, 4, "cosine", 20) == 1
    assert rate(12, 0, 4, "cosine", 20) == pytest.approx(0.5)
    assert rate(8, 0, 4, "cosine", 20) == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 4))
    assert rate(20, 0, 4, "cosine", 20) == pytest.approx(0)
    assert rate(25, 0, 4, "cosine", 20) == pytest.approx(0)


def test_it_stays_when_constant_or_without_an_end():
    assert rate(10**6, 0, 4, "cosine", math.inf) == 1
    assert rate(10**6, 0, 4, "constant", 20) == 1
    assert rate(1, 0, 4, "constant", 20) == 0.5
    assert rate(0, 0, 0, "cosine", 10) == 1
    assert rate(0, 0, 0, "constant", 10) == 1


def test_every_stage_rises_anew_to_where_the_cosine_is():
    assert rate(12, 12, 4, "cosine", 20) == pytest.approx(0.25 * 0.5)
    assert rate(15, 12, 4, "cosine", 20) == pytest.approx(rate(15, 0, 4, "cosine", 20))
    assert [rate(step, 12, 4, "constant", 20) for step in (12, 13, 15, 16)] == [0.25, 0.5, 1.0, 1.0]
