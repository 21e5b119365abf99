import copy
import dataclasses

import pytest
import torch
from hy_dit import DiT, DiTConfig
from hy_dit.attention import attention
from hy_plugins import TextTokens
from hy_plugins.types import HostSpec


class Spy:
    """The default attention, which writes down how it was called."""

    def __init__(self):
        self.calls = []

    def __call__(self, q_BNLK, k_BNLK, v_BNLK, mask_BL):
        self.calls.append((q_BNLK.shape[2], mask_BL))
        return attention(q_BNLK, k_BNLK, v_BNLK, mask_BL)


@pytest.mark.parametrize("case", ["video", "image"])
@pytest.mark.parametrize("kind", ["guidance", "noguidance"])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_released_weights_give_the_released_numbers(released, kind, case, mode):
    """With and without a backward pass, in which the arithmetic is the same but not where results are written."""
    given = released(kind, case)
    with mode():
        velocity_BCTHW = given.dit(*given.inputs)
    torch.testing.assert_close(velocity_BCTHW, given.velocity_BCTHW, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", ["guidance", "noguidance"])
def test_the_state_dict_is_the_released_one(released, kind):
    given = released(kind, "image")
    state = given.dit.state_dict()
    assert {key: value.shape for key, value in state.items()} == {
        key: value.shape for key, value in given.weights.items()
    }


def test_nothing_is_computed_on_padding_that_all_texts_share(make_dit, make_text):
    dit, text = make_dit(), make_text(3, 3, columns=50)
    dit.attention = spy = Spy()
    refined = []
    dit.txt_in.register_forward_pre_hook(lambda module, inputs: refined.append((inputs[0].shape[1], inputs[1])))
    dit(torch.randn(2, 4, 2, 4, 6), torch.tensor([10.0, 900.0]), text)
    assert refined == [(3, None)]
    assert spy.calls == [(12 + 3, None)] * 4


def test_a_mask_is_used_only_where_texts_differ_in_length(make_dit, make_text):
    dit = make_dit()
    dit.attention = spy = Spy()
    dit(torch.randn(2, 4, 1, 4, 6), torch.tensor([10.0, 900.0]), make_text(1, 3, columns=50))
    assert len(spy.calls) == 4
    for tokens, mask_BL in spy.calls:
        assert tokens == 6 + 3
        assert mask_BL.tolist() == [[True] * 7 + [False] * 2, [True] * 9]


def test_what_padding_holds_changes_nothing(make_dit, make_text):
    dit, text = make_dit(), make_text(2, 4, 0, columns=7)
    latent_BCTHW, timestep_B = torch.randn(3, 4, 2, 4, 6), torch.tensor([10.0, 500.0, 900.0])
    tokens_BSD = torch.where(text.mask_BS[..., None], text.tokens_BSD, float("nan"))
    filled = dataclasses.replace(text, tokens_BSD=tokens_BSD)
    assert torch.equal(dit(latent_BCTHW, timestep_B, text), dit(latent_BCTHW, timestep_B, filled))


def test_a_sample_does_not_depend_on_its_batch(make_dit, make_text):
    dit, text = make_dit(guidance_embed=True), make_text(2, 5)
    latent_BCTHW = torch.randn(2, 4, 3, 4, 6)
    timestep_B, guidance_B = torch.tensor([10.0, 900.0]), torch.tensor([1000.0, 6000.0])
    together = dit(latent_BCTHW, timestep_B, text, guidance_B)
    for i in range(2):
        one = slice(i, i + 1)
        text_one = TextTokens(text.tokens_BSD[one], text.mask_BS[one], text.pooled_BD[one])
        alone = dit(latent_BCTHW[one], timestep_B[one], text_one, guidance_B[one])
        torch.testing.assert_close(together[one], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lengths", [(0, 3), (0, 0)])
@pytest.mark.parametrize("autocast", [False, True])
def test_an_empty_text_trains(make_dit, make_text, lengths, autocast):
    dit = make_dit()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        velocity_BCTHW = dit(torch.randn(2, 4, 1, 4, 4), torch.tensor([10.0, 900.0]), make_text(*lengths, columns=4))
    velocity_BCTHW.square().mean().backward()
    assert velocity_BCTHW.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in dit.parameters())


def test_a_new_model_predicts_zero_and_learns(sizes, make_text):
    dit = DiT(DiTConfig(**sizes))
    optimizer = torch.optim.Adam(dit.parameters(), lr=1e-3)
    inputs = torch.randn(2, 4, 2, 4, 4), torch.tensor([10.0, 900.0]), make_text(2, 3)
    target_BCTHW = torch.randn(2, 5, 2, 4, 4)
    losses = []
    for _ in range(30):
        velocity_BCTHW = dit(*inputs)
        losses.append((velocity_BCTHW - target_BCTHW).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    torch.testing.assert_close(losses[0], target_BCTHW.square().mean())
    assert losses[-1] < 0.7 * losses[0]


def test_fresh_weights_are_drawn_as_released(sizes):
    dit = DiT(DiTConfig(**(sizes | {"width": 256, "rope_axes": (32, 48, 48), "guidance_embed": True})))
    state = dit.state_dict()
    zero = {"img_mod", "txt_mod", "modulation", "adaLN_modulation", "final_layer"}
    for name, value in state.items():
        parts = name.split(".")
        if zero & set(parts) or parts[-1] == "bias":
            assert not value.any(), name
        elif value.ndim == 1:
            assert torch.equal(value, torch.ones_like(value)), name
        elif {"time_in", "guidance_in", "t_embedder"} & set(parts):
            torch.testing.assert_close(value.std(), torch.tensor(0.02), rtol=0.05, atol=0)
        else:
            bound = (6 / sum(value.flatten(1).shape)) ** 0.5
            assert 0.95 * bound < value.abs().max() <= bound, name


def test_every_parameter_and_every_text_input_gets_a_gradient(make_dit, make_text):
    dit, text = make_dit(guidance_embed=True), make_text(2, 4)
    text.tokens_BSD.requires_grad_()
    text.pooled_BD.requires_grad_()
    guidance_B = torch.tensor([6000.0, 1000.0])
    dit(torch.randn(2, 4, 2, 4, 4), torch.tensor([10.0, 900.0]), text, guidance_B).square().sum().backward()
    assert [name for name, parameter in dit.named_parameters() if parameter.grad is None] == []
    assert [name for name, parameter in dit.named_parameters() if not parameter.grad.any()] == []
    assert text.pooled_BD.grad.any()
    assert torch.equal(text.tokens_BSD.grad.abs().sum(-1) > 0, text.mask_BS)


def test_the_number_of_blocks_may_be_zero(make_dit, make_text):
    inputs = torch.randn(1, 4, 1, 4, 4), torch.tensor([10.0]), make_text(2)
    for stack in ("double_blocks", "single_blocks"):
        assert make_dit(**{stack: 0})(*inputs).isfinite().all()


def test_patches_may_span_frames(make_dit, make_text):
    dit = make_dit(patch=(2, 2, 1))
    velocity_BCTHW = dit(torch.randn(1, 4, 4, 6, 3), torch.tensor([10.0]), make_text(2))
    assert velocity_BCTHW.shape == (1, 5, 4, 6, 3)


def test_bfloat16_is_near_float32_and_answers_in_the_latents_dtype(released):
    given = released("noguidance", "video")
    velocity_BCTHW = given.dit.bfloat16()(*given.inputs)
    assert velocity_BCTHW.dtype == torch.float32
    error = (velocity_BCTHW - given.velocity_BCTHW).square().mean() / given.velocity_BCTHW.square().mean()
    assert error < 0.03**2


def test_autocast_is_near_float32(released):
    given = released("guidance", "video")
    with torch.autocast("cpu", torch.bfloat16):
        velocity_BCTHW = given.dit(*given.inputs)
    assert velocity_BCTHW.dtype == torch.float32
    error = (velocity_BCTHW - given.velocity_BCTHW).square().mean() / given.velocity_BCTHW.square().mean()
    assert error < 0.03**2


def test_sampling_in_inference_mode_does_not_spoil_training(make_dit, make_text):
    dit, text = make_dit(), make_text(2)
    inputs = torch.randn(1, 4, 3, 10, 14), torch.tensor([10.0]), text
    with torch.inference_mode():
        dit(*inputs)
    dit(*inputs).sum().backward()


def test_a_copy_of_the_model_is_another_model(make_dit, make_text):
    dit = make_dit()
    average = copy.deepcopy(dit)
    inputs = torch.randn(1, 4, 1, 4, 4), torch.tensor([10.0]), make_text(2)
    assert torch.equal(average(*inputs), dit(*inputs))


def test_the_host_spec_tells_a_condition_where_it_is(make_dit):
    assert make_dit().host_spec == HostSpec(
        latent_channels=4, width=32, heads=2, patch=(1, 2, 2), double_blocks=2, single_blocks=2, text_width=12
    )
