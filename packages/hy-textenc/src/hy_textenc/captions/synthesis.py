"""Training captions from structured ones, by dropout, permutation and combination (paper, section 3).

The model so reads captions of many lengths and patterns, and understands a user's few words as well as a page. Which
shares are best the paper does not say; the defaults keep half of the captions in the order that rewritten prompts have.
"""

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hy_textenc.captions.records import FIELDS, Caption
from hy_textenc.captions.validation import caption_from

_ENDS = (".", "!", "?", "…", "。", "！", "？")  # noqa: RUF001 - a Chinese caption ends in these
_NAMES = {"shot_type": "shot type", "camera_movement": "camera movement"}


def _usual_dropout() -> dict[str, float]:
    optional = dict.fromkeys(FIELDS[2:], 0.4)
    return optional | {"tags": 0.9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesis:
    """How a training caption is made of a structured one; every share is a probability in [0, 1].

    Called with a clip's structured caption and a number, it makes that training caption, of `variants` that take turns:
    so many texts can all be encoded before the training.

    Attributes:
        short: share of captions with the short description alone.
        dense: share with the dense description alone; the rest has both. A clip without one gets the other.
        dropout: per field but the descriptions, and for `tags`, how often it is left out; others never are.
        shuffled: share of captions whose parts stand in random order, every order being as likely.
        labelled: share of captions that name their fields, as in "Lighting: soft."
        least_confidence: a camera movement that is less sure than this is always left out, as in the paper.
        variants: training captions per clip, at most: some may turn out alike.
        seed: another one draws other variants.

    Raises:
        ValueError: a share is outside of [0, 1], the first two exceed 1, `dropout` names something else, or there are
            no variants.
    """

    short: float = 0.25
    dense: float = 0.5
    dropout: Mapping[str, float] = field(default_factory=_usual_dropout)
    shuffled: float = 0.5
    labelled: float = 0.5
    least_confidence: float = 0.7
    variants: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        known = (*FIELDS[2:], "tags")
        if others := sorted(set(self.dropout) - set(known)):
            raise ValueError(f"dropout names {others}; it can be given for {', '.join(known)}")
        shares = {f"dropout of {name}": share for name, share in self.dropout.items()}
        shares |= {"short + dense": self.short + self.dense}
        for name in ("short", "dense", "shuffled", "labelled", "least_confidence"):
            shares[name] = getattr(self, name)
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}; it must be from 0 to 1")
        if self.variants < 1:
            raise ValueError(f"variants is {self.variants}; a clip has at least 1 training caption")

    def __call__(self, captions: Mapping[str, Any], number: int) -> str:
        """Make a training caption of a clip.

        Args:
            captions: the clip's structured caption, as shards keep it: the fields of a `Caption`, others left aside.
            number: which one, from 0, such as how often the clip was shown; those `variants` apart are the same.

        Returns:
            one line, never empty.

        Raises:
            CaptionError: it is no structured caption; names the field.
        """
        return synthesize(caption_from(captions), self.seed * self.variants + number % self.variants, self)


def synthesize(caption: Caption, seed: int, settings: Synthesis | None = None) -> str:
    """Make one training caption.

    The same caption, seed and settings give the same text in every process; another seed gives another draw, and two
    captions with one seed draw independently.

    Args:
        caption: what is known of the clip.
        seed: such as the number of the epoch, or of the step.
        settings: shares of each pattern; None takes the defaults.

    Returns:
        one line, never empty.
    """
    settings = settings or Synthesis()
    draw = _random(caption, seed)
    # Every number is drawn whether or not it is needed: what one field holds does not move the draws of another.
    body, shuffle, label = draw.random(), draw.random(), draw.random()
    kept = {name: draw.random() >= settings.dropout.get(name, 0.0) for name in (*FIELDS[2:], "tags")}
    places = {name: draw.random() for name in (*FIELDS, "tags")}
    if caption.camera_confidence < settings.least_confidence:
        kept["camera_movement"] = False
    for name in _left_out(body, settings, caption):
        kept[name] = False
    labelled = label < settings.labelled
    parts = {name: _sentence(name, caption, labelled) for name in (*FIELDS, "tags") if kept.get(name, True)}
    order = sorted(parts, key=places.__getitem__) if shuffle < settings.shuffled else parts
    return " ".join(parts[name] for name in order if parts[name])


def _random(caption: Caption, seed: int) -> random.Random:
    """A generator of this caption and seed; metadata that is added later changes nothing."""
    told = [seed, caption.tags, *(getattr(caption, name) for name in FIELDS)]
    digest = hashlib.blake2b(json.dumps(told).encode(), digest_size=16).digest()
    return random.Random(int.from_bytes(digest, "big"))


def _left_out(body: float, settings: Synthesis, caption: Caption) -> tuple[Literal["short", "dense"], ...]:
    """The description that is left out, if one is."""
    if not caption.dense:
        return ()
    if body < settings.short:
        return ("dense",)
    return ("short",) if body < settings.short + settings.dense else ()


def _sentence(name: str, caption: Caption, labelled: bool) -> str:
    """One part as a sentence; empty where nothing is known."""
    value = ", ".join(caption.tags) if name == "tags" else getattr(caption, name)
    if not value:
        return ""
    named = f"{_NAMES.get(name, name)}: {value}"
    if name not in ("short", "dense") and labelled:
        value = named
    elif name == "shot_type":
        value = f"{value} shot"
    elif name == "camera_movement":
        value = named if "shot" not in value else value
    value = value[0].upper() + value[1:]
    return value if value.endswith(_ENDS) else f"{value}."
