"""Writing a model folder: `model.safetensors`, `config.json` and `manifest.json`, published at once."""

import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from hy_weights.errors import CheckpointError
from hy_weights.finite import require_finite
from hy_weights.manifest import write_manifest
from hy_weights.publish import staged
from hy_weights.reading import CONFIG_FILE
from hy_weights.stored import WEIGHTS_FILE


def write_model(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Publish a model folder, replacing an older one of the same name.

    Args:
        folder: the final place.
        tensors: by state dict name, stored in the dtype they have. Tensors that share memory are stored apart.
        config: JSON values; `read_config` and `read_config_as` give them back.
        provenance: JSON values that say how the weights were made; kept in the manifest.

    Raises:
        CheckpointError: a tensor holds NaN or infinity, or the place can't be written or is not ours to replace.
    """
    stored = storable(tensors)
    require_finite(stored, source=folder)
    with staged(folder) as inside:
        try:
            save_file(stored, inside / WEIGHTS_FILE, metadata={"format": "pt"})
            # safetensors makes the file private; a published folder is as open as the umask wants.
            (inside / WEIGHTS_FILE).chmod(inside.stat().st_mode & 0o666)
            text = json.dumps(dict(config), indent=2, ensure_ascii=False)
            (inside / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
            write_manifest(inside, provenance)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{folder}: can't be written ({error})") from error


def storable(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous tensors on the CPU; safetensors refuses two that share memory, so the second becomes a copy."""
    stored: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for key, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        if value.untyped_storage().data_ptr() in storages:
            value = value.clone()
        storages.add(value.untyped_storage().data_ptr())
        stored[key] = value
    return stored
