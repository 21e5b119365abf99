"""The condition kit passes a condition that uses every site, and sees each way to break a promise.

Shapes: B batch, C channels, T H W frames/height/width, L video tokens, M extra tokens, S text tokens, D width.
"""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from hy_plugins.testing import ConditionContract  # noqa: E402 - it is of use with torch only
from hy_plugins.types import ConditionPlan, Contribution, ExtraTokens, TokenTime  # noqa: E402


class EverySite(torch.nn.Module):
    """A depth map that enters everywhere, each weight of it a parameter that starts at zero."""

    batch_keys = ("depth_B1THW",)

    def __init__(self):
        super().__init__()
        self.gate = torch.nn.Parameter(torch.zeros(()))
        self.tokens_D = torch.nn.Parameter(torch.zeros(32))

    def plan(self, host):
        return ConditionPlan(
            latent_channels=1,
            adds_latent=True,
            adds_tokens=True,
            extra_tokens="video",
            block_ids=(0, host.double_blocks),
            adds_time=True,
            sets_token_time=True,
        )

    def prepare(self, batch):
        depth_B1THW = batch["depth_B1THW"]
        known_B = torch.ones(len(depth_B1THW), dtype=torch.bool)
        return {"depth": depth_B1THW, "known": known_B}

    def null(self, prepared):
        return {"depth": torch.zeros_like(prepared["depth"]), "known": torch.zeros_like(prepared["known"])}

    def contribute(self, prepared, t_B):
        depth_B1THW = prepared["depth"] * self.gate
        B, L = len(depth_B1THW), 12
        time_BD = self.tokens_D * depth_B1THW.mean((1, 2, 3, 4))[:, None] * (t_B[:, None] / 1000).to(depth_B1THW.dtype)
        tokens_B1D = time_BD[:, None] + self.tokens_D
        positions_B13 = torch.zeros(B, 1, 3, dtype=torch.int64)
        return Contribution(
            channels_BCTHW=depth_B1THW,
            latent_BCTHW=depth_B1THW.repeat(1, 4, 1, 1, 1),
            tokens_BLD=tokens_B1D.repeat(1, L, 1),
            extra=ExtraTokens(tokens_BMD=tokens_B1D, positions_BM3=positions_B13),
            time_BD=time_BD,
            token_time=TokenTime(
                clean_latent_BCTHW=depth_B1THW.repeat(1, 4, 1, 1, 1),
                known_mask_BL=prepared["known"][:, None].repeat(1, L),
            ),
        )

    def block_delta(self, block_id, video_BLD, where, prepared):
        delta_BLD = video_BLD * self.tokens_D * (1 + block_id)
        return delta_BLD, torch.arange(where.start, where.stop).repeat(len(video_BLD), 1) % 2 == 0


class TestEverySite(ConditionContract):
    def make(self):
        return EverySite()

    def batch(self):
        return {"depth_B1THW": self.draw(2, 1, 3, 4, 4), "unread_B": torch.arange(2)}


class OnlyTime(EverySite):
    """A condition that uses one site, and needs all tokens in blocks that it does not have."""

    def plan(self, host):
        return ConditionPlan(adds_time=True, needs_full_sequence=True)

    def contribute(self, prepared, t_B):
        return Contribution(time_BD=super().contribute(prepared, t_B).time_BD)


class TestOnlyTime(TestEverySite):
    def make(self):
        return OnlyTime()


class GrowingPlan(EverySite):
    calls = 0

    def plan(self, host):
        self.calls += 1
        return replace(super().plan(host), latent_channels=self.calls)


class InstancePlan(EverySite):
    def __init__(self):
        super().__init__()
        self.block = int(torch.randint(0, 10**6, ())) % 2

    def plan(self, host):
        return replace(super().plan(host), block_ids=(self.block,))


class BlockTooFar(EverySite):
    def plan(self, host):
        return replace(super().plan(host), block_ids=(host.double_blocks + host.single_blocks,))


