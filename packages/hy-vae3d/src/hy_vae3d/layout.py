"""What this VAE's checkpoints look like elsewhere: Tencent's and diffusers' keys are ours, ComfyUI's are not."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from hy_weights import CheckpointError
from hy_weights.layout import prefix_before, renamed
from torch import Tensor

from hy_vae3d.config import COMPRESSION, VAE3DConfig

OURS = "released key names"
COMFYUI = "ComfyUI's key names"

_MARKS = {"decoder.mid_block.attentions.0.to_q.weight": OURS, "decoder.mid.attn_1.q.weight": COMFYUI}
_CAUSAL = "decoder.conv_in.conv.weight"
"""With a mark, this tells the VAE from those of image models, whose convolutions have no padding of their own."""

_LAST_STAGE = 3
_FROM_COMFYUI = (
    *((rf"\.up\.{stage}\.", f".up_blocks.{_LAST_STAGE - stage}.") for stage in range(_LAST_STAGE + 1)),
    (r"\.down\.(\d+)\.", r".down_blocks.\1."),
    (r"\.block\.(\d+)\.", r".resnets.\1."),
    (r"\.(up|down)sample\.", r".\1samplers.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"coder\.norm_out\.", "coder.conv_norm_out."),
)


def by_our_names(tensors: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str] | None:
    """Return a checkpoint's tensors under our (the released) names, and what its own are.

    A prefix before every key, such as Tencent's `vae.`, goes.

    Args:
        tensors: By stored name.

    Returns:
        The tensors, made when they are used, and the layout they are stored in; None if this is another model.

    Raises:
        CheckpointError: Two keys mean the same weight.
    """
    prefix = prefix_before(tensors, _MARKS)
    if prefix is None or prefix + _CAUSAL not in tensors:
        return None
    layout = next(name for mark, name in _MARKS.items() if prefix + mark in tensors)
    if prefix:
        tensors = renamed(tensors, [("^" + re.escape(prefix), "")])
    if layout == COMFYUI:
        tensors = renamed(tensors, _FROM_COMFYUI, make=_from_comfyui)
    return tensors, layout + (f" after {prefix!r}" if prefix else "")


def _from_comfyui(name: str) -> Callable[..., Tensor]:
    """The attention's projections are convolutions there, over one position."""
    return lambda tensor: tensor.flatten(1) if ".attentions." in name and tensor.ndim > 1 else tensor


CLASS_NAME = "AutoencoderKLHunyuanVideo"
_CLASS_NAMES = (CLASS_NAME, "AutoencoderKLCausal3D")
"""Diffusers' name and Tencent's, whose configuration has the same keys but one."""

_ALWAYS = {
    "act_fn": "silu",
    "mid_block_add_attention": True,
    "spatial_compression_ratio": COMPRESSION[1],
    "temporal_compression_ratio": COMPRESSION[0],
    "time_compression_ratio": COMPRESSION[0],
}
"""What their classes could also be, and this VAE is not."""


def from_diffusers_config(values: Mapping[str, Any], source: object) -> VAE3DConfig:
    """Translate diffusers' `config.json`, or Tencent's.

    Args:
        values: Its content.
        source: Where it came from; it opens the error message.

    Raises:
        CheckpointError: It is of another model, a key is missing, or a variant is asked for that this one is not.
    """
    if values.get("_class_name") not in _CLASS_NAMES:
        raise CheckpointError(f"{source}: is of {values.get('_class_name')}; expected {' or '.join(_CLASS_NAMES)}")
    for key, value in {**_ALWAYS, "out_channels": values.get("in_channels")}.items():
        if values.get(key, value) != value:
            raise CheckpointError(f"{source}: {key} is {values[key]!r}; this VAE has {value!r}")
    try:
        return VAE3DConfig(
            in_channels=values["in_channels"],
            latent_channels=values["latent_channels"],
            channels=tuple(values["block_out_channels"]),
            layers_per_block=values["layers_per_block"],
            norm_groups=values["norm_num_groups"],
            scaling_factor=values["scaling_factor"],
        )
    except KeyError as error:
        raise CheckpointError(f"{source}: has no {error.args[0]!r}, which {CLASS_NAME} needs") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{source}: not a valid configuration of {CLASS_NAME} ({error})") from error


def to_diffusers_config(config: VAE3DConfig) -> dict[str, Any]:
    """Translate a configuration into what diffusers' class takes."""
    stages = len(config.channels)
    return {
        "_class_name": CLASS_NAME,
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "latent_channels": config.latent_channels,
        "down_block_types": ["HunyuanVideoDownBlock3D"] * stages,
        "up_block_types": ["HunyuanVideoUpBlock3D"] * stages,
        "block_out_channels": list(config.channels),
        "layers_per_block": config.layers_per_block,
        "norm_num_groups": config.norm_groups,
        "scaling_factor": config.scaling_factor,
        **{key: value for key, value in _ALWAYS.items() if key != "time_compression_ratio"},
    }
