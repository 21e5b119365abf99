"""Subword tokens of pretrained encoders, as the released code makes them: cut on the right, padded on the right.

Shapes: B batch, S text tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from hy_textenc.errors import TextEncoderError
from hy_textenc.prompts import require_characters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Tokens of B texts.

    Attributes:
        ids_BS: ids, padded.
        mask_BS: bool, True at real tokens.
        lengths: tokens of each text before it was cut.
    """

    ids_BS: Tensor
    mask_BS: Tensor
    lengths: Sequence[int]


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a folder; nothing is looked up elsewhere, and no code of the folder runs.

    Raises:
        TextEncoderError: it can't be read, or has no padding token.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # tokenizer.json says all of it. The class that an old configuration names may know better: in transformers 5.4 that
    # of Llama splits Llama 3's text as Llama 2's.
    loader = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    try:
        tokenizer = loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers and tokenizers raise errors of many types for a damaged file
        raise TextEncoderError(f"{folder}: the tokenizer can't be read: {error}") from error
    if tokenizer.pad_token_id is None:
        raise TextEncoderError(
            f"{folder}: the tokenizer has no padding token; tokenizer_config.json must name pad_token"
        )
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    return tokenizer


def tokenize(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], length: int) -> Tokens:
    """Tokenize texts to `length` tokens each, special ones that the tokenizer adds among them.

    Raises:
        TextEncoderError: a text is no Unicode.
    """
    require_characters(texts)
    lengths = [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]
    padded = tokenizer(
        list(texts),
        max_length=length,
        padding="max_length",
        truncation=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return Tokens(padded["input_ids"], padded["attention_mask"].bool(), lengths)
