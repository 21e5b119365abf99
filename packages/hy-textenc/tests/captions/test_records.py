import json
from dataclasses import FrozenInstanceError, fields

import pytest
from hy_plugins import HyError
from hy_textenc.captions import (
    CAMERA_MOVEMENTS,
    FIELDS,
    SHOT_TYPES,
    Caption,
    CaptionError,
    caption_from,
    caption_from_json,
    caption_schema,
)

FULL = {
    "short": "A grey cat runs over wet grass.",
    "dense": "A grey cat runs towards the camera. It stops and looks up.",
    "background": "a garden with a fence",
    "style": "documentary",
    "shot_type": "close-up",
    "lighting": "soft light from the left",
    "atmosphere": "calm",
    "camera_movement": "pan left",
    "camera_confidence": 0.5,
    "tags": ["animal", "sharp"],
    "metadata": {"id": 7, "licence": "CC0"},
}


def test_the_fields_are_the_papers_in_its_order():
    assert FIELDS == (
        "short", "dense", "background", "style", "shot_type", "lighting", "atmosphere", "camera_movement",
    )  # fmt: skip
    assert [each.name for each in fields(Caption)] == [*FIELDS, "camera_confidence", "tags", "metadata"]
    assert len(CAMERA_MOVEMENTS) == len(set(CAMERA_MOVEMENTS)) == 14
    assert {"aerial", "close-up", "medium", "long"} < set(SHOT_TYPES)


def test_a_record_goes_to_json_and_back():
    caption = caption_from(FULL)
    assert caption.to_mapping() == FULL
    assert caption.tags == ("animal", "sharp")
    assert caption_from_json(caption.to_json()) == caption
    assert caption_from_json(caption.to_json().encode()) == caption
    assert list(json.loads(caption.to_json())) == list(FULL)
    with pytest.raises(FrozenInstanceError):
        caption.short = "other"


def test_what_is_not_known_is_left_out():
    assert Caption(short="A cat.").to_mapping() == {"short": "A cat."}
    doubtful = Caption(short="A cat.", camera_movement="zoom in", camera_confidence=0)
    assert doubtful.to_mapping() == {"short": "A cat.", "camera_movement": "zoom in", "camera_confidence": 0}
    assert caption_from(doubtful.to_mapping()) == doubtful


@pytest.mark.parametrize(
    ("given", "field", "made"),
    [
        ({"Shot Type": "Wide shot"}, "shot_type", "long"),
        ({"shot-type": "CLOSE-UP"}, "shot_type", "close-up"),
        ({"shot_type": "extreme wide shot."}, "shot_type", "extreme long"),
        ({"shot_type": "Unknown"}, "shot_type", ""),
        ({"camera_movement": "Zoom_In"}, "camera_movement", "zoom in"),
        ({"camera_movement": "static"}, "camera_movement", "static shot"),
        ({"camera_movement": "n/a"}, "camera_movement", ""),
        ({"style": None}, "style", ""),
        ({"lighting": ["soft", "from the left"]}, "lighting", "soft, from the left"),
        ({"tags": "cat, grass,,cat"}, "tags", ("cat", "grass")),
        ({"tags": None}, "tags", ()),
        ({"style": " a\r\n\tb  c "}, "style", "a b c"),
        ({"style": "a\x00b\x1b[31m\u202ec \u200b d\ufeff"}, "style", "ab[31mc d"),
        ({"style": "\ud83d\ude00 \ud83d"}, "style", "\U0001f600 \ufffd"),
        ({"style": "e\u0301"}, "style", "\u00e9"),
        ({"style": "\U0001f469\u200d\U0001f680"}, "style", "\U0001f469\u200d\U0001f680"),
    ],
)
def test_the_shape_of_values_is_mended(given, field, made):
    assert getattr(caption_from({"short": "x", **given}), field) == made


def test_unknown_fields_are_kept_as_metadata():
    caption = caption_from({"short": "x", "light": "dim", "metadata": {"id": 1}})
    assert caption.metadata == {"id": 1, "light": "dim"}
    with pytest.raises(CaptionError, match=r"'metadata'.*must not name 'id'"):
        caption_from({"short": "x", "id": 2, "metadata": {"id": 1}})


