"""Conformance kits: `class TestMine(ConditionContract)`, say how to make yours, run pytest. Each test is one promise.

Shapes: B batch (2 here, or 3 prompts), C channels, T H W frames/height/width, L video tokens, S text tokens, D width.
Inputs are small and seeded. Attributes of a kit may be overridden, its tests only with a reason.
"""

from __future__ import annotations

import math
import pickle
from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hy_plugins.types import ConditionPlan, HostSpec, TextTokens, TokenSlice, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor
elif find_spec("torch"):  # a filter is tested where there is none
    import torch

EVERY, SECOND = slice(None), slice(1, 2)


def same(what: str, found: object, expected: object) -> None:
    """Fail in words: pytest explains the values of an assertion in test files only."""
    assert found == expected, f"{what}: {found}, not {expected}"


class Contract(ABC):
    """What the kits share: overriding a standard test takes `@pytest.mark.xfail(reason=...)`."""

    dtype: Any = None  # of the inputs; None is float32

    def __init_subclass__(cls) -> None:
        for name, test in vars(cls).items():
            reasons = [mark.kwargs.get("reason") for mark in getattr(test, "pytestmark", []) if mark.name == "xfail"]
            if name.startswith("test_") and hasattr(super(cls, cls), name) and not any(reasons):
                raise TypeError(f"{cls.__name__}.{name} overrides a standard test: mark it xfail and give a reason")

    @abstractmethod
    def make(self) -> Any:
        """Build yours, small."""

    def draw(self, *shape: int, seed: int = 0) -> Tensor:
        """Normal numbers, the same at every call."""
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype=self.dtype)


class ModuleContract(Contract):
    """For kinds that hold weights: yours is an nn.Module."""

    @abstractmethod
    def outputs(self, module: Any, rows: slice = EVERY) -> dict[str, Tensor]:
        """What yours gives for those rows of the kit's inputs; axis 0 is B."""

    def made(self, seed: int = 0) -> Any:
        """Build yours, and add noise to every weight: layers that start at zero would hide mistakes."""
        torch.default_generator.manual_seed(seed)
        module = self.make().eval().requires_grad_(False)
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        return module

    def test_samples_are_independent(self) -> None:
        """A sample gives the same alone as in a batch, and each time the same."""
        module = self.made()
        whole, alone = self.outputs(module), self.outputs(module, SECOND)
        torch.testing.assert_close(alone, {name: value[SECOND] for name, value in whole.items()}, rtol=1e-4, atol=1e-5)

    def test_state_dict_round_trip(self) -> None:
        """Another instance that loads this one's state dict gives the same."""
        first, second = self.made(seed=0), self.made(seed=1)
        second.load_state_dict(first.state_dict())
        torch.testing.assert_close(self.outputs(second), self.outputs(first))

    def test_bf16(self) -> None:
        """In bfloat16 the outputs are bfloat16 and finite."""
        self.dtype = torch.bfloat16
        for name, value in self.outputs(self.made().bfloat16()).items():
            assert value.isfinite().all(), f"{name} is not finite"
            assert value.dtype == torch.bfloat16 or not value.is_floating_point(), f"{name} is {value.dtype}"


