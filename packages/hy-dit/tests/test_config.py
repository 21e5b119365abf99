import dataclasses

import pytest
import torch
from hy_dit import DiT, DiTConfig, DiTConfigError


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"),
    [
        ("tiny", 124, 10_291_904),
        ("hunyuan-video", 852, 12_810_782_784),
        ("hunyuan-video-cfgdistill", 856, 12_821_012_544),
    ],
)
def test_presets_have_the_released_sizes(name, tensors, parameters):
    with torch.device("meta"):
        state = DiT(DiTConfig.preset(name)).state_dict()
    assert len(state) == tensors
    assert sum(value.numel() for value in state.values()) == parameters


def test_tiny_is_the_agreed_twin():
    config = DiTConfig.preset("tiny")
    assert (config.in_channels, config.out_channels, config.width, config.heads) == (16, 16, 256, 4)
    assert (config.double_blocks, config.single_blocks, config.mlp_width) == (2, 3, 1024)
    assert (config.rope_axes, config.rope_theta, config.patch) == ((16, 24, 24), 256.0, (1, 2, 2))
    assert (config.text_width, config.pooled_width, config.guidance_embed) == (256, 256, False)


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(DiTConfigError, match="no preset 'huge'; there are tiny, hunyuan-video, hunyuan-video-cfgdist"):
        DiTConfig.preset("huge")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 33}, "width must be a multiple of heads, found width 33 and heads 2"),
        ({"width": 32.0}, "width must be a whole number of at least 1, found 32.0"),
        ({"heads": 0}, "heads must be a whole number of at least 1, found 0"),
        ({"double_blocks": -1}, "double_blocks must be a whole number of at least 0, found -1"),
        ({"rope_axes": (4, 4)}, r"rope_axes must be a tuple of three numbers \(time, height, width\), found \(4, 4\)"),
        ({"rope_axes": (4, 4, 4)}, r"even and sum to width / heads = 16, found \(4, 4, 4\) with sum 12"),
        ({"rope_axes": (5, 5, 6)}, "rope_axes must be even"),
        ({"patch": (1, 2, 0)}, "patch must be a whole number of at least 1, found 0"),
        ({"patch": [1, 2, 2]}, r"patch must be a tuple of three numbers .* found \[1, 2, 2\]"),
        ({"mlp_ratio": 0.0}, "mlp_ratio must be above 0, found 0.0"),
        ({"rope_theta": -1.0}, "rope_theta must be above 0, found -1.0"),
    ],
)
def test_sizes_that_make_no_model_are_named(sizes, changes, message):
    with pytest.raises(DiTConfigError, match=message):
        DiTConfig(**(sizes | changes))


def test_a_configuration_does_not_change(sizes):
    config = DiTConfig(**sizes)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.width = 64
    assert dataclasses.asdict(config) == sizes
