import torch
from hy_dit.attention import attention
from hy_dit.joint import Heads, JointAttention, Member


def draw(*lengths, batch=2):
    return [Heads(*(torch.randn(batch, length, 2, 4) for _ in range(3))) for length in lengths]


def plain(heads, chosen, mask_BL=None):
    """Attention among the chosen streams in one softmax, cut up again, x_BLD."""
    q, k, v = (torch.cat([heads[index][part] for index in chosen], dim=1).transpose(1, 2) for part in range(3))
    x_BNLK = attention(q, k, v, mask_BL).transpose(1, 2).flatten(2)
    return x_BNLK.split([heads[index].q_BLNK.shape[1] for index in chosen], dim=1)


def test_streams_without_gates_share_one_softmax_in_their_order():
    heads = draw(5, 3, 2)
    heard = JointAttention(attention, [Member()] * 3)(heads)
    for found, expected in zip(heard, plain(heads, [0, 1, 2]), strict=True):
        assert torch.equal(found, expected)


def test_masks_of_some_streams_cover_those_streams_alone():
    heads = draw(5, 3)
    mask_BL = torch.tensor([[True, True, False], [True, False, False]])
    heard = JointAttention(attention, [Member(), Member(mask_BL)])(heads)
    whole_BL = torch.cat([torch.ones(2, 5, dtype=torch.bool), mask_BL], dim=1)
    for found, expected in zip(heard, plain(heads, [0, 1], whole_BL), strict=True):
        assert torch.equal(found, expected)


def test_a_shut_gate_changes_no_bit_and_the_stream_behind_it_hears_the_others():
    heads = draw(5, 3, 2)
    video, text, extra = JointAttention(attention, [Member(), Member(), Member(gate_N=torch.zeros(2))])(heads)
    without = plain(heads, [0, 1])
    assert torch.equal(video, without[0])
    assert torch.equal(text, without[1])
    assert torch.equal(extra, plain(heads, [0, 1, 2])[2])


def test_an_open_gate_is_one_common_softmax():
    heads = draw(5, 3, 2)
    gated = JointAttention(attention, [Member(), Member(), Member(gate_N=torch.ones(2))])(heads)
    for found, expected in zip(gated, plain(heads, [0, 1, 2]), strict=True):
        torch.testing.assert_close(found, expected)


def test_each_head_has_its_gate():
    heads = draw(4, 2)
    first, _ = JointAttention(attention, [Member(), Member(gate_N=torch.tensor([1.0, 0.0]))])(heads)
    without, joint = plain(heads, [0])[0], plain(heads, [0, 1])[0]
    assert torch.equal(first[..., 4:], without[..., 4:])
    torch.testing.assert_close(first[..., :4], joint[..., :4])
    assert not torch.equal(first[..., :4], without[..., :4])


def test_streams_behind_gates_do_not_hear_each_other():
    heads = draw(4, 2, 3)
    gates = [Member(gate_N=torch.tensor([0.5, 0.2])), Member(gate_N=torch.tensor([0.1, 0.9]))]
    both = JointAttention(attention, [Member(), *gates])(heads)
    first_alone = JointAttention(attention, [Member(), gates[0]])(heads[:2])
    assert torch.equal(both[1], first_alone[1])
    second_alone = JointAttention(attention, [Member(), gates[1]])([heads[0], heads[2]])
    base = plain(heads, [0])[0]
    torch.testing.assert_close(both[0] - base, first_alone[0] - base + second_alone[0] - base)


def test_masked_extra_tokens_are_not_heard():
    heads = draw(4, 2)
    mask_BL = torch.tensor([[True, False], [True, True]])
    other = [heads[0], Heads(*(part.clone() for part in heads[1]))]
    for part in other[1][1:]:
        part[0, 1] = torch.randn(2, 4)
    members = [Member(), Member(mask_BL, torch.tensor([0.7, 0.3]))]
    assert torch.equal(JointAttention(attention, members)(heads)[0], JointAttention(attention, members)(other)[0])