class ConditionContract(ModuleContract):
    """Promises of a condition to the backbone `host`, for a latent of `latent_shape`."""

    host = HostSpec(
        latent_channels=4, width=32, heads=2, patch=(1, 2, 2), double_blocks=2, single_blocks=2, text_width=16
    )
    latent_shape = (2, 4, 3, 4, 4)

    @abstractmethod
    def batch(self) -> dict[str, Tensor]:
        """What `prepare` reads, for two samples."""

    def prepared(self, condition: Any, rows: slice = EVERY) -> dict[str, Tensor]:
        """What `prepare` makes of those rows of the batch."""
        batch = {key: value[rows] for key, value in self.batch().items()}
        return condition.prepare({k: v.to(dtype=self.dtype) if v.is_floating_point() else v for k, v in batch.items()})

    def deltas(self, condition: Any, prepared: Any, rows: slice = EVERY, start: int = 0) -> dict[str, Tensor]:
        """What it gives in its blocks, deltas and masks, on the video tokens from `start`."""
        deltas: dict[str, Tensor] = {}
        L = math.prod(self.latent_shape[2:]) // math.prod(self.host.patch)
        video_BLD = self.draw(self.latent_shape[0], L, self.host.width)[rows, start:]
        for block in condition.plan(self.host).block_ids:
            delta_BLD, mask_BL = condition.block_delta(block, video_BLD, TokenSlice(start, L, L), prepared)
            deltas |= {f"delta {block}": delta_BLD} | ({} if mask_BL is None else {f"mask {block}": mask_BL})
        return deltas

    def outputs(self, module: Any, rows: slice = EVERY, prepared: Any = None) -> dict[str, Tensor]:
        """All it gives at one step, to samples at different times."""
        prepared = self.prepared(module, rows) if prepared is None else prepared
        contribution = module.contribute(prepared, torch.tensor([900.0, 100.0])[rows])
        return contribution.tensors() | self.deltas(module, prepared, rows)

    def test_plan_is_pure(self) -> None:
        """The same host gets the same plan each time and from each instance, within its blocks."""
        condition, other = self.made(), self.made(seed=1)
        plan: ConditionPlan = condition.plan(self.host)
        same("the same plan from both, again", [condition.plan(self.host), other.plan(self.host)], [plan, plan])
        blocks = range(self.host.double_blocks + self.host.single_blocks)
        same("blocks that the host lacks", [block for block in plan.block_ids if block not in blocks], [])

    def test_contribution_matches_plan(self) -> None:
        """Kept or dropped, it gives what the plan says, in shape and dtype, at the same sites."""
        condition, latent_BCTHW = self.made(), self.draw(*self.latent_shape)
        plan, prepared = condition.plan(self.host), self.prepared(condition)
        L = math.prod(self.latent_shape[2:]) // math.prod(self.host.patch)
        shapes = {"delta": [2, L, self.host.width], "mask": [2, L]}
        for kept_or_dropped in (prepared, condition.null(prepared)):
            same("sites", *(self.outputs(condition, prepared=some).keys() for some in (prepared, kept_or_dropped)))
            contribution = condition.contribute(kept_or_dropped, torch.tensor([900.0, 100.0]))
            same("mismatches", plan.mismatches(contribution, self.host, latent_BCTHW), [])
            for name, value in self.deltas(condition, kept_or_dropped).items():
                same(f"shape of {name}", list(value.shape), shapes[name.split()[0]])
                same(f"dtype of {name}", value.dtype, torch.bool if name.startswith("mask") else torch.float32)

    def test_null_is_batch_size_stable(self) -> None:
        """A dropped sample has the kept one's keys, shapes and dtypes, and is the same alone, or dropped twice."""
        condition = self.made()
        prepared = self.prepared(condition)
        null = condition.null(prepared)
        torch.testing.assert_close(null, prepared, rtol=0, atol=math.inf)  # of keys, shapes and dtypes
        alone = condition.null({key: value[SECOND] for key, value in prepared.items()})
        torch.testing.assert_close(alone, {key: value[SECOND] for key, value in null.items()})
        torch.testing.assert_close(condition.null(null), null)

    def test_prepare_runs_once(self) -> None:
        """Steps use what `prepare` made: they do not call it, change what it made, or depend on the step before."""
        condition = self.made()
        prepared = self.prepared(condition)
        before = {key: value.clone() for key, value in prepared.items()}
        condition.prepare = None
        first, again = self.outputs(condition, prepared=prepared), self.outputs(condition, prepared=prepared)
        torch.testing.assert_close(again, first, rtol=0, atol=0)
        torch.testing.assert_close(prepared, before, rtol=0, atol=0)

    def test_ranks_agree(self) -> None:
        """Unless it needs the full sequence, a block's delta on a slice of the tokens is that slice of the delta."""
        condition = self.made()
        prepared = self.prepared(condition)
        if not condition.plan(self.host).needs_full_sequence:
            whole, part = self.deltas(condition, prepared), self.deltas(condition, prepared, start=5)
            torch.testing.assert_close(part, {k: v[:, 5:] for k, v in whole.items()}, rtol=1e-4, atol=1e-5)


