import warnings
from dataclasses import asdict, replace

import pytest
import torch
from hy_plugins import TextTokens
from hy_plugins.testing import TextEncoderContract
from hy_textenc import TextEncoderError, TinyTextConfig, TinyTextEncoder, load_text_encoder
from hy_textenc.tokenizer import rows
from hy_weights import CheckpointError, write_model

SMALL = TinyTextConfig(vocab=64, width=16, layers=2, heads=2, max_tokens=8, pooled_width=12)
PROMPTS = ["a red circle", "", "猫!", "a red circle moves left"]


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return TinyTextEncoder(SMALL)


class TestTheTinyEncoderKeepsTheContract(TextEncoderContract):
    def make(self):
        return TinyTextEncoder(replace(SMALL, max_tokens=16))


def check_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


def test_states_have_the_promised_shapes_and_masks(encoder):
    text = encoder.encode(PROMPTS)
    assert isinstance(text, TextTokens)
    assert text.tokens_BSD.shape == (4, 6, 16)
    assert text.pooled_BD.shape == (4, 12)
    assert text.mask_BS.dtype == torch.bool
    assert text.mask_BS.sum(1).tolist() == [4, 1, 3, 6]
    assert (text.mask_BS.int().diff(dim=1) <= 0).all(), "padding is on the right"
    assert (text.tokens_BSD[~text.mask_BS] == 0).all()


def test_neither_padding_nor_neighbours_nor_order_change_a_prompt(encoder):
    together = encoder.encode(PROMPTS)
    backwards = encoder.encode(PROMPTS[::-1])
    for index, prompt in enumerate(PROMPTS):
        alone = encoder.encode([prompt])
        length = alone.tokens_BSD.shape[1]
        assert alone.mask_BS.all()
        for text, row in ((together, index), (backwards, 3 - index)):
            assert text.mask_BS[row].sum() == length
            check_equal(text.tokens_BSD[row, :length], alone.tokens_BSD[0])
            check_equal(text.pooled_BD[row], alone.pooled_BD[0])


def test_what_is_under_the_padding_does_not_matter(encoder):
    rows_BS2, mask_BS = encoder._tokenize(PROMPTS)
    other_BS2 = rows_BS2.masked_fill(~mask_BS[..., None], 7)
    first, second = encoder(rows_BS2, mask_BS), encoder(other_BS2, mask_BS)
    check_equal(first.tokens_BSD, second.tokens_BSD)
    check_equal(first.pooled_BD, second.pooled_BD)


def test_attention_looks_back_only(encoder):
    short, long = encoder.encode(["a red circle"]), encoder.encode(["a red square"])
    check_equal(short.tokens_BSD[0, :3], long.tokens_BSD[0, :3])
    assert (short.tokens_BSD[0, 3] - long.tokens_BSD[0, 3]).abs().max() > 1e-3
    # The pooled vector, of the last token, sees the first word through attention only.
    first, second = encoder.encode(["red circle"]), encoder.encode(["blue circle"])
    assert (first.pooled_BD - second.pooled_BD).abs().max() > 1e-4


def test_words_that_share_one_row_still_differ(encoder):
    first, *others = (f"word{index}" for index in range(400))
    shared = {half: next(w for w in others if equal(rows(w, 64), rows(first, 64)) == half) for half in (0, 1)}
    for other in shared.values():
        assert (encoder.encode([first]).pooled_BD - encoder.encode([other]).pooled_BD).abs().max() > 1e-4


def equal(one, other):
    """The one place where two pairs agree, or None."""
    places = [place for place in (0, 1) if one[place] == other[place]]
    return places[0] if len(places) == 1 else None


@torch.no_grad()
def test_a_block_is_pre_norm_causal_attention_and_a_network_each_added_to_its_input(encoder):
    block = encoder.blocks[0]
    tokens_BSD = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    future_SS = torch.ones(5, 5, dtype=torch.bool).triu(1)
    parts = block.qkv(block.attention_norm(tokens_BSD)).chunk(3, dim=-1)
    query, key, value = (part.reshape(2, 5, 2, 8).transpose(1, 2) for part in parts)
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    expected = tokens_BSD + block.attention_out(mixed.transpose(1, 2).reshape(2, 5, 16))
    expected = expected + block.mlp(block.mlp_norm(expected))
    check_equal(block(tokens_BSD, future_SS), expected)


