import hashlib
import math
import struct

import pytest
import torch
from hy_flow import FlowError, counter_noise, counter_uniform, noise
from hy_flow.philox import philox4x32

SHAPE = (2, 3, 5, 6, 7)
DRAWS = [counter_noise, counter_uniform]
GOLDEN = "d544aac87577537b77e2c723f4a64ce3611bf0d03de9ce350d7f305a77a9bcf2"


def expected(name, seed, index):
    """One number by Python's own arithmetic: the layout of counters, and Box and Muller's formula."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    counter = (index // 4 & 0xFFFFFFFF, index // 4 >> 32, *struct.unpack("<II", digest))
    words = philox4x32(tuple(torch.tensor(word) for word in counter), (seed & 0xFFFFFFFF, seed >> 32))
    if name.startswith("uniform"):
        return ((int(words[index % 4]) >> 9) + 0.5) / 2**23
    size, direction = (int(word) for word in words[index % 4 // 2 * 2 :][:2])
    angle = ((direction & 2**30 - 1) + 0.5) / 2**32 * 2 * math.pi - math.pi / 4
    if direction >> 30 & 1:
        angle = math.pi / 2 - angle
    if direction >> 31:
        angle += math.pi
    return math.sqrt(-2 * math.log((size + 0.5) / 2**32)) * (math.cos, math.sin)[index % 2](angle)


@pytest.mark.parametrize(("draw", "name"), [(counter_noise, "normal video"), (counter_uniform, "uniform video")])
@pytest.mark.parametrize("seed", [0, 3, 2**64 - 1])
def test_each_number_is_what_its_seed_stream_and_index_say(draw, name, seed):
    drawn = draw((4, 60), seed, stream="video").flatten()
    assert drawn.dtype == torch.float32
    found = [float(number) for number in drawn]
    assert found == pytest.approx([expected(name, seed, index) for index in range(240)], rel=1e-7, abs=1e-7)


def test_the_bits_stay_what_they_are():
    """A record of a sample names a seed: other bits here would make another video of it."""
    drawn = torch.cat((counter_noise((1001,), 5, stream="a"), counter_uniform((1001,), 5, stream="a")))
    assert hashlib.sha256(bytes(drawn.view(torch.uint8).tolist())).hexdigest() == GOLDEN


def test_indices_beyond_32_bits_of_blocks_have_numbers_of_their_own():
    shape, last = (2**35,), slice(2**35 - 2, None)
    assert counter_noise(shape, 0, region=[last]).tolist() == pytest.approx(
        [expected("normal ", 0, 2**35 - 2), expected("normal ", 0, 2**35 - 1)]
    )


REGIONS = [
    (slice(None), slice(None), slice(None), slice(None), slice(None)),
    (slice(1, 2), slice(None), slice(None), slice(None), slice(None)),
    (slice(None), slice(None), slice(2, 4), slice(None), slice(None)),
    (slice(None), slice(1, 3), slice(1, 2), slice(2, 5), slice(3, 4)),
    (slice(0, 1), slice(0, 1), slice(0, 1), slice(0, 1), slice(6, None)),
    (slice(None), slice(None), slice(None), slice(1, -1), slice(None)),
    (slice(None), slice(None), slice(3, 3), slice(None), slice(None)),
]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("rows", [None, ["b", 7]], ids=["whole", "rows"])
@pytest.mark.parametrize("region", REGIONS, ids=str)
@pytest.mark.parametrize("piece", [2**17, 5])
def test_a_region_drawn_alone_is_the_slice_of_the_whole(draw, rows, region, piece, monkeypatch):
    whole = draw(SHAPE, 3, stream="s", rows=rows)
    monkeypatch.setattr(noise, "_PIECE", piece)
    assert torch.equal(draw(SHAPE, 3, stream="s", rows=rows, region=region), whole[region])


@pytest.mark.parametrize("draw", DRAWS)
def test_a_row_does_not_depend_on_its_company(draw):
    batch = draw((3, 4, 5), 1, stream="train", rows=["a", "b", 12])
    assert torch.equal(batch[[2, 0]], draw((2, 4, 5), 1, stream="train", rows=[12, "a"]))
    assert torch.equal(batch[1], draw((4, 5), 1, stream="train/b"))
    assert torch.equal(batch[2], draw((4, 5), 1, stream="train/12"))
    one_each = draw((3,), 1, stream="train", rows=range(3))
    assert one_each.tolist() == [float(draw((), 1, stream=f"train/{row}")) for row in range(3)]


def test_it_is_normal():
    drawn = counter_noise((2**19,), 0).double()
    n = len(drawn)
    moments = [float(drawn.pow(power).mean()) for power in range(1, 7)]
    deviations = [math.sqrt(variance / n) for variance in (1, 2, 15, 96, 945, 10170)]
    for moment, value, deviation in zip(moments, (0, 1, 0, 3, 0, 15), deviations, strict=True):
        assert abs(moment - value) < 4 * deviation
    ranks = torch.arange(1, n + 1) / n
    assert float((torch.special.ndtr(drawn.sort().values) - ranks).abs().max()) < 1.95 / math.sqrt(n)  # 1 in 1000
    for far in (3.0, 3.5, 4.0):
        beyond = n * math.erfc(far / math.sqrt(2))
        assert abs(int((drawn.abs() > far).sum()) - beyond) < 4 * math.sqrt(beyond)


def test_it_is_uniform():
    drawn = counter_uniform((2**19,), 0).double()
    ranks = torch.arange(1, len(drawn) + 1) / len(drawn)
    assert float((drawn.sort().values - ranks).abs().max()) < 1.95 / math.sqrt(len(drawn))
    corners = noise._uniform((torch.tensor([[0]]), torch.tensor([[2**32 - 1]])) * 2).float()
    assert corners.tolist() == [[2.0**-24, 1 - 2.0**-24] * 2]


def test_the_largest_and_the_smallest_are_finite():
    ends = torch.tensor([[0, 2**32 - 1]])
    drawn = noise._normal((ends, ends, ends, ends.flip(1)))
    assert drawn.isfinite().all()
    assert float(drawn.abs().max()) <= math.sqrt(66 * math.log(2))


def test_neighbours_streams_seeds_and_kinds_have_nothing_in_common():
    n = 2**16
    base = counter_noise((n,), 0)
    others = {
        "the next element": base.roll(1),
        "the pair's other half": base.view(-1, 2).flip(1).flatten(),
        "the next block": base.roll(4),
        "another stream": counter_noise((n,), 0, stream="other"),
        "another seed": counter_noise((n,), 1),
        "a seed of the same low word": counter_noise((n,), 2**32),
        "uniform": (counter_uniform((n,), 0) - 0.5) * math.sqrt(12),
        "rows": counter_noise((2, n), 0, rows=[0, 1])[1],
    }
    for name, other in others.items():
        for power in (1, 2):
            pair = torch.stack((base.double(), other.double())).pow(power)
            assert abs(float(torch.corrcoef(pair)[0, 1])) < 4.5 / math.sqrt(n), name


def test_large_tensors_are_drawn_in_pieces(monkeypatch):
    blocks = []

    def counted(counter, key):
        blocks.append(counter[0].numel())
        return philox4x32(counter, key)

    monkeypatch.setattr(noise, "philox4x32", counted)
    for shape in ((2**20,), (2**17, 8)):
        blocks.clear()
        counter_noise(shape, 0)
        assert max(blocks) <= 2**17 // 4 + 1
        assert sum(blocks) < 2**18 * 1.01
    counter_noise((2**17, 8), 0, region=(slice(None), slice(0, 1)))
    assert max(blocks) <= 2**17


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_bits():
    for draw in DRAWS:
        assert torch.equal(draw((10**6,), 3, device="cuda").cpu(), draw((10**6,), 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed is -1; it must be from 0"),
        ({"seed": 2**64}, r"must be from 0 to 2\*\*64 - 1"),
        ({"rows": ["a"]}, r"1 names of rows for a shape of \[2, 3\]; axis 0 has 2"),
        ({"region": [slice(None)]}, r"a shape of \[2, 3\] needs one slice for each axis"),
        ({"region": [slice(None), slice(0, 3, 2)]}, "of step 1"),
    ],
)
@pytest.mark.parametrize("draw", DRAWS)
def test_what_does_not_fit_is_said(draw, arguments, message):
    with pytest.raises(FlowError, match=message):
        draw(**{"shape": (2, 3), "seed": 0, **arguments})
