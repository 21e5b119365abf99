"""What this transformer's keys are called elsewhere, and how a checkpoint is told from its keys alone."""

import re
from collections.abc import Mapping

from hy_weights.layout import prefix_before, renamed
from torch import Tensor

from hy_dit.layout import DIFFUSERS

OURS = "released key names"
COMFYUI = "ComfyUI's key names"

_MARKS = {
    "txt_in.individual_token_refiner.blocks.0.self_attn_qkv.weight": OURS,
    "txt_in.individual_token_refiner.blocks.0.self_attn.qkv.weight": COMFYUI,
    "context_embedder.token_refiner.refiner_blocks.0.attn.to_q.weight": "diffusers' layout",
}
"""A key of each layout that no other model has and no transformer of this kind lacks."""

_FROM_COMFYUI = (
    (r"_attn\.(qkv|proj)\.", r"_attn_\1."),
    (r"_attn\.norm\.(query|key)_norm\.(scale|weight)$", r"_attn_\1_norm.weight"),
    (r"\.norm\.(query|key)_norm\.(scale|weight)$", r".\1_norm.weight"),
    (r"([._])query_norm\.weight$", r"\1q_norm.weight"),
    (r"([._])key_norm\.weight$", r"\1k_norm.weight"),
    (r"(_mod|modulation)\.lin\.", r"\1.linear."),
    (r"mlp\.0\.", "mlp.fc1."),
    (r"mlp\.2\.", "mlp.fc2."),
    (r"(time_in|guidance_in|t_embedder)\.in_layer\.", r"\1.mlp.0."),
    (r"(time_in|guidance_in|t_embedder)\.out_layer\.", r"\1.mlp.2."),
    (r"c_embedder\.in_layer\.", "c_embedder.linear_1."),
    (r"c_embedder\.out_layer\.", "c_embedder.linear_2."),
)


def by_our_names(tensors: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str] | None:
    """Return a checkpoint's tensors under our (the released) names, and what its own are.

    A prefix that wrappers and repackagers put before every key, such as `module.` or `model.diffusion_model.`, goes.

    Args:
        tensors: By stored name.

    Returns:
        The tensors, made when they are used, and the layout they are stored in; None if this is another model.

    Raises:
        CheckpointError: Two keys mean the same weight, or a part of one is missing.
    """
    prefix = prefix_before(tensors, _MARKS)
    if prefix is None:
        return None
    layout = next(name for mark, name in _MARKS.items() if prefix + mark in tensors)
    if prefix:
        tensors = renamed(tensors, [("^" + re.escape(prefix), "")])
    told = layout + (f" after {prefix!r}" if prefix else "")
    if layout == OURS:
        return tensors, told
    return (renamed(tensors, _FROM_COMFYUI) if layout == COMFYUI else DIFFUSERS.to_ours(tensors)), told
