"""What can be planned for: models by name or checkpoint, with the sizes of all their parts; no weights are read."""

from dataclasses import dataclass
from pathlib import Path

from hy_dit import DiTConfig, T2XConfig
from hy_dit.load import open_dit
from hy_dit.t2x.config import T2X_SIZES
from hy_vae3d import VAE3DConfig
from hy_weights import read_config, read_config_as

from hyvideo_plan.errors import PlanError
from hyvideo_plan.video import Video

DEFAULT = "hunyuan-video-cfgdistill"
DIT_PRESETS = ("hunyuan-video-cfgdistill", "hunyuan-video", "tiny")

_HALF = 2  # bytes of a float16
LLAVA_LLAMA_AND_CLIP = _HALF * (7_504_924_672 + 123_060_480)
"""The released text encoders in float16: the language model of LLaVA-Llama-3-8B without its output layer (32 layers,
width 4096, MLP 14336, 8 key-value heads, 128,256 words) and the text half of CLIP-Large."""

T5_XXL = _HALF * 4_762_310_656
"""The encoder half of T5-XXL v1.1 in float16 (24 layers, width 4096, 64 heads, gated MLP of 10240, 32,128 words)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A transformer and what runs before and after it.

    Attributes:
        name: as the user calls it.
        dit: the sizes of the transformer.
        vae: the sizes of the autoencoder.
        text_encoder_bytes: what the text encoders' weights take; their activations are small beside them.
        text_tokens: columns of text that the transformer is given.
    """

    name: str
    dit: DiTConfig | T2XConfig
    vae: VAE3DConfig
    text_encoder_bytes: int
    text_tokens: int = 256

    @property
    def usual_video(self) -> Video:
        """What it is made for: the released 720p clip, the scaling law's 256-pixel image, a thumbnail."""
        if isinstance(self.dit, T2XConfig):
            return Video(width=256, height=256, frames=1)
        is_tiny = self.dit.width < DiTConfig.preset(DEFAULT).width
        return Video(width=64, height=64, frames=17) if is_tiny else Video(width=1280, height=720, frames=129)

    @property
    def passes(self) -> int:
        """Branches per sampling step: two with classifier-free guidance, one where guidance is distilled."""
        return 1 if isinstance(self.dit, DiTConfig) and self.dit.guidance_embed else 2


def find_model(name: str) -> Model:
    """Look a model up.

    Args:
        name: a preset of `DiTConfig`, a size of DiT-T2X, or a path: a transformer's checkpoint in any form that
            `load_dit` takes, or a model folder with `dit`, `vae` and `text_encoder`.

    Raises:
        PlanError: no such preset or path; lists the presets.
        CheckpointError: the checkpoint can't be read.
    """
    if name in DIT_PRESETS:
        is_tiny = name == "tiny"
        vae = VAE3DConfig.preset("tiny" if is_tiny else "hunyuan-video")
        encoders = 0 if is_tiny else LLAVA_LLAMA_AND_CLIP
        return Model(name=name, dit=DiTConfig.preset(name), vae=vae, text_encoder_bytes=encoders)
    if name in T2X_SIZES:
        vae = VAE3DConfig.preset("hunyuan-video")
        return Model(name=name, dit=T2X_SIZES[name], vae=vae, text_encoder_bytes=T5_XXL)
    path = Path(name)
    if not path.exists():
        known = ", ".join([*DIT_PRESETS, *T2X_SIZES])
        raise PlanError(f"no model '{name}': give a checkpoint's path, or one of {known}")
    return _of_checkpoint(name, path)


def _of_checkpoint(name: str, path: Path) -> Model:
    parts = path if (path / "dit").is_dir() else None
    dit = _dit_of(path / "dit" if parts else path)
    is_large = isinstance(dit, T2XConfig) or dit.text_width == DiTConfig.preset(DEFAULT).text_width
    encoders = 0 if not is_large else T5_XXL if isinstance(dit, T2XConfig) else LLAVA_LLAMA_AND_CLIP
    vae = VAE3DConfig.preset("hunyuan-video" if is_large else "tiny")
    if parts and (parts / "vae/config.json").is_file():
        vae = read_config_as(parts / "vae", VAE3DConfig)
    if parts and (parts / "text_encoder").is_dir():
        encoders = sum(file.stat().st_size for file in (parts / "text_encoder").glob("*.safetensors"))
    return Model(name=name, dit=dit, vae=vae, text_encoder_bytes=encoders)


def _dit_of(path: Path) -> DiTConfig | T2XConfig:
    if (path / "config.json").is_file() and "depth" in read_config(path):
        return read_config_as(path, T2XConfig)
    return open_dit(path).config
