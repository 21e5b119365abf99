import dataclasses
from dataclasses import replace

import pytest
import torch
from hy_dit import LORA_TARGETS, ConditionError, DiT, load_dit, load_lora, save_lora
from hy_dit.testing import CONFIG, assert_learns, assert_noop_at_init, one_thread
from hy_plugins.types import ConditionPlan, Contribution, TokenSlice, TokenTime
from hy_weights import CheckpointError, new_lora, write_model
from torch import nn


@pytest.fixture(autouse=True)
def single_thread():
    with one_thread():
        yield


@pytest.fixture
def batch():
    return {"signal": torch.randn(2, 6, generator=torch.Generator().manual_seed(3)), "unused": torch.zeros(2)}


@pytest.fixture
def inputs(make_text):
    text = make_text(3, 5, width=16, pooled=8)
    return torch.randn(2, 4, 3, 4, 4), torch.tensor([900.0, 100.0]), text


@pytest.fixture
def dit(make_dit):
    """A backbone that fits the conditions, all its weights random."""
    return make_dit(**dataclasses.asdict(CONFIG)).requires_grad_(False)


def opened(dit):
    """Draw the host's gates and projections, which start at zero."""
    with torch.no_grad():
        for name, weight in dit.conditions.named_parameters():
            if ".condition." not in name:
                weight.normal_(std=0.5)
    return dit


EACH = ["channels", "latent", "tokens", "extra_video", "extra_text", "blocks", "time"]


@pytest.mark.parametrize("site", [*EACH, "first_frame"])
def test_untrained_it_changes_no_bit(site, make_condition, batch):
    assert_noop_at_init(make_condition(site), batch)


@pytest.mark.parametrize("site", EACH)
def test_it_learns(site, make_condition, batch):
    assert_learns(make_condition(site), batch)


def test_all_sites_together_change_no_bit_and_then_each_counts(dit, inputs, make_condition, batch):
    without = dit(*inputs)
    for site in EACH:
        dit.conditions.install(site, make_condition(site))
    prepared = dit.conditions.prepare(batch)
    assert torch.equal(dit(*inputs, conditions=prepared), without)
    opened(dit)
    assert torch.equal(dit(*inputs), without), "conditions that are not given do nothing"
    whole = dit(*inputs, conditions=prepared)
    for site in EACH:
        fewer = {name: value for name, value in prepared.items() if name != site}
        assert (dit(*inputs, conditions=fewer) - whole).abs().max() > 1e-4, site


def test_extra_channels_are_a_widened_convolution(dit, inputs, make_condition, batch):
    dit.conditions.install("channels", make_condition("channels"))
    opened(dit)
    prepared = dit.conditions.prepare(batch)
    given = dit.conditions["channels"].condition.contribute(prepared["channels"], inputs[1])
    wide = DiT(replace(CONFIG, in_channels=6)).eval()
    state = {key: value for key, value in dit.state_dict().items() if not key.startswith("conditions.")}
    state["img_in.proj.weight"] = torch.cat(
        [state["img_in.proj.weight"], dit.conditions["channels"].channels.proj.weight], dim=1
    )
    wide.load_state_dict(state)
    expected_BCTHW = wide(torch.cat([inputs[0], given.channels_BCTHW], dim=1), *inputs[1:])
    torch.testing.assert_close(dit(*inputs, conditions=prepared), expected_BCTHW, atol=1e-4, rtol=1e-4)


def test_what_is_added_to_the_latent_is_gated_by_channel(dit, inputs, make_condition, batch):
    dit.conditions.install("latent", make_condition("latent"))
    opened(dit)
    prepared = dit.conditions.prepare(batch)
    given = dit.conditions["latent"].condition.contribute(prepared["latent"], inputs[1]).latent_BCTHW
    gate = dit.conditions["latent"].latent_gate
    expected_BCTHW = dit(inputs[0] + gate[:, None, None, None] * given, *inputs[1:])
    torch.testing.assert_close(dit(*inputs, conditions=prepared), expected_BCTHW)


