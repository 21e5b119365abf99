"""What all pretrained encoders do alike: when weights are in memory and where, what identifies them, what fails."""

import json
import os
import shutil
import weakref

import pytest
import torch
from hy_plugins.protocols import TextEncoder
from hy_textenc import (
    IMAGE_TEMPLATES,
    TEMPLATES,
    CLIPTextEncoder,
    HunyuanVideoTextEncoder,
    MLLMEncoder,
    T5Encoder,
    TextEncoderError,
    quantization,
)
from hy_textenc.testing import write_clip_tokenizer, write_llama_tokenizer, write_text_parts
from hy_textenc.tokens import load_tokenizer
from hy_weights import CheckpointError
from safetensors.torch import load_file, save_file
from transformers import LlamaModel


@pytest.mark.parametrize(
    ("encoder", "fixture", "width"), [(MLLMEncoder, "llama", 32), (CLIPTextEncoder, "clip", 24), (T5Encoder, "t5", 24)]
)
def test_weights_are_read_at_the_first_use_and_frozen(encoder, fixture, width, request):
    made = encoder(request.getfixturevalue(fixture))
    assert isinstance(made, TextEncoder)
    assert made.model is None
    assert list(made.parameters()) == []
    text = made.encode(["a cat"])
    assert text.tokens_BSD.shape[2] == made.width == width
    assert text.tokens_BSD.dtype == torch.float32
    assert not text.tokens_BSD.requires_grad
    assert not made.model.training
    assert not [name for name, parameter in made.named_parameters() if parameter.requires_grad]
    made.model.requires_grad_(True)  # as a module around it may do
    assert not made.encode(["a cat"]).tokens_BSD.requires_grad
    half = encoder(request.getfixturevalue(fixture), dtype=torch.bfloat16).encode(["a cat"])
    assert half.tokens_BSD.dtype == torch.bfloat16
    torch.testing.assert_close(half.tokens_BSD.float(), text.tokens_BSD, rtol=0.1, atol=0.3)


@pytest.mark.parametrize(("encoder", "fixture"), [(MLLMEncoder, "llama"), (CLIPTextEncoder, "clip"), (T5Encoder, "t5")])
def test_half_a_character_is_refused(encoder, fixture, request):
    with pytest.raises(TextEncoderError, match=r"prompt 1 is no text: .*'\\ud800'.* surrogates not allowed"):
        encoder(request.getfixturevalue(fixture)).encode(["a", "half \ud800"])


def test_results_may_be_part_of_a_loss(llama):
    tokens_BSD = MLLMEncoder(llama).encode(["a cat"]).tokens_BSD
    layer = torch.nn.Linear(32, 1)
    layer(tokens_BSD).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_weights_leave_as_they_are_told(clip, monkeypatch):
    moved = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *where, **_: moved.append(str(where[0])) or self)
    staying = CLIPTextEncoder(clip, offload="none")
    staying.encode(["a"])
    staying.encode(["a"])
    assert moved == ["cpu"], "once, when read"
    assert staying.model is not None
    moved.clear()
    leaving = CLIPTextEncoder(clip, offload="cpu").load()
    leaving.device = torch.device("cpu", 0)
    leaving.encode(["a"])
    leaving.encode(["a"])
    assert moved == ["cpu", "cpu:0", "cpu", "cpu:0", "cpu"]
    moved.clear()
    freed = CLIPTextEncoder(clip, offload="free").load()
    watched = weakref.ref(freed.model)
    first = freed.encode(["a"])
    assert freed.model is None
    assert watched() is None
    assert torch.equal(freed.encode(["a"]).pooled_BD, first.pooled_BD)


