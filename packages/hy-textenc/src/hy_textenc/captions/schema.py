"""The record as a JSON schema, for servers that hold a model's answer to one, and for readers of files."""

from typing import Any

from hy_textenc.captions.records import CHOICES, FIELDS, MOST_CHARACTERS, MOST_TAG_CHARACTERS, MOST_TAGS


def caption_schema(*, stored: bool = False) -> dict[str, Any]:
    """A JSON schema of captions.

    Args:
        stored: describe what `Caption.to_json` writes: metadata too, lengths, and only `short` required. Otherwise what
            a model is to answer: every field required and no other admitted, in the subset of JSON schema that servers
            with structured outputs take (their strict mode knows no lengths).

    Returns:
        the schema, ready for JSON.
    """
    properties: dict[str, Any] = {}
    for name in FIELDS:
        properties[name] = {"type": "string"}
        if name in CHOICES:
            properties[name]["enum"] = [*CHOICES[name], *([] if stored else ["unknown"])]
        elif stored:
            properties[name]["maxLength"] = MOST_CHARACTERS[name]
    properties["camera_confidence"] = {"type": "number"}
    properties["tags"] = {"type": "array", "items": {"type": "string"}}
    if stored:
        properties["short"]["minLength"] = 1
        properties["camera_confidence"] |= {"minimum": 0, "maximum": 1}
        properties["tags"] |= {"maxItems": MOST_TAGS}
        properties["tags"]["items"]["maxLength"] = MOST_TAG_CHARACTERS
        properties["metadata"] = {"type": "object"}
    return {
        "type": "object",
        "properties": properties,
        "required": ["short"] if stored else list(properties),
        "additionalProperties": False,
    }