def test_residuals_come_after_the_named_blocks_on_video_tokens_alone(dit, inputs, make_condition, batch):
    condition = make_condition("blocks")
    dit.conditions.install("blocks", condition)
    dit(*inputs, conditions=dit.conditions.prepare(batch))
    assert condition.seen == [(1, (2, 12, 32), 0, 12, 12), (2, (2, 12, 32), 0, 12, 12)]


def test_masked_tokens_receive_exactly_nothing(dit, make_condition, batch):
    dit.conditions.install("blocks", make_condition("blocks"))
    opened(dit)
    site, video_BLD = dit.conditions["blocks"], torch.randn(2, 12, 32)
    site.condition.layer.bias.data.fill_(torch.inf)
    after_BLD = site.after_block(1, video_BLD, site.condition.prepare(batch))
    assert torch.equal(after_BLD[:, 8:], video_BLD[:, 8:])
    assert not after_BLD[:, :8].isfinite().any()
    assert site.after_block(0, video_BLD, {}) is video_BLD


def test_known_tokens_hold_the_clean_latent_and_follow_time_zero_without_guidance(
    make_dit, inputs, make_condition, batch
):
    """If all tokens are known, the velocity is that of the clean latent, but for text and the last layer."""
    dit = make_dit(**dataclasses.asdict(replace(CONFIG, guidance_embed=True)))
    dit.conditions.install("frame", make_condition("first_frame"))
    prepared = dit.conditions.prepare(batch)
    guidance_B = torch.tensor([6000.0, 1000.0])
    velocity_BCTHW = dit(*inputs, guidance_B, conditions=prepared)
    noisy = inputs[0].clone()
    noisy[:, :, 0] += 7  # what the known frame held is replaced
    assert torch.equal(dit(noisy, *inputs[1:], guidance_B, conditions=prepared), velocity_BCTHW)
    assert not torch.equal(dit(*inputs, guidance_B), velocity_BCTHW)


def test_conditions_with_open_extra_tokens_attend_once(dit, inputs, make_condition, batch):
    dit.conditions.install("extra", make_condition("extra_video"))
    calls = []
    function = dit.attention
    dit.attention = lambda *args: calls.append(args[0].shape[2]) or function(*args)
    prepared = dit.conditions.prepare(batch)
    dit(*inputs, conditions=prepared)
    assert calls == [17, 19] * 4
    calls.clear()
    dit.conditions["extra"].extra_gate = None
    dit(*inputs, conditions=prepared)
    assert calls == [19] * 4


@pytest.mark.parametrize(("site", "calls"), [("extra_video", [2, 1]), ("extra_text", [1, 2])])
def test_extra_tokens_pass_through_the_weights_of_their_kind(dit, inputs, make_condition, batch, site, calls):
    dit.conditions.install("extra", make_condition(site))
    counts = [0, 0]
    for index, mlp in enumerate((dit.double_blocks[0].img_mlp, dit.double_blocks[0].txt_mlp)):
        mlp.register_forward_hook(lambda *_, index=index: counts.__setitem__(index, counts[index] + 1))
    dit(*inputs, conditions=dit.conditions.prepare(batch))
    assert counts == calls


def test_masked_extra_tokens_count_for_nothing(dit, inputs, make_condition, batch):
    condition = make_condition("extra_video")
    dit.conditions.install("extra", condition)
    opened(dit)
    prepared = dit.conditions.prepare(batch)
    before = dit(*inputs, conditions=prepared)
    with torch.no_grad():
        condition.layer.weight[32:].normal_()  # the second token, which the first clip masks
    after = dit(*inputs, conditions=prepared)
    assert torch.equal(after[0], before[0])
    assert (after[1] - before[1]).abs().max() > 1e-4


def test_each_block_has_its_gate(dit, make_condition, batch):
    dit.conditions.install("blocks", make_condition("blocks"))
    site, video_BLD = opened(dit).conditions["blocks"], torch.randn(2, 12, 32)
    prepared = site.condition.prepare(batch)
    delta_BLD, _ = site.condition.block_delta(1, video_BLD, TokenSlice(0, 12, 12), prepared)
    for row, block in enumerate(site.plan.block_ids):
        expected_BLD = video_BLD + site.block_gate[row] * delta_BLD
        torch.testing.assert_close(site.after_block(block, video_BLD, prepared)[:, :8], expected_BLD[:, :8])


