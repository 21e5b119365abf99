"""Every item once per epoch of its stream, in batches of one bucket; the shares of the streams exact; all by number."""

from collections import Counter

import numpy as np
import pytest
from hy_data.batch_plan import BatchPlan
from hy_data.buckets import Bucket
from hy_data.items import Item
from hy_data.mixing import Mixture

SIZES = {Bucket(1, 16, 16): 7, Bucket(1, 16, 32): 3, Bucket(5, 16, 16): 4, Bucket(9, 16, 16): 1, Bucket(9, 32, 32): 2}


def items(counts):
    return [Item(None, bucket, start) for bucket, count in counts.items() for start in range(count)]


def random_streams(rng):
    images, videos = [b for b in SIZES if b.frames == 1], [b for b in SIZES if b.frames > 1]
    return [items({bucket: int(rng.integers(1, 23)) for bucket in buckets}) for buckets in (images, videos)]


def plan(streams, weights=(1, 4), seed=0):
    return BatchPlan(streams, weights, batch_size=SIZES.__getitem__, seed=seed)


def of_stream(made, stream, epochs):
    """The batches of one stream over so many of its epochs."""
    found, number = [], 0
    while len(found) < epochs * made.epoch_length(stream):
        batch = made.batch(number)
        found += [batch] if batch.stream == stream else []
        number += 1
    return found


@pytest.mark.parametrize("seed", range(8))
def test_every_item_comes_once_per_epoch(seed):
    rng = np.random.default_rng(seed)
    streams = random_streams(rng)
    made = plan(streams, weights=rng.integers(1, 5, 2).tolist(), seed=seed)
    for number, expected in enumerate(streams):
        batches = of_stream(made, number, 3)
        length = made.epoch_length(number)
        for epoch in range(3):
            part = batches[epoch * length : (epoch + 1) * length]
            assert {batch.epoch for batch in part} == {epoch}
            seen = Counter(item for batch in part for item in batch.items)
            assert seen == Counter(expected)


@pytest.mark.parametrize("seed", range(4))
def test_batches_are_of_one_bucket_and_as_even_as_can_be(seed):
    streams = random_streams(np.random.default_rng(seed))
    made = plan(streams)
    for number in (0, 1):
        sizes = {}
        for batch in of_stream(made, number, 1):
            assert {item.bucket for item in batch.items} == {batch.bucket}
            assert len(batch.items) <= SIZES[batch.bucket]
            assert set(batch.items) <= set(batch.pool) == {i for i in streams[number] if i.bucket == batch.bucket}
            sizes.setdefault(batch.bucket, []).append(len(batch.items))
        for bucket, found in sizes.items():
            assert max(found) - min(found) <= 1
            assert len(found) == -(-sum(found) // SIZES[bucket])


def test_the_number_and_the_seed_decide():
    streams = random_streams(np.random.default_rng(0))
    forwards, backwards = plan(streams), plan(streams)
    there = [forwards.batch(number).items for number in range(60)]
    back = [backwards.batch(number).items for number in reversed(range(60))]
    assert there == back[::-1]
    assert there != [plan(streams, seed=1).batch(number).items for number in range(60)]


def test_epochs_differ_in_what_stands_together_and_in_order():
    made = plan([items({Bucket(1, 16, 16): 21})], weights=[1])
    epochs = [[tuple(item.start for item in made.batch(3 * e + n).items) for n in range(3)] for e in range(6)]
    assert len({tuple(epoch) for epoch in epochs}) == 6
    two = plan([items({Bucket(1, 16, 16): 7, Bucket(1, 16, 32): 3})], weights=[1])
    assert {two.batch(2 * epoch).bucket for epoch in range(20)} == {Bucket(1, 16, 16), Bucket(1, 16, 32)}


def test_streams_of_the_same_items_are_dealt_apart():
    pool = items({Bucket(1, 16, 16): 50})
    made = plan([pool, pool], weights=[1, 1])
    first, second = (of_stream(made, number, 1) for number in (0, 1))
    assert [b.items for b in first] != [b.items for b in second]


def test_an_empty_stream_is_refused():
    with pytest.raises(ValueError, match="at least one item"):
        plan([items({Bucket(1, 16, 16): 1}), []])


@pytest.mark.parametrize(
    ("shares", "counts"),
    [((0.2, 0.8), [1, 4]), ((1, 1, 2), [1, 1, 2]), ((1 / 3, 1 / 3, 1 / 3), [1, 1, 1]), ((0.1, 0.25, 0.65), [2, 5, 13])],
)
def test_the_shares_are_exact_in_every_group(shares, counts):
    mixture = Mixture(shares, 0)
    assert mixture.counts == counts
    size = sum(counts)
    kinds = [mixture.kind(number) for number in range(20 * size)]
    for first in range(0, 20 * size, size):
        group = [kind for kind, _ in kinds[first : first + size]]
        assert [group.count(kind) for kind in range(len(counts))] == counts
    for kind in range(len(counts)):
        assert [before for found, before in kinds if found == kind] == list(range(20 * counts[kind]))


def test_a_global_batch_holds_several_scales():
    """Of groups of four, eight ranks see two whole ones at every step."""
    mixture = Mixture((1, 3), 0)
    for step in range(50):
        assert Counter(mixture.kind(8 * step + rank)[0] for rank in range(8)) == {0: 2, 1: 6}


@pytest.mark.parametrize("shares", [[], [0.0, 0.0], [1.0, -0.1], [1.0, 0.001]])
def test_shares_that_make_no_sense_are_refused(shares):
    with pytest.raises(ValueError, match=r"shares|one is less than one batch"):
        Mixture(shares, 0)


@pytest.mark.parametrize("weights", [(1, 4), (1, 1), (9, 1)])
def test_enough_batches_hold_every_item_in_exact_shares(weights):
    streams = random_streams(np.random.default_rng(0))
    made = plan(streams, weights)
    batches = [made.batch(number) for number in range(made.enough())]
    counts = Counter(batch.stream for batch in batches)
    assert counts[0] * weights[1] == counts[1] * weights[0]
    assert {item for batch in batches for item in batch.items} == {item for items in streams for item in items}
    fewer = Counter(made.batch(number).stream for number in range(made.enough() - sum(weights)))
    assert any(fewer[stream] < made.epoch_length(stream) for stream in (0, 1)), "no more than needed"