def test_weights_leave_also_after_an_error(clip, monkeypatch):
    encoder = CLIPTextEncoder(clip, offload="free").load()
    monkeypatch.setattr(encoder.model, "forward", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        encoder.encode(["a"])
    assert encoder.model is None


def test_the_language_model_has_gone_when_clip_comes(pipeline, monkeypatch):
    encoder = HunyuanVideoTextEncoder(pipeline, offload="free")
    seen, load = [], CLIPTextEncoder.load
    monkeypatch.setattr(CLIPTextEncoder, "load", lambda self: (seen.append(encoder.mllm.model), load(self))[1])
    text = encoder.encode(["a cat"])
    assert seen == [None]
    assert (encoder.mllm.model, encoder.clip.model) == (None, None)
    assert text.pooled_BD.shape == (1, 24)


def test_identity_is_json_and_says_all_that_matters(llama, llava, pipeline, tmp_path):
    encoder = MLLMEncoder(llama)
    assert encoder.model is None
    identity = encoder.identity
    assert json.loads(json.dumps(identity)) == identity
    assert encoder.model is None, "no weights are needed for it"
    assert identity == MLLMEncoder(llama, device="cpu", offload="free").identity
    settings = [{"dtype": torch.float16}, {"media": "image"}, {"interleave": 2}]
    others = [MLLMEncoder(llama, **values).identity for values in settings]
    assert identity not in others
    assert MLLMEncoder(llama, dtype=torch.float32).identity == identity, "the dtype it is stored in, by name or not"
    assert identity["layer"] == -3
    assert (identity["template"], identity["tokens"]) == (TEMPLATES["video"].sha256, 256)
    assert (identity["image_template"], identity["image_tokens"]) == (IMAGE_TEMPLATES["video"].sha256, 256)
    assert {"processor"} == MLLMEncoder(llava).identity.keys() - identity.keys()
    assert HunyuanVideoTextEncoder(pipeline).identity.keys() == {"encoder", "mllm", "clip"}


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: _change_a_weight(folder / "model.safetensors"),
        lambda folder: write_llama_tokenizer(folder, merges=150),
    ],
    ids=["weights", "tokenizer"],
)
def test_identity_follows_the_files(llama, copied, change):
    other = copied(llama)
    assert MLLMEncoder(other).identity == MLLMEncoder(llama).identity
    change(other)
    assert MLLMEncoder(other).identity != MLLMEncoder(llama).identity


def test_identity_follows_a_tokenizer_and_a_processor_that_lie_apart(tmp_path):
    write_text_parts(tmp_path, images=True)
    before = HunyuanVideoTextEncoder(tmp_path).identity
    write_llama_tokenizer(tmp_path / "tokenizer", merges=150)
    (tmp_path / "image_processor" / "preprocessor_config.json").write_text("{}")
    after = HunyuanVideoTextEncoder(tmp_path).identity
    assert {name for name, value in before["mllm"].items() if after["mllm"][name] != value} == {
        "tokenizer",
        "processor",
    }
    assert after["clip"] == before["clip"]


def _change_a_weight(file):
    tensors = load_file(file)
    tensors["norm.weight"] += 1
    save_file(tensors, file, {"format": "pt"})


