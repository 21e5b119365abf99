"""Philox4x32-10, a random number generator without a state: four words of noise for each counter.

Salmon, Moraes, Dror, Shaw: Parallel random numbers, as easy as 1, 2, 3 (SC 2011).
"""

import torch
from torch import Tensor

ROUNDS = 10
WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox4x32(counter: Words, key: tuple[int, int]) -> Words:
    """Encrypt counters.

    Args:
        counter: four words of 32 bits, int64 tensors whose shapes broadcast.
        key: two words of 32 bits.

    Returns:
        four words of 32 bits, int64 tensors of the broadcast shape, on the counter's device.
    """
    first, second, third, fourth = torch.broadcast_tensors(*counter)
    key_0, key_1 = key
    for _ in range(ROUNDS):
        high_0, low_0 = _product(first, _MULTIPLIERS[0])
        high_1, low_1 = _product(third, _MULTIPLIERS[1])
        high_1.bitwise_xor_(second).bitwise_xor_(key_0)
        high_0.bitwise_xor_(fourth).bitwise_xor_(key_1)
        first, second, third, fourth = high_1, low_1, high_0, low_0
        key_0, key_1 = (key_0 + _KEY_STEPS[0]) & WORD, (key_1 + _KEY_STEPS[1]) & WORD
    return first, second, third, fourth


def _product(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """The high and low word of a product of 64 bits, without leaving the range of int64.

    The multipliers are above 2**31. Less 2**32 they are small enough, and what the product then lacks is the word
    itself, in its high half.
    """
    product = word * (multiplier - (WORD + 1))
    return (product >> 32).add_(word), product.bitwise_and_(WORD)
