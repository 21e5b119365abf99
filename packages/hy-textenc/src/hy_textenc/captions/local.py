"""Captions by a vision-language model of transformers, on this machine."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from hy_weights.hub import SCHEME
from PIL.Image import Image

from hy_textenc.captions.answers import Turn, obtain
from hy_textenc.captions.errors import CaptionerError
from hy_textenc.captions.frames import clip_name, pictures
from hy_textenc.captions.instructions import request


class LocalCaptioner:
    """Runs a model on one clip at a time; its likeliest answer is taken. Calls from several threads take turns.

    Any model that `AutoModelForImageTextToText` knows will do, if its processor has a chat template. Code that comes
    with a model is not run, and weights are read from safetensors alone.

    Args:
        model: a folder, or a repository on the hub, `hf://org/name`, which is downloaded if need be.
        frames: how many frames of a clip are shown at most.
        side: their longer side in pixels, at most.
        language: of the captions.
        max_tokens: longest answer.
        device: "cpu", "cuda", or "auto": cuda where there is one.
        dtype: of the weights; "auto" takes the stored one.

    Raises:
        CaptionerError: an option is missing, or the model can't be loaded.
    """

    def __init__(
        self,
        *,
        model: str = "",
        frames: int = 8,
        side: int = 512,
        language: str = "English",
        max_tokens: int = 1500,
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    ) -> None:
        if not model:
            raise CaptionerError("vlm-local needs model: a folder, or hf://org/name on the hub")
        for name, value, least in (("frames", frames, 1), ("side", side, 16), ("max_tokens", max_tokens, 16)):
            if value < least:
                raise CaptionerError(f"{name} is {value}; it must be at least {least}")
        self.frames, self.side, self.language, self.max_tokens = frames, side, language, max_tokens
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._processor, self._model = _load(model, device, dtype)
        self._alone = threading.Lock()

    def caption(self, sample: Mapping[str, Any]) -> Mapping[str, Any]:
        """Describe a clip.

        Args:
            sample: `frames_THWC`, uint8 RGB of shape (T, H, W, 3); for the request and messages `fps`, `key`, `source`
                and `start`, where there are any.

        Returns:
            the fields of `Caption` that hold something, `short` among them.

        Raises:
            CaptionError: the model's answer can't be used, nor the one after it was told why; names the clip.
        """
        chosen = pictures(sample, self.frames, self.side)
        text = request(sample, len(chosen), self.language)
        with self._alone:
            return obtain(lambda turns: self._answer(chosen, text, turns), clip_name(sample)).to_mapping()

    @torch.inference_mode()
    def _answer(self, chosen: Sequence[Image], text: str, turns: Sequence[Turn]) -> str:
        content = [*({"type": "image", "image": picture} for picture in chosen), {"type": "text", "text": text}]
        messages = [{"role": "user", "content": content}]
        messages += [{"role": role, "content": [{"type": "text", "text": said}]} for role, said in turns]
        inputs = self._processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        inputs = inputs.to(self._model.device, dtype=self._model.dtype)  # of these the integers stay integers
        tokens = self._model.generate(**inputs, max_new_tokens=self.max_tokens, do_sample=False)
        asked = inputs["input_ids"].shape[1]
        return self._processor.decode(tokens[0, asked:], skip_special_tokens=True)


def _load(model: str, device: str, dtype: str) -> tuple[Any, Any]:
    """The processor and the model."""
    from transformers import AutoModelForImageTextToText, AutoProcessor  # takes seconds

    # Only `hf://` reaches for the hub: a mistyped folder is no repository.
    options: Any = {"trust_remote_code": False, "local_files_only": not model.startswith(SCHEME)}
    place = model.removeprefix(SCHEME)
    try:
        processor = AutoProcessor.from_pretrained(place, **options)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(place, dtype=dtype, use_safetensors=True, **options)
        if not getattr(processor, "chat_template", None):
            raise CaptionerError("its processor has no chat template; take a model that is tuned for instructions")
        return processor, loaded.to(device).eval()
    except Exception as error:  # what transformers raises depends on what is missing, and where
        told = " ".join(str(error).split())[:500]
        raise CaptionerError(f"vlm-local can't load the model {model}: {told}") from error
