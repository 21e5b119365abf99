import itertools

import numpy as np
import pytest
from hy_data.world import BACKGROUNDS, COLOURS, HELD_OUT, MOTIONS, SHAPES, TRIPLES, World, coverage


def test_thirteen_of_ninety_combinations_are_held_out_and_every_pair_is_seen():
    assert len(TRIPLES) == 90
    assert len(set(HELD_OUT)) == 13
    seen = set(TRIPLES) - set(HELD_OUT)
    for first, second in itertools.combinations(range(3), 2):
        assert {(t[first], t[second]) for t in seen} == {(t[first], t[second]) for t in TRIPLES}


@pytest.mark.parametrize(("split", "allowed"), [("train", set(TRIPLES) - set(HELD_OUT)), ("held-out", set(HELD_OUT))])
def test_a_split_draws_all_of_its_combinations_and_no_other(split, allowed):
    world = World(split=split)
    scenes = [world.scene(index) for index in range(1500)]
    assert {(s.colour, s.shape, s.motion) for s in scenes} == allowed
    assert {s.background for s in scenes} == set(BACKGROUNDS)


def test_a_clip_depends_on_seed_and_number_only():
    clip = World(seed=3).clip(7)
    assert clip.frames_THWC.shape == (9, 48, 48, 3)
    assert clip.frames_THWC.dtype == np.uint8
    np.testing.assert_array_equal(World(seed=3).clip(7).frames_THWC, clip.frames_THWC)
    assert not np.array_equal(World(seed=4).clip(7).frames_THWC, clip.frames_THWC)
    assert not np.array_equal(World(seed=3).clip(8).frames_THWC, clip.frames_THWC)


def test_captions_say_what_is_there():
    world = World(split="all")
    for index in range(40):
        scene, caption = world.scene(index), world.clip(index).caption
        motion = "stays still" if scene.motion == "still" else f"moves {scene.motion}"
        assert caption == f"a {scene.colour} {scene.shape} {motion} on a {scene.background} background"
    still = World(split="all", frames=1).clip(0)
    assert still.caption == f"a {still.scene.colour} {still.scene.shape} on a {still.scene.background} background"


@pytest.mark.parametrize(("size", "frames"), [((48, 48), 9), ((64, 64), 17), ((32, 96), 5)])
def test_the_object_stays_inside_and_moves_as_far_as_the_size_asks(size, frames):
    world = World(size=size, frames=frames, split="all")
    unit = min(size) / 48
    for index in range(60):
        scene = world.scene(index)
        assert 8 * unit <= scene.radius <= 12 * unit
        assert scene.travel == 0 if scene.motion == "still" else 14 * unit <= scene.travel <= 22 * unit + 1e-9
        clip = world.clip(index).frames_THWC.astype(int)
        cover = (clip.max(axis=-1) - clip.min(axis=-1)) / 205  # backgrounds are grey, objects spread over 205 levels
        # Nothing is cut off by the border.
        np.testing.assert_allclose(cover.sum(axis=(1, 2)), np.pi * scene.radius**2, rtol=0.02)


def test_the_centroid_moves_the_way_the_scene_says():
    world = World(split="all")
    for index in range(30):
        scene, frames = world.scene(index), world.clip(index).frames_THWC.astype(int)
        saturated = frames.max(axis=-1) - frames.min(axis=-1) > 100
        ends = [np.argwhere(saturated[number]).mean(axis=0) for number in (0, -1)]
        direction_x, direction_y = MOTIONS[scene.motion]
        np.testing.assert_allclose(ends[1] - ends[0], np.array([direction_y, direction_x]) * scene.travel, atol=0.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_shapes_have_the_same_area_and_soft_edges(shape):
    centre = np.array([24.3], np.float32)
    cover_HW = coverage(shape, 10.0, centre, centre, (48, 48))[0]
    assert cover_HW.sum() == pytest.approx(np.pi * 100, rel=0.01)
    assert ((cover_HW > 0) & (cover_HW < 1)).sum() > 20
    y, x = np.indices(cover_HW.shape) + 0.5
    assert (x * cover_HW).sum() / cover_HW.sum() == pytest.approx(24.3, abs=0.05)
    assert (y * cover_HW).sum() / cover_HW.sum() == pytest.approx(24.3, abs=0.15)


def test_colours_fill_the_object():
    world = World(split="all")
    for index in range(20):
        scene, frame_HWC = world.scene(index), world.clip(index).frames_THWC[0]
        centre = frame_HWC[round(scene.start_y - 0.5), round(scene.start_x - 0.5)]
        np.testing.assert_allclose(centre, COLOURS[scene.colour], atol=1)


@pytest.mark.parametrize("settings", [{"size": (8, 48)}, {"frames": 0}, {"split": "test"}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="got"):
        World(**settings)


def test_a_palette_of_its_own_gives_other_colours():
    orange = {"orange": (230, 128, 25)}
    world = World(split="all", palette=orange)
    clips = [world.clip(number) for number in range(30)]
    assert {clip.scene.colour for clip in clips} == {"orange"}
    assert {clip.scene.shape for clip in clips} == set(SHAPES)
    assert all(clip.caption.startswith("a orange ") for clip in clips)
    scene = clips[0].scene
    x, y = int(scene.start_x), int(scene.start_y)
    assert clips[0].frames_THWC[0, y, x].tolist() == [230, 128, 25]
    with pytest.raises(ValueError, match="give split='all'"):
        World(palette=orange)
