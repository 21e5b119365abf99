from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from hy_dit import frugal
from hy_dit.attention import attention
from hy_dit.blocks import MLP, DoubleBlock, FinalLayer, SingleBlock
from hy_dit.joint import JointAttention, Member, Stream
from hy_dit.modulation import Known, Modulation, Sublayer, modulate, sublayers
from hy_dit.rope import extend, rotary_table

ROTATION_LP = rotary_table((1, 2, 3), (0, 4, 4), 256.0, torch.device("cpu"))


def randomised(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module


def test_triples_are_shift_scale_gate_of_the_first_then_of_the_second_sublayer():
    modulation = Modulation(2, 2)
    with torch.no_grad():
        modulation.linear.weight.zero_()
        modulation.linear.bias.copy_(torch.arange(12.0))
    first, second = modulation(torch.randn(1, 2))
    assert [triple.flatten().tolist() for triple in first] == [[0, 1], [2, 3], [4, 5]]
    assert [triple.flatten().tolist() for triple in second] == [[6, 7], [8, 9], [10, 11]]


def test_modulation_reads_the_silu_of_the_vector():
    modulation = randomised(Modulation(4, 1))
    vector_BD = torch.randn(3, 4)
    (triple,) = modulation(vector_BD)
    torch.testing.assert_close(torch.cat(triple, -1)[:, 0], modulation.linear(F.silu(vector_BD)))


def test_modulate_norms_then_scales_by_one_more_then_shifts():
    x_BLD, shift, scale = torch.randn(2, 5, 4), torch.randn(2, 1, 4), torch.randn(2, 1, 4)
    expected_BLD = F.layer_norm(x_BLD, (4,), eps=1e-6) * (1 + scale) + shift
    torch.testing.assert_close(modulate(x_BLD, shift, scale), expected_BLD)


def test_the_layer_norms_eps_is_1e_minus_6():
    x_BLD = 1e-3 * torch.tensor([[[1.0, -1.0, 1.0, -1.0]]])
    zero = torch.zeros(1, 1, 4)
    torch.testing.assert_close(modulate(x_BLD, zero, zero), x_BLD * 1e3 * 2**-0.5)


def test_the_mlp_has_the_tanh_gelu():
    mlp = MLP(4, 8)
    x_BLD = torch.randn(1, 3, 4)
    assert torch.equal(mlp(x_BLD), mlp.fc2(F.gelu(mlp.fc1(x_BLD), approximate="tanh")))


def double_block(block, video_BLD, text_BSD, vector_BD, mask_BS=None):
    streams = [Stream(video_BLD, ROTATION_LP), Stream(text_BSD, is_text=True)]
    video, text = block(streams, vector_BD, JointAttention(attention, [Member(), Member(mask_BS)]))
    return video.x_BLD, text.x_BLD


def test_text_tokens_have_no_order_of_their_own():
    """Text is not turned: permuting its tokens permutes its output and leaves the video alone. The video is turned."""
    block = randomised(DoubleBlock(16, 2, 32))
    video_BLD, text_BSD, vector_BD = torch.randn(2, 6, 16), torch.randn(2, 4, 16), torch.randn(2, 16)
    order = torch.tensor([2, 0, 3, 1])
    video, text = double_block(block, video_BLD, text_BSD, vector_BD)
    same_video, moved_text = double_block(block, video_BLD, text_BSD[:, order], vector_BD)
    torch.testing.assert_close(same_video, video)
    torch.testing.assert_close(moved_text, text[:, order])
    shuffled, _ = double_block(block, video_BLD.flip(1), text_BSD, vector_BD)
    assert (shuffled.flip(1) - video).abs().max() > 1e-3


def test_masked_text_is_not_seen_by_video_in_either_kind_of_block():
    video_BLD, text_BSD, vector_BD = torch.randn(1, 6, 16), torch.randn(1, 3, 16), torch.randn(1, 16)
    other_BSD = torch.cat([text_BSD[:, :1], torch.randn(1, 2, 16)], dim=1)
    mask_BJ = torch.tensor([[True] * 7 + [False] * 2])
    double, single = randomised(DoubleBlock(16, 2, 32)), randomised(SingleBlock(16, 2, 32))
    results = []
    for text in (text_BSD, other_BSD):
        video, text = double_block(double, video_BLD, text, vector_BD, mask_BJ[:, 6:])
        joint = Stream(torch.cat([video, text], dim=1), extend(ROTATION_LP, 3))
        (joint,) = single([joint], vector_BD, JointAttention(attention, [Member(mask_BJ)]))
        results.append(joint.x_BLD[:, :7])
    torch.testing.assert_close(results[0], results[1], atol=1e-6, rtol=0)


def test_known_tokens_are_modulated_and_gated_by_their_own_vector():
    modulation, vector_BD, known_BD = randomised(Modulation(4, 2)), torch.randn(2, 4), torch.randn(2, 4)
    mask_BL = torch.tensor([[True, False, True], [False, False, True]])
    x_BLD, y_BLD = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    mixed = sublayers(modulation, vector_BD, Known(known_BD, mask_BL.unsqueeze(-1)))
    for layer, one, other in zip(mixed, modulation(vector_BD), modulation(known_BD), strict=True):
        for result, of in (
            (layer.modulate(x_BLD), lambda s: s.modulate(x_BLD)),
            (layer.add(x_BLD, y_BLD), lambda s: s.add(x_BLD, y_BLD)),
        ):
            assert torch.equal(result[mask_BL], of(Sublayer(other))[mask_BL])
            assert torch.equal(result[~mask_BL], of(Sublayer(one))[~mask_BL])
            assert not torch.equal(result, of(Sublayer(one)))


@contextmanager
def kept_storages():
    """Collect the sizes of what is kept for the backward pass, each storage once, but for the weights."""
    sizes = {}

    def pack(tensor):
        if not tensor.is_leaf:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


@pytest.mark.parametrize("kind", [DoubleBlock, SingleBlock])
def test_what_is_cheap_is_made_again_for_the_backward_pass(monkeypatch, kind):
    """Same gradients, bit for bit, from less than two thirds of the memory."""
    block = randomised(kind(64, 2, 256))
    values_BLD, vector_BD = torch.randn(1, 64, 64), torch.randn(1, 64)
    rotation_LP = rotary_table((1, 8, 8), (0, 16, 16), 256.0, torch.device("cpu"))

    def train(worth):
        monkeypatch.setattr(frugal, "_WORTH", worth)
        leaf_BLD = values_BLD.clone().requires_grad_()
        streams = [Stream(leaf_BLD * 1, rotation_LP)]
        if kind is DoubleBlock:
            streams.append(Stream(leaf_BLD[:, :5] * 2, is_text=True))
        with kept_storages() as sizes:
            streams = block(streams, vector_BD, JointAttention(attention, [Member()] * len(streams)))
        block.zero_grad()
        torch.cat([stream.x_BLD for stream in streams], dim=1).square().sum().backward()
        return sum(sizes.values()), [leaf_BLD.grad, *(parameter.grad.clone() for parameter in block.parameters())]

    kept, gradients = train(worth=0)
    all_kept, plain_gradients = train(worth=1 << 60)
    assert all(torch.equal(*pair) for pair in zip(gradients, plain_gradients, strict=True))
    assert kept < 0.67 * all_kept


def test_the_final_layer_lays_patches_out_with_channels_outermost():
    layer = FinalLayer(4, out_channels=3, patch=(1, 2, 2))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.linear.bias.copy_(torch.arange(12.0))
    latent_BCTHW = layer(torch.randn(1, 12, 4), torch.randn(1, 4), (2, 2, 3))
    assert latent_BCTHW.shape == (1, 3, 2, 4, 6)
    for channel in range(3):
        tile = torch.tensor([[0.0, 1.0], [2.0, 3.0]]) + 4 * channel
        assert torch.equal(latent_BCTHW[0, channel, 1], tile.repeat(2, 3))


def test_the_final_layer_shifts_first_and_keeps_the_order_of_tokens():
    layer = FinalLayer(4, out_channels=4, patch=(1, 1, 1))
    with torch.no_grad():
        layer.linear.weight.copy_(torch.eye(4))
        layer.linear.bias.zero_()
        layer.adaLN_modulation[1].weight.zero_()
        layer.adaLN_modulation[1].bias.copy_(torch.tensor([5.0] * 4 + [1.0] * 4))
    video_BLD = torch.randn(1, 24, 4)
    latent_BCTHW = layer(video_BLD, torch.randn(1, 4), (2, 3, 4))
    expected_BLD = 2 * F.layer_norm(video_BLD, (4,), eps=1e-6) + 5
    torch.testing.assert_close(latent_BCTHW, expected_BLD.mT.reshape(1, 4, 2, 3, 4))
