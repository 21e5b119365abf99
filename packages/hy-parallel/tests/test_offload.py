import copy
import itertools
from types import SimpleNamespace

import pytest
import torch
from hy_parallel import BlockOffload, ParallelError, offload, recompute_blocks
from torch import nn


def frozen(model):
    return copy.deepcopy(model).requires_grad_(False)


def bytes_of(module):
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def storages(tensors):
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


@pytest.fixture
def copied(monkeypatch):
    """Numbers of the blocks whose weights were copied to the device, in order."""
    numbers: list[int] = []
    blocks: list[object] = []
    init, place = offload._Block.__init__, offload._Block.place
    monkeypatch.setattr(offload._Block, "__init__", lambda self, tensors: (blocks.append(self), init(self, tensors))[1])
    monkeypatch.setattr(
        offload._Block, "place", lambda self, buffer: (numbers.append(blocks.index(self)), place(self, buffer))[1]
    )
    return numbers


@pytest.mark.parametrize("resident", [0, 1, 3, 5, 6, 7, 9])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_output_is_the_same_and_the_state_whole(model, blocks, x, resident, mode):
    with mode():
        expected = model(x)
        streamed = frozen(model)
        BlockOffload(streamed, blocks, "cpu", resident=resident)
        for _ in range(3):
            assert torch.equal(streamed(x), expected)
    state = streamed.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_the_device_has_two_blocks_of_all(model, blocks, x):
    streamed = frozen(model)
    streaming = BlockOffload(streamed, blocks, "cpu")
    ends = bytes_of(model.first) + bytes_of(model.last)
    buffers = {slot.buffer.untyped_storage().data_ptr() for slot in streaming._slots}
    room = sum(slot.buffer.nbytes for slot in streaming._slots)
    assert len(buffers) == 2
    assert room <= 2 * (bytes_of(model.wide[0]) + 4 * 256)  # 4 tensors, each aligned
    assert streaming.device_bytes == ends + room
    assert streaming.host_bytes >= 3 * bytes_of(model.wide[0]) + 4 * bytes_of(model.narrow[0])
    away = [tensor for block in (*streamed.wide, *streamed.narrow) for tensor in block.state_dict().values()]
    assert not storages(away) & buffers
    seen = []
    for block in (*streamed.wide, *streamed.narrow):
        block.register_forward_hook(lambda module, args, out: seen.append(storages(module.state_dict().values())))
    with torch.no_grad():
        streamed(x)
    assert len(seen) == 7
    assert all(one <= buffers and len(one) == 1 for one in seen)
    assert all(one != other for one, other in itertools.pairwise(seen)), "neighbours are in different buffers"


def test_resident_blocks_are_spread_evenly_and_never_copied(model, blocks, x, copied):
    streamed = frozen(model)
    less = BlockOffload(frozen(model), blocks, "cpu")
    more = BlockOffload(streamed, blocks, "cpu", resident=3)
    assert more.host_bytes < less.host_bytes
    hooked = [bool(block._forward_pre_hooks) for block in (*streamed.wide, *streamed.narrow)]
    assert hooked == [False, True, False, True, False, True, True]


def test_each_block_is_copied_once_per_pass_and_ahead(model, blocks, x, copied):
    streamed = frozen(model)
    BlockOffload(streamed, blocks, "cpu")
    at_call = []
    for block in (*streamed.wide, *streamed.narrow):
        block.register_forward_hook(lambda *_: at_call.append(list(copied)))
    with torch.no_grad():
        streamed(x)
        assert copied == [0, 1, 2, 3, 4, 5, 6, 0]
        assert [len(numbers) for numbers in at_call] == [2, 3, 4, 5, 6, 7, 8], "one block ahead"
        streamed(x)
    assert copied[8:] == [1, 2, 3, 4, 5, 6, 0], "the first is there when the second pass begins"


def test_an_odd_order_is_computed_rightly(model, blocks, x):
    streamed = frozen(model)
    BlockOffload(streamed, blocks, "cpu")
    with torch.no_grad():
        for index in (2, 0, 1, 1, 2, 0):
            assert torch.equal(streamed.wide[index](x), model.wide[index](x))
        assert torch.equal(streamed.narrow[3](x), model.narrow[3](x))
        assert torch.equal(streamed(x), model(x))


