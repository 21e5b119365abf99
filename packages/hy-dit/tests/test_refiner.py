import pytest
import torch
import torch.nn.functional as F
from hy_dit.embed import sinusoid
from hy_dit.refiner import RefinerMLP, TokenRefiner

MASK_BS = torch.arange(6) < torch.tensor([[6], [2]])


@pytest.fixture
def refiner():
    refiner = TokenRefiner(text_width=5, width=8, heads=2)
    with torch.no_grad():
        for parameter in refiner.parameters():
            parameter.normal_(std=0.3)
    return refiner


def run(refiner, text_BSD, mask_BS):
    return refiner(text_BSD, mask_BS, sinusoid(torch.full((text_BSD.shape[0],), 300.0)))


def test_a_text_is_refined_the_same_beside_a_longer_one(refiner):
    text_BSD = torch.randn(2, 6, 5) * MASK_BS[..., None]
    together_BSD = run(refiner, text_BSD, MASK_BS)
    alone_BSD = run(refiner, text_BSD[1:, :2], None)
    torch.testing.assert_close(together_BSD[1:, :2], alone_BSD, atol=1e-5, rtol=0)


def test_the_mean_counts_real_tokens_only(refiner):
    seen = []
    refiner.c_embedder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    text_BSD = torch.randn(2, 6, 5) * MASK_BS[..., None]
    run(refiner, text_BSD, MASK_BS)
    torch.testing.assert_close(seen[0], torch.stack([text_BSD[0].mean(0), text_BSD[1, :2].mean(0)]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_empty_text_gives_numbers(refiner, dtype):
    refiner.to(dtype)
    text_BSD = torch.zeros(2, 3, 5, dtype=dtype)
    mask_BS = torch.tensor([[True, True, False], [False, False, False]])
    refined_BSD = run(refiner, text_BSD, mask_BS)
    refined_BSD.sum().backward()
    assert refined_BSD.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in refiner.parameters())
    assert not mask_BS[1].any(), "the caller's mask is left alone"


def test_the_mean_of_an_empty_text_is_zero(refiner):
    seen = []
    refiner.c_embedder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    run(refiner, torch.zeros(1, 2, 5), torch.zeros(1, 2, dtype=torch.bool))
    assert torch.equal(seen[0], torch.zeros(1, 5))


def test_the_mlp_has_silu_and_a_ratio_of_4():
    mlp = RefinerMLP(8)
    x_BSD = torch.randn(1, 2, 8)
    assert mlp.fc1.out_features == 32
    assert torch.equal(mlp(x_BSD), mlp.fc2(F.silu(mlp.fc1(x_BSD))))


def test_layer_norms_have_weights_and_eps_1e_minus_6(refiner):
    blocks = refiner.individual_token_refiner.blocks
    assert len(blocks) == 2
    for norm in (norm for block in blocks for norm in (block.norm1, block.norm2)):
        assert norm.eps == 1e-6
        assert norm.weight.shape == norm.bias.shape == (8,)
