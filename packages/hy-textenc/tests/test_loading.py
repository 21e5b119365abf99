import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from hy_plugins import Plugins
from hy_plugins.testing import TextEncoderContract
from hy_textenc import (
    CachedTextEncoder,
    CLIPTextEncoder,
    HunyuanVideoTextEncoder,
    MLLMEncoder,
    T5Encoder,
    TextEncoderError,
    TinyTextConfig,
    TinyTextEncoder,
    load_cached_text_encoder,
    load_text_encoder,
    testing,
)
from hy_weights import CheckpointError, TensorStore, write_model


class TestThePairKeepsTheContract(TextEncoderContract):
    @pytest.fixture(autouse=True)
    def folder(self, pipeline):
        self.path = pipeline

    def make(self):
        return HunyuanVideoTextEncoder(self.path).load()


@pytest.mark.parametrize(
    ("fixture", "kind"), [("llama", MLLMEncoder), ("llava", MLLMEncoder), ("clip", CLIPTextEncoder), ("t5", T5Encoder)]
)
def test_a_folder_is_loaded_as_what_it_is(fixture, kind, request):
    folder = request.getfixturevalue(fixture)
    encoder = load_text_encoder(folder, dtype=torch.bfloat16, device="cpu", offload="free")
    assert type(encoder) is kind
    assert (encoder.dtype, encoder.device, encoder.offload) == (torch.bfloat16, torch.device("cpu"), "free")
    assert not encoder.training


@pytest.mark.parametrize("layout", ["diffusers", "tencent"])
@pytest.mark.parametrize("with_images", [False, True])
def test_a_pipelines_folder_is_both_encoders(tmp_path, images, layout, with_images):
    testing.write_text_parts(tmp_path, layout=layout, images=with_images, llama={"hidden_size": 48})
    encoder = load_text_encoder(tmp_path, media="image", interleave=2)
    assert isinstance(encoder, HunyuanVideoTextEncoder)
    text = encoder.encode(["a cat", ""], images[:2] if with_images else None)
    mllm = MLLMEncoder(tmp_path, media="image", interleave=2).encode(["a cat", ""], images[:2] if with_images else None)
    assert text.tokens_BSD.shape[2] == 48
    assert torch.equal(text.tokens_BSD, mllm.tokens_BSD)
    assert torch.equal(text.mask_BS, mllm.mask_BS)
    assert torch.equal(text.pooled_BD, CLIPTextEncoder(tmp_path).encode(["a cat", ""]).pooled_BD)


def test_a_pipelines_parts_load_alone_with_the_tokenizer_beside_them(pipeline):
    both = load_text_encoder(pipeline).encode(["a cat"])
    assert torch.equal(load_text_encoder(pipeline / "text_encoder").encode(["a cat"]).tokens_BSD, both.tokens_BSD)
    assert torch.equal(load_text_encoder(pipeline / "text_encoder_2").encode(["a cat"]).pooled_BD, both.pooled_BD)


def test_a_pipeline_without_clips_tokenizer_is_refused_before_anything_is_read(pipeline, tmp_path):
    other = shutil.copytree(pipeline, tmp_path / "other")
    shutil.rmtree(other / "tokenizer_2")
    with pytest.raises(
        TextEncoderError, match=r"no tokenizer in .*text_encoder_2 nor .*tokenizer_2: one of tokenizer\.json"
    ):
        load_text_encoder(other)
    (other / "text_encoder_2" / "config.json").unlink()
    with pytest.raises(TextEncoderError, match=r"no text encoder: it has no config\.json, nor a folder text_encoder_2"):
        load_text_encoder(other)


def test_a_pipeline_with_a_tiny_encoder_gives_that(tmp_path):
    tiny = TinyTextEncoder(TinyTextConfig(vocab=64, width=16, layers=1, pooled_width=16))
    write_model(tmp_path / "text_encoder", tiny.state_dict(), asdict(tiny.config))
    for place in (tmp_path, tmp_path / "text_encoder"):
        loaded = load_text_encoder(place)
        assert type(loaded) is TinyTextEncoder
        assert torch.equal(loaded.encode(["a"]).tokens_BSD, tiny.encode(["a"]).tokens_BSD)


