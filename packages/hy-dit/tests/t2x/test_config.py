import dataclasses
import itertools
import re

import pytest
from hy_dit import T2X, DiTConfig, DiTConfigError, T2XConfig
from hy_dit.t2x import config as t2x_config
from hy_dit.t2x.config import T2X_SIZES
from hy_weights import unallocated

PARAMETERS = {
    "t2x-92m": 92_333_120,
    "t2x-189m": 188_942_400,
    "t2x-384m": 384_624_704,
    "t2x-783m": 783_072_832,
    "t2x-1.6b": 1_579_409_984,
    "t2x-3.3b": 3_274_262_592,
    "t2x-6.6b": 6_581_256_768,
}


def test_seven_sizes_run_evenly_from_92_million_to_6600_million():
    assert list(T2X_SIZES) == list(PARAMETERS)
    for name, count in PARAMETERS.items():
        with unallocated():
            model = T2X(T2XConfig.preset(name))
        assert sum(parameter.numel() for parameter in model.parameters()) == count, name
    counts = list(PARAMETERS.values())
    assert counts[0] == pytest.approx(92e6, rel=0.02)
    assert counts[-1] == pytest.approx(6.6e9, rel=0.02)
    assert all(1.95 < larger / smaller < 2.1 for smaller, larger in itertools.pairwise(counts))


def test_sizes_keep_their_proportions():
    for config in T2X_SIZES.values():
        assert config.heads * 128 == config.width
        assert 37 <= config.width / config.depth <= 50
        differing = {"width", "depth"}
        rest = {key: value for key, value in dataclasses.asdict(config).items() if key not in differing}
        assert rest == {
            "in_channels": 16,
            "out_channels": 16,
            "mlp_ratio": 4.0,
            "rope_axes": (16, 56, 56),
            "rope_theta": 256.0,
            "patch": (1, 2, 2),
            "text_width": 4096,
        }


def test_the_documented_table_is_the_true_one():
    rows = re.findall(r"^\| (t2x\S+) \| (\d+) \| (\d+) \| (\d+) \| ([\d,]+) \|$", t2x_config.__doc__, re.MULTILINE)
    assert {row[0]: int(row[4].replace(",", "")) for row in rows} == PARAMETERS
    for name, *numbers, _ in rows:
        config = T2X_SIZES[name]
        assert [int(number) for number in numbers] == [config.width, config.depth, config.heads]


def test_an_unknown_size_lists_those_there_are():
    with pytest.raises(DiTConfigError, match=r"no preset 't2x-1b'; there are t2x-92m, .*t2x-6.6b"):
        T2XConfig.preset("t2x-1b")


def test_the_other_networks_presets_tell_where_these_are():
    with pytest.raises(DiTConfigError, match=r"'t2x-92m' is a size of DiT-T2X.*T2XConfig.preset\('t2x-92m'\)"):
        DiTConfig.preset("t2x-92m")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 192}, "width must be a multiple of 128, a head's channels, found 192"),
        ({"depth": 0}, "depth must be a whole number of at least 1, found 0"),
        ({"depth": 2.0}, "depth must be a whole number of at least 1, found 2.0"),
        ({"rope_axes": (16, 56)}, r"rope_axes must be a tuple of three numbers"),
        ({"rope_axes": (16, 56, 58)}, r"even and sum to 128, found \(16, 56, 58\) with sum 130"),
        ({"patch": (1, 0, 2)}, "patch must be a whole number of at least 1, found 0"),
        ({"mlp_ratio": 0.0}, "mlp_ratio must be above 0"),
    ],
)
def test_sizes_that_make_no_model_are_named(changes, message):
    with pytest.raises(DiTConfigError, match=message):
        T2XConfig(**({"width": 128, "depth": 2} | changes))
