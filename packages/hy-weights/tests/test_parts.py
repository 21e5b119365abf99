"""A model's layout is told by its folders."""

import json

import pytest
from hy_weights import CheckpointError, staged, write_manifest
from hy_weights.parts import find_parts

DIFFUSERS = ("transformer", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
RELEASED = (
    "hunyuan-video-t2v-720p/transformers",
    "hunyuan-video-t2v-720p/vae",
    "text_encoder",
    "text_encoder_2",
)


def make(folder, names):
    for name in names:
        (folder / name).mkdir(parents=True)
    return folder


def test_ours(tmp_path):
    folder = tmp_path / "model"
    with staged(folder) as inside:
        for name in ("text_encoder", "dit", "vae"):
            (inside / name).mkdir()
            (inside / name / "config.json").write_text("{}")
            (inside / name / "model.safetensors").touch()
        (inside / "config.json").write_text(json.dumps({"sampling": {"steps": 2.0, "fps": 8.0}}))
        write_manifest(inside)
    parts = find_parts(folder)
    assert (parts.text_encoder, parts.dit, parts.vae) == tuple(folder / x for x in ("text_encoder", "dit", "vae"))
    assert parts.published
    assert {name: (value, type(value)) for name, value in parts.sampling.items()} == {
        "steps": (2, int),
        "fps": (8.0, float),
    }


def test_diffusers_tells_its_shift(tmp_path):
    folder = make(tmp_path, (*DIFFUSERS, "scheduler"))
    parts = find_parts(folder)
    assert (parts.text_encoder, parts.dit, parts.vae) == (folder, folder / "transformer", folder / "vae")
    assert {part.name for part in parts.deciding} == set(DIFFUSERS)
    assert (parts.published, parts.sampling["shift"], parts.sampling["frames"]) == (False, 7.0, 129)
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps({"shift": 5.0}))
    assert find_parts(folder).sampling["shift"] == 5.0


def test_the_released_one_means_the_full_weights_where_fp8_lies_beside_them(tmp_path):
    folder = make(tmp_path, RELEASED)
    inside = folder / "hunyuan-video-t2v-720p"
    (inside / "transformers/mp_rank_00_model_states_fp8.pt").touch()
    assert find_parts(folder).dit == inside / "transformers"
    (inside / "transformers/mp_rank_00_model_states.pt").touch()
    parts = find_parts(folder)
    assert parts.deciding == (parts.dit, parts.vae, folder / "text_encoder", folder / "text_encoder_2")
    assert (parts.dit, parts.vae) == (inside / "transformers/mp_rank_00_model_states.pt", inside / "vae")


@pytest.mark.parametrize(
    ("names", "lacks"),
    [
        ([name for name in DIFFUSERS if name != "tokenizer_2"], "lacks tokenizer_2; a model in diffusers' layout has"),
        ([name for name in RELEASED if name != "text_encoder"], "lacks text_encoder; a model in the released layout"),
        (["vae"], "lacks text_encoder/config.json.*; diffusers' layout has transformer"),
    ],
)
def test_a_missing_part_is_named(tmp_path, names, lacks):
    with pytest.raises(CheckpointError, match=lacks):
        find_parts(make(tmp_path, names))
