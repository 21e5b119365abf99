import pytest
import torch
import torch.nn.functional as F
from hy_dit.attention import RMSNorm, attend, attention, split_heads


def expected(q_BNLK, k_BNLK, v_BNLK, mask_BL=None):
    scores_BNLL = q_BNLK.double() @ k_BNLK.double().mT / q_BNLK.shape[-1] ** 0.5
    if mask_BL is not None:
        scores_BNLL = scores_BNLL.masked_fill(~mask_BL[:, None, None], float("-inf"))
    return scores_BNLL.softmax(-1) @ v_BNLK.double()


@pytest.fixture
def mask_BL():
    return torch.arange(7) < torch.tensor([[7], [3]])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.03)])
def test_it_is_softmax_attention(mask_BL, masked, training, dtype, tolerance):
    q_BNLK, k_BNLK, v_BNLK = (torch.randn(2, 3, 7, 8, dtype=dtype, requires_grad=training) for _ in range(3))
    mask_BL = mask_BL if masked else None
    x_BNLK = attention(q_BNLK, k_BNLK, v_BNLK, mask_BL)
    assert x_BNLK.dtype == dtype
    torch.testing.assert_close(x_BNLK.double(), expected(q_BNLK, k_BNLK, v_BNLK, mask_BL), atol=tolerance, rtol=0)


def test_gradients_in_bfloat16_are_those_of_float32(mask_BL):
    values = [torch.randn(2, 3, 7, 8).bfloat16() for _ in range(3)]
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        leaves = [value.to(dtype).requires_grad_() for value in values]
        attention(*leaves, mask_BL).float().square().sum().backward()
        gradients.append(torch.stack([leaf.grad.float() for leaf in leaves]))
    torch.testing.assert_close(gradients[1], gradients[0], atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("tokens", "training", "dtype", "fused"),
    [
        (7, True, torch.bfloat16, False),
        (513, True, torch.bfloat16, True),
        (7, False, torch.bfloat16, True),
        (7, True, torch.float32, True),
    ],
)
def test_short_training_in_bfloat16_avoids_the_fused_kernel(monkeypatch, tokens, training, dtype, fused):
    calls = []
    fused_attention = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *args, **kwargs: calls.append(1) or fused_attention(*args, **kwargs)
    )
    x_BNLK = torch.randn(1, 1, tokens, 8, dtype=dtype, requires_grad=training)
    attention(x_BNLK, x_BNLK, x_BNLK, None)
    assert bool(calls) is fused


def test_the_joint_projection_is_cut_into_q_k_v_then_heads_then_channels():
    qkv_BLD = torch.arange(2 * 5 * 3 * 6).view(2, 5, 18)
    for index, part_BLNK in enumerate(split_heads(qkv_BLD, heads=2)):
        assert torch.equal(part_BLNK.flatten(2), qkv_BLD[..., 6 * index : 6 * index + 6])
        assert torch.equal(part_BLNK[:, :, 1], qkv_BLD[..., 6 * index + 3 : 6 * index + 6])


def test_heads_are_joined_as_they_were_cut():
    v_BLNK = torch.randn(2, 5, 3, 4)
    x_BLD = attend(v_BLNK, v_BLNK, v_BLNK, None, lambda q, k, v, mask: v)
    assert torch.equal(x_BLD, v_BLNK.flatten(2))


def test_the_norms_eps_is_1e_minus_6():
    norm = RMSNorm(4)
    value = norm(torch.full((1, 1, 1, 4), 1e-3))
    torch.testing.assert_close(value, torch.full_like(value, 2**-0.5))


def test_the_norm_is_float32_inside_and_rounds_before_the_weight():
    norm = RMSNorm(64).bfloat16()
    torch.nn.init.normal_(norm.weight)
    x_BLNK = torch.randn(2, 3, 4, 64).bfloat16()
    precise = x_BLNK.float() / (x_BLNK.float().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    assert torch.equal(norm(x_BLNK), precise.bfloat16() * norm.weight)
