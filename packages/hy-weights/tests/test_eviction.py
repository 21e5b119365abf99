"""A bounded store forgets what was used longest ago, and looks at its entries only when it must."""

import fcntl
import os
import threading
import time

import pytest
import torch
from hy_weights import TensorStore, content_key, eviction


def key(number):
    return content_key({"number": number})


def value(number):
    return {"x": torch.full((500,), number)}


@pytest.fixture
def entry(tmp_path):
    """The size of an entry's file."""
    store = TensorStore(tmp_path / "other")
    store.put(key(0), value(0))
    return store.counts.bytes_written


def place(store, number):
    return store.folder / key(number)[:2] / f"{key(number)}.safetensors"


def age(store, number, seconds):
    then = time.time() - seconds
    os.utime(place(store, number), (then, then))


def held(store, numbers):
    return [number for number in numbers if place(store, number).exists()]


def bounded(tmp_path, most, **options):
    return TensorStore(tmp_path / "store", max_bytes=most, **options)


def filled(store, numbers):
    """Put entries, the first being the oldest."""
    for number in numbers:
        assert store.put(key(number), value(number))
        age(store, number, 10_000 - 100 * number)
    return store


@pytest.mark.parametrize("use", ["get", "contains"])
def test_what_was_used_longest_ago_goes_first(tmp_path, entry, use):
    store = filled(bounded(tmp_path, 5 * entry), range(5))
    if use == "get":
        assert store.get(key(0)) is not None
    else:
        assert key(0) in store
    assert held(store, range(5)) == [0, 1, 2, 3, 4]
    store.put(key(5), value(5))
    # Nine tenths of five entries are four: of six, the two that were used longest ago are gone.
    assert held(store, range(6)) == [0, 3, 4, 5]
    assert store.counts.evicted == 2


def test_a_use_within_the_last_minute_is_not_written_down_again(tmp_path, entry):
    store = filled(bounded(tmp_path, 5 * entry), range(1))
    age(store, 0, 30)
    before = place(store, 0).stat().st_mtime_ns
    store.get(key(0))
    assert place(store, 0).stat().st_mtime_ns == before
    age(store, 0, 90)
    store.get(key(0))
    assert time.time() - place(store, 0).stat().st_mtime < 20


def test_the_newest_entry_stays_whatever_the_clocks_say(tmp_path, entry):
    store = filled(bounded(tmp_path, 2 * entry), range(2))
    for number in range(2):
        age(store, number, -100_000)
    assert store.put(key(2), value(2))
    assert 2 in held(store, range(3))
    assert store.get(key(2)) is not None
    assert len(held(store, range(3))) == 2


def test_an_entry_nearly_as_large_as_the_store_stays_alone(tmp_path, entry):
    store = bounded(tmp_path, entry)
    for number in range(3):
        assert store.put(key(number), value(number))
        assert held(store, range(3)) == [number]


def test_an_entry_larger_than_the_store_is_refused_with_a_note(tmp_path, entry):
    reports = []
    store = bounded(tmp_path, entry - 1, report=reports.append)
    assert not store.put(key(0), value(0))
    assert not store.put(key(1), value(1))
    assert len(reports) == 1
    assert f"an entry of {entry:,} bytes is larger than the bound of {entry - 1:,}" in reports[0]
    assert held(store, range(2)) == []


def test_the_bound_holds_after_every_write(tmp_path, entry):
    store = bounded(tmp_path, 10 * entry)
    for number in range(60):
        store.put(key(number), value(number))
        assert len(held(store, range(number + 1))) <= 10
        assert number in held(store, range(60))
    assert len(held(store, range(60))) >= 9
    assert store.counts.evicted == 60 - len(held(store, range(60)))


def test_entries_are_looked_at_only_when_the_bound_is_passed(tmp_path, entry, monkeypatch):
    looks = []
    original = eviction.entries
    monkeypatch.setattr(eviction, "entries", lambda folder: looks.append(folder) or original(folder))
    for number in range(20):  # each by a store of its own, as of another process
        bounded(tmp_path, 20 * entry).put(key(number), value(number))
    assert len(looks) == 1, "once, when there was no total"
    bounded(tmp_path, 20 * entry).put(key(20), value(20))
    assert len(looks) == 3, "to find what is oldest, and to remove it"


def test_a_store_that_had_no_bound_is_counted(tmp_path, entry):
    filled(TensorStore(tmp_path / "store"), range(8))
    store = bounded(tmp_path, 5 * entry)
    store.put(key(8), value(8))
    assert held(store, range(9)) == [5, 6, 7, 8]


def test_replacing_an_entry_adds_nothing(tmp_path, entry):
    store = bounded(tmp_path, 9 * entry)
    for _ in range(5):
        store.put(key(0), value(0))
    assert int((store.folder / "usage").read_text()) == entry
    assert store.counts.evicted == 0


@pytest.mark.parametrize("total", ["", "nonsense", "999999999999", "0"])
def test_a_wrong_total_is_set_right_and_removes_nothing(tmp_path, entry, total):
    store = filled(bounded(tmp_path, 4 * entry + 10), range(3))
    (store.folder / "usage").write_text(total)
    store.put(key(3), value(3))
    assert held(store, range(4)) == [0, 1, 2, 3]
    if total != "0":
        assert int((store.folder / "usage").read_text()) == 4 * entry


def test_a_damaged_entry_is_no_longer_counted(tmp_path, entry):
    store = filled(bounded(tmp_path, 5 * entry, report=lambda text: None), range(2))
    place(store, 0).write_bytes(b"x" * entry)
    assert store.get(key(0)) is None
    assert int((store.folder / "usage").read_text()) == entry


def test_nothing_but_entries_is_ever_removed(tmp_path, entry):
    store = filled(bounded(tmp_path, 2 * entry), range(2))
    mine = [
        store.folder / "notes.txt",
        store.folder / "ab" / "mine.safetensors",
        store.folder / "zz" / place(store, 0).name,
    ]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x" * 10 * entry)
        os.utime(file, (0, 0))
    filled(store, range(2, 8))
    assert all(file.exists() for file in mine)


def test_who_evicts_already_is_left_to_it(tmp_path, entry):
    store = filled(bounded(tmp_path, 2 * entry), range(2))
    with open(store.folder / "eviction.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert store.put(key(2), value(2))
        assert held(store, range(3)) == [0, 1, 2]
    store.put(key(3), value(3))
    assert held(store, range(4)) == [3]


def test_the_total_is_changed_by_one_at_a_time(tmp_path, entry):
    store = filled(bounded(tmp_path, 5 * entry), range(1))
    other = threading.Thread(target=store.put, args=(key(1), value(1)), daemon=True)
    with open(store.folder / "usage", "ab") as usage:
        fcntl.flock(usage, fcntl.LOCK_EX)
        other.start()
        other.join(0.2)
        assert other.is_alive(), "it waits"
        assert held(store, range(2)) == [0]
    other.join(10)
    assert held(store, range(2)) == [0, 1]
    assert int((store.folder / "usage").read_text()) == 2 * entry
