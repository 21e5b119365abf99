import pytest
import torch
from hy_flow import FlowError, embedded_guidance, guided, sigmas
from hy_plugins import TextTokens


class Recorder:
    """A backbone whose velocity is the sum of each prompt's real tokens; remembers how it was called."""

    def __init__(self):
        self.calls = []

    def __call__(self, latent_BCTHW, timestep_B, text, guidance_B=None):
        self.calls.append((latent_BCTHW, timestep_B, text, guidance_B))
        total_B = (text.tokens_BSD * text.mask_BS[..., None]).sum((1, 2)) + text.pooled_BD.sum(1)
        return total_B.view(-1, 1, 1, 1, 1).expand_as(latent_BCTHW)


def prompts(*lengths, fill=1.0, width=2, pooled=True):
    mask_BS = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    tokens_BSD = torch.full((*mask_BS.shape, width), fill)
    return TextTokens(tokens_BSD, mask_BS, torch.zeros(len(lengths), 3) if pooled else None)


X = torch.randn(2, 4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
SIGMA = sigmas(4, 1.0)[1]


@pytest.mark.parametrize("null", [prompts(1, fill=5.0), prompts(1, 1, fill=5.0), prompts(7, fill=10 / 14)])
def test_the_prompt_is_pushed_away_from_the_null_in_one_batch(null):
    backbone = Recorder()
    velocity = guided(backbone, prompts(1, 3), null, 3.0)(X, SIGMA)
    # Sums are 2 and 6 for the prompts, 10 for the null one: 10 + 3 * (2 - 10), 10 + 3 * (6 - 10).
    torch.testing.assert_close(velocity[:, 0, 0, 0, 0], torch.tensor([-14.0, -2.0]))
    ((latent, timestep, text, guidance),) = backbone.calls
    assert torch.equal(latent, torch.cat((X, X)))
    assert torch.equal(timestep, torch.full((4,), 750.0))
    assert text.mask_BS.sum(1).tolist() == [null.mask_BS[0].sum(), null.mask_BS[-1].sum(), 1, 3]
    assert text.mask_BS.dtype == torch.bool
    assert guidance is None


def test_scale_1_calls_one_branch():
    backbone = Recorder()
    velocity = guided(backbone, prompts(1, 3), prompts(1, fill=5.0), 1.0)(X, SIGMA)
    assert velocity[:, 0, 0, 0, 0].tolist() == [2, 6]
    ((latent, timestep, _, _),) = backbone.calls
    assert latent is X
    assert timestep.tolist() == [750, 750]


def test_scale_0_is_the_null_prompt():
    assert (guided(Recorder(), prompts(1, 3), prompts(1, fill=5.0), 0.0)(X, SIGMA) == 10).all()


@pytest.mark.parametrize(
    ("interval", "branches"),
    [((0.0, 1.0), [4, 4, 4, 4]), ((0.3, 0.8), [2, 4, 4, 2]), ((0.5, 0.75), [2, 4, 4, 2]), ((0.76, 1.0), [4, 2, 2, 2])],
)
def test_outside_its_interval_guidance_is_off_and_half_the_work(interval, branches):
    backbone = Recorder()
    velocity = guided(backbone, prompts(1, 3), prompts(1, fill=5.0), 3.0, interval=interval)
    found = [velocity(X, sigma)[:, 0, 0, 0, 0].tolist() for sigma in sigmas(4, 1.0)[:-1]]
    assert [len(latent) for latent, *_ in backbone.calls] == branches
    assert found == [[-14, -2] if branch == 4 else [2, 6] for branch in branches]


def test_a_distilled_backbone_is_told_its_scale_outside_the_interval_too():
    backbone = Recorder()
    told = embedded_guidance(backbone, 6.0)
    guided(told, prompts(1), prompts(1, fill=5.0), 3.0, interval=(0.0, 0.5))(X[:1], SIGMA)
    assert [guidance.tolist() for *_, guidance in backbone.calls] == [[6000]]


class Spread:
    """A backbone whose velocity is its latent, as often as the prompt's first token says."""

    def __call__(self, latent_BCTHW, timestep_B, text, guidance_B=None):
        return latent_BCTHW * text.tokens_BSD[:, 0, 0].view(-1, 1, 1, 1, 1)


def one_token(*values):
    tokens_BSD = torch.tensor(values).view(-1, 1, 1)
    return TextTokens(tokens_BSD, torch.ones(len(values), 1, dtype=torch.bool))


@pytest.mark.parametrize(("rescale", "factors"), [(0.0, [5, 8]), (1.0, [1, 2]), (0.25, [4, 6.5])])
def test_rescaling_brings_each_sample_back_to_its_prompts_spread(rescale, factors):
    # The prompts' velocities are X and 2 X, the null one's -X: guided by 3 they are 5 X and 8 X.
    velocity = guided(Spread(), one_token(1.0, 2.0), one_token(-1.0), 3.0, rescale=rescale)(X, SIGMA)
    torch.testing.assert_close(velocity, X * torch.tensor(factors).view(-1, 1, 1, 1, 1))


def test_a_velocity_of_zeros_stays_that():
    velocity = guided(Spread(), one_token(0.0, 2.0), one_token(0.0), 3.0, rescale=0.7)(X, SIGMA)
    assert (velocity[0] == 0).all()
    assert velocity.isfinite().all()


def test_pooled_vectors_follow_their_prompts():
    text = TextTokens(torch.zeros(2, 1, 1), torch.ones(2, 1, dtype=torch.bool), torch.tensor([[1.0], [2.0]]))
    null = TextTokens(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool), torch.tensor([[5.0]]))
    assert guided(Recorder(), text, null, 2.0)(X, SIGMA)[:, 0, 0, 0, 0].tolist() == [-3, -1]


