"""No prompt is encoded twice: an encoder before which a store stands.

Each prompt is an entry of its own, so that it is found whatever batch it is in. Stored are the states of its real
tokens alone. What comes back is padded with zeros to the longest prompt of the batch, where an encoder may have filled
up to its own length, and with other values: to a backbone these are the same, since nobody attends to padding.

Shapes: B batch, S text tokens, D width.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from hy_plugins import TextTokens
from hy_plugins.protocols import TextEncoder
from hy_weights import TensorStore, content_key, tensors_sha256
from hy_weights.finite import is_finite
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hy_textenc.errors import TextEncoderError
from hy_textenc.prompts import require_prompts

Missing = Literal["encode", "error"]
"""What happens to a prompt that the store lacks."""

log = logging.getLogger(__name__)

_WHAT = "text states/1"
_SHOWN = 3, 60  # prompts that an error shows, and letters of each
Entry = dict[str, Tensor]


class CachedTextEncoder:
    """A text encoder that looks each prompt up before it encodes it.

    States are detached: this is for an encoder that is not being trained. One that is trained in between is noticed by
    its identity, which is asked for at every call.

    Args:
        encoder: an encoder with an `identity`: a mapping of JSON values that is equal for two encoders only if their
            states are, made of the weights' digest, templates and settings. Or what loads one, called at the first
            prompt that is not found. If it reads pictures, it takes them as a second argument.
        store: where states are kept. Where it can't be written to, the encoder works on without.
        identity: of the encoder that will be loaded, so that nothing is loaded where everything is found; or what gives
            it, called once, before the first key. Without it, the encoder itself is asked.
        device: where the states go.
        missing: "encode" what the store lacks, or refuse it as an "error": a training that was to find everything
            should not load an encoder beside its model.

    Attributes:
        hits: how many prompts were found.
        misses: how many had to be encoded.

    Raises:
        TextEncoderError: there is no such way with what is missing.
    """

    def __init__(
        self,
        encoder: TextEncoder | Callable[[], TextEncoder],
        store: TensorStore,
        *,
        identity: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        device: torch.device | str = "cpu",
        missing: Missing = "encode",
    ) -> None:
        if missing not in get_args(Missing):
            raise TextEncoderError(f"missing is {missing!r}; it can be {' or '.join(get_args(Missing))}")
        self.store = store
        self.device = device
        self.hits = self.misses = 0
        self.missing: Missing = missing
        self._identity = identity
        self._source = encoder
        self._encoder: TextEncoder | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides the states, as the encoder has it.

        Raises:
            TextEncoderError: the encoder does not say.
        """
        if self._identity is None:
            return _identity_of(self.load())
        if callable(self._identity):
            self._identity = dict(self._identity())
        return self._identity

    def encode(self, prompts: Sequence[str], images: Sequence[Any] | None = None) -> TextTokens:
        """Give the states of B prompts, of which only those are encoded, in one batch, that are not in the store.

        Args:
            prompts: at least one.
            images: for an encoder that reads them, one per prompt: tensors, or pictures of Pillow.

        Returns:
            States [B, S, D] and mask [B, S], S being the longest prompt's tokens; padded states are 0. The pooled
            vector, [B, pooled width], if the encoder gives one. Detached.

        Raises:
            TextEncoderError: there are no prompts, not one image for each, or one string where a list of them belongs;
                the encoder has no identity or another than was given, pads on the left, or gives numbers that are not
                finite; a prompt is missing, and that is an error.
        """
        keys = self.keys(prompts, images)
        found: dict[str, Entry] = {}
        missing: dict[str, int] = {}
        for row, key in enumerate(keys):
            if key in found:
                self.hits += 1
            elif key not in missing and (entry := self.store.get(key)) is not None:
                found[key] = entry
                self.hits += 1
            else:
                missing.setdefault(key, row)
                self.misses += 1
        if missing:
            rows = list(missing.values())
            if self.missing == "error":
                self._refuse([prompts[row] for row in rows])
            some = None if images is None else [images[row] for row in rows]
            for key, entry in zip(missing, self._encoded([prompts[row] for row in rows], some), strict=True):
                self.store.put(key, entry)
                found[key] = entry
        return _batch([found[key] for key in keys]).to(device=self.device)

    def keys(self, prompts: Sequence[str], images: Sequence[Any] | None = None) -> list[str]:
        """Give the store's key of each prompt; as `encode`, which looks these up."""
        require_prompts(prompts)
        if images is not None and len(images) != len(prompts):
            raise TextEncoderError(f"{len(prompts)} prompts take as many images, not {len(images)}")
        digests = [None] * len(prompts) if images is None else [_image_sha256(image) for image in images]
        identity = dict(self.identity)
        return [
            content_key({"what": _WHAT, "encoder": identity, "text": prompt, "image": digest})
            for prompt, digest in zip(prompts, digests, strict=True)
        ]

    def require(self, prompts: Iterable[str]) -> None:
        """Refuse to begin where states are missing; does nothing where they would be encoded.

        Args:
            prompts: all that will be asked for, any number of times each.

        Raises:
            TextEncoderError: some are missing; says how many, which are the first, and what makes them.
        """
        unique = list(dict.fromkeys(prompts))
        if self.missing == "encode" or not unique:
            return
        log.info("looking for the states of %d prompts in %s", len(unique), self.store.folder)
        lacking = [prompt for prompt, key in zip(unique, self.keys(unique), strict=True) if key not in self.store]
        if lacking:
            self._refuse(lacking)

    def reader(self) -> "CachedTextEncoder | None":
        """Give what other processes may read states with: it knows its keys, has no encoder, and works on the CPU.

        Returns:
            None where missing prompts are encoded: only one process should do that.
        """
        if self.missing == "encode":
            return None
        return CachedTextEncoder(_no_encoder, self.store, identity=dict(self.identity), missing="error")

    def _refuse(self, prompts: Sequence[str]) -> None:
        number, letters = _SHOWN
        shown = [prompt if len(prompt) <= letters else f"{prompt[:letters]}…" for prompt in prompts[:number]]
        raise TextEncoderError(
            f"{self.store.folder}: the states of {len(prompts)} prompts are not there, such as "
            f"{', '.join(map(repr, shown))}; `hyvideo encode --config RECIPE` makes all that the training of a recipe "
            "asks for, with the same encoder and settings; or let `missing` be encode"
        )

    def load(self) -> TextEncoder:
        """Give the encoder, which is loaded if it isn't yet.

        Raises:
            TextEncoderError: it is not the one that was announced, or has no identity.
        """
        if self._encoder is None:
            source: Any = self._source
            encoder: TextEncoder = source if hasattr(source, "encode") else source()  # modules are callable too
            found = _identity_of(encoder)
            announced = found if self._identity is None else self.identity
            if content_key(found) != content_key(announced):
                different = sorted(name for name in {*found, *announced} if found.get(name) != announced.get(name))
                raise TextEncoderError(
                    f"the encoder that was loaded is not the one that was announced: they differ in "
                    f"{', '.join(different)}; give the identity of what is loaded, or none"
                )
            self._encoder = encoder
        return self._encoder

    @torch.no_grad()
    def _encoded(self, prompts: list[str], images: list[Any] | None) -> list[Entry]:
        encoder: Any = self.load()
        text: TextTokens = encoder.encode(prompts) if images is None else encoder.encode(prompts, images)
        entries = [_entry(text, row) for row in range(len(prompts))]
        for prompt, entry in zip(prompts, entries, strict=True):
            if not all(map(is_finite, entry.values())):
                raise TextEncoderError(f"the encoder gives NaN or infinity for {prompt!r}; load it in a wider dtype")
        return entries


