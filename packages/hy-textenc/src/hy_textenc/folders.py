"""Where the parts of a pretrained encoder lie: weights, tokenizer and image processor, together or side by side.

A diffusers pipeline has `text_encoder/` and `tokenizer/` beside it, and the same with `_2`. Tencent's layout has the
tokenizer in `text_encoder/` itself, and so has a whole model as published by its authors.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hy_weights import located_folder

from hy_textenc.errors import TextEncoderError

MLLM_FOLDERS = ("text_encoder", "text_encoder_i2v")
CLIP_FOLDERS = ("text_encoder_2",)

_CONFIG = "config.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json")
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True, slots=True)
class EncoderFolders:
    """The folders of one encoder; two of them may be the same.

    Attributes:
        weights: has `config.json` and safetensors.
        tokenizer: has the tokenizer's files.
        processor: has the settings of an image processor; None where there is none.
    """

    weights: Path
    tokenizer: Path
    processor: Path | None

    @property
    def model_type(self) -> str | None:
        """What kind of model `config.json` says the weights are; None where it doesn't say, as ours don't."""
        return model_type(self.weights)


def model_type(folder: Path) -> str | None:
    """Read `model_type` of a folder's `config.json`.

    Raises:
        TextEncoderError: the file is not JSON.
    """
    file = folder / _CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TextEncoderError(f"{file}: can't be read as JSON ({error})") from error
    return config.get("model_type") if isinstance(config, dict) else None


def weights_folder(place: str | os.PathLike[str], names: Sequence[str]) -> Path:
    """Return the folder of an encoder's weights, on this machine.

    Args:
        place: the folder itself; a pipeline's, which has the encoder in a folder of one of the `names`; or the hub id
            of either, `hf://org/name[/folder]`, which is downloaded if it isn't already.
        names: what pipelines call the encoder's folder.

    Raises:
        TextEncoderError: there is no `config.json`.
        CheckpointError: there is no such path, or the hub doesn't give it.
    """
    root = located_folder(place, names)
    for folder in (*(root / name for name in names), root):
        if (folder / _CONFIG).is_file():
            return folder
    raise TextEncoderError(f"{root}: no text encoder: it has no {_CONFIG}, nor a folder {' or '.join(names)} with one")


def encoder_folders(place: str | os.PathLike[str], names: Sequence[str]) -> EncoderFolders:
    """Return the folders of an encoder; arguments and errors are those of `weights_folder`.

    Raises:
        TextEncoderError: the tokenizer is missing too.
    """
    weights = weights_folder(place, names)
    beside = weights.with_name(weights.name.replace("text_encoder", "tokenizer"))
    tokenizer = _first_with(_TOKENIZER_FILES, weights, beside)
    if tokenizer is None:
        listed = ", ".join(_TOKENIZER_FILES)
        where = f"{weights} nor {beside}" if beside != weights else f"{weights}"
        raise TextEncoderError(f"no tokenizer in {where}: one of {listed} should be there")
    processor = _first_with(_PROCESSOR_FILES, weights, weights.with_name("image_processor"))
    return EncoderFolders(weights, tokenizer, processor)


def _first_with(files: Sequence[str], *folders: Path) -> Path | None:
    return next((folder for folder in folders if any((folder / file).is_file() for file in files)), None)
