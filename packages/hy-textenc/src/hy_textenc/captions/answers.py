"""From a model's answer to a record: one repair is asked for, then the clip is refused.

An answer is data. It is searched for a JSON object, read by the JSON parser, and bounded in length before that.
"""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any

from hy_textenc.captions.errors import CaptionError
from hy_textenc.captions.instructions import repair_request
from hy_textenc.captions.records import Caption
from hy_textenc.captions.validation import caption_from

MOST_ANSWER = 65_536
"""Characters of an answer that are looked at; a caption has a tenth of that."""

_REPEATED = 4_000

_TRAILING_COMMA = re.compile(r",(\s*[}\]])")

Turn = tuple[str, str]
"""Role, `assistant` or `user`, and text."""


def obtain(ask: Callable[[Sequence[Turn]], str], source: str) -> Caption:
    """Ask a model for a caption; where its answer can't be used, tell it why and ask once more.

    Args:
        ask: gives the model's answer to what follows the first request, which is the clip itself: nothing at first.
        source: the clip, for messages.

    Raises:
        CaptionError: the second answer can't be used either; says why.
    """
    answer = ask([])
    try:
        return read_answer(answer, source)
    except CaptionError as error:
        return read_answer(ask([("assistant", answer[:_REPEATED]), ("user", repair_request(error.fault))]), source)


def read_answer(answer: str, source: str = "") -> Caption:
    """Read a model's answer: a JSON object, alone, in a code fence or amid prose.

    A camera movement for which no confidence is given counts as a guess: its confidence is 0.

    Raises:
        CaptionError: there is no such object, or it is no caption.
    """
    if len(answer) > MOST_ANSWER:
        told = f"it has {len(answer)} characters, and must have at most {MOST_ANSWER}"
        raise CaptionError(told, found=answer, source=source)
    values = _outermost_object(answer)
    if values is None:
        raise CaptionError("it must be one JSON object", found=answer, source=source)
    return caption_from({"camera_confidence": 0.0} | values, source)


def _outermost_object(text: str) -> dict[str, Any] | None:
    """The object that spans the answer's braces, or else the longest that begins at one of them, if any parses.

    A comma before a closing bracket is forgiven. A few braces are tried: a hostile answer holds thousands.
    """
    whole = text[text.find("{") : text.rfind("}") + 1]
    for version in (whole, _TRAILING_COMMA.sub(r"\1", whole)):
        try:
            found = json.loads(version)
        except (ValueError, RecursionError):
            continue
        return found
    objects: list[tuple[int, dict[str, Any]]] = []
    start = text.find("{")
    for _ in range(8):
        if start < 0:
            break
        stop = start + 1
        with suppress(ValueError, RecursionError):
            found, stop = json.JSONDecoder().raw_decode(text, start)
            objects.append((stop - start, found))
        start = text.find("{", stop)
    return max(objects, key=itemgetter(0))[1] if objects else None
