import math

import cv2
import numpy as np
import pytest
from hy_data.analyser import Reading, Scores, read_caption, read_clip, score
from hy_data.world import COLOURS, World

CLIPS = 120


@pytest.fixture(scope="module")
def clips():
    world = World(split="all", seed=11)
    return [world.clip(index) for index in range(CLIPS)]


@pytest.mark.parametrize(
    ("size", "frames"), [((48, 48), 9), ((64, 64), 17), ((48, 80), 5), ((32, 32), 2), ((112, 96), 3)]
)
def test_the_truth_scores_one(size, frames):
    world = World(size=size, frames=frames, split="all")
    clips = [world.clip(index) for index in range(36)]
    scores = score((c.frames_THWC for c in clips), [c.caption for c in clips])
    assert (scores.colour, scores.shape, scores.motion) == (1, 1, 1)


def test_shuffled_captions_score_as_chance_does(clips):
    order = np.random.default_rng(0).permutation(CLIPS)
    scores = score((c.frames_THWC for c in clips), [clips[index].caption for index in order])
    assert abs(scores.colour - 1 / 6) < 0.12
    assert abs(scores.shape - 1 / 3) < 0.14
    assert abs(scores.motion - 1 / 5) < 0.12


def test_blur_and_noise_as_a_decoder_leaves_them_do_not_matter(clips):
    rng = np.random.default_rng(0)
    rough = []
    for clip in clips:
        blurred = np.stack([cv2.GaussianBlur(frame_HWC, (0, 0), 1.0) for frame_HWC in clip.frames_THWC])
        rough.append((blurred + rng.normal(0, 12, blurred.shape)).clip(0, 255).astype(np.uint8))
    scores = score(rough, [c.caption for c in clips])
    assert min(scores.colour, scores.shape, scores.motion) > 0.97


def test_what_is_not_the_world_is_rejected(clips, textured):
    rng = np.random.default_rng(0)
    nothing = Reading(colour=None, shape=None, motion=None)
    assert read_clip(rng.integers(0, 256, (9, 48, 48, 3), dtype=np.uint8)) == nothing
    assert read_clip(np.full((9, 48, 48, 3), 128, np.uint8)) == nothing
    assert read_clip(textured(9, 48, 48)) == nothing


def still(draw):
    frame_HWC = np.full((48, 48, 3), 128, np.uint8)
    draw(frame_HWC)
    return read_clip(np.repeat(frame_HWC[None], 9, axis=0))


def test_two_objects_are_rejected():
    def draw(frame_HWC):
        cv2.circle(frame_HWC, (12, 24), 8, (230, 25, 25), -1)
        cv2.circle(frame_HWC, (36, 24), 8, (230, 25, 25), -1)

    assert still(draw) == Reading(colour=None, shape=None, motion=None)


def test_a_colour_between_two_is_rejected():
    assert still(lambda f: cv2.circle(f, (24, 24), 10, (230, 128, 25), -1)).colour is None
    assert still(lambda f: cv2.circle(f, (24, 24), 10, (230, 60, 60), -1)).colour == "red"


def test_another_shape_is_rejected():
    assert still(lambda f: cv2.rectangle(f, (6, 21), (42, 27), (25, 25, 230), -1)).shape is None
    assert still(lambda f: cv2.rectangle(f, (14, 14), (34, 34), (25, 25, 230), -1)).shape == "square"


@pytest.mark.parametrize(
    ("way", "motion"),
    [
        ((0, 0), "still"),
        ((3, 0), "still"),
        ((5, 0), None),
        ((9, 0), "right"),
        ((-9, 2), "left"),
        ((9, 9), None),
        ((0, -12), "up"),
    ],
)
def test_motion_must_be_clear(way, motion):
    frames_THWC = np.full((9, 48, 48, 3), 128, np.uint8)
    for number, frame_HWC in enumerate(frames_THWC):
        x, y = (24 + round(step * number / 8) for step in way)
        cv2.circle(frame_HWC, (x, y), 9, (25, 230, 25), -1)
    assert read_clip(frames_THWC).motion == motion


def test_an_object_that_vanishes_half_way_is_rejected(clips):
    frames_THWC = clips[0].frames_THWC.copy()
    frames_THWC[3:] = 128
    assert read_clip(frames_THWC) == Reading(colour=None, shape=None, motion=None)


def test_captions_are_read_back(clips):
    for clip in clips:
        scene = clip.scene
        assert read_caption(clip.caption) == Reading(colour=scene.colour, shape=scene.shape, motion=scene.motion)
        assert read_caption(scene.caption(moving=False)).motion is None


@pytest.mark.parametrize("caption", ["", "a red circle", "a pink circle moves left on a black background"])
def test_other_sentences_are_refused(caption):
    with pytest.raises(ValueError, match="not a caption"):
        read_caption(caption)


def test_what_no_caption_asks_is_not_scored():
    clip = World(frames=1).clip(0)
    scores = score([clip.frames_THWC], [clip.caption])
    assert (scores.colour, scores.shape) == (1, 1)
    assert math.isnan(scores.motion)


def test_numbers_of_clips_and_captions_must_agree(clips):
    with pytest.raises(ValueError, match="shorter"):
        score([clips[0].frames_THWC], [])


def test_a_palette_says_which_colours_there_are():
    orange = {"orange": (230, 128, 25)}
    clips = [World(split="all", palette=orange).clip(number) for number in range(20)]
    captions = [clip.caption for clip in clips]
    frames = [clip.frames_THWC for clip in clips]
    assert {read_clip(one).colour for one in frames} == {None}, "it lies between red and yellow"
    assert score(frames, captions, {**COLOURS, **orange}) == Scores(1.0, 1.0, 1.0)
    assert read_caption("an orange circle moves left on a black background", orange).colour == "orange"
    with pytest.raises(ValueError, match="not a caption"):
        read_caption(captions[0])
