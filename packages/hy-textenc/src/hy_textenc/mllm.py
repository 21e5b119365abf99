"""The multimodal language model that the released models read prompts with: Llama 3, alone or inside Llava.

It is asked to describe a video, and what it makes of the prompt in the third last of its hidden states is what the
transformer gets (paper section 4.3). Of a reference image it takes the image's tokens too (image to video).

Shapes: B batch, S text tokens, D width, C channels, H W height/width of an image.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from hy_plugins import TextTokens
from torch import Tensor, nn

from hy_textenc.errors import TextEncoderError
from hy_textenc.folders import MLLM_FOLDERS
from hy_textenc.framing import Framing, measure
from hy_textenc.pretrained import Offload, PretrainedEncoder
from hy_textenc.prompts import require_prompts
from hy_textenc.quantization import Quantization
from hy_textenc.templates import IMAGE_TEMPLATES, IMAGE_TOKEN, TEMPLATES
from hy_textenc.tokens import Tokens, tokenize

if TYPE_CHECKING:
    from PIL.Image import Image

Media = Literal["video", "image"]

SKIPPED_LAYERS = 2
"""Last layers of the language model whose work the transformer never sees: 2 of 32 in the released models."""


class MLLMEncoder(PretrainedEncoder):
    """Llama 3 or Llava with Llama 3, in the released models `llava-llama-3`.

    The last two layers and the final norm are neither read nor run.

    Args:
        path: as the other arguments, attributes and errors: see `PretrainedEncoder`. Images need a whole Llava with its
            image processor, `preprocessor_config.json` in the same folder or in `image_processor/` beside it.
        dtype: of the weights and of the results; the released models use float16.
        device: where to encode.
        quantization: "8bit" or "4bit" weights.
        offload: what happens to the weights after each use.
        media: what is to be made of the prompts, "video" or "image": each has its template.
        interleave: of an image's tokens every so many-th is kept: 4 for the released I2V checkpoint that replaces
            tokens of the first frame, 2 for the one that concatenates channels; 1 keeps all.
    """

    name = "llava-llama-3"
    model_types = ("llama", "llava")
    folder_names = MLLM_FOLDERS

    def __init__(
        self,
        path: str | os.PathLike[str],
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        quantization: Quantization | None = None,
        offload: Offload = "cpu",
        media: Media = "video",
        interleave: int = 4,
    ) -> None:
        if media not in TEMPLATES:
            raise TextEncoderError(f"media is {media!r}; it can be {' or '.join(TEMPLATES)}")
        if interleave < 1:
            raise TextEncoderError(f"interleave is {interleave}; it must be at least 1")
        super().__init__(path, dtype, device, quantization, offload)
        layers = self.config.get_text_config().num_hidden_layers
        if layers <= SKIPPED_LAYERS:
            raise TextEncoderError(
                f"{self.folders.weights / 'config.json'}: num_hidden_layers is {layers}; the states are taken before "
                f"the last {SKIPPED_LAYERS}, so there must be more"
            )
        self.media, self.interleave = media, interleave
        self.framing = measure(self.tokenizer, TEMPLATES[media])
        self._processor: Any = None

    @property
    def width(self) -> int:
        """Width of the token states."""
        return self.config.get_text_config().hidden_size

    @property
    def _parts(self) -> Mapping[str, Path]:
        parts = dict(super()._parts)
        return parts if self.folders.processor is None else parts | {"processor": self.folders.processor}

    @property
    def _settings(self) -> Mapping[str, Any]:
        templates = {"template": TEMPLATES[self.media], "image_template": IMAGE_TEMPLATES[self.media]}
        kept = {"tokens": TEMPLATES[self.media].kept, "image_tokens": IMAGE_TEMPLATES[self.media].kept}
        digests = {name: template.sha256 for name, template in templates.items()}
        return digests | kept | {"layer": -1 - SKIPPED_LAYERS, "interleave": self.interleave}

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], images: "Sequence[Image] | None" = None) -> TextTokens:
        """Encode B prompts, each with its image if there are images; neighbours don't change a prompt's states.

        Args:
            prompts: at least one; of a long one the beginning is kept, with a warning the first time. Special tokens
                in it are read as such, as the released code does.
            images: one RGB image per prompt, of any size.

        Returns:
            States [B, S, D] and mask [B, S], padded to the released length: S is 256 for a video and 315 for an image.
            With images S is 576 / interleave image tokens, then 252 of the text (317 for an image): 396 as released.
            No pooled vector.

        Raises:
            TextEncoderError: there are no prompts, not as many images, or nothing that reads images; a prompt holds
                the image's token; the weights don't load.
        """
        require_prompts(prompts)
        return self._encode_texts(prompts) if images is None else self._encode_with_images(prompts, images)

    def _encode_texts(self, prompts: Sequence[str]) -> TextTokens:
        framing = self.framing
        tokens = self._tokenize(framing, prompts)
        read = [framing.template.kept] * len(prompts)
        self._warn_of_prompts(framing, tokens, read)
        with self._in_use() as model:
            language = model.language_model if self.config.model_type == "llava" else model
            states_BSD = _states(language, tokens.ids_BS, tokens.mask_BS)
        start = framing.crop_start
        return TextTokens(states_BSD[:, start:].contiguous(), tokens.mask_BS[:, start:].to(states_BSD.device))

    def _encode_with_images(self, prompts: Sequence[str], images: "Sequence[Image]") -> TextTokens:
        framing = self._image_framing(prompts, images)
        pixels_BCHW = self._pixels(images)
        tokens = self._tokenize(framing, prompts)
        image_at, count = framing.image_at or 0, self._tokens_per_image
        ids_BS, mask_BS = (_expanded(values_BS, image_at, count) for values_BS in (tokens.ids_BS, tokens.mask_BS))
        with self._in_use() as model:
            states_BSD = _states(model, ids_BS, mask_BS, pixel_values=pixels_BCHW)
        headers = [framing.header(length) for length in tokens.lengths]
        self._warn_of_prompts(framing, tokens, [start - framing.crop_start for start, _ in headers])
        image, more = slice(image_at, image_at + count, self.interleave), count - 1
        text = [(framing.crop_start + more, start + more, end + more) for start, end in headers]
        return TextTokens(_kept(states_BSD, image, text), _kept(mask_BS.to(states_BSD.device), image, text))

    def _tokenize(self, framing: Framing, prompts: Sequence[str]) -> Tokens:
        return tokenize(self.tokenizer, [framing.template.around(prompt) for prompt in prompts], framing.length)

    def _warn_of_prompts(self, framing: Framing, tokens: Tokens, read: Sequence[int]) -> None:
        of_prompts = framing.prompt_tokens(tokens.lengths)
        dropped = [length - most for length, most in zip(of_prompts, read, strict=True)]
        self._warn_of_cut(dropped, min(read))

    @property
    def _tokens_per_image(self) -> int:
        """Patches of an image, and the class token where the projector gets it."""
        vision = self.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        return patches + (self.config.vision_feature_select_strategy != "default")

    def _image_framing(self, prompts: Sequence[str], images: "Sequence[Image]") -> Framing:
        """Measure the template for images, after looking whether images and prompts fit each other and the model."""
        weights = self.folders.weights
        if self.config.model_type != "llava":
            raise TextEncoderError(f"{weights}: a language model alone; images need a whole Llava")
        if len(images) != len(prompts):
            raise TextEncoderError(f"{len(prompts)} prompts need as many images, not {len(images)}")
        for index, prompt in enumerate(prompts):
            if IMAGE_TOKEN in prompt:
                raise TextEncoderError(f"prompt {index} holds {IMAGE_TOKEN}, which stands for the image: {prompt!r}")
        framing = measure(self.tokenizer, IMAGE_TEMPLATES[self.media])
        read, known = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), self.config.image_token_id
        if read != known:
            raise TextEncoderError(f"{weights}: {IMAGE_TOKEN} is token {known} in config.json, {read} in the tokenizer")
        return framing

    def _pixels(self, images: "Sequence[Image]") -> Tensor:
        """Resize, crop and normalise images as the folder's settings say."""
        if self._processor is None:
            self._processor = self._read_processor()
        try:
            return self._processor(list(images), return_tensors="pt")["pixel_values"]
        except (TypeError, ValueError) as error:
            raise TextEncoderError(f"the images can't be read: {error}") from error

    def _read_processor(self) -> Any:
        from transformers import CLIPImageProcessorPil

        folder = self.folders.processor
        if folder is None:
            raise TextEncoderError(f"{self.folders.weights}: images need preprocessor_config.json here, or beside it")
        try:
            # Pillow resizes as the released code's processor does; torchvision rounds otherwise.
            return CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # errors of many types for a damaged file
            raise TextEncoderError(f"{folder}: the image processor can't be read: {error}") from error

    def _read_model(self) -> nn.Module:
        from transformers import LlamaModel, LlavaModel

        config = copy.deepcopy(self.config)
        config.get_text_config().num_hidden_layers -= SKIPPED_LAYERS
        is_llava = config.model_type == "llava"
        model: Any = self._pretrained(LlavaModel if is_llava else LlamaModel, config)
        language = model.language_model if is_llava else model
        language.norm = nn.Identity()  # the states are taken before it
        return model