@pytest.mark.parametrize("order", ["offload first", "recompute first"])
@pytest.mark.parametrize("resident", [0, 2])
def test_training_around_frozen_blocks_gives_the_same_gradients(model, blocks, x, order, resident, copied):
    plain = frozen(model)
    for part in (plain.first, plain.last):
        part.requires_grad_(True)
    plain.wide[1].extra = nn.Parameter(torch.ones(8))
    plain.wide[1].register_forward_hook(lambda module, args, out: out * module.extra)
    streamed = copy.deepcopy(plain)
    if order == "recompute first":
        recompute_blocks(streamed, blocks)
    BlockOffload(streamed, blocks, "cpu", resident=resident)
    if order == "offload first":
        recompute_blocks(streamed, blocks)
    at_call = []
    for block in (*streamed.wide, *streamed.narrow):
        block.register_forward_pre_hook(lambda *_: at_call.append(len(copied)))
    for _ in range(2):
        for one in (plain, streamed):
            one(x).square().sum().backward()
    compared = 0
    gradients = dict(plain.named_parameters())
    for name, parameter in streamed.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter.grad, gradients[name].grad), name
            compared += 1
    assert compared == 5
    if not resident:
        forwards, backwards = [2, 3, 4, 5, 6], [4, 3, 2, 1, 0]
        assert copied == [0, 1, *forwards, *backwards, *forwards, *backwards]
        ahead = [2, 3, 4, 5, 6, 7, 7], [7, 8, 9, 10, 11, 12, 12]
        assert at_call[:14] == [*ahead[0], *ahead[1]], "each is copied while its neighbour computes, backwards too"


def test_training_without_recomputing_fails_loudly(model, blocks, x):
    streamed = frozen(model)
    streamed.first.requires_grad_(True)
    BlockOffload(streamed, blocks, "cpu")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        streamed(x).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_8_bit_weights_are_carried(blocks, x, dtype):
    class Eight(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 8).to(dtype), requires_grad=False)
            self.register_buffer("scale", torch.tensor(0.25))

        def forward(self, x):
            return x @ (self.weight.float() * self.scale)

    model = nn.Sequential(*(Eight() for _ in range(4)))
    streamed = copy.deepcopy(model)
    BlockOffload(streamed, ["*"], "cpu")
    with torch.no_grad():
        assert torch.equal(streamed(x), model(x))


def test_a_tensor_used_in_two_places_stays(model, blocks, x):
    streamed = frozen(model)
    streamed.narrow[1].linear.weight = streamed.first.weight
    with torch.no_grad():
        expected = streamed(x)
        streaming = BlockOffload(streamed, blocks, "cpu")
        assert torch.equal(streamed(x), expected)
    moving = [tensor for block in streaming._blocks for tensor in block.tensors]
    assert any(tensor is streamed.narrow[1].linear.bias for tensor in moving)
    assert not any(tensor is streamed.first.weight for tensor in moving)


def test_blocks_may_be_compiled_one_by_one(model, blocks, x):
    streamed = frozen(model)
    BlockOffload(streamed, blocks, "cpu")
    for block in (*streamed.wide, *streamed.narrow):
        block.compile(backend="eager")
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(streamed(x), model(x))


def test_removing_it_leaves_an_ordinary_model(model, blocks, x):
    streamed = frozen(model)
    streaming = BlockOffload(streamed, blocks, "cpu")
    with torch.no_grad():
        streamed(x)
        streaming.remove()
        assert torch.equal(streamed(x), model(x))
    assert not any(block._forward_pre_hooks for block in (*streamed.wide, *streamed.narrow))


def test_more_than_one_piece_of_host_memory(model, blocks, x, monkeypatch):
    monkeypatch.setattr("hy_parallel.host._PIECE", 1024)
    streamed = frozen(model)
    BlockOffload(streamed, blocks, "cpu")
    weights = [tensor for block in (*streamed.wide, *streamed.narrow) for tensor in block.state_dict().values()]
    assert (len(weights), len(storages(weights))) == (20, 8)
    with torch.no_grad():
        assert torch.equal(streamed(x), model(x))