def test_word_order_matters(encoder):
    first, second = encoder.encode(["red then blue"]), encoder.encode(["blue then red"])
    assert (first.pooled_BD - second.pooled_BD).abs().max() > 1e-4


def test_the_pooled_vector_is_the_last_real_tokens(encoder):
    text = encoder.encode(PROMPTS)
    for row, length in enumerate([4, 1, 3, 6]):
        check_equal(text.pooled_BD[row], encoder.pool(text.tokens_BSD[row, length - 1]))


def test_a_long_prompt_is_cut_with_one_warning(encoder):
    with pytest.warns(UserWarning, match="a prompt has 10 tokens; only the first 8 are read"):
        cut = encoder.encode(["a b c d e f g h i", "x"])
    assert cut.mask_BS.sum(1).tolist() == [8, 2]
    check_equal(cut.tokens_BSD[:1], encoder.encode(["a b c d e f g"]).tokens_BSD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(["a b c d e f g h i"])
        TinyTextEncoder(SMALL).encode(["a b c d e f g"])


@pytest.mark.parametrize("prompts", ["a red circle", [], ()])
def test_what_is_not_a_list_of_prompts_is_refused(encoder, prompts):
    with pytest.raises(TextEncoderError, match="a list of at least one prompt"):
        encoder.encode(prompts)


def test_every_parameter_learns(encoder):
    text = encoder.encode(PROMPTS)
    (text.tokens_BSD.square().sum() + text.pooled_BD.square().sum()).backward()
    still = [name for name, value in encoder.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []


def test_prompts_can_be_told_apart_after_a_little_training(encoder):
    prompts = [f"a {color} {shape}" for color in ("red", "green", "blue") for shape in ("circle", "square")]
    head = torch.nn.Linear(12, 6)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(head(encoder.encode(prompts).pooled_BD), torch.arange(6))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_a_saved_encoder_comes_back_the_same(encoder, tmp_path):
    write_model(tmp_path / "text", encoder.state_dict(), asdict(encoder.config))
    loaded = load_text_encoder(tmp_path / "text")
    assert loaded.config == SMALL
    assert not loaded.training
    assert torch.equal(loaded.encode(PROMPTS).tokens_BSD, encoder.encode(PROMPTS).tokens_BSD)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    half = load_text_encoder(str(tmp_path / "text"), dtype=torch.bfloat16, device="cpu")
    assert half.encode(["x"]).tokens_BSD.dtype == torch.bfloat16


def test_a_folder_that_does_not_fit_is_refused(encoder, tmp_path):
    write_model(tmp_path / "a", encoder.state_dict(), asdict(TinyTextConfig(vocab=32, width=16, heads=2)))
    with pytest.raises(CheckpointError, match=r"a does not fit TinyTextEncoder.*table\.weight \(expected \[32, 16\]"):
        load_text_encoder(tmp_path / "a")
    write_model(tmp_path / "b", encoder.state_dict(), {"in_channels": 16})
    with pytest.raises(CheckpointError, match=r"config\.json: unknown key 'in_channels'"):
        load_text_encoder(tmp_path / "b")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 10, "heads": 4}, "width 10 can't be split among 4 heads"),
        ({"vocab": 2}, "vocab is 2"),
        ({"layers": 0}, "layers is 0"),
    ],
)
def test_an_impossible_size_is_named(values, message):
    with pytest.raises(TextEncoderError, match=message):
        TinyTextConfig(**values)


def test_the_default_is_the_twins_size():
    encoder = TinyTextEncoder()
    assert encoder.config == TinyTextConfig(2048, 256, 2, 4, 64, 256)
    assert encoder.table.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 2_186_496