@pytest.mark.parametrize(
    ("given", "field", "told"),
    [
        ({"short": ""}, "short", "must say in one sentence"),
        ({"short": " \x00 "}, "short", "must say in one sentence"),
        ({"short": None}, "short", "must say in one sentence"),
        ({"short": "x" * 501}, "short", "501 characters, and must have at most 500"),
        ({"dense": 5}, "dense", "is 5; it must be text"),
        ({"dense": ["a", 1]}, "dense", "must be text"),
        ({"dense": b"a"}, "dense", "must be text"),
        ({"shot_type": "dutch angle"}, "shot_type", "'dutch angle'; it must be one of aerial, "),
        ({"camera_movement": "flies"}, "camera_movement", "must be one of zoom in, "),
        ({"camera_confidence": "high"}, "camera_confidence", "number from 0 to 1"),
        ({"camera_confidence": True}, "camera_confidence", "number from 0 to 1"),
        ({"camera_confidence": 1.5}, "camera_confidence", "number from 0 to 1"),
        ({"camera_confidence": float("nan")}, "camera_confidence", "number from 0 to 1"),
        ({"tags": [1]}, "tags", "list of texts"),
        ({"tags": {"a": 1}}, "tags", "list of texts"),
        ({"tags": ["x" * 65]}, "tags", "at most 64"),
        ({"tags": [str(n) for n in range(33)]}, "tags", "at most 32"),
        ({"metadata": [1]}, "metadata", "map names to values"),
        ({"metadata": {"a": float("inf")}}, "metadata", "fit for JSON"),
        ({"metadata": {"a": object()}}, "metadata", "fit for JSON"),
        ({"metadata": {"a": "\ud800"}}, "metadata", "fit for JSON"),
        ({"other": "x" * 20_000}, "metadata", "at most 16384"),
        ({"style": "a", "Style": "b"}, "style", "must be there once"),
    ],
)
def test_what_can_not_be_mended_is_refused(given, field, told):
    with pytest.raises(CaptionError) as caught:
        caption_from({"short": "x", **given}, "clip 7")
    assert isinstance(caught.value, HyError)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"clip 7: caption field '{field}' is ")
    assert told in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "values",
    [
        {"short": "two\nlines"},
        {"short": "broken \ud800"},
        {"short": "x", "style": "turned \u202e round"},
        {"short": "x", "tags": ["a"]},
        {"short": "x", "tags": ("a\x00",)},
        {"short": "x", "shot_type": "Close-up"},
        {"short": 5},
    ],
)
def test_a_record_made_directly_is_held_to_the_same(values):
    with pytest.raises(CaptionError):
        Caption(**values)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        b'{"short": "\xff"}',
        '{"short": NaN}',
        "[" * 100_000,
        '{"short": ' + "9" * 5000 + "}",
    ],
)
def test_what_is_no_caption_is_refused(text):
    with pytest.raises(CaptionError, match=r"^a.json: ") as caught:
        caption_from_json(text, "a.json")
    assert len(str(caught.value)) < 400


def check(schema, value):
    """Hold a value against the few words of JSON schema that are used here."""
    kinds = {"object": dict, "array": list, "string": str, "number": (int, float)}
    assert isinstance(value, kinds[schema["type"]]), (schema, value)
    assert value in schema.get("enum", [value])
    if schema["type"] == "object" and "properties" in schema:
        assert set(schema["required"]) <= set(value)
        assert schema["additionalProperties"] or set(value) <= set(schema["properties"])
        for name, item in value.items():
            check(schema["properties"][name], item)
    if schema["type"] == "array":
        assert len(value) <= schema.get("maxItems", len(value))
        for item in value:
            check(schema["items"], item)
    if schema["type"] == "string":
        assert schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
    if schema["type"] == "number":
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value)


def test_the_schema_fits_what_is_stored():
    for values in (FULL, {"short": "x"}, {"short": "x", "shot_type": "unknown", "n": 1}):
        check(caption_schema(stored=True), caption_from(values).to_mapping())
    assert set(caption_schema(stored=True)["properties"]) == set(FULL)
    assert caption_schema(stored=True)["required"] == ["short"]


def test_the_schema_for_answers_is_strict_and_every_answer_that_fits_is_a_caption():
    schema = json.loads(json.dumps(caption_schema()))
    assert schema["required"] == list(schema["properties"]) == [name for name in FULL if name != "metadata"]
    assert schema["additionalProperties"] is False
    answer = {name: value for name, value in FULL.items() if name != "metadata"}
    check(schema, answer)
    for name in ("shot_type", "camera_movement"):
        for choice in schema["properties"][name]["enum"]:
            check(schema, answer | {name: choice})
            assert getattr(caption_from(answer | {name: choice}), name) == choice.replace("unknown", "")