def _no_encoder() -> TextEncoder:
    raise TextEncoderError("states are read here, and no encoder is loaded: another process may have one")


def _identity_of(encoder: TextEncoder) -> Mapping[str, Any]:
    identity = getattr(encoder, "identity", None)
    if not isinstance(identity, Mapping):
        raise TextEncoderError(
            f"{type(encoder).__name__} can't be cached: it has no `identity`, a mapping of JSON values that says what "
            "decides its states (weights by digest, template, settings)"
        )
    return identity


def _entry(text: TextTokens, row: int) -> Entry:
    """What is stored of one prompt: the states of its real tokens."""
    mask_S = text.mask_BS[row].cpu()
    length = int(mask_S.sum())
    if not mask_S[:length].all():
        raise TextEncoderError("the encoder pads before a real token; text states are padded on the right")
    entry = {"tokens": text.tokens_BSD[row, :length].cpu()}
    if text.pooled_BD is not None:
        entry["pooled"] = text.pooled_BD[row].cpu()
    return entry


def _batch(entries: Sequence[Entry]) -> TextTokens:
    """Put prompts side by side again: at least one column, and zeros where a prompt has ended."""
    tokens_BSD = pad_sequence([entry["tokens"] for entry in entries], batch_first=True)
    tokens_BSD = torch.nn.functional.pad(tokens_BSD, (0, 0, 0, int(tokens_BSD.shape[1] == 0)))
    lengths_B = torch.tensor([len(entry["tokens"]) for entry in entries])
    mask_BS = torch.arange(tokens_BSD.shape[1]) < lengths_B[:, None]
    pooled = [entry["pooled"] for entry in entries if "pooled" in entry]
    return TextTokens(tokens_BSD, mask_BS, torch.stack(pooled) if pooled else None)


def _image_sha256(image: Any) -> str:
    """Of a picture's pixels and shape; one of Pillow is looked at as red, green, blue and alpha, palettes resolved."""
    if isinstance(image, Tensor):
        return tensors_sha256({"image": image})
    if not hasattr(image, "convert"):
        raise TextEncoderError(f"an image is a tensor or a picture of Pillow, not {type(image).__name__}")
    return hashlib.sha256(str(image.size).encode() + image.convert("RGBA").tobytes()).hexdigest()