def test_what_is_no_text_encoder_is_refused(tmp_path):
    with pytest.raises(
        TextEncoderError, match=r"no text encoder: it has no config\.json, nor a folder text_encoder or"
    ):
        load_text_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    message = (
        r"config\.json: no text encoder of model_type bert is known; there are llama, llava, clip, clip_text_model, t5"
    )
    with pytest.raises(TextEncoderError, match=message):
        load_text_encoder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(TextEncoderError, match=r"config\.json: can't be read as JSON"):
        load_text_encoder(tmp_path)


def test_every_encoder_is_a_component():
    plugins = Plugins()
    names = {"tiny", "hunyuan-video", "llava-llama-3", "clip-l", "t5"}
    assert names <= set(plugins.names("text_encoder"))
    for encoder in (HunyuanVideoTextEncoder, MLLMEncoder, CLIPTextEncoder, T5Encoder):
        assert plugins.load("text_encoder", encoder.name) is encoder


def test_the_tiny_encoder_needs_no_transformers():
    script = """
import sys
import hy_textenc
hy_textenc.TinyTextEncoder, hy_textenc.load_text_encoder, hy_textenc.MLLMEncoder, hy_textenc.TEMPLATES
assert not {"transformers", "tokenizers", "PIL"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_settings_that_our_encoder_does_not_have_are_refused(tmp_path):
    encoder = TinyTextEncoder(TinyTextConfig(vocab=8, width=4, layers=1, heads=1))
    write_model(tmp_path / "tiny", encoder.state_dict(), asdict(encoder.config))
    assert load_text_encoder(tmp_path / "tiny", offload="none").config == encoder.config
    with pytest.raises(TextEncoderError, match="no setting media, quantization"):
        load_text_encoder(tmp_path / "tiny", media="image", quantization="8bit")


@pytest.fixture
def written(tmp_path):
    torch.manual_seed(0)
    encoder = TinyTextEncoder(TinyTextConfig(vocab=64, width=16, layers=1, heads=2, pooled_width=12)).eval()
    write_model(tmp_path / "tiny", encoder.state_dict(), asdict(encoder.config))
    return tmp_path / "tiny"


def test_a_recipes_encoder_reads_what_another_one_stored(tmp_path, written):
    CachedTextEncoder(load_text_encoder(written), TensorStore(tmp_path / "store")).encode(["a cat", ""])
    cached = load_cached_text_encoder(str(written), str(tmp_path / "store"))
    expected = load_text_encoder(written).encode(["", "a cat"])
    torch.testing.assert_close(cached.encode(["", "a cat"]).tokens_BSD, expected.tokens_BSD, rtol=0, atol=1e-5)
    assert cached.misses == 0
    with pytest.raises(TextEncoderError, match="the states of 1 prompts are not there, such as 'a dog'"):
        cached.encode(["a dog"])


def test_its_settings_are_the_encoders(tmp_path, pipeline, written):
    image = {"media": "image", "dtype": "bfloat16"}
    cached = load_cached_text_encoder(pipeline, tmp_path / "store", missing="encode", **image)
    encoder = load_text_encoder(pipeline, torch.bfloat16, media="image")
    assert cached.identity == encoder.identity != load_text_encoder(pipeline).identity
    assert torch.equal(cached.encode(["a cat"]).pooled_BD, encoder.encode(["a cat"]).pooled_BD)
    assert cached.misses == 1
    with pytest.raises(TextEncoderError, match="has no setting media"):
        load_cached_text_encoder(written, tmp_path / "store", media="image").encode(["a cat"])


def test_making_it_reads_nothing_and_it_goes_to_other_processes(tmp_path, written):
    elsewhere = load_cached_text_encoder(tmp_path / "none", tmp_path / "store")
    assert not (tmp_path / "store").exists()
    with pytest.raises(CheckpointError, match="no such file or folder"):
        elsewhere.encode(["a cat"])
    cached = pickle.loads(pickle.dumps(load_cached_text_encoder(written, tmp_path / "store", missing="encode")))
    cached.encode(["a cat"])
    assert cached.misses == 1
