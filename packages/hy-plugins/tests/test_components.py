"""A component says what it is in words that a human types and a machine imports."""

import dataclasses

import pytest
from hy_plugins import Component, PluginError

GOOD = {"kind": "text_encoder", "name": "llava-llama-3", "target": "hy_x.y:Some.thing", "summary": "One line."}


def test_a_component_is_a_frozen_value():
    component = Component(**GOOD)
    assert component == Component(**GOOD)
    assert len({component, Component(**GOOD)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        component.name = "other"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "text-encoder"),
        ("kind", "Sampler"),
        ("kind", ""),
        ("kind", None),
        ("name", "two words"),
        ("name", "snake_case"),
        ("name", "Upper"),
        ("name", "-x"),
        ("name", "x-"),
        ("name", ""),
        ("name", 3),
        ("target", "hy_x.y"),
        ("target", "hy_x.y:"),
        ("target", ":thing"),
        ("target", "hy_x..y:thing"),
        ("target", "hy_x.y:thing()"),
        ("target", "hy-x:thing"),
        ("target", "3x:thing"),
        ("summary", ""),
        ("summary", "two\nlines"),
        ("summary", " x"),
    ],
)
def test_a_malformed_field_is_named(field, value):
    with pytest.raises(PluginError) as caught:
        Component(**GOOD | {field: value})
    assert f"{field}={value!r} must match" in str(caught.value)


@pytest.mark.parametrize("name", ["dit", "720p", "hunyuan-video-cfgdistill", "clip-l"])
def test_names_in_use_are_fine(name):
    assert Component(**GOOD | {"name": name}).name == name
