"""Other people's values to records: their shape is mended where that is safe, their content never guessed."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from hy_textenc.captions.errors import CaptionError, shown
from hy_textenc.captions.records import CHOICES, FIELDS, NAMES, UNFIT, Caption

_SYNONYMS = {
    "wide": "long",
    "full": "long",
    "extreme wide": "extreme long",
    "medium wide": "medium long",
    "closeup": "close-up",
    "static": "static shot",
    "handheld": "handheld shot",
}
_NOTHING = ("", "none", "unknown", "unsure", "n/a")


def caption_from(values: Mapping[str, Any], source: str = "") -> Caption:
    """Make a record of values that came from a file, a model or another captioner.

    Names may be written `Shot Type` or `shot-type`. None is nothing; a list of texts becomes one, with commas; tags may
    be one text with commas; `shot_type` and `camera_movement` may have another case or end in "shot", and may be
    "unknown". White space is made single spaces, other control characters go. Fields that a caption does not have are
    kept in its metadata.

    Args:
        values: the fields; `short` must be there.
        source: the clip or file they are of, for messages.

    Raises:
        CaptionError: a field is missing, of the wrong type, too long, or not one of its values; says which.
    """
    if not isinstance(values, Mapping):
        raise CaptionError("it must be a JSON object", found=values, source=source)
    try:
        known, metadata = _sorted(values)
        made: dict[str, Any] = {name: _text(name, known.pop(name)) for name in FIELDS if name in known}
        made |= {name: _choice(made[name], CHOICES[name]) for name in CHOICES if name in made}
        if known.get("tags") is not None:
            made["tags"] = _tags(known["tags"])
        if known.get("camera_confidence") is not None:
            made["camera_confidence"] = known["camera_confidence"]
        made.setdefault("short", "")
        return Caption(**made, metadata=metadata)
    except CaptionError as error:
        error.source = source
        raise


def caption_from_json(text: str | bytes, source: str = "") -> Caption:
    """Make a record of JSON text, as `Caption.to_json` writes it.

    Raises:
        CaptionError: it is not JSON, not UTF-8, or not a caption.
    """
    try:
        values = json.loads(text.decode("utf-8") if isinstance(text, bytes) else text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        told = str(error) or type(error).__name__
        raise CaptionError(f"it must be JSON in UTF-8 ({told})", found=text, source=source) from error
    return caption_from(values, source)


def clean(text: str) -> str:
    """Text on one line: white space becomes single spaces, halves of characters a mark, what can't be seen goes.

    Letters and accents are put together (NFC), so that one word is always the same characters.
    """
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    visible = UNFIT.sub("", " ".join(whole.split()))
    return unicodedata.normalize("NFC", " ".join(visible.split()))


def _sorted(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a caption under their names, and everything else."""
    known: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).strip().lower().replace(" ", "_").replace("-", "_")
        place, name = (known, name) if name in NAMES else (others, str(key))
        if name in place:
            raise CaptionError("it must be there once", field=name, found=value)
        place[name] = value
    metadata = known.pop("metadata", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, Mapping):
        raise CaptionError("it must map names to values", field="metadata", found=metadata)
    if twice := sorted(metadata.keys() & others.keys()):
        raise CaptionError(
            f"it must not name {shown(twice[0])}, which stands beside it", field="metadata", found=metadata
        )
    return known, {**metadata, **others}


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and all(isinstance(v, str) for v in value):
        value = ", ".join(value)
    if not isinstance(value, str):
        raise CaptionError("it must be text", field=name, found=value)
    return clean(value)


def _choice(value: str, choices: Sequence[str]) -> str:
    """One of the choices if it is one in other words, else what it was: the record says what is wrong with it."""
    plain = value.lower().replace("_", " ").rstrip(".")
    if plain in _NOTHING:
        return ""
    bare = plain.removesuffix(" shot").removesuffix(" view")
    for name in (plain, bare, _SYNONYMS.get(bare, "")):
        if name in choices:
            return name
    return value


def _tags(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, Sequence) or not all(isinstance(tag, str) for tag in value):
        raise CaptionError("it must be a list of texts", field="tags", found=value)
    return tuple(dict.fromkeys(tag for tag in map(clean, value) if tag))


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