def test_a_distilled_backbone_is_told_the_scale():
    backbone = Recorder()
    velocity = guided(embedded_guidance(backbone, 6.0), prompts(1, 3))(X, SIGMA)
    assert velocity[:, 0, 0, 0, 0].tolist() == [2, 6]
    ((latent, timestep, _, guidance),) = backbone.calls
    assert latent is X
    assert timestep.tolist() == [750, 750]
    assert guidance.tolist() == [6000, 6000]


def test_a_distilled_backbone_takes_a_negative_prompt_too():
    backbone = Recorder()
    velocity = guided(embedded_guidance(backbone, 6.0), prompts(1, 3), prompts(1, fill=5.0), 3.0)(X, SIGMA)
    assert velocity[:, 0, 0, 0, 0].tolist() == [-14, -2]
    ((_, timestep, _, guidance),) = backbone.calls
    assert (timestep.tolist(), guidance.tolist()) == ([750] * 4, [6000] * 4)


@pytest.mark.parametrize(("dtype", "expected"), [(torch.float32, 6000.0), (torch.bfloat16, 6016.0)])
def test_the_scale_is_multiplied_in_the_dtype_asked_for(dtype, expected):
    backbone = Recorder()
    guided(embedded_guidance(backbone, 6.0, dtype=dtype), prompts(1, 3))(X, SIGMA)
    assert backbone.calls[0][3].tolist() == [expected, expected]


def test_what_does_not_fit_is_said():
    with pytest.raises(FlowError, match="3 null prompts for 2 prompts"):
        guided(Recorder(), prompts(1, 3), prompts(1, 1, 1), 2.0)
    with pytest.raises(FlowError, match="only one of them has a pooled vector"):
        guided(Recorder(), prompts(1, 3), prompts(1, pooled=False), 2.0)
    with pytest.raises(FlowError, match=r"guidance scale is -1"):
        guided(Recorder(), prompts(1, 3), prompts(1), -1.0)
    with pytest.raises(FlowError, match=r"embedded guidance scale is nan"):
        embedded_guidance(Recorder(), float("nan"))
    with pytest.raises(FlowError, match="needs a null prompt"):
        guided(Recorder(), prompts(1, 3), scale=2.0)
    for interval in ((0.5, 0.4), (-0.1, 1.0), (0.0, 1.1), (float("nan"), 1.0)):
        with pytest.raises(FlowError, match=r"guidance interval is .* it must rise, from at least 0 to at most 1"):
            guided(Recorder(), prompts(1), prompts(1), 2.0, interval=interval)
    for rescale in (-0.1, 1.1, float("nan")):
        with pytest.raises(FlowError, match=r"guidance rescale is .* from 0 to 1"):
            guided(Recorder(), prompts(1), prompts(1), 2.0, rescale=rescale)