def test_extra_tokens_have_a_gate_for_each_block(dit, inputs, make_condition, batch):
    dit.conditions.install("extra", make_condition("extra_video"))
    step = opened(dit).conditions.step(dit.conditions.prepare(batch), inputs[0], inputs[1])
    for block, gate_N in enumerate(dit.conditions["extra"].extra_gate):
        (member,) = step.members(block)
        assert torch.equal(member.gate_N, gate_N)


def test_where_extra_tokens_stand_counts(dit, inputs, make_condition, batch):
    condition = make_condition("extra_video")
    dit.conditions.install("extra", condition)
    opened(dit)
    prepared = dit.conditions.prepare(batch)
    before = dit(*inputs, conditions=prepared)
    condition.row = 3.0
    assert (dit(*inputs, conditions=prepared) - before).abs().max() > 1e-4


def test_dropping_is_by_sample(dit, inputs, make_condition, batch):
    for site in ("tokens", "time"):
        dit.conditions.install(site, make_condition(site))
    opened(dit)
    kept = dit.conditions.prepare(batch)
    null = dit.conditions.null(kept)
    mixed = dit.conditions.drop(kept, {"tokens": torch.tensor([True, False])})
    assert torch.equal(mixed["tokens"]["signal"][0], null["tokens"]["signal"][0])
    assert torch.equal(mixed["tokens"]["signal"][1], kept["tokens"]["signal"][1])
    assert mixed["time"] is kept["time"]


def test_weights_live_under_the_conditions_name_and_the_base_keeps_its_own(dit, make_condition):
    base = set(dit.state_dict())
    for site in [*EACH, "first_frame"]:
        dit.conditions.install(site, make_condition(site))
    added = set(dit.state_dict()) - base
    assert base < set(dit.state_dict())
    assert all(key.startswith("conditions.") for key in added)
    assert "conditions.blocks.block_gate" in added
    assert "conditions.channels.channels.proj.weight" in added
    assert "conditions.time.condition.layer.weight" in added


@pytest.mark.parametrize("compiled", [False, True])
def test_every_site_compiles_into_one_graph(dit, inputs, make_condition, batch, compiled):
    if not compiled:
        torch._dynamo.reset()
    for site in [*EACH, "first_frame"] if compiled else []:
        dit.conditions.install(site, make_condition(site))
    opened(dit)
    prepared = dit.conditions.prepare(batch)
    expected_BCTHW = dit(*inputs, conditions=prepared)
    run = torch.compile(dit, fullgraph=True, backend="eager")
    torch.testing.assert_close(run(*inputs, conditions=prepared), expected_BCTHW, atol=1e-4, rtol=1e-4)


def test_recomputed_blocks_give_the_same_gradients(dit, inputs, make_condition, batch):
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

    for site in [*EACH, "first_frame"]:
        dit.conditions.install(site, make_condition(site))
    opened(dit)
    gradients = []
    for recompute in (False, True):
        if recompute:
            apply_activation_checkpointing(dit, check_fn=lambda m: m in {*dit.double_blocks, *dit.single_blocks})
        dit.zero_grad()
        dit(*inputs, conditions=dit.conditions.prepare(batch)).square().mean().backward()
        gradients.append([weight.grad.clone() for weight in dit.conditions.parameters() if weight.grad is not None])
    assert len(gradients[0]) > 10
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_in_bfloat16_all_is_finite_and_bfloat16(dit, inputs, make_condition, batch):
    for site in [*EACH, "first_frame"]:
        dit.conditions.install(site, make_condition(site))
    opened(dit)
    precise = dit(*inputs, conditions=dit.conditions.prepare(batch))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = dit(*inputs, conditions=dit.conditions.prepare(batch))
    assert ((mixed - precise).std() / precise.std()) < 0.1
    dit.bfloat16()
    prepared = dit.conditions.prepare({key: value.bfloat16() for key, value in batch.items()})
    velocity = dit(inputs[0].bfloat16(), *inputs[1:], conditions=prepared)
    assert velocity.dtype == torch.bfloat16
    assert velocity.isfinite().all()


