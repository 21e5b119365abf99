"""Values: what they hold, how they move, and that a contribution is held against its plan.

Shapes: B batch, C channels, T H W frames/height/width, L video tokens, M extra tokens, S text tokens, D width.
"""

import dataclasses

import pytest
from hy_plugins.types import ConditionPlan, Contribution, ExtraTokens, HostSpec, TextTokens, TokenTime

torch = pytest.importorskip("torch")

HOST = HostSpec(latent_channels=4, width=6, heads=2, patch=(1, 2, 2), double_blocks=1, single_blocks=1, text_width=5)
LATENT_BCTHW = torch.zeros(2, 4, 3, 4, 8)  # 3 * 2 * 4 = 24 video tokens


def test_text_tokens_move_and_cast_all_but_the_mask():
    text = TextTokens(torch.ones(2, 3, 4), torch.tensor([[True, True, False], [True, False, False]]), torch.ones(2, 5))
    moved = text.to("meta", torch.bfloat16)
    assert [value.device.type for value in (moved.tokens_BSD, moved.mask_BS, moved.pooled_BD)] == ["meta"] * 3
    assert (moved.tokens_BSD.dtype, moved.pooled_BD.dtype, moved.mask_BS.dtype) == (
        torch.bfloat16,
        torch.bfloat16,
        torch.bool,
    )
    assert text.to().tokens_BSD is text.tokens_BSD
    assert TextTokens(text.tokens_BSD, text.mask_BS).to(dtype=torch.float64).pooled_BD is None


def test_plans_are_values():
    plan = ConditionPlan(latent_channels=1, block_ids=(0, 1))
    assert plan == ConditionPlan(latent_channels=1, block_ids=(0, 1))
    assert len({plan, ConditionPlan(latent_channels=1, block_ids=(0, 1)), ConditionPlan()}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.adds_time = True


def test_a_contribution_lists_its_tensors():
    known = TokenTime(clean_latent_BCTHW=LATENT_BCTHW, known_mask_BL=torch.ones(2, 24, dtype=torch.bool))
    given = Contribution(time_BD=torch.ones(2, 6), extra=ExtraTokens(tokens_BMD=torch.ones(2, 3, 6)), token_time=known)
    assert sorted(given.tensors()) == ["clean_latent_BCTHW", "known_mask_BL", "time_BD", "tokens_BMD"]
    assert Contribution().tensors() == {}


def extra(**changes):
    values = {"tokens_BMD": torch.zeros(2, 3, 6), "positions_BM3": torch.zeros(2, 3, 3, dtype=torch.int64)}
    return Contribution(extra=ExtraTokens(**values | changes))


def known(**changes):
    values = {"clean_latent_BCTHW": LATENT_BCTHW, "known_mask_BL": torch.zeros(2, 24, dtype=torch.bool)}
    return Contribution(token_time=TokenTime(**values | changes))


VIDEO, TEXT = ConditionPlan(extra_tokens="video"), ConditionPlan(extra_tokens="text")
CHANNELS, TIME = ConditionPlan(latent_channels=1), ConditionPlan(adds_time=True)
KNOWN = ConditionPlan(sets_token_time=True)
MASK_BM = torch.ones(2, 3, dtype=torch.bool)

MATCHES = {
    "nothing": (VIDEO, Contribution()),
    "channels": (CHANNELS, Contribution(channels_BCTHW=torch.zeros(2, 1, 3, 4, 8))),
    "latent": (ConditionPlan(adds_latent=True), Contribution(latent_BCTHW=LATENT_BCTHW)),
    "tokens": (ConditionPlan(adds_tokens=True), Contribution(tokens_BLD=torch.zeros(2, 24, 6))),
    "video": (VIDEO, extra(mask_BM=MASK_BM)),
    "text": (TEXT, extra(positions_BM3=None, mask_BM=MASK_BM)),
    "time": (TIME, Contribution(time_BD=torch.zeros(2, 6))),
    "known": (KNOWN, known()),
}


@pytest.mark.parametrize("name", MATCHES)
def test_what_the_plan_promises_is_accepted_and_nothing_else_is(name):
    plan, given = MATCHES[name]
    assert plan.mismatches(given, HOST, LATENT_BCTHW) == []
    wrong = ConditionPlan().mismatches(given, HOST, LATENT_BCTHW)
    assert sorted(wrong) == sorted(f"{site} is given, but the plan does not promise it" for site in given.tensors())


@pytest.mark.parametrize(
    ("plan", "given", "wrong"),
    [
        (
            CHANNELS,
            Contribution(channels_BCTHW=LATENT_BCTHW),
            "channels_BCTHW has shape [2, 4, 3, 4, 8], not [2, 1, 3, 4, 8]",
        ),
        (TIME, Contribution(time_BD=torch.zeros(1, 6)), "time_BD has shape [1, 6], not [2, 6]"),
        (TIME, Contribution(time_BD=torch.zeros(2, 7)), "time_BD has shape [2, 7], not [2, 6]"),
        (TIME, Contribution(time_BD=torch.zeros(2, 6).double()), "time_BD is torch.float64, not torch.float32"),
        (VIDEO, extra(positions_BM3=None), "positions_BM3 is missing"),
        (VIDEO, extra(positions_BM3=torch.zeros(2, 4, 3)), "positions_BM3 has shape [2, 4, 3], not [2, 3, 3]"),
        (TEXT, extra(), "positions_BM3 is given, but the plan does not promise it"),
        (VIDEO, extra(mask_BM=torch.ones(2, 3)), "mask_BM is torch.float32, not torch.bool"),
        (
            KNOWN,
            known(known_mask_BL=torch.zeros(2, 12, dtype=torch.bool)),
            "known_mask_BL has shape [2, 12], not [2, 24]",
        ),
        (KNOWN, known(known_mask_BL=torch.zeros(2, 24)), "known_mask_BL is torch.float32, not torch.bool"),
    ],
)
def test_each_mismatch_is_said(plan, given, wrong):
    assert plan.mismatches(given, HOST, LATENT_BCTHW) == [wrong]


def test_the_dtype_is_the_latents():
    given = Contribution(time_BD=torch.zeros(2, 6, dtype=torch.bfloat16))
    assert TIME.mismatches(given, HOST, LATENT_BCTHW.bfloat16()) == []