class AutoencoderContract(ModuleContract):
    """Promises of an autoencoder, for images and short videos of four by four latents."""

    def video(self, module: Any, groups: int) -> Tensor:
        """Pixels of 1 + groups * compression[0] frames, video_BCTHW in [-1, 1]."""
        frames, rows, columns = module.compression
        return self.draw(2, 3, 1 + groups * frames, 4 * rows, 4 * columns).clamp(-1, 1)

    def outputs(self, module: Any, rows: slice = EVERY) -> dict[str, Tensor]:
        """The posterior and the reconstruction."""
        posterior = module.encode(self.video(module, 1)[rows])
        latent_BCTHW = posterior.mode()
        return {"mean": posterior.mean, "logvar": posterior.logvar, "decoded": module.decode(latent_BCTHW)}

    def test_shapes_and_samples(self) -> None:
        """Of 1 + n groups of frames come 1 + n latents, and back, an image too; samples follow their generator."""
        autoencoder = self.made()
        for groups in (0, 1):
            video_BCTHW = self.video(autoencoder, groups)
            posterior = autoencoder.encode(video_BCTHW)
            for latent_BCTHW in (posterior.mean, posterior.logvar, posterior.mode(), posterior.sample()):
                same("latents", list(latent_BCTHW.shape), [2, autoencoder.latent_channels, 1 + groups, 4, 4])
            same("decoded", list(autoencoder.decode(posterior.mode()).shape), list(video_BCTHW.shape))
            first, again, other = (posterior.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
            assert torch.equal(first, again), "the same seed draws other latents"
            assert not torch.equal(first, other), "another seed draws the same latents"


class TextEncoderContract(ModuleContract):
    """Promises of a text encoder, for prompts of different lengths, an empty one among them."""

    prompts: Sequence[str] = ("a red ball rolls slowly to the left", "a blue cat", "")

    def outputs(self, module: Any, rows: slice = EVERY) -> dict[str, Tensor]:
        """Sums over the real tokens, which padding must not change, and the pooled vectors."""
        text: TextTokens = module.encode(self.prompts[rows])
        pooled = {} if text.pooled_BD is None else {"pooled_BD": text.pooled_BD}
        return {"count_B": text.mask_BS.sum(1), "sum_BD": (text.tokens_BSD * text.mask_BS.unsqueeze(2)).sum(1)} | pooled

    def test_tokens(self) -> None:
        """Shapes are TextTokens'; the bool mask begins with True and is padded on the right, an empty prompt's too."""
        text: TextTokens = self.made().encode(self.prompts)
        same("axes and prompts of tokens_BSD", (text.tokens_BSD.ndim, len(text.tokens_BSD)), (3, len(self.prompts)))
        same("mask_BS", (text.mask_BS.shape, text.mask_BS.dtype), (text.tokens_BSD.shape[:2], torch.bool))
        assert text.mask_BS[:, 0].all(), "a prompt has no real token at its start"
        assert (text.mask_BS[:, 1:] <= text.mask_BS[:, :-1]).all(), "padding is not on the right"
        if text.pooled_BD is not None:
            same("axes and prompts of pooled_BD", (text.pooled_BD.ndim, len(text.pooled_BD)), (2, len(self.prompts)))


class BackboneContract(ModuleContract):
    """Promises of a backbone that takes a latent of `latent_shape` and text of those widths."""

    latent_shape = (2, 4, 1, 4, 4)
    text_width = 16
    pooled_width: int | None = None
    guided = False

    def inputs(self, rows: slice = EVERY) -> dict[str, Any]:
        """Arguments of a call: latent_BCTHW, timestep_B, text of 3 and of 5 tokens, guidance_B."""
        mask_BS = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])[rows]
        pooled_BD = None if self.pooled_width is None else self.draw(2, self.pooled_width)[rows]
        text = TextTokens(self.draw(2, 5, self.text_width)[rows], mask_BS, pooled_BD)
        times = {"timestep_B": torch.tensor([900.0, 100.0])[rows]}
        times |= {"guidance_B": torch.tensor([6000.0, 1000.0])[rows]} if self.guided else {}
        return {"latent_BCTHW": self.draw(*self.latent_shape)[rows], "text": text} | times

    def outputs(self, module: Any, rows: slice = EVERY) -> dict[str, Tensor]:
        """The velocity."""
        return {"velocity_BCTHW": module(**self.inputs(rows))}

    def test_every_input_matters(self) -> None:
        """The velocity has the latent's shape and follows every input, but not what padding holds."""
        backbone, inputs = self.made(), self.inputs()
        velocity_BCTHW, text = backbone(**inputs), inputs["text"]
        same("velocity", tuple(velocity_BCTHW.shape), self.latent_shape)
        padded = TextTokens(text.tokens_BSD + 9 * ~text.mask_BS.unsqueeze(2), text.mask_BS, text.pooled_BD)
        torch.testing.assert_close(backbone(**inputs | {"text": padded}), velocity_BCTHW, rtol=1e-4, atol=1e-5)
        for name, value in inputs.items():
            other = TextTokens(text.tokens_BSD + 1, text.mask_BS, text.pooled_BD) if name == "text" else value + 1
            assert not torch.equal(backbone(**inputs | {name: other}), velocity_BCTHW), f"{name} changes nothing"


