"""The share of images is exact, at places that a seed shuffles."""

import pytest
from hy_data.mixing import is_image_batch


def places(count, share, seed=0):
    return [number for number in range(count) if is_image_batch(number, share, seed)]


@pytest.mark.parametrize(
    ("share", "group", "images"), [(0.2, 5, 1), (0.4, 5, 2), (1 / 3, 3, 1), (0.0, 1, 0), (1.0, 1, 1)]
)
def test_each_group_holds_its_share(share, group, images):
    found = places(20 * group, share)
    assert [sum(first <= n < first + group for n in found) for first in range(0, 20 * group, group)] == [images] * 20


def test_places_are_shuffled_by_the_seed():
    assert {number % 5 for number in places(200, 0.2)} == {0, 1, 2, 3, 4}
    assert places(200, 0.2) == places(200, 0.2)
    assert places(200, 0.2) != places(200, 0.2, seed=1)
