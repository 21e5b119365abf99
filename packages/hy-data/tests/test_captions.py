import numpy as np
import pytest
from hy_data.captions import MeasuredCaptioner, measure_motion


@pytest.mark.parametrize(
    ("colour", "words"),
    [
        ((20, 20, 20), "a dark, grey scene"),
        ((110, 110, 110), "a dim, grey scene"),
        ((230, 230, 230), "a bright, grey scene"),
        ((220, 30, 20), "a bright, red scene"),
        ((220, 20, 60), "a bright, red scene"),
        ((60, 25, 5), "a dark, orange scene"),
        ((200, 190, 20), "a bright, yellow scene"),
        ((20, 120, 20), "a dim, green scene"),
        ((20, 190, 200), "a bright, cyan scene"),
        ((20, 40, 200), "a bright, blue scene"),
        ((120, 20, 130), "a dim, purple scene"),
    ],
)
def test_light_and_colour(colour, words):
    caption = MeasuredCaptioner().caption({"frames_THWC": np.full((1, 40, 60, 3), colour, np.uint8)})
    assert caption["short"] == words
    assert f"a {caption['light']}, {caption['colour']} scene" == words
    assert caption["motion"] == ""


def test_a_coloured_thing_in_a_grey_scene_does_not_colour_it():
    frames_THWC = np.full((1, 40, 60, 3), 120, np.uint8)
    frames_THWC[:, :4, :4] = (250, 0, 0)
    assert MeasuredCaptioner().caption({"frames_THWC": frames_THWC})["colour"] == "grey"


@pytest.mark.parametrize(
    ("turns", "shift", "words"),
    [
        (0, 3, "the camera moves left"),
        (2, 3, "the camera moves right"),
        (3, 3, "the camera moves up"),
        (1, 3, "the camera moves down"),
        (0, 8, "the camera moves left fast"),
        (0, 1, "the camera moves left slowly"),
        (0, 0, "the camera stands still"),
    ],
)
def test_the_camera_moves_against_the_picture(textured, turns, shift, words):
    # Texture that drifts right, then turned anticlockwise by quarters.
    frames_THWC = np.rot90(textured(12, 160, 160, shift=shift), turns, axes=(1, 2))
    caption = MeasuredCaptioner().caption({"frames_THWC": np.ascontiguousarray(frames_THWC), "fps": 10, "shot": 3})
    assert caption["motion"] == words
    assert caption["short"].startswith("shot 3, a ")
    assert caption["short"].endswith(f"scene, {words}")


def test_speed_is_in_frame_widths_per_second(textured):
    motion = measure_motion(textured(12, 96, 160, shift=4), 10)
    assert motion.right == pytest.approx(40 / 160, rel=0.1)
    assert motion.down == pytest.approx(0, abs=0.02)
    assert motion.rest < 0.1
    larger = textured(12, 96, 160, shift=4).repeat(2, axis=1).repeat(2, axis=2)
    assert measure_motion(larger, 10).right == pytest.approx(motion.right, rel=0.1)


def test_something_passing_before_a_still_camera(textured):
    frames_THWC = np.repeat(textured(1, 96, 160), 12, axis=0)
    moving = textured(12, 48, 160, seed=5, shift=4)
    frames_THWC[:, 48:] = moving
    assert (
        MeasuredCaptioner().caption({"frames_THWC": frames_THWC})["motion"] == "the camera stands still and things move"
    )


def test_strong_colour_counts_more_than_faint():
    frames_THWC = np.full((1, 40, 60, 3), (120, 120, 150), np.uint8)
    frames_THWC[:, :16] = (250, 10, 10)
    assert MeasuredCaptioner().caption({"frames_THWC": frames_THWC})["colour"] == "red"


def test_flat_parts_do_not_hide_motion(textured):
    frames_THWC = np.full((12, 96, 160, 3), 128, np.uint8)
    frames_THWC[:, 36:48] = textured(12, 12, 160, shift=3)
    assert MeasuredCaptioner().caption({"frames_THWC": frames_THWC, "fps": 10})["motion"] == "the camera moves left"
    assert measure_motion(frames_THWC, 10).right == pytest.approx(30 / 160, rel=0.25)


def test_flat_and_single_frames_have_no_motion():
    for count in (1, 5):
        motion = measure_motion(np.full((count, 32, 32, 3), 90, np.uint8), 25)
        assert (motion.right, motion.down, motion.rest, motion.standing) == (0, 0, 0, 1)


def test_the_same_clip_gets_the_same_words(textured):
    sample = {"frames_THWC": textured(9)}
    assert MeasuredCaptioner().caption(sample) == MeasuredCaptioner().caption(sample)


def test_thresholds_can_be_set():
    frames_THWC = np.full((1, 20, 20, 3), 110, np.uint8)
    assert MeasuredCaptioner(bright=100).caption({"frames_THWC": frames_THWC})["light"] == "bright"
    assert MeasuredCaptioner(dark=120).caption({"frames_THWC": frames_THWC})["light"] == "dark"


@pytest.mark.parametrize("size", [(20, 1200), (1200, 20), (16, 16)])
def test_any_shape_can_be_measured(size):
    frames_THWC = np.random.default_rng(0).integers(0, 255, (4, *size, 3)).astype(np.uint8)
    assert np.isfinite(measure_motion(frames_THWC, 25.0).right)
