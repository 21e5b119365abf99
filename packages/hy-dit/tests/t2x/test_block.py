import torch
from hy_dit.attention import attention
from hy_dit.modulation import Triple
from hy_dit.rope import rotary_table, rotate
from hy_dit.t2x.block import T2XBlock

HEADS, K = 2, 8


def norm(x_BLD):
    centred = x_BLD - x_BLD.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def head_norm(x_BLNK, weight):
    return x_BLNK / (x_BLNK.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def softmax_attention(q_BLNK, k_BLNK, v_BLNK, allowed_BS):
    scores = torch.einsum("blnk,bsnk->bnls", q_BLNK, k_BLNK) / K**0.5
    weights = scores.masked_fill(~allowed_BS[:, None, None], float("-inf")).softmax(-1)
    return torch.einsum("bnls,bsnk->blnk", weights, v_BLNK).flatten(2)


def by_hand(block, x, text_BSD, mask_BS, triples, rotation_LP):
    """What the module's docstring says, written out."""
    (shift1, scale1, gate1), (shift2, scale2, gate2) = (
        [shared + own for shared, own in zip(triple, table, strict=True)]
        for triple, table in zip(triples, block.table, strict=True)
    )
    own, cross = block.self_attn, block.cross_attn
    q, k, v = (part.unflatten(-1, (HEADS, K)) for part in own.qkv(norm(x) * (1 + scale1) + shift1).chunk(3, dim=-1))
    q = rotate(head_norm(q, own.q_norm.weight), rotation_LP)
    k = rotate(head_norm(k, own.k_norm.weight), rotation_LP)
    everything = torch.ones(x.shape[:2], dtype=torch.bool)
    x = x + gate1 * own.proj(softmax_attention(q, k, v, everything))
    q = head_norm(cross.q(norm(x)).unflatten(-1, (HEADS, K)), cross.q_norm.weight)
    k, v = (part.unflatten(-1, (HEADS, K)) for part in cross.kv(text_BSD).chunk(2, dim=-1))
    x = x + cross.proj(softmax_attention(q, head_norm(k, cross.k_norm.weight), v, mask_BS))
    hidden = torch.nn.functional.gelu(block.mlp.fc1(norm(x) * (1 + scale2) + shift2), approximate="tanh")
    return x + gate2 * block.mlp.fc2(hidden)


def test_the_block_is_what_it_says():
    torch.manual_seed(0)
    width = HEADS * K
    block = T2XBlock(width, HEADS, 24)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
    video_BLD, text_BSD = torch.randn(2, 12, width), torch.randn(2, 5, width)
    mask_BS = torch.arange(5) < torch.tensor([[5], [2]])
    triples = [Triple(*torch.randn(3, 2, 1, width)) for _ in range(2)]
    rotation_LP = rotary_table((3, 2, 2), (2, 2, 4), 256.0, torch.device("cpu"))
    torch.testing.assert_close(
        block(video_BLD, text_BSD, mask_BS, triples, rotation_LP, attention),
        by_hand(block, video_BLD, text_BSD, mask_BS, triples, rotation_LP),
        atol=1e-4,
        rtol=1e-4,
    )