def test_loras_and_conditions_do_not_know_each_other(dit, make_condition, tmp_path):
    lora = new_lora(dit, LORA_TARGETS, rank=2)
    for site in EACH:
        dit.conditions.install(site, make_condition(site))
    for style in ("comfy", "diffusers", "kohya"):
        save_lora(tmp_path / f"{style}.safetensors", lora, dit, style=style)
        assert load_lora(tmp_path / f"{style}.safetensors", dit).layers.keys() == lora.layers.keys()


def test_a_folder_of_backbone_and_conditions_loads_whole(make_condition, tmp_path):
    dit = DiT(CONFIG, {"blocks": make_condition("blocks"), "first-channels": make_condition("channels")})
    write_model(tmp_path / "all", opened(dit).state_dict(), dataclasses.asdict(CONFIG))
    conditions = {"blocks": make_condition("blocks"), "first-channels": make_condition("channels")}
    loaded = load_dit(tmp_path / "all", conditions=conditions)
    for key, value in dit.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    with pytest.raises(CheckpointError, match="unexpected: conditions"):
        load_dit(tmp_path / "all")


def test_a_condition_goes_where_its_backbone_is(dit, make_condition):
    dit.bfloat16().to("meta").conditions.install("time", make_condition("time"))
    assert {(weight.dtype, weight.device.type) for weight in dit.conditions.parameters()} == {(torch.bfloat16, "meta")}


def test_nan_at_masked_tokens_reaches_neither_the_velocity_nor_a_gradient(dit, inputs, make_condition, batch):
    dit.conditions.install("blocks", make_condition("blocks"))
    dit.conditions.install("extra", make_condition("extra_video"))
    opened(dit)
    blocks, extra = dit.conditions["blocks"], dit.conditions["extra"]
    delta, contribute = blocks.condition.block_delta, extra.condition.contribute

    def poisoned_delta(*args):
        delta_BLD, mask_BL = delta(*args)
        return delta_BLD.masked_fill(~mask_BL[..., None], torch.nan), mask_BL

    def poisoned(*args):
        given = contribute(*args)
        tokens_BMD = given.extra.tokens_BMD.masked_fill(~given.extra.mask_BM[..., None], torch.nan)
        return dataclasses.replace(given, extra=dataclasses.replace(given.extra, tokens_BMD=tokens_BMD))

    blocks.condition.block_delta, extra.condition.contribute = poisoned_delta, poisoned
    velocity_BCTHW = dit(*inputs, conditions=dit.conditions.prepare(batch))
    velocity_BCTHW.square().mean().backward()
    assert velocity_BCTHW.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in dit.conditions.parameters() if weight.grad is not None)


def test_dropping_needs_known_names_and_like_nulls(dit, make_condition, batch):
    dit.conditions.install("time", make_condition("time"))
    kept = dit.conditions.prepare(batch)
    with pytest.raises(ConditionError, match=r"no condition 'tyme' was prepared; there are \['time'\]"):
        dit.conditions.drop(kept, {"tyme": torch.tensor([True, False])})
    dit.conditions["time"].condition.null = lambda prepared: {}
    with pytest.raises(ConditionError, match="'time': prepare and null do not both give 'signal'"):
        dit.conditions.drop(kept, {"time": torch.tensor([True, False])})
    dit.conditions["time"].condition.null = lambda prepared: {"signal": torch.zeros(2, 5)}
    with pytest.raises(ConditionError, match="null gives 'signal' in another shape or dtype"):
        dit.conditions.drop(kept, {"time": torch.tensor([True, False])})