class Unpromised(EverySite):
    def plan(self, host):
        return replace(super().plan(host), adds_time=False)


class NullUnpromised(EverySite):
    def contribute(self, prepared, t_B):
        given = super().contribute(prepared, t_B)
        return given if prepared["known"].all() else replace(given, time_BD=given.time_BD[:, :1])


class NullElsewhere(EverySite):
    def contribute(self, prepared, t_B):
        given = super().contribute(prepared, t_B)
        return given if prepared["known"].all() else replace(given, time_BD=None)


class DeltaShape(EverySite):
    def block_delta(self, block_id, video_BLD, where, prepared):
        delta_BLD, mask_BL = super().block_delta(block_id, video_BLD, where, prepared)
        return delta_BLD[:, :, :1], mask_BL


class DeltaMask(EverySite):
    def block_delta(self, block_id, video_BLD, where, prepared):
        delta_BLD, mask_BL = super().block_delta(block_id, video_BLD, where, prepared)
        return delta_BLD > 0, mask_BL


class MaskShape(EverySite):
    def block_delta(self, block_id, video_BLD, where, prepared):
        delta_BLD, mask_BL = super().block_delta(block_id, video_BLD, where, prepared)
        return delta_BLD, mask_BL[:, :1]


class MaskNumbers(EverySite):
    def block_delta(self, block_id, video_BLD, where, prepared):
        delta_BLD, mask_BL = super().block_delta(block_id, video_BLD, where, prepared)
        return delta_BLD, mask_BL.long()


class NullOfOne(EverySite):
    def null(self, prepared):
        return {key: value[:1] for key, value in super().null(prepared).items()}


class NullOtherKeys(EverySite):
    def null(self, prepared):
        return super().null(prepared) | {"dropped": torch.ones(len(prepared["depth"]))}


class NullOfBatch(EverySite):
    def null(self, prepared):
        return prepared | {"depth": prepared["depth"].mean(0, keepdim=True).expand_as(prepared["depth"])}


class NullHalves(EverySite):
    def null(self, prepared):
        return prepared | {"depth": prepared["depth"] / 2}


class PreparesAgain(EverySite):
    def contribute(self, prepared, t_B):
        return super().contribute(self.prepare({"depth_B1THW": prepared["depth"]}), t_B)


class ChangesPrepared(EverySite):
    def contribute(self, prepared, t_B):
        given = super().contribute(prepared, t_B)
        prepared["depth"].clamp_(-0.1, 0.1)
        return given


class CountsInPrepared(EverySite):
    def prepare(self, batch):
        return super().prepare(batch) | {"steps_B": torch.zeros(len(batch["depth_B1THW"]))}

    def null(self, prepared):
        return prepared | super().null(prepared)

    def contribute(self, prepared, t_B):
        prepared["steps_B"].add_(0.1)
        return super().contribute(prepared, t_B)


class KnowsTheStep(EverySite):
    steps = 0

    def contribute(self, prepared, t_B):
        self.steps += 1
        return super().contribute(prepared, t_B + self.steps)


class NeedsNeighbours(EverySite):
    def block_delta(self, block_id, video_BLD, where, prepared):
        delta_BLD, mask_BL = super().block_delta(block_id, video_BLD, where, prepared)
        return delta_BLD + video_BLD.mean(1, keepdim=True), mask_BL


class LocalMask(EverySite):
    def block_delta(self, block_id, video_BLD, where, prepared):
        delta_BLD, mask_BL = super().block_delta(block_id, video_BLD, where, prepared)
        return delta_BLD, mask_BL if where.start == 0 else ~mask_BL


class MixesSamples(EverySite):
    def contribute(self, prepared, t_B):
        return super().contribute(prepared | {"depth": prepared["depth"] - prepared["depth"].mean(0)}, t_B)