class Late:
    """Stands in for an accelerator: what is copied on a stream arrives only when somebody waits for it."""

    def __init__(self):
        self.log = []

    Stream = property(lambda self: lambda device: LateStream(self))

    def current_stream(self, device):
        return self

    def wait_event(self, event):
        self.log.append("wait")
        while event.stream.pending and event.count > event.stream.done:
            event.stream.pending.pop(0)()
            event.stream.done += 1

    def stream(self, stream):
        return stream


class LateStream(torch.utils._python_dispatch.TorchDispatchMode):
    def __init__(self, device):
        super().__init__()
        self.device, self.pending, self.done, self.ordered = device, [], 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.copy_.default:
            self.pending.append(lambda: func(*args, **(kwargs or {})))
            self.ordered += 1
            return args[0]
        return func(*args, **(kwargs or {}))

    def wait_stream(self, other):
        self.device.log.append("behind what computes")

    def record_event(self):
        self.device.log.append("copy")
        return SimpleNamespace(stream=self, count=self.ordered)


def test_weights_are_waited_for_and_copied_behind_what_computes(model, blocks, x, monkeypatch):
    late = Late()
    streamed = frozen(model)
    streaming = BlockOffload(streamed, blocks, "cpu")
    streaming._copies._runtime = late
    streaming._copies._stream = LateStream(late)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(streamed(x), model(x))
    assert late.log.count("wait") == 14
    ordered = [entry for entry in late.log if entry != "wait"]
    assert ordered == ["behind what computes", "copy"] * (len(ordered) // 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_an_accelerator(model, blocks, x):
    streamed = frozen(model)
    streaming = BlockOffload(streamed, blocks, "cuda")
    with torch.no_grad():
        streamed(x.cuda())
        before = torch.cuda.memory_allocated()
        out = [streamed(x.cuda()) for _ in range(5)]
        torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() - before < 5 * 1024 + streaming.device_bytes
    assert all(torch.equal(one, out[0]) for one in out)
    torch.testing.assert_close(out[0].cpu(), model(x))
    assert all(tensor.is_pinned() for tensor in streaming._blocks[0].hosted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": ("wide.*", "deep.*")}, r"Model has no module at 'deep.\*'"),
        ({"resident": -1}, "resident is -1; expected 0 or more"),
        ({"trained": True}, "a Wide has no frozen weight; requires_grad_"),
    ],
)
def test_what_can_not_work_is_refused(model, changes, message):
    changes = {"blocks": ("wide.*",), "resident": 0, "trained": False} | changes
    model.requires_grad_(changes.pop("trained"))
    for block in model.wide:
        del block.shift
        block.shift = 0.0
    with pytest.raises(ParallelError, match=message):
        BlockOffload(model, changes["blocks"], "cpu", resident=changes["resident"])


def test_a_tensor_class_of_its_own_is_refused(model):
    class Odd(torch.Tensor):
        pass

    model.requires_grad_(False)
    model.wide[0].shift = torch.randn(8).as_subclass(Odd)
    with pytest.raises(ParallelError, match="a Wide has weights of class Odd"):
        BlockOffload(model, ("wide.*",), "cpu")


def test_moving_the_module_passes_the_blocks_by(model, blocks, x):
    streamed = frozen(model)
    with torch.no_grad():
        expected = streamed(x)
    offloaded = BlockOffload(streamed, blocks, "cpu")
    places = storages(streamed.wide.parameters())
    copy.deepcopy(streamed).to(torch.float64)
    streamed.to(torch.float64)
    assert streamed.first.weight.dtype == torch.float64
    assert storages(streamed.wide.parameters()) == places
    streamed.to(torch.float32)
    with torch.no_grad():
        assert torch.equal(streamed(x), expected)
    offloaded.remove()
    streamed.to(torch.float64)
    assert streamed.wide[0].up.weight.dtype == torch.float64
