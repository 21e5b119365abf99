import dataclasses

import pytest
import torch
from hy_dit import DiTInputError
from hy_dit.inputs import TrimmedText, masked_text, trim_text
from hy_plugins import TextTokens


def test_columns_that_are_padding_everywhere_are_cut(make_text):
    text = make_text(3, 5, columns=9)
    trimmed = trim_text(text)
    assert trimmed.padded
    assert torch.equal(trimmed.mask_BS, text.mask_BS[:, :5])
    assert torch.equal(trimmed.tokens_BSD[1], text.tokens_BSD[1, :5])
    assert torch.equal(trimmed.tokens_BSD[0, :3], text.tokens_BSD[0, :3])
    assert not trimmed.tokens_BSD[0, 3:].any()
    assert trimmed.pooled_BD is text.pooled_BD


@pytest.mark.parametrize("columns", [4, 256])
def test_texts_of_one_length_need_no_mask(make_text, columns):
    text = make_text(4, 4, columns=columns)
    trimmed = trim_text(text)
    assert not trimmed.padded
    assert torch.equal(trimmed.tokens_BSD, text.tokens_BSD[:, :4])


def test_of_empty_texts_one_column_stays_and_is_masked(make_text):
    trimmed = trim_text(make_text(0, 0, columns=4))
    assert trimmed.tokens_BSD.shape == (2, 1, 12)
    assert trimmed.padded
    assert not trimmed.mask_BS.any()


def test_padding_on_the_left_or_between_is_refused(make_text):
    text = make_text(3, 3, columns=4)
    text.mask_BS[1] = torch.tensor([True, False, True, True])
    with pytest.raises(DiTInputError, match="padding before a real token; pad on the right"):
        trim_text(text)


def test_trimmed_text_is_taken_as_it_is_and_its_lengths_are_not_read_again(make_dit, make_text, monkeypatch):
    dit, text = make_dit(), make_text(2, 4, columns=7)
    trimmed = trim_text(text)
    assert trim_text(trimmed) is trimmed
    inputs = torch.randn(2, 4, 1, 4, 4), torch.tensor([10.0, 900.0])
    velocity_BCTHW = dit(*inputs, text)
    monkeypatch.setattr(torch.Tensor, "tolist", None)
    assert torch.equal(dit(*inputs, trimmed), velocity_BCTHW)


def test_a_text_whose_lengths_nobody_reads_is_masked_whole(make_dit, make_text):
    text = make_text(2, 4, columns=7)
    masked = masked_text(
        TextTokens(text.tokens_BSD.where(text.mask_BS[..., None], torch.nan), text.mask_BS, text.pooled_BD)
    )
    assert isinstance(masked, TrimmedText)
    assert masked.tokens_BSD.shape == (2, 7, 12)
    dit, inputs = make_dit(), (torch.randn(2, 4, 1, 4, 4), torch.tensor([10.0, 900.0]))
    torch.testing.assert_close(dit(*inputs, masked), dit(*inputs, text), atol=1e-4, rtol=1e-4)


@pytest.fixture
def call(make_dit, make_text):
    """Call a model with one input changed."""
    dit, distilled = make_dit(), make_dit(guidance_embed=True)

    def run(latent=(2, 4, 1, 4, 4), timestep=(2,), guidance=None, distill=False, **changes):
        text = dataclasses.replace(make_text(3, 2), **changes)
        guidance_B = None if guidance is None else torch.ones(guidance)
        (distilled if distill else dit)(torch.randn(latent), torch.ones(timestep), text, guidance_B)

    return run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent": (2, 4, 4, 4)}, r"the latent must be \[B, C, T, H, W\], found shape \[2, 4, 4, 4\]"),
        ({"latent": (2, 3, 1, 4, 4)}, "the latent has 3 channels; this model takes 4"),
        ({"latent": (2, 4, 1, 5, 4)}, "the latent's height is 5; it must be a multiple of the patch's 2"),
        ({"latent": (2, 4, 1, 4, 3)}, "the latent's width is 3; it must be a multiple of the patch's 2"),
        ({"latent": (2, 4, 0, 4, 4)}, "the latent's frames is 0"),
        ({"timestep": (1,)}, r"timestep_B must hold one number per sample, shape \[2\], found \[1\]"),
        ({"timestep": ()}, r"timestep_B must hold one number per sample, shape \[2\], found \[\]"),
        ({"tokens_BSD": torch.ones(1, 3, 12)}, r"text.tokens_BSD must be \[2, S >= 1, D\], found shape \[1, 3, 12\]"),
        ({"tokens_BSD": torch.ones(2, 0, 12)}, r"text.tokens_BSD must be \[2, S >= 1, D\], found shape \[2, 0, 12\]"),
        ({"tokens_BSD": torch.ones(2, 3, 11)}, "text.tokens_BSD has width 11; this model reads 12"),
        ({"mask_BS": torch.ones(2, 4).bool()}, r"text.mask_BS must be bool of shape \[2, 3\], found .* \[2, 4\]"),
        ({"mask_BS": torch.ones(2, 3).long()}, "text.mask_BS must be bool of shape .* found torch.int64"),
        ({"pooled_BD": None}, "text.pooled_BD is missing; this model needs one vector of 6 per prompt"),
        ({"pooled_BD": torch.ones(2, 7)}, r"text.pooled_BD must have shape \[2, 6\], found \[2, 7\]"),
        ({"guidance": (2,)}, "guidance_B was given, but this model has no guidance embedding; leave it out"),
        ({"distill": True}, "guidance_B is missing; this model is guidance-distilled, give the scale x 1000 per"),
        ({"distill": True, "guidance": (3,)}, r"guidance_B must hold one number per sample, shape \[2\], found \[3\]"),
    ],
)
def test_inputs_that_do_not_fit_are_named(call, changes, message):
    call()
    with pytest.raises(DiTInputError, match=message):
        call(**changes)
