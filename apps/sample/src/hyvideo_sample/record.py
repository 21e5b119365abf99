"""What a sample tells of how it was made, in whatever file it is stored."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from hyvideo_sample.loras import ChosenLoRA, chosen_from
from hyvideo_sample.settings import SampleError, Settings, settings_from

_MADE_WITH = ("hyvideo-sample", "hy-textenc", "hy-dit", "hy-flow", "hy-vae3d", "hy-data", "torch", "av")


_EARLIER = {
    "original": "",
    "noise": "",
    "noise_source": "diffusers",
    "sampler": "euler",
    "schedule": "shifted",
    "true_cfg": 1.0,
    "guidance_low": 0.0,
    "guidance_high": 1.0,
    "guidance_rescale": 0.0,
    "loras": (),
}
"""How samples were made before these could be chosen: older ones do not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a sample's file tells of how it was made.

    Attributes:
        settings: as they were, defaults included.
        model: what the user called it.
        model_sha256: of its manifest.
        loras: what was added to its transformer.
    """

    settings: Settings
    model: str
    model_sha256: str
    loras: tuple[ChosenLoRA, ...] = ()

    def stored(self) -> dict[str, Any]:
        """Give it as JSON values, with the versions of what makes samples."""
        packages = {name: version(name) for name in _MADE_WITH}
        return {
            **asdict(self.settings),
            "model": self.model,
            "model_sha256": self.model_sha256,
            "loras": [asdict(one) for one in self.loras],
            "packages": packages,
        }


def record_from(values: Mapping[str, Any], source: object) -> Record:
    """Read back what `Record.stored` gave.

    Args:
        values: the JSON values.
        source: the file; it opens every error message.

    Raises:
        SampleError: a value is missing, unknown or refused: the file is no sample, or a newer version's.
    """
    stored = _EARLIER | {name: value for name, value in values.items() if name != "packages"}
    expected = asdict(Settings()).keys() | {"model", "model_sha256", "loras"}
    if missing := sorted(expected - stored.keys()):
        raise SampleError(f"{source} was not written by this `hyvideo sample`: its settings lack {', '.join(missing)}")
    model, model_sha256 = str(stored.pop("model")), str(stored.pop("model_sha256"))
    loras = chosen_from(stored.pop("loras"), source)
    return Record(settings=settings_from(stored, source), model=model, model_sha256=model_sha256, loras=loras)
