import pytest
import torch
from hy_flow.philox import philox4x32

KNOWN = [  # Random123's own, in its file `kat_vectors`: counter, key, result
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def integers(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_the_published_answers_are_given(counter, key, result):
    words = philox4x32(tuple(torch.tensor([word]) for word in integers(counter)), tuple(integers(key)))
    assert [int(word) for word in words] == integers(result)


def test_many_counters_are_encrypted_each_by_itself():
    counters = torch.randint(0, 2**32, (4, 1000), generator=torch.Generator().manual_seed(0))
    together = philox4x32(tuple(counters), (7, 2**32 - 1))
    for index in (0, 1, 999):
        alone = philox4x32(tuple(counters[:, index]), (7, 2**32 - 1))
        assert [int(word) for word in alone] == [int(word[index]) for word in together]
    for word in together:
        assert int(word.min()) >= 0
        assert int(word.max()) < 2**32


def test_shapes_broadcast():
    low, high = torch.tensor([[5], [6]]), torch.tensor([[8]])
    words = philox4x32((torch.arange(3), torch.tensor(0), low, high), (1, 2))
    assert {tuple(word.shape) for word in words} == {(2, 3)}
    alone = philox4x32((torch.tensor(2), torch.tensor(0), torch.tensor(6), torch.tensor(8)), (1, 2))
    assert [int(word[1, 2]) for word in words] == [int(word) for word in alone]
