"""The store gives back what was put, or nothing: whatever is killed, damaged, full, or written by two at once."""

import errno
import os
import time

import pytest
import torch
from hy_weights import CheckpointError, TensorStore, content_key
from hy_weights.entry import to_bytes

KEY, OTHER = content_key({"text": "a"}), content_key({"text": "b"})
TENSORS = {
    "tokens": torch.arange(12, dtype=torch.float32).reshape(3, 4).bfloat16(),
    "pooled": torch.tensor([0.5, -1.0]),
    "number": torch.tensor(7),
    "none": torch.empty(0, 4),
    "mask": torch.tensor([True, False]),
}


@pytest.fixture
def reports():
    return []


@pytest.fixture
def store(tmp_path, reports):
    return TensorStore(tmp_path / "store", report=reports.append)


def place(store, key=KEY):
    return store.folder / key[:2] / f"{key}.safetensors"


def same(found, expected):
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in expected.items()
    )


def test_what_was_put_comes_back_bit_for_bit_also_in_another_process_object(store):
    assert store.get(KEY) is None
    assert KEY not in store
    assert store.put(KEY, TENSORS)
    found = TensorStore(str(store.folder)).get(KEY)
    assert found is not None
    assert same(found, TENSORS)
    assert KEY in store
    assert OTHER not in store
    counts = store.counts
    assert (counts.hits, counts.misses, counts.stored, counts.damaged) == (0, 1, 1, 0)
    assert counts.bytes_written == place(store).stat().st_size
    store.get(KEY)
    assert (counts.hits, counts.bytes_read) == (1, counts.bytes_written)


def test_its_keys_are_listed_by_name(store):
    assert list(store) == [], "there is no folder yet"
    for key in (KEY, OTHER):
        store.put(key, TENSORS)
    place(store, OTHER).write_bytes(b"damaged")
    (store.folder / "usage").touch()
    (store.folder / KEY[:2] / "other.safetensors").touch()
    (store.folder / "other").mkdir()
    (store.folder / "other" / f"{KEY}.safetensors").touch()
    assert sorted(store) == sorted([KEY, OTHER])


def test_a_folder_that_can_not_be_listed_is_said(store, tmp_path):
    store.folder.write_text("a file")
    with pytest.raises(CheckpointError, match="store: can't be read"):
        list(store)


def test_numbers_that_are_not_finite_are_kept_as_they_are(store):
    store.put(KEY, {"x": torch.tensor([float("nan"), float("-inf"), -0.0])})
    found = store.get(KEY)["x"]
    assert found.isnan().tolist() == [True, False, False]
    assert str(found[1:].tolist()) == "[-inf, -0.0]"


def test_views_and_what_needs_gradients_are_stored_as_values(store):
    weight = torch.randn(3, 4, requires_grad=True)
    store.put(KEY, {"a": weight, "b": weight.T, "c": weight[1:, ::2]})
    assert same(store.get(KEY), {"a": weight.detach(), "b": weight.T.detach(), "c": weight[1:, ::2].detach()})


def test_another_value_replaces_the_first(store):
    store.put(KEY, TENSORS)
    store.put(KEY, {"x": torch.ones(2)})
    assert same(store.get(KEY), {"x": torch.ones(2)})


def test_a_key_depends_on_every_value_and_on_no_order():
    values = {"encoder": {"weights": "ab", "template": "describe {}", "skip": 2}, "text": "猫 \ud800", "image": None}
    assert content_key(values) == content_key(dict(reversed(values.items())))
    others = [
        {**values, "text": "猫"},
        {**values, "image": "00"},
        {**values, "encoder": {**values["encoder"], "template": "describe {} "}},
        {**values, "encoder": {**values["encoder"], "skip": 3}},
        {**values, "encoder": {**values["encoder"], "skip": "2"}},
        {key: value for key, value in values.items() if key != "image"},
    ]
    assert len({content_key(value) for value in [values, *others]}) == 7


def test_a_key_is_the_same_forever():
    assert content_key({"text": "é", "n": [1, 2.5, None, True]}) == (
        "eab88584d1a25f11df7a48ad0f9668b4003039cc44de0d6c7fc5ddc7f7504235"
    )


@pytest.mark.parametrize("value", [b"bytes", torch.ones(1), float("nan"), {1, 2}])
def test_a_key_of_other_things_than_json_is_refused(value):
    with pytest.raises(CheckpointError, match="a key is made of JSON values"):
        content_key({"value": value})


@pytest.mark.parametrize("key", ["", "ab", "../" + "a" * 61, KEY.upper(), KEY + "\n"])
def test_what_is_no_key_is_refused(store, key):
    for call in (store.get, lambda key: store.put(key, TENSORS), store.__contains__):
        with pytest.raises(CheckpointError, match="is no key of a store"):
            call(key)


def test_a_place_or_a_bound_that_can_be_no_store_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="is a file; name a folder"):
        TensorStore(tmp_path / "file")
    with pytest.raises(CheckpointError, match="at most 0 bytes holds nothing"):
        TensorStore(tmp_path / "store", max_bytes=0)