def _states(model: Any, ids_BS: Tensor, mask_BS: Tensor, **inputs: Tensor) -> Tensor:
    """Hidden states [B, S, D] after the last layer that was read, on the model's device."""
    if inputs:  # only padding sees that it all stands at position 1; the released code's padding does so with images
        inputs["position_ids"] = (mask_BS.cumsum(dim=1) - 1).masked_fill(~mask_BS, 1)
    inputs |= {"input_ids": ids_BS, "attention_mask": mask_BS.long()}
    there = {name: values.to(model.device) for name, values in inputs.items()}
    return model(**there, use_cache=False).last_hidden_state


def _expanded(values_BS: Tensor, at: int, count: int) -> Tensor:
    """Repeat one column `count` times in its place."""
    image_BS = values_BS[:, at : at + 1].expand(-1, count)
    return torch.cat([values_BS[:, :at], image_BS, values_BS[:, at + 1 :]], dim=1)


def _kept(values_BS: Tensor, image: slice, text: Sequence[tuple[int, int, int]]) -> Tensor:
    """Of each row the image's columns, then the text's, which begin at its first number, without second to third."""
    rows = zip(values_BS, text, strict=True)
    return torch.stack([torch.cat([row[image], row[begin:start], row[end:]]) for row, (begin, start, end) in rows])
