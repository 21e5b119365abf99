import copy

import pytest
import torch
from hy_parallel import ParallelError, recompute_blocks


def kept_bytes(model, x):
    """Bytes that autograd keeps for the backward pass, and the output."""
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(id(t), t), lambda t: t):
        out = model(x)
    return sum(tensor.nbytes for tensor in kept.values()), out


@pytest.mark.parametrize("options", [{}, {"every": 2}, {"every": 9}, {"keep_attention": True}])
def test_gradients_and_names_are_the_same(model, blocks, x, options):
    plain = copy.deepcopy(model)
    recompute_blocks(model, blocks, **options)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert model.state_dict().keys() == plain.state_dict().keys()
    for one in (plain, model):
        one(x).square().sum().backward()
    gradients = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, gradients[name].grad), name


def test_less_is_kept_the_more_is_recomputed(model, blocks, x):
    kept = []
    for every in (None, 2, 1):
        one = copy.deepcopy(model)
        if every:
            recompute_blocks(one, blocks, every=every)
        kept.append(kept_bytes(one, x)[0])
    assert kept[0] > 1.5 * kept[1] > 2 * kept[2]


@pytest.mark.parametrize(("options", "expected"), [({}, 8), ({"keep_attention": True}, 4), ({"every": 2}, 6)])
def test_attention_is_computed_again_unless_kept(model, x, options, expected):
    runs = []

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "scaled_dot_product" in str(func) and "backward" not in str(func):
                runs.append(func)
            return func(*args, **(kwargs or {}))

    recompute_blocks(model, ("narrow.*",), **options)
    with Count():
        model(x).sum().backward()
    assert len(runs) == expected


def test_nothing_changes_without_gradients(model, blocks, x):
    with torch.no_grad():
        expected = model(x)
        recompute_blocks(model, blocks)
        assert torch.equal(model(x), expected)


def test_what_can_not_work_is_refused(model, blocks):
    with pytest.raises(ParallelError, match="every is 0; expected 1"):
        recompute_blocks(model, blocks, every=0)
    with pytest.raises(ParallelError, match=r"no module at 'wide', |no module at 'blocks.\*'"):
        recompute_blocks(model, ("blocks.*",))