class SamplerContract(Contract):
    """Promises of a sampler."""

    def follow(self, velocity: Any, steps: int) -> Tensor:
        """Sample from noise_BCTHW, which must stay as it is, with a velocity that checks what it is asked."""
        noise_BCTHW = self.draw(2, 4, 1, 3, 3)

        def checked(x_BCTHW: Tensor, sigma: Tensor) -> Tensor:
            assert 0 <= float(sigma) <= 1, f"velocity's sigma is {float(sigma)}"
            return velocity(x_BCTHW)

        latent_BCTHW = self.make().sample(checked, noise_BCTHW, torch.linspace(1, 0, steps + 1))
        assert torch.equal(noise_BCTHW, self.draw(2, 4, 1, 3, 3)), "the sampler wrote into the noise"
        return latent_BCTHW

    def test_straight_path(self) -> None:
        """A straight path from noise to data is followed exactly, in one step as in seven."""
        noise_BCTHW, data_BCTHW = self.draw(2, 4, 1, 3, 3), self.draw(2, 4, 1, 3, 3, seed=1)
        for steps in (1, 7):
            latent_BCTHW = self.follow((noise_BCTHW - data_BCTHW).expand_as, steps)
            torch.testing.assert_close(latent_BCTHW, data_BCTHW, rtol=1e-4, atol=1e-5)

    def test_converges(self) -> None:
        """Eight times the steps leave at most a quarter of the error on dx/dsigma = x."""
        exact_BCTHW = self.draw(2, 4, 1, 3, 3) * math.exp(-1)
        coarse, fine = ((self.follow(torch.clone, steps) - exact_BCTHW).abs().max() for steps in (8, 64))
        assert fine < max(float(coarse) / 4, 1e-5), f"the error is {coarse} in 8 steps, {fine} in 64"


class FilterContract(Contract):
    """Promises of a curation filter."""

    @abstractmethod
    def samples(self) -> Sequence[Mapping[str, Any]]:
        """Samples of which yours keeps some and rejects some."""

    def test_verdicts(self) -> None:
        """Some are kept, some rejected with a reason, each with a finite score."""
        verdicts: list[Verdict] = [self.make().keep(sample) for sample in self.samples()]
        assert all(math.isfinite(verdict.score) for verdict in verdicts), "a score is not finite"
        same("what is decided", {verdict.keep for verdict in verdicts}, {True, False})
        assert all(verdict.keep or verdict.reason for verdict in verdicts), "a rejection gives no reason"

    def test_pure_and_picklable(self) -> None:
        """The same sample gets the same verdict, from a copy in another process too, and stays as it is."""
        mine, samples = self.make(), self.samples()
        before, copy = pickle.dumps(samples), pickle.loads(pickle.dumps(mine))
        first, again, copied = ([judge.keep(sample) for sample in samples] for judge in (mine, mine, copy))
        same("asked again", again, first)
        same("asked of a copy", copied, first)
        assert pickle.dumps(samples) == before, "the filter changed its sample"

    def test_reads_what_it_says(self) -> None:
        """The columns in `reads` are enough."""
        mine = self.make()
        for sample in self.samples():
            same("by `reads` alone", mine.keep({column: sample[column] for column in mine.reads}), mine.keep(sample))
