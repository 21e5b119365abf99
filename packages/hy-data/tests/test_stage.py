"""What a stage is made of: streams with exact shares, buckets of scales, batch sizes by bucket."""

import pytest
from hy_data.buckets import Bucket
from hy_data.stage import Stage, label, tokens


def stage(**settings):
    return Stage(**{"name": "x", "batch_size": 4, **settings})


def shares(made):
    return {stream.name: round(stream.weight, 6) for stream in made.streams()}


def test_a_stage_of_images():
    made = stage(scales=[32], aspects=[1.0, 2.0])
    assert shares(made) == {"images 32": 1}
    assert made.streams()[0].buckets == (Bucket(1, 16, 48), Bucket(1, 32, 32))


def test_scales_share_the_batches():
    assert shares(stage(scales=[32, 64])) == {"images 32": 0.5, "images 64": 0.5}
    mixed = stage(scales=[32, 64], scale_weights=[1, 3], frames=[5, 9], aspects=[1.0], image_fraction=0.25)
    assert shares(mixed) == {"images 32": 0.25, "videos 32": 0.75, "images 64": 0.75, "videos 64": 2.25}
    by_name = {stream.name: stream.buckets for stream in mixed.streams()}
    assert by_name["videos 64"] == (Bucket(5, 64, 64), Bucket(9, 64, 64))
    assert by_name["images 64"] == (Bucket(1, 64, 64),)


def test_sizes_may_be_given():
    videos = [(5, 32, 32), (9, 32, 48)]
    assert shares(stage(buckets=videos)) == {"images": 0.2, "videos": 0.8}
    assert stage(buckets=videos).streams()[0].buckets == (Bucket(1, 32, 32), Bucket(1, 32, 48))
    assert stage(buckets=[*videos, (1, 64, 64)]).streams()[0].buckets == (Bucket(1, 64, 64),)
    assert shares(stage(buckets=videos, image_fraction=0)) == {"videos": 1}
    assert shares(stage(buckets=[(1, 32, 32)])) == {"images": 1}


def test_tokens_are_latent_patches():
    assert tokens(Bucket(1, 32, 48)) == 2 * 3
    assert tokens(Bucket(17, 32, 48)) == 5 * 2 * 3
    assert tokens(Bucket(129, 720, 1280)) == 33 * 45 * 80
    assert label(Bucket(17, 32, 48)) == "17x32x48"


def test_batch_sizes_follow_tokens_and_single_buckets():
    made = stage(buckets=[(5, 32, 32), (17, 64, 64)], batch_size=None, batch_tokens=50, batch_sizes={"1x32x32": 3})
    sizes = {label(bucket): made.batch_of(bucket) for stream in made.streams() for bucket in stream.buckets}
    assert sizes == {"1x32x32": 3, "1x64x64": 3, "5x32x32": 6, "17x64x64": 1}
    assert stage(buckets=[(5, 32, 32)]).batch_of(Bucket(5, 32, 32)) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "'x': give either buckets or scales"),
        ({"buckets": [(1, 16, 16)], "scales": [16]}, "give either buckets or scales"),
        ({"buckets": [(1, 16, 16)], "frames": [5]}, "frames and scale_weights belong to scales"),
        ({"scales": [32, 64], "scale_weights": [1]}, "2 scales have 1 scale_weights"),
        ({"scales": [32], "batch_tokens": 8}, "either batch_size or batch_tokens"),
        ({"scales": [32], "batch_size": None}, "either batch_size or batch_tokens"),
        ({"scales": [32], "batch_size": 0}, "every count must be at least 1"),
        ({"scales": [32], "steps": 0}, "every count must be at least 1"),
        ({"scales": [32], "frames": [1]}, "images have image_fraction"),
        ({"scales": [32], "frames": [4]}, "frames must be 4n"),
        ({"scales": [32], "image_fraction": 0.2}, "it has no videos, but image_fraction=0.2"),
        ({"buckets": [(1, 16, 16), (5, 16, 16)], "image_fraction": 0}, "has buckets of images, but image_fraction=0"),
        ({"scales": [32], "frames": [5], "image_fraction": 1.5}, r"image_fraction must lie in \[0, 1\]"),
        ({"scales": [32], "learning_rate": -1.0}, "learning_rate and shift must be positive"),
        ({"scales": [32], "shift": 0.0}, "learning_rate and shift must be positive"),
        ({"scales": [32], "aspects": [1.0], "batch_sizes": {"5x32x32": 1}}, "5x32x32, which is no bucket; .*1x32x32"),
        ({"scales": [8]}, "less than one 16x16 cell"),
        ({"scales": [32, 64], "scale_weights": [1, -1]}, r"scale_weights must be positive, got \[1, -1\]"),
        ({"scales": [32, 64], "scale_weights": [1, 0]}, "scale_weights must be positive"),
        ({"scales": [32, 64], "scale_weights": [1, float("nan")]}, "scale_weights must be positive"),
        ({"scales": [32, 64], "scale_weights": [1, 0.001]}, "'x': shares of batches: .* less than one batch in 100"),
        ({"scales": [32], "frames": [5], "image_fraction": 0.001}, "'x': shares of batches: .* less than one batch"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        stage(**settings)
