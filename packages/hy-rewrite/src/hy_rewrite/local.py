"""Rewriting with a language model on this machine, through transformers."""

import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from hy_rewrite.dialogue import Message
from hy_rewrite.errors import RewriteError
from hy_rewrite.rewriter import MAX_LENGTH, ROUNDS, ChatRewriter, Options

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("auto", "float32", "bfloat16", "float16")
_HUB = re.compile(r"hf:/{1,2}(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@\s]+))?")


def local_rewriter(
    *,
    model: str,
    adapter: str | None = None,
    mode: str = "normal",
    language: str = "English",
    rounds: int = ROUNDS,
    max_length: int = MAX_LENGTH,
    dtype: str = "auto",
    device: str = "auto",
    max_new_tokens: int = 768,
) -> ChatRewriter:
    """Return a rewriter with a causal language model that has a chat template. It draws nothing: results repeat.

    Args:
        model: A folder, or `hf://org/name[@revision]`, which is downloaded if it isn't in the hub's cache.
        adapter: A folder that training published, see `hy_rewrite.lightning`; needs the extra `lora`. Such a model was
            trained without examples, and is shown none.
        mode: See `Options`, as the next three.
        language: What the rewrites are written in.
        rounds: Of self-revision.
        max_length: Characters that a rewrite may have.
        dtype: Of the weights, one of `DTYPES`; `auto` takes them as they are stored.
        device: Where to compute; `auto` takes CUDA where there is one.
        max_new_tokens: Tokens that one answer may have.

    Raises:
        RewriteError: An option is out of its range; or the model can't be read, isn't there, or has no chat template.
    """
    options = Options(mode=mode, language=language, rounds=rounds, max_length=max_length)
    chat = LocalChat(model, adapter=adapter, dtype=dtype, device=device, max_new_tokens=max_new_tokens)
    return ChatRewriter(chat, options, with_examples=adapter is None)


class LocalChat:
    """A language model in memory; one answer at a time.

    Args:
        model: See `local_rewriter`, as the others.
        adapter: A LoRA for it.
        dtype: Of the weights.
        device: Where to compute.
        max_new_tokens: Tokens that one answer may have.

    Raises:
        RewriteError: See `local_rewriter`.
    """

    def __init__(
        self,
        model: str,
        *,
        adapter: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        max_new_tokens: int = 768,
    ) -> None:
        if max_new_tokens < 1:
            raise RewriteError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
        place = torch.device("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else _device(device)
        if adapter is not None and not (Path(adapter) / "adapter_model.safetensors").is_file():
            raise RewriteError(f"{adapter}: no adapter; it must be a folder with adapter_model.safetensors")
        self.name = model if adapter is None else f"{model} with {adapter}"
        self.tokenizer = load_tokenizer(model)
        self.model: Any = load_model(model, dtype)
        if adapter is not None:
            self.model = _with_adapter(self.model, adapter)
        self.model = self.model.to(place).eval()
        self._settings = _greedy(self.model.generation_config, self.tokenizer, max_new_tokens)
        self._one_at_a_time = threading.Lock()

    def answer(self, messages: Sequence[Message]) -> str:
        """Return the most probable next turn, token by token.

        Raises:
            RewriteError: The dialogue is longer than what the model reads.
        """
        ids = self.tokenizer(rendered(self.tokenizer, messages), add_special_tokens=False, return_tensors="pt")
        ids = ids["input_ids"].to(self.model.device)
        reads = getattr(self.model.config, "max_position_embeddings", None)
        needed = ids.shape[1] + self._settings.max_new_tokens
        if reads is not None and needed > reads:
            raise RewriteError(
                f"{self.name} reads {reads} tokens; the dialogue and its answer have {needed}: take a model that reads "
                "more, or a shorter prompt"
            )
        with self._one_at_a_time, torch.inference_mode():
            found = self.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=self._settings)
        return str(self.tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True))


def load_tokenizer(model: str) -> "PreTrainedTokenizerBase":
    """Read a model's tokenizer.

    Args:
        model: A folder, or `hf://org/name[@revision]`.

    Raises:
        RewriteError: It can't be read, or has no chat template.
    """
    tokenizer = _read(AutoTokenizer, model)
    if not tokenizer.chat_template:
        raise RewriteError(f"{model}: its tokenizer has no chat template; take an instruction-tuned model")
    return tokenizer


def load_model(model: str, dtype: str = "auto") -> "PreTrainedModel":
    """Read a causal language model from safetensors; its own code, if it brings some, is not run.

    Args:
        model: A folder, or `hf://org/name[@revision]`.
        dtype: Of the weights, one of `DTYPES`.

    Raises:
        RewriteError: It can't be read.
    """
    if dtype not in DTYPES:
        raise RewriteError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    return _read(AutoModelForCausalLM, model, dtype=dtype, use_safetensors=True)


def rendered(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> str:
    """Return a dialogue as the model's template writes it, ready for its answer.

    Templates without a system turn get its text at the head of the first user turn; those with a switch for thinking
    aloud get it switched off.
    """
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in messages]
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    try:
        return str(tokenizer.apply_chat_template(turns, **options))
    except TemplateError:
        system, first, *rest = turns
        merged = {"role": "user", "content": f"{system['content']}\n\n{first['content']}"}
        return str(tokenizer.apply_chat_template([merged, *rest], **options))


def _read(kind: Any, model: str, **options: Any) -> Any:
    matched = _HUB.fullmatch(model)
    if matched is not None:
        options["revision"] = matched["revision"] or "main"
    elif Path(model).is_dir():
        options["local_files_only"] = True
    else:
        looks_like_an_id = re.fullmatch(r"[\w.-]+/[\w.-]+", model) is not None
        hint = f"; if you mean a repository on the hub, write hf://{model}" if looks_like_an_id else ""
        raise RewriteError(f"{model}: no such folder{hint}")
    try:
        return kind.from_pretrained(matched["repository"] if matched else model, trust_remote_code=False, **options)
    except Exception as error:  # each of transformers' readers has errors of its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RewriteError(f"{model}: can't be read as a language model ({reason})") from error


def _with_adapter(model: Any, adapter: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise RewriteError("an adapter needs peft: pip install 'hy-rewrite[lora]'") from error
    try:
        return PeftModel.from_pretrained(model, adapter)
    except Exception as error:  # safetensors and peft have errors of their own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RewriteError(f"{adapter}: doesn't fit the model ({reason})") from error


def _greedy(given: Any, tokenizer: Any, max_new_tokens: int) -> GenerationConfig:
    """The most probable token each time, whatever the model's own settings draw."""
    ends = given.eos_token_id if given.eos_token_id is not None else tokenizer.eos_token_id
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=padding, use_cache=True
    )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RewriteError(f"device is {name!r}; it must be auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RewriteError(f"device is {name!r}, and this machine has no CUDA")
    return device
