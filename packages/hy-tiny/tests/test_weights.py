"""The bundled weights are whole, small, and say where they come from."""

import re
from pathlib import Path

from hy_tiny import vae_folder
from hy_weights import read_config, read_manifest, read_tensors, verify


def test_the_weights_are_whole_and_at_most_ten_megabytes():
    verify(vae_folder())
    assert sum(path.stat().st_size for path in vae_folder().iterdir()) <= 10_000_000
    assert read_manifest(vae_folder())["provenance"]["module"] == "VAETraining"


def test_their_sizes_are_the_configurations():
    config, tensors = read_config(vae_folder()), read_tensors(vae_folder())
    assert tensors["encoder.conv_in.conv.weight"].shape[0] == config["channels"][0]
    assert tensors["post_quant_conv.weight"].shape[0] == config["latent_channels"]


def test_the_readme_example_runs():
    blocks = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
