import json
from dataclasses import dataclass

import pytest
from hy_weights import CheckpointError, read_config, read_config_as


@dataclass(frozen=True)
class Config:
    width: int
    channels: tuple[int, ...]
    scale: float = 1.0

    def __post_init__(self):
        if self.width % 2:
            raise ValueError(f"width must be even, not {self.width}")


def write_config(folder, text):
    (folder / "config.json").write_text(text)


def test_config_becomes_the_dataclass_with_tuples_and_defaults(tmp_path):
    write_config(tmp_path, '{"width": 8, "channels": [1, 2]}')
    assert read_config(tmp_path) == {"width": 8, "channels": [1, 2]}
    assert read_config_as(tmp_path, Config) == Config(width=8, channels=(1, 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"width": 8}', r"config\.json: missing key 'channels'; Config has the keys channels, scale, width"),
        ('{"width": 8, "channels": [], "wdith": 1}', r"config\.json: unknown key 'wdith'"),
        ('{"width": 7, "channels": []}', r"config\.json: not a valid Config \(width must be even, not 7\)"),
        ('{"width": 8,', r"config\.json: not valid JSON"),
        ("[1]", r"config\.json: expected a JSON object, found list"),
    ],
)
def test_a_bad_config_names_file_and_key(tmp_path, text, message):
    write_config(tmp_path, text)
    with pytest.raises(CheckpointError, match=message):
        read_config_as(tmp_path, Config)


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json: can't be read"):
        read_config(tmp_path)
    write_config(tmp_path, json.dumps({}))
    assert read_config(tmp_path) == {}


def test_errors_end_a_command_with_code_2():
    assert CheckpointError("x").exit_code == 2
