"""This transformer's checkpoints, for `hyvideo convert`."""

from dataclasses import asdict
from pathlib import Path

from hy_weights import StoredTensors
from hy_weights.formats import ModelFormat, OpenModel

from hy_dit.config import DiTConfig
from hy_dit.eight_bit import widened
from hy_dit.layout import DIFFUSERS, to_diffusers_config
from hy_dit.load import open_dit

MARK = "single_blocks.0.linear1.weight"
"""A key that only this transformer's checkpoints have, where it has a single-stream block."""


def model_format() -> ModelFormat:
    """Return how to recognise, read and write the transformer's checkpoints."""
    return ModelFormat(name="HunyuanVideo transformer", open=_open, to_diffusers=_to_diffusers)


def _open(path: Path) -> OpenModel | None:
    stored = StoredTensors(path)
    if not DIFFUSERS.recognises(stored) and MARK not in stored:
        return None
    tensors, config = open_dit(path)
    return OpenModel(tensors=widened(tensors), config=asdict(config))


def _to_diffusers(model: OpenModel) -> OpenModel:
    config = DiTConfig(**model.config)
    return OpenModel(tensors=DIFFUSERS.from_ours(model.tensors, config.width), config=to_diffusers_config(config))
