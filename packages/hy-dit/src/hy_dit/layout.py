"""Diffusers' way to store this transformer: other names, joint projections cut up, one modulation's halves swapped."""

from collections.abc import Mapping
from typing import Any

from hy_weights import CheckpointError
from hy_weights.layout import Layout, Rule

from hy_dit.config import DiTConfig

_REFINER = "txt_in.individual_token_refiner.blocks.{}."
_THEIR_REFINER = "context_embedder.token_refiner.refiner_blocks.{}."


def _renamed(ours: str, theirs: str, names: Mapping[str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(ours + name, (theirs + their_name,)) for name, their_name in names.items())


DIFFUSERS = Layout(
    "diffusers",
    (
        *_renamed(
            "",
            "",
            {
                "img_in.proj": "x_embedder.proj",
                "txt_in.input_embedder": "context_embedder.proj_in",
                "txt_in.t_embedder.mlp.0": "context_embedder.time_text_embed.timestep_embedder.linear_1",
                "txt_in.t_embedder.mlp.2": "context_embedder.time_text_embed.timestep_embedder.linear_2",
                "txt_in.c_embedder.linear_1": "context_embedder.time_text_embed.text_embedder.linear_1",
                "txt_in.c_embedder.linear_2": "context_embedder.time_text_embed.text_embedder.linear_2",
                "time_in.mlp.0": "time_text_embed.timestep_embedder.linear_1",
                "time_in.mlp.2": "time_text_embed.timestep_embedder.linear_2",
                "guidance_in.mlp.0": "time_text_embed.guidance_embedder.linear_1",
                "guidance_in.mlp.2": "time_text_embed.guidance_embedder.linear_2",
                "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
                "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
                "final_layer.linear": "proj_out",
            },
        ),
        # Ours is (shift, scale), theirs (scale, shift).
        Rule("final_layer.adaLN_modulation.1", ("norm_out.linear",), swapped=True),
        *_renamed(
            _REFINER,
            _THEIR_REFINER,
            {
                "norm1": "norm1",
                "norm2": "norm2",
                "self_attn_proj": "attn.to_out.0",
                "mlp.fc1": "ff.net.0.proj",
                "mlp.fc2": "ff.net.2",
                "adaLN_modulation.1": "norm_out.linear",
            },
        ),
        Rule(_REFINER + "self_attn_qkv", tuple(f"{_THEIR_REFINER}attn.to_{name}" for name in "qkv")),
        *_renamed(
            "double_blocks.{}.",
            "transformer_blocks.{}.",
            {
                "img_mod.linear": "norm1.linear",
                "txt_mod.linear": "norm1_context.linear",
                "img_attn_q_norm": "attn.norm_q",
                "img_attn_k_norm": "attn.norm_k",
                "txt_attn_q_norm": "attn.norm_added_q",
                "txt_attn_k_norm": "attn.norm_added_k",
                "img_attn_proj": "attn.to_out.0",
                "txt_attn_proj": "attn.to_add_out",
                "img_mlp.fc1": "ff.net.0.proj",
                "img_mlp.fc2": "ff.net.2",
                "txt_mlp.fc1": "ff_context.net.0.proj",
                "txt_mlp.fc2": "ff_context.net.2",
            },
        ),
        Rule("double_blocks.{}.img_attn_qkv", tuple(f"transformer_blocks.{{}}.attn.to_{name}" for name in "qkv")),
        Rule("double_blocks.{}.txt_attn_qkv", tuple(f"transformer_blocks.{{}}.attn.add_{name}_proj" for name in "qkv")),
        *_renamed(
            "single_blocks.{}.",
            "single_transformer_blocks.{}.",
            {
                "modulation.linear": "norm.linear",
                "q_norm": "attn.norm_q",
                "k_norm": "attn.norm_k",
                "linear2": "proj_out",
            },
        ),
        Rule(
            "single_blocks.{}.linear1",
            (
                *(f"single_transformer_blocks.{{}}.attn.to_{name}" for name in "qkv"),
                "single_transformer_blocks.{}.proj_mlp",
            ),
        ),
    ),
)

CLASS_NAME = "HunyuanVideoTransformer3DModel"
_ALWAYS = {"num_refiner_layers": 2, "qk_norm": "rms_norm", "image_condition_type": None}
"""What diffusers' class could also be, and this transformer is not."""


def from_diffusers_config(values: Mapping[str, Any], source: object) -> DiTConfig:
    """Translate diffusers' `config.json`.

    Args:
        values: Its content.
        source: Where it came from; it opens the error message.

    Raises:
        CheckpointError: It is of another model, a key is missing, or a variant is asked for that this one is not.
    """
    if values.get("_class_name") != CLASS_NAME:
        raise CheckpointError(f"{source}: is of diffusers' {values.get('_class_name')}; expected {CLASS_NAME}")
    for key, value in _ALWAYS.items():
        if values.get(key, value) != value:
            raise CheckpointError(f"{source}: {key} is {values[key]!r}; this transformer has {value!r}")
    try:
        heads, patch = values["num_attention_heads"], values["patch_size"]
        return DiTConfig(
            in_channels=values["in_channels"],
            out_channels=values["out_channels"],
            width=heads * values["attention_head_dim"],
            heads=heads,
            mlp_ratio=values["mlp_ratio"],
            double_blocks=values["num_layers"],
            single_blocks=values["num_single_layers"],
            rope_axes=tuple(values["rope_axes_dim"]),
            rope_theta=values["rope_theta"],
            patch=(values["patch_size_t"], patch, patch),
            text_width=values["text_embed_dim"],
            pooled_width=values["pooled_projection_dim"],
            guidance_embed=values["guidance_embeds"],
        )
    except KeyError as error:
        raise CheckpointError(f"{source}: has no {error.args[0]!r}, which {CLASS_NAME} needs") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{source}: not a valid configuration of {CLASS_NAME} ({error})") from error


def to_diffusers_config(config: DiTConfig) -> dict[str, Any]:
    """Translate a configuration into what diffusers' class takes.

    Raises:
        CheckpointError: The patch is not square, which diffusers' class cannot be told.
    """
    patch_frames, patch_height, patch_width = config.patch
    if patch_height != patch_width:
        raise CheckpointError(f"patch {config.patch} is not square in height and width; diffusers' class needs that")
    return {
        "_class_name": CLASS_NAME,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.width // config.heads,
        "num_layers": config.double_blocks,
        "num_single_layers": config.single_blocks,
        "mlp_ratio": config.mlp_ratio,
        "patch_size": patch_height,
        "patch_size_t": patch_frames,
        "guidance_embeds": config.guidance_embed,
        "text_embed_dim": config.text_width,
        "pooled_projection_dim": config.pooled_width,
        "rope_theta": config.rope_theta,
        "rope_axes_dim": list(config.rope_axes),
        **_ALWAYS,
    }