def test_tensors_that_no_file_can_hold_are_refused(store):
    with pytest.raises(CheckpointError, match="can't hold such tensors"):
        store.put(KEY, {"x": torch.eye(2).to_sparse()})


@pytest.mark.parametrize("length", [0, 3, 8, 100, -1])
def test_a_truncated_entry_is_a_miss_and_is_removed(store, reports, length):
    store.put(KEY, TENSORS)
    content = place(store).read_bytes()
    place(store).write_bytes(content[:length])
    assert KEY not in TensorStore(store.folder, report=lambda text: None), "its length is looked at"
    place(store).write_bytes(content[:length])
    assert store.get(KEY) is None
    assert (store.counts.misses, store.counts.damaged, store.counts.hits) == (1, 1, 0)
    assert [f"{KEY}.safetensors: damaged, and removed" in report for report in reports] == [True]
    assert not place(store).exists()
    assert store.put(KEY, TENSORS)
    assert same(store.get(KEY), TENSORS)


def test_no_changed_bit_is_taken_for_what_was_put(store):
    tensors = {"x": torch.tensor([1.0, 2.0]), "n": torch.tensor([3], dtype=torch.int16)}
    store.put(KEY, tensors)
    whole = place(store).read_bytes()
    taken = []
    for position in range(len(whole)):
        for bit in (0x01, 0x10, 0x80):
            damaged = bytearray(whole)
            damaged[position] ^= bit
            place(store).write_bytes(damaged)
            found = store.get(KEY)
            place(store).write_bytes(damaged)
            assert (KEY in store) in (True, False)
            if found is not None:
                taken.append((position, found))
    assert all(same(found, tensors) for _, found in taken)
    assert len(taken) < 10, "only what says nothing about the tensors may differ"


def test_an_entry_of_another_key_or_another_format_is_not_taken(store, reports):
    place(store).parent.mkdir(parents=True)
    place(store).write_bytes(to_bytes(OTHER, TENSORS))
    assert KEY not in store
    place(store).write_bytes(to_bytes(OTHER, TENSORS))
    assert store.get(KEY) is None
    assert all(f"answers {OTHER}" in report for report in reports)
    place(store).write_bytes(to_bytes(KEY, TENSORS).replace(b"hyvideo-store/1", b"hyvideo-store/0"))
    assert store.get(KEY) is None


def test_a_pickle_is_never_opened(store):
    place(store).parent.mkdir(parents=True)
    torch.save(TENSORS, place(store))
    assert store.get(KEY) is None
    assert store.counts.damaged == 1


def test_an_entry_that_cannot_be_read_is_a_miss_and_stays(store, reports):
    place(store).mkdir(parents=True)
    assert store.get(KEY) is None
    assert KEY not in store
    assert store.counts.damaged == 2
    assert "can't be read" in reports[0]
    assert place(store).is_dir()


def fail_with(number):
    def fail(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_where_nothing_can_be_written_the_work_goes_on_with_one_report(store, reports, monkeypatch, call, number):
    store.put(OTHER, TENSORS)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail_with(number))
        assert not store.put(KEY, TENSORS)
        assert not store.put(KEY, TENSORS)
    assert store.counts.unstored == 2
    assert len(reports) == 1
    assert os.strerror(number) in reports[0]
    assert list((store.folder / "incoming").iterdir()) == []
    assert store.get(KEY) is None
    assert same(store.get(OTHER), TENSORS)
    assert store.put(KEY, TENSORS), "when there is room again, it stores again"


def test_a_folder_that_cannot_be_made_costs_one_report(tmp_path, reports):
    (tmp_path / "file").write_text("mine")
    store = TensorStore(tmp_path / "file" / "store", report=reports.append)
    assert store.get(KEY) is None
    assert not store.put(KEY, TENSORS)
    assert len(reports) == 1


def test_without_a_reporter_it_warns(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.warns(UserWarning, match="not stored"):
        TensorStore(tmp_path / "file" / "store").put(KEY, TENSORS)


def test_what_killed_writers_left_is_swept_by_age_and_lock(store):
    import fcntl

    incoming = store.folder / "incoming"
    incoming.mkdir(parents=True)
    old = time.time() - 3600
    for name in ("abandoned", "young", "being-written"):
        (incoming / name).write_bytes(b"half")
        os.utime(incoming / name, (old, old) if name != "young" else None)
    with (incoming / "being-written").open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        store.put(KEY, TENSORS)
    assert sorted(path.name for path in incoming.iterdir()) == ["being-written", "young"]


def test_writers_without_a_bound_are_counted_where_others_have_one(tmp_path):
    bounded = TensorStore(tmp_path, max_bytes=100_000)
    assert bounded.put(content_key({"n": 0}), {"x": torch.zeros(1000)})
    free = TensorStore(tmp_path)
    for number in range(1, 60):
        assert free.put(content_key({"n": number}), {"x": torch.zeros(1000)})
    assert bounded.put(content_key({"n": 60}), {"x": torch.zeros(1000)})
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")) <= 100_000
