"""A Lightning module whose arguments are typed by our protocols can be built from a config by jsonargparse.

Shapes: B batch, C channels, T H W frames/height/width, L video tokens, D width.
"""

import sys
from collections.abc import Callable, Mapping, Sequence

import pytest

torch = pytest.importorskip("torch")
jsonargparse = pytest.importorskip("jsonargparse")

from hy_plugins.protocols import Autoencoder, Backbone, Condition, Sampler, TextEncoder  # noqa: E402
from hy_plugins.types import ConditionPlan, Contribution, HostSpec, TextTokens, TokenSlice  # noqa: E402
from torch import Tensor  # noqa: E402


class MyBackbone(torch.nn.Module):
    def __init__(self, width: int = 1):
        super().__init__()
        self.width = width

    def forward(
        self,
        latent_BCTHW: Tensor,
        timestep_B: Tensor,
        text: TextTokens,
        guidance_B: Tensor | None = None,
        conditions: list[str] | None = None,
    ) -> Tensor:
        return latent_BCTHW


class MyEncoder(torch.nn.Module):
    def encode(self, prompts: Sequence[str]) -> TextTokens:
        return TextTokens(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool))


class MyPosterior:
    pass


class MyAutoencoder(torch.nn.Module):
    def encode(self, video_BCTHW: Tensor) -> MyPosterior:
        return MyPosterior()

    def decode(self, latent_BCTHW: Tensor) -> Tensor:
        return latent_BCTHW


class MyCondition(torch.nn.Module):
    def plan(self, host: HostSpec) -> ConditionPlan:
        return ConditionPlan()

    def prepare(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(batch)

    def null(self, prepared: dict[str, Tensor]) -> dict[str, Tensor]:
        return prepared

    def contribute(self, prepared: dict[str, Tensor], t_B: Tensor) -> Contribution:
        return Contribution()

    def block_delta(
        self, block_id: int, video_BLD: Tensor, where: TokenSlice, prepared: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        return video_BLD, None


class MySampler:
    def sample(self, velocity: Callable[[Tensor, Tensor], Tensor], noise_BCTHW: Tensor, sigmas: Tensor) -> Tensor:
        return noise_BCTHW


class Training:
    def __init__(
        self,
        backbone: Backbone,
        text_encoder: TextEncoder,
        autoencoder: Autoencoder,
        conditions: dict[str, Condition],
        sampler: Sampler,
    ):
        self.parts = backbone, text_encoder, autoencoder, conditions["mine"], sampler


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_parts", sys.modules[__name__])


def build(**classes):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Training, "training")
    mine = {"backbone": MyBackbone, "text_encoder": MyEncoder, "autoencoder": MyAutoencoder, "sampler": MySampler}
    config = {name: {"class_path": f"my_parts.{part.__name__}"} for name, part in (mine | classes).items()}
    config["backbone"]["init_args"] = {"width": 7}
    config["conditions"] = {"mine": {"class_path": "my_parts.MyCondition"}}
    parsed = parser.parse_object({"training": config})
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    return instantiate(parsed).training


def test_each_protocol_builds_what_follows_it():
    parts = build().parts
    assert [type(part) for part in parts] == [MyBackbone, MyEncoder, MyAutoencoder, MyCondition, MySampler]
    assert parts[0].width == 7


def test_what_does_not_follow_is_refused():
    with pytest.raises(jsonargparse.ArgumentError, match="does not implement protocol TextEncoder"):
        build(text_encoder=MySampler)