class HiddenWeight(EverySite):
    def __init__(self):
        super().__init__()
        self.hidden = torch.randn(())

    def contribute(self, prepared, t_B):
        return super().contribute(prepared | {"depth": prepared["depth"] * self.hidden}, t_B)


class Float32Inside(EverySite):
    def contribute(self, prepared, t_B):
        given = super().contribute(prepared, t_B)
        return replace(given, time_BD=given.time_BD.float())


class Overflows(EverySite):
    def contribute(self, prepared, t_B):
        given = super().contribute(prepared, t_B)
        huge_D = torch.tensor([3.4e38] + [0.0] * 31).to(given.time_BD.dtype)  # infinite in bfloat16 only
        return replace(given, time_BD=given.time_BD + huge_D)


@pytest.mark.parametrize(
    ("condition", "broken", "message"),
    [
        (GrowingPlan, "plan_is_pure", "the same plan from both, again"),
        (InstancePlan, "plan_is_pure", "the same plan from both, again"),
        (BlockTooFar, "plan_is_pure", "blocks that the host lacks: [4], not []"),
        (Unpromised, "contribution_matches_plan", "time_BD is given, but the plan does not promise it"),
        (NullUnpromised, "contribution_matches_plan", "time_BD has shape [2, 1], not [2, 32]"),
        (NullElsewhere, "contribution_matches_plan", "sites: "),
        (DeltaShape, "contribution_matches_plan", "shape of delta 0: [2, 12, 1], not [2, 12, 32]"),
        (DeltaMask, "contribution_matches_plan", "dtype of delta 0: torch.bool, not torch.float32"),
        (MaskShape, "contribution_matches_plan", "shape of mask 0: [2, 1], not [2, 12]"),
        (MaskNumbers, "contribution_matches_plan", "dtype of mask 0: torch.int64, not torch.bool"),
        (NullOfOne, "null_is_batch_size_stable", "torch.Size([1, "),
        (NullOtherKeys, "null_is_batch_size_stable", "dropped"),
        (NullOfBatch, "null_is_batch_size_stable", "not close"),
        (NullHalves, "null_is_batch_size_stable", "not close"),
        (PreparesAgain, "prepare_runs_once", "'NoneType' object is not callable"),
        (ChangesPrepared, "prepare_runs_once", "not equal"),
        (CountsInPrepared, "prepare_runs_once", "['steps_B']"),
        (KnowsTheStep, "prepare_runs_once", "not equal"),
        (NeedsNeighbours, "ranks_agree", "not close"),
        (LocalMask, "ranks_agree", "['mask 0']"),
        (MixesSamples, "samples_are_independent", "not close"),
        (HiddenWeight, "state_dict_round_trip", "not close"),
        (Float32Inside, "bf16", "time_BD is torch.float32"),
        (Overflows, "bf16", "time_BD is not finite"),
    ],
)
def test_a_broken_promise_is_seen(broken_promises, condition, broken, message):
    class Kit(TestEverySite):
        def make(self):
            return condition()

    assert message in broken_promises(Kit)[f"test_{broken}"]


def test_what_the_kit_needs_is_said():
    with pytest.raises(TypeError, match=r"abstract methods? '?batch'?, '?make"):
        ConditionContract()


def test_a_standard_test_is_overridden_only_with_a_reason():
    with pytest.raises(TypeError, match=r"Unmarked\.test_bf16 overrides a standard test"):

        class Unmarked(ConditionContract):
            def test_bf16(self):
                pass

    with pytest.raises(TypeError, match=r"Kit\.test_bf16 overrides a standard test: mark it xfail and give a reason"):

        class Kit(ConditionContract):
            @pytest.mark.xfail
            def test_bf16(self):
                pass

    class Excused(ConditionContract):
        @pytest.mark.xfail(reason="its encoder has no bfloat16 kernels")
        def test_bf16(self):
            pass

        def test_of_its_own(self):
            pass
