"""What a model's layers are called: by us, by diffusers, by ComfyUI, and with their dots gone."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch

from hy_weights.layout import Layout

DOTTED = ("", "diffusion_model.", "transformer.", "base_model.model.", "base_model.model.diffusion_model.")
"""What may stand before a layer's name: nothing; ComfyUI and diffusion-pipe; diffusers; PEFT; PEFT inside ComfyUI."""

FLAT = ("lora_unet_", "Hunyuan_video_I2V_lora_", "lora_transformer_", "lycoris_")
"""The same where dots became underscores: kohya's trainers; the released I2V trainer; OneTrainer; LyCORIS."""


class Place(NamedTuple):
    """Which of our layers a name means; `part` is diffusers' layer, where the name is theirs."""

    layer: str
    part: str | None


@dataclass(frozen=True, kw_only=True)
class LayerNames:
    """The layers of one model that a LoRA can change.

    Attributes:
        shapes: Shape of each layer's weight by our name.
        width: Channels of the model; rows of every part of a joint layer but the last (see `Layout.from_ours`).
        layout: How diffusers stores these layers.
        aliases: Other names, each with our layer.
        comfy: The layers that ComfyUI finds under another name only, with that name.
    """

    shapes: Mapping[str, torch.Size]
    width: int
    layout: Layout
    aliases: Mapping[str, str] = field(default_factory=dict)
    comfy: Mapping[str, str] = field(default_factory=dict)

    def find(self, spelling: str) -> Place | None:
        """Return the layer that a file means, whoever wrote it; None if the model has none of that name."""
        for prefixes, places in ((DOTTED, self._dotted), (FLAT, self._flat)):
            for prefix in prefixes:
                if spelling.startswith(prefix) and (place := places.get(spelling.removeprefix(prefix))):
                    return place
        return None

    def parts(self, layer: str) -> dict[str, torch.Size]:
        """Return diffusers' layers that make up one of ours, in the order of its rows, with their weights' shapes."""
        weight = torch.empty(self.shapes[layer], device="meta")
        view = self.layout.from_ours({f"{layer}.weight": weight}, self.width)
        return {key.removesuffix(".weight"): view.outline(key).shape for key in view}

    def shape(self, place: Place) -> torch.Size:
        """Return the shape of the weight at a place."""
        return self.shapes[place.layer] if place.part is None else self.parts(place.layer)[place.part]

    def suggest(self, spelling: str) -> str | None:
        """Return our layer whose name, or another name of it, is much like one that was not found."""
        prefix = max((prefix for prefix in DOTTED + FLAT if spelling.startswith(prefix)), key=len)
        near = difflib.get_close_matches(spelling.removeprefix(prefix).replace(".", "_"), self._flat, n=1)
        return self._flat[near[0]].layer if near else None

    @cached_property
    def _dotted(self) -> dict[str, Place]:
        theirs = {part: Place(layer, part) for layer in self.shapes for part in self.parts(layer)}
        aliases = {alias: Place(layer, None) for alias, layer in self.aliases.items()}
        return theirs | aliases | {layer: Place(layer, None) for layer in self.shapes}

    @cached_property
    def _flat(self) -> dict[str, Place]:
        return {name.replace(".", "_"): place for name, place in self._dotted.items()}
