"""Small pretrained encoders, written once: tests read them, and copy a folder that they mean to damage."""

import shutil

import numpy as np
import pytest
from hy_textenc import testing
from PIL import Image


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """A language model with its tokenizer inside, as in Tencent's layout."""
    folder = tmp_path_factory.mktemp("llama") / "text_encoder"
    testing.write_llama(folder, testing.write_llama_tokenizer(folder))
    return folder


@pytest.fixture(scope="session")
def llava(tmp_path_factory):
    """A whole Llava with tokenizer and image processor inside."""
    folder = tmp_path_factory.mktemp("llava") / "text_encoder"
    testing.write_llava(folder, testing.write_llama_tokenizer(folder))
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip") / "text_encoder_2"
    testing.write_clip(folder, testing.write_clip_tokenizer(folder))
    return folder


@pytest.fixture(scope="session")
def t5(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5") / "text_encoder"
    testing.write_t5(folder, testing.write_t5_tokenizer(folder))
    return folder


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    """A pipeline's folder with both encoders, as diffusers lays it out."""
    return testing.write_text_parts(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture
def copied(tmp_path):
    """Copy a folder, to be changed."""

    def copy(folder):
        return shutil.copytree(folder, tmp_path / folder.name)

    return copy


@pytest.fixture(scope="session")
def images():
    """Three images of different sizes."""
    generator = np.random.default_rng(0)
    sizes = [(40, 60), (28, 28), (50, 33)]
    return [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