class Replacement(nn.Module):
    """The released image-to-video model's way: the first frame is known."""

    batch_keys = ("image",)

    def plan(self, host):
        return ConditionPlan(sets_token_time=True)

    def prepare(self, batch):
        return dict(batch)

    def null(self, prepared):
        return prepared

    def contribute(self, prepared, t_B):
        clean_BCTHW = prepared["image"]
        frames, height, width = clean_BCTHW.shape[2:]
        known_L = torch.arange(frames * height * width // 4) < height * width // 4
        return Contribution(
            token_time=TokenTime(clean_latent_BCTHW=clean_BCTHW, known_mask_BL=known_L.expand(len(clean_BCTHW), -1))
        )

    def block_delta(self, block_id, video_BLD, where, prepared):
        raise AssertionError("the plan names no block")


# At a guidance of 6,000 the last bit of one float32 frequency, on which processors disagree, is worth 5e-5 here.
@pytest.mark.parametrize(("kind", "tolerance"), [("guidance", 1e-4), ("noguidance", 2e-5)])
def test_a_known_first_frame_gives_the_released_numbers(released, kind, tolerance):
    given = released(kind, "case", prefix="token_replace_")
    given.dit.conditions.install("image", Replacement())
    noisy_BCTHW, *others = given.inputs
    noisy_BCTHW, image_BCTHW = noisy_BCTHW.clone(), noisy_BCTHW.clone()
    noisy_BCTHW[:, :, 0] = torch.nan  # what the known frame held counts for nothing
    image_BCTHW[:, :, 1:] = torch.nan
    velocity_BCTHW = given.dit(noisy_BCTHW, *others, conditions={"image": {"image": image_BCTHW}})
    torch.testing.assert_close(velocity_BCTHW, given.velocity_BCTHW, atol=tolerance, rtol=0)


class Concatenation(nn.Module):
    """The released image-to-video model's other way: the image and a mask as further channels."""

    batch_keys = ("image",)

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def plan(self, host):
        assert host.latent_channels == 4
        return ConditionPlan(latent_channels=self.channels)

    def prepare(self, batch):
        return dict(batch)

    def null(self, prepared):
        return prepared

    def contribute(self, prepared, t_B):
        return Contribution(channels_BCTHW=prepared["image"])

    def block_delta(self, block_id, video_BLD, where, prepared):
        raise AssertionError("the plan names no block")


def test_a_widened_checkpoint_is_the_base_and_a_condition(released, tmp_path):
    given = released("concat", "case", prefix="latent_")
    write_model(tmp_path / "wide", given.weights, dataclasses.asdict(given.dit.config))
    wide = load_dit(tmp_path / "wide", dtype=torch.float32)
    assert wide.config.in_channels == 9
    torch.testing.assert_close(wide(*given.inputs), given.velocity_BCTHW, atol=2e-5, rtol=0)

    dit = load_dit(tmp_path / "wide", torch.float32, conditions={"mask": Concatenation(4), "image": Concatenation(1)})
    assert dit.config.in_channels == 4
    x_BCTHW, *others = given.inputs
    noisy_BCTHW, *channels = x_BCTHW.split([4, 4, 1], dim=1)
    conditions = {name: {"image": part} for name, part in zip(("mask", "image"), channels, strict=True)}
    velocity_BCTHW = dit(noisy_BCTHW, *others, conditions=conditions)
    torch.testing.assert_close(velocity_BCTHW, given.velocity_BCTHW, atol=2e-5, rtol=0)

    with pytest.raises(ConditionError, match=r"widened by 5 input channels; the conditions take 4: {'image': 4}"):
        load_dit(tmp_path / "wide", conditions={"image": Concatenation(4)})


class Wrong(nn.Module):
    """Does what a test tells it."""

    batch_keys = ("signal",)

    def __init__(self, plan, given=None, delta=None):
        super().__init__()
        self.told, self.given, self.delta = plan, given, delta

    def plan(self, host):
        return self.told

    def prepare(self, batch):
        return dict(batch)

    def null(self, prepared):
        return prepared

    def contribute(self, prepared, t_B):
        return self.given

    def block_delta(self, block_id, video_BLD, where, prepared):
        return self.delta


@pytest.mark.parametrize(
    ("plan", "given", "delta", "message"),
    [
        ("no", None, None, "'odd': plan gives str, not ConditionPlan"),
        (ConditionPlan(extra_tokens="vidoe"), None, None, "'odd': extra_tokens is 'vidoe', not none, video or text"),
        (ConditionPlan(block_ids=(0,)), Contribution(), torch.ones(2, 12, 32), "block_delta gives Tensor, not"),
        (ConditionPlan(block_ids=(4,)), None, None, "'odd' wants block 4; this backbone has blocks 0 to 3"),
        (ConditionPlan(block_ids=(1, 1)), None, None, "'odd' names a block twice"),
        (ConditionPlan(latent_channels=-1), None, None, "'odd' wants -1 input channels"),
        (ConditionPlan(), None, None, "'odd': contribute gives NoneType, not Contribution"),
        (
            ConditionPlan(),
            Contribution(time_BD=torch.ones(2, 32)),
            None,
            "'odd' does not give what it planned: time_BD is given",
        ),
        (
            ConditionPlan(adds_time=True),
            Contribution(time_BD=torch.ones(2, 31)),
            None,
            r"time_BD has shape \[2, 31\], not \[2, 32\]",
        ),
        (ConditionPlan(adds_tokens=True), Contribution(tokens_BLD=torch.ones(2, 11, 32)), None, "tokens_BLD has shape"),
        (
            ConditionPlan(block_ids=(0,)),
            Contribution(),
            (torch.ones(2, 5, 32), None),
            r"after block 0 has shape \[2, 5, 32\]",
        ),
        (
            ConditionPlan(block_ids=(3,)),
            Contribution(),
            (torch.ones(2, 12, 32), torch.ones(2, 12)),
            "mask after block 3 is torch.float32",
        ),
        (
            ConditionPlan(block_ids=(3,)),
            Contribution(),
            (torch.ones(2, 12, 32), torch.ones(2, 5).bool()),
            r"of shape \[2, 5\]",
        ),
    ],
)
def test_wrong_conditions_are_named(dit, inputs, batch, plan, given, delta, message):
    def install_and_call():
        dit.conditions.install("odd", Wrong(plan, given, delta))
        dit(*inputs, conditions=dit.conditions.prepare(batch))

    with pytest.raises(ConditionError, match=message):
        install_and_call()


def test_names_and_keys_are_checked(dit, inputs, make_condition, batch):
    dit.conditions.install("frame", make_condition("first_frame"))
    for name, message in (
        ("frame", "'frame': the name is taken"),
        ("a.b", "'a.b': a name is of letters, digits, '-' and '_'"),
        ("prepare", "'prepare': the name is taken"),
        ("other", "'other' sets tokens' times, and so does 'frame'; only one may"),
    ):
        with pytest.raises(ConditionError, match=message):
            dit.conditions.install(name, make_condition("first_frame"))
    with pytest.raises(ConditionError, match="'frame' reads 'signal'; the batch has"):
        dit.conditions.prepare({"unused": torch.zeros(2)})
    with pytest.raises(ConditionError, match=r"no condition 'pose' is installed; there are \['frame'\]"):
        dit(*inputs, conditions={"pose": {}})
    with pytest.raises(ConditionError, match=r"'layer': Linear must be an nn.Module with batch_keys"):
        dit.conditions.install("layer", nn.Linear(2, 2))


def test_a_constructor_takes_conditions_in_order(make_condition):
    dit = DiT(CONFIG, {"b": make_condition("time"), "a": make_condition("tokens")})
    assert list(dit.conditions) == ["b", "a"]


def test_the_assertions_fail_where_they_should(make_condition, batch):
    class Dead(type(make_condition("time"))):
        """A zero behind the host's zero gate."""

        def __init__(self):
            super().__init__()
            nn.init.zeros_(self.layer.weight)
            nn.init.zeros_(self.layer.bias)

    with pytest.raises(AssertionError, match=r"steps leave these weights as they were: .*time_gate"):
        assert_learns(Dead(), batch)

    class Deaf(type(make_condition("time"))):
        """Says the same whatever it is given."""

        def contribute(self, prepared, t_B):
            return Contribution(time_BD=self.layer(torch.ones(2, 6)))

    with pytest.raises(AssertionError, match="no difference whether it is dropped"):
        assert_learns(Deaf(), batch)

    class Loud(type(make_condition("blocks"))):
        """Writes into the tokens that it is shown."""

        def block_delta(self, block_id, video_BLD, where, prepared):
            video_BLD += 1
            return super().block_delta(block_id, video_BLD, where, prepared)

    with pytest.raises(AssertionError, match="untrained and kept, it changes the velocity by"):
        assert_noop_at_init(Loud(), batch)