def _without_a_weight(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["layers.1.mlp.up_proj.weight"], tensors["layers.0.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _with_another_width(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 48}))


def _with_a_pickle(folder):
    torch.save(LlamaModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    os.remove(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            _without_a_weight,
            r"2 weights of LlamaModel are missing, among them layers\.0\.mlp\.up_proj\.weight, layers\.1",
        ),
        (_with_another_width, "the weights don't load as LlamaModel"),
        (_with_a_pickle, "the weights don't load as LlamaModel.*safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 64), "the weights don't load as LlamaModel"),
        (lambda folder: os.remove(folder / "model.safetensors"), "the weights don't load as LlamaModel"),
    ],
    ids=["missing", "width", "pickle", "damaged", "none"],
)
def test_weights_that_do_not_fit_are_refused(llama, copied, damage, message):
    other = copied(llama)
    damage(other)
    with pytest.raises(TextEncoderError, match=f"(?s)text_encoder: {message}"):
        MLLMEncoder(other).encode(["a"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: os.remove(folder / "config.json"), "no text encoder: it has no config.json, nor a folder"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: can't be read"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
            "is bert; llava-llama-3 needs llam",
        ),
        (lambda folder: os.remove(folder / "tokenizer.json"), "no tokenizer in .*text_encoder nor .*tokenizer: one of"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "the tokenizer can't be read"),
        (
            lambda folder: _without_padding(folder / "tokenizer_config.json"),
            "has no padding token; tokenizer_config.json",
        ),
        (write_clip_tokenizer, r"does not read <\|start_header_id\|>"),
    ],
    ids=["no config", "damaged config", "model type", "no tokenizer", "damaged tokenizer", "padding", "special tokens"],
)
def test_a_missing_or_damaged_part_is_named_at_once(llama, copied, damage, message):
    other = copied(llama)
    damage(other)
    with pytest.raises(TextEncoderError, match=message):
        MLLMEncoder(other)


def _without_padding(file):
    config = json.loads(file.read_text())
    del config["pad_token"]
    file.write_text(json.dumps(config))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: no such file or folder"):
        MLLMEncoder(tmp_path / "nowhere")


def test_a_tokenizer_that_pads_on_the_left_pads_on_the_right(llama, copied):
    other = copied(llama)
    config = json.loads((other / "tokenizer_config.json").read_text())
    sides = {"padding_side": "left", "truncation_side": "left", "tokenizer_class": "LlamaTokenizer"}
    (other / "tokenizer_config.json").write_text(json.dumps(config | sides))
    found, expected = (MLLMEncoder(folder).encode(["a\n\ncat", "x" * 256]) for folder in (other, llama))
    assert torch.equal(found.mask_BS, expected.mask_BS)
    assert torch.equal(found.tokens_BSD, expected.tokens_BSD)


def test_transformers_own_settings_do_not_leak(llama, caplog):
    MLLMEncoder(llama).load()
    assert caplog.records == [], "nothing is said of layers left out on purpose"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"offload": "disk"}, "offload is 'disk'; it can be none, cpu, free"),
        ({"quantization": "3bit", "offload": "free"}, "quantization is '3bit'; it can be 8bit or 4bit"),
        ({"quantization": "8bit"}, "quantized weights can't move to the CPU; offload must be 'free' or 'none'"),
    ],
)
def test_an_impossible_setting_is_named(llama, settings, message):
    with pytest.raises(TextEncoderError, match=message):
        MLLMEncoder(llama, **settings)


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantization_without_its_packages_names_the_extra(llama, monkeypatch, bits):
    monkeypatch.setattr(quantization, "find_spec", lambda _: None)
    with pytest.raises(
        TextEncoderError, match=rf"{bits} needs bitsandbytes and accelerate: .* 'hy-textenc\[quantized\]'"
    ):
        MLLMEncoder(llama, quantization=bits, offload="none")


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantization_is_handed_to_transformers(llama, monkeypatch, bits):
    monkeypatch.setattr(quantization, "find_spec", lambda _: True)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.46.1")
    encoder = MLLMEncoder(llama, quantization=bits, offload="none", device="cuda:0")
    given, read = {}, LlamaModel.from_pretrained

    def from_pretrained(folder, quantization_config, device_map, **options):
        given.update(bits=quantization_config, place=device_map)
        return read(folder, **options)

    monkeypatch.setattr(LlamaModel, "from_pretrained", from_pretrained)
    encoder.load()  # to the CPU in truth: quantized weights are never moved
    assert given["place"] == {"": torch.device("cuda:0")}
    assert given["bits"].load_in_8bit == (bits == "8bit")
    assert given["bits"].load_in_4bit == (bits == "4bit")
    if bits == "4bit":
        assert (given["bits"].bnb_4bit_quant_type, given["bits"].bnb_4bit_compute_dtype) == ("nf4", torch.float16)
    assert encoder.identity["quantization"] == bits


def test_no_code_of_a_folder_runs(llama, tmp_path, monkeypatch):
    other = shutil.copytree(llama, tmp_path / "other")
    (other / "tokenizer.json").unlink()
    (other / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: pass\n")
    remote = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (other / "tokenizer_config.json").write_text(json.dumps(remote))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(TextEncoderError):
        load_tokenizer(other)
    assert not (tmp_path / "ran").exists()
