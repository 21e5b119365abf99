import time

import pytest
import torch
from hy_dit import DiTConfigError
from hy_dit.attention import attention
from hy_dit.backends import Fastest, attention_named, attention_names


def draw(tokens=7, gradient=False):
    return [torch.randn(2, 3, tokens, 8, requires_grad=gradient) for _ in range(3)]


@pytest.fixture
def mask_BL():
    return torch.arange(7) < torch.tensor([[7], [3]])


@pytest.mark.parametrize("name", ["sdpa", "flash", "math", "fastest"])
@pytest.mark.parametrize("masked", [False, True])
def test_every_name_is_the_same_attention(name, masked, mask_BL):
    assert name in attention_names()
    heads, mask_BL = draw(), mask_BL if masked else None
    torch.testing.assert_close(attention_named(name)(*heads, mask_BL), attention(*heads, mask_BL), atol=1e-6, rtol=0)


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(DiTConfigError, match="no attention 'sage' here; there are sdpa, flash, cudnn"):
        attention_named("sage")


def slowed(seconds, calls, name):
    def run(*heads_and_mask):
        calls.append(name)
        time.sleep(seconds)
        return attention(*heads_and_mask)

    return run


@pytest.mark.parametrize("gradient", [False, True])
def test_the_fastest_is_measured_once_for_each_size(gradient):
    calls = []
    fastest = Fastest({"slow": slowed(0.02, calls, "slow"), "quick": slowed(0, calls, "quick")})
    for tokens in (7, 7, 9):
        heads = draw(tokens, gradient)
        x_BNLK = fastest(*heads, None)
        assert x_BNLK.requires_grad is gradient
        assert torch.equal(x_BNLK, attention(*heads, None))
        assert all(part.grad is None for part in heads), "measuring leaves nothing behind"
    assert set(fastest.chosen.values()) == {"quick"}
    assert calls.count("slow") == 2 * 4
    assert calls.count("quick") == 2 * 4 + 3


def test_what_fails_on_the_tensors_at_hand_is_left_out(mask_BL):
    def maskless(q_BNLK, k_BNLK, v_BNLK, mask):
        if mask is not None:
            raise RuntimeError("no kernel takes this mask")
        return attention(q_BNLK, k_BNLK, v_BNLK, mask)

    fastest = Fastest({"maskless": maskless, "sdpa": slowed(0.005, [], "sdpa")})
    fastest(*draw(), mask_BL)
    fastest(*draw(), None)
    assert list(fastest.chosen.values()) == ["sdpa", "maskless"]
    with pytest.raises(RuntimeError, match="no kernel takes this mask"):
        Fastest({"maskless": maskless})(*draw(), mask_BL)
