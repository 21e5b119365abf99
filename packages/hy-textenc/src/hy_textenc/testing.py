"""Pretrained encoders small enough for tests: random weights, and tokenizers trained on the spot.

What they write, everything of `transformers` reads; a seed decides the weights.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from hy_textenc.templates import IMAGE_TEMPLATES, IMAGE_TOKEN, TEMPLATES

LLAMA_3_SPECIALS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
LLAVA_SPECIALS = (IMAGE_TOKEN, "<pad>")
CLIP_SPECIALS = ("<|startoftext|>", "<|endoftext|>")
T5_SPECIALS = ("<pad>", "</s>")

# Letters with a space before them, numbers, marks, and white space whose line breaks stay together: Llama 3's "\n\n".
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_RANDOM: dict[str, Any] = {
    "initializer_range": 0.15
}  # large enough that every layer changes the states by more than rounding does


def write_llama_tokenizer(folder: Path, *, merges: int = 200, images: bool = True) -> PreTrainedTokenizerFast:
    """Write a byte-level BPE tokenizer that has Llama 3's special tokens and, as it does, begins a text with one.

    Args:
        folder: where to.
        merges: how many pairs it learns to merge.
        images: whether it has Llava's image token.
    """
    specials = [*LLAMA_3_SPECIALS, *(LLAVA_SPECIALS if images else LLAVA_SPECIALS[1:])]
    tokenizer = _trained([template.text for template in (*TEMPLATES.values(), *IMAGE_TEMPLATES.values())], merges)
    tokenizer.add_special_tokens(specials)
    _surround(tokenizer, before=specials[0])
    return _write(tokenizer, folder, bos_token=specials[0], eos_token=specials[4], pad_token="<pad>")


def write_clip_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Write a tokenizer that puts a text between CLIP's two special tokens and pads with the second."""
    tokenizer = _trained(["a red ball rolls to the left", "a blue cat runs"], 20)
    tokenizer.add_special_tokens(list(CLIP_SPECIALS))
    start, end = CLIP_SPECIALS
    _surround(tokenizer, before=start, after=end)
    return _write(tokenizer, folder, bos_token=start, eos_token=end, unk_token=end, pad_token=end)


def write_t5_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Write a tokenizer that ends a text with T5's end token."""
    tokenizer = _trained(["a red ball rolls to the left", "a blue cat runs"], 20)
    tokenizer.add_special_tokens(list(T5_SPECIALS))
    _surround(tokenizer, after=T5_SPECIALS[1])
    return _write(tokenizer, folder, eos_token=T5_SPECIALS[1], pad_token=T5_SPECIALS[0])


def write_llama(folder: Path, tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, **config: Any) -> None:
    """Write a Llama without head, of width 32 and 5 layers unless `config` says otherwise."""
    torch.manual_seed(seed)
    LlamaModel(_llama_config(tokenizer, config)).save_pretrained(folder)


def write_llava(folder: Path, tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, **config: Any) -> None:
    """Write a Llava whose images are 4 by 4 tokens, and its image processor."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=7,
        projection_dim=16,
        **_RANDOM,
    )
    text = _llama_config(tokenizer, config)
    (image_token,) = tokenizer(IMAGE_TOKEN, add_special_tokens=False)["input_ids"]
    llava = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=image_token, image_seq_length=16, **_RANDOM
    )
    llava.pad_token_id = text.pad_token_id  # as in the released configuration; diffusers looks for it here
    LlavaForConditionalGeneration(llava).save_pretrained(folder)
    write_image_processor(folder)


def write_image_processor(folder: Path) -> None:
    """Write the settings of an image processor for `write_llava`'s images."""
    CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)


def write_clip(folder: Path, tokenizer: PreTrainedTokenizerFast, *, seed: int = 1, **config: Any) -> None:
    """Write CLIP's text encoder, of width 24 unless `config` says otherwise."""
    torch.manual_seed(seed)
    size = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    values = {"vocab_size": len(tokenizer), "projection_dim": 12, "pad_token_id": tokenizer.pad_token_id, **_RANDOM}
    model = CLIPTextModel(CLIPTextConfig(**{**values, **size, **ids, **config}))
    _stir(model)
    model.save_pretrained(folder)


def write_t5(folder: Path, tokenizer: PreTrainedTokenizerFast, *, seed: int = 2, **config: Any) -> None:
    """Write T5's encoder, of width 24 unless `config` says otherwise."""
    torch.manual_seed(seed)
    size = {"d_model": 24, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 3}
    T5EncoderModel(T5Config(**{"vocab_size": len(tokenizer), **size, **config})).save_pretrained(folder)


def write_text_parts(
    folder: Path,
    *,
    layout: Literal["diffusers", "tencent"] = "diffusers",
    images: bool = False,
    llama: dict[str, Any] | None = None,
    clip: dict[str, Any] | None = None,
) -> Path:
    """Write both text encoders of a HunyuanVideo pipeline.

    Args:
        folder: gets `text_encoder/` and `text_encoder_2/`.
        layout: where the tokenizers lie: "diffusers" has them in `tokenizer/` and `tokenizer_2/`, and the image
            processor in `image_processor/`; "tencent" in the encoders' folders, the language model being in
            `text_encoder_i2v/` when it reads images.
        images: whether the language model is a whole Llava, as for I2V.
        llama: values of the language model's configuration, such as `hidden_size`.
        clip: values of CLIP's.

    Returns:
        `folder`.
    """
    apart = layout == "diffusers"
    mllm = folder / ("text_encoder_i2v" if images and not apart else "text_encoder")
    tokenizer = write_llama_tokenizer(folder / "tokenizer" if apart else mllm, images=images)
    (write_llava if images else write_llama)(mllm, tokenizer, **(llama or {}))
    if images and apart:
        (mllm / "preprocessor_config.json").unlink(missing_ok=True)
        write_image_processor(folder / "image_processor")
    clip_tokenizer = write_clip_tokenizer(folder / ("tokenizer_2" if apart else "text_encoder_2"))
    write_clip(folder / "text_encoder_2", clip_tokenizer, **(clip or {}))
    return folder


def _llama_config(tokenizer: PreTrainedTokenizerFast, config: dict[str, Any]) -> LlamaConfig:
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 5}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    values = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **_RANDOM}
    return LlamaConfig(**{**values, **size, **heads, **ids, **config})


def _stir(model: torch.nn.Module) -> None:
    """Make a model's weights large enough to matter; CLIP's own scheme makes them tiny."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)


def _trained(texts: Sequence[str], merges: int) -> Tokenizer:
    """A BPE over bytes, so that every text of any language can be read."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_WORDS), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + merges, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*texts, "\n\n"] * 2, trainer)
    return tokenizer


def _surround(tokenizer: Tokenizer, before: str = "", after: str = "") -> None:
    parts = [token for token in (before, after) if token]
    form = " ".join(token for token in (before, "$A", after) if token)
    ids = [(token, tokenizer.token_to_id(token)) for token in parts]
    tokenizer.post_processor = processors.TemplateProcessing(single=form, special_tokens=ids)


def _write(tokenizer: Tokenizer, folder: Path, **specials: str) -> PreTrainedTokenizerFast:
    written = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **specials)
    written.save_pretrained(folder)
    return written
