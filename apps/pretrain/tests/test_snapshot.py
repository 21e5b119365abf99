"""Copies hold what was there when they were begun, whoever makes them."""

import threading

import pytest
import torch
from hy_weights import CheckpointError
from hyvideo_pretrain.snapshot import Snapshot


def test_what_can_wait_is_copied_by_the_other_thread_before_it_is_settled():
    snapshot, tensors = Snapshot(), {"weight": torch.ones(5), "buffer": torch.zeros(3).long()}
    snapshot.begin(tensors, {"weight"})
    tensors["buffer"].add_(1)  # at once
    waiter = threading.Thread(target=snapshot.settle)
    waiter.start()
    waiter.join(0.05)
    assert waiter.is_alive()
    copies = snapshot.finish()
    waiter.join(5)
    assert not waiter.is_alive()
    tensors["weight"].add_(1)
    assert copies["weight"].tolist() == [1] * 5
    assert copies["buffer"].tolist() == [0] * 3


def test_the_memory_is_used_again_and_what_is_gone_is_let_go():
    snapshot = Snapshot()
    tensors = {"a": torch.ones(4), "b": torch.ones(2), "c": torch.ones(3)}
    snapshot.begin(tensors, {"a"})
    before = {name: copy.data_ptr() for name, copy in snapshot.finish().items()}
    changed = {"a": torch.full((4,), 2.0), "b": torch.ones(2).bfloat16(), "d": torch.ones(1)}
    snapshot.begin(changed, {"a"})
    after = snapshot.finish()
    assert after.keys() == changed.keys()
    assert after["a"].data_ptr() == before["a"]
    assert after["a"].tolist() == [2] * 4
    assert after["b"].dtype == torch.bfloat16


def test_a_copy_that_fails_does_not_hold_training_up():
    class Bad:
        device = torch.device("cpu")
        is_cuda = False
        shape = (-1,)
        dtype = torch.float32
        _version = 0

        def is_inference(self):
            return False

    snapshot = Snapshot()
    snapshot.begin({"a": Bad()}, {"a"})
    try:
        snapshot.finish()
    except RuntimeError:
        snapshot.settle()
    else:
        raise AssertionError("no tensor has such a shape")


def test_nothing_is_waited_for_where_nothing_is_saved():
    Snapshot().settle()


def test_tensors_of_any_device_are_copied():
    class Elsewhere(torch.Tensor):  # on a device that is neither a CPU nor CUDA
        device = torch.device("mps")
        is_cuda = False

    snapshot = Snapshot()
    snapshot.begin({"weight": torch.ones(3).as_subclass(Elsewhere)}, {"weight"})
    assert snapshot.finish()["weight"].tolist() == [1] * 3


@pytest.mark.parametrize("before", [True, False])
def test_a_copy_of_what_changed_in_the_meantime_is_none(before, monkeypatch):
    snapshot, weight = Snapshot(), torch.nn.Parameter(torch.ones(5))
    copy = snapshot._copy
    monkeypatch.setattr(snapshot, "_copy", lambda *a: (change(before), copy(*a), change(not before)))

    def change(now):
        if now:
            with torch.no_grad():
                weight.add_(1)

    snapshot.begin({"weight": weight.detach()}, {"weight"})
    with pytest.raises(CheckpointError, match="changed in place between two steps, while it was copied: weight;"):
        snapshot.finish()
    monkeypatch.undo()
    snapshot.settle()
    snapshot.begin({"weight": weight.detach()}, {"weight"})  # the next one is not concerned
    assert torch.equal(snapshot.finish()["weight"], weight)


def test_tensors_without_a_count_of_changes_are_copied():
    with torch.inference_mode():
        weight = torch.ones(3)
    snapshot = Snapshot()
    snapshot.begin({"weight": weight}, {"weight"})
    assert snapshot.finish()["weight"].tolist() == [1] * 3
