"""A tiny random Llava: what it says is garbage, so asking, repairing and refusing are what is tested.

Shapes: T frames, H height, W width, C channels.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hy_plugins.protocols import Captioner
from hy_textenc.captions import CaptionerError, CaptionError, LocalCaptioner
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}</s>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def build(folder, chat_template=TEMPLATE):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<image>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["a red square moves right"], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", extra_special_tokens={}
    )
    fast.add_special_tokens({"additional_special_tokens": ["<image>"]})
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(
        images, fast, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=chat_template,
    )  # fmt: skip
    processor.save_pretrained(folder)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(fast), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=8192, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=3, vision_feature_layer=-2)
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("vlm"))


@pytest.fixture(scope="module")
def captioner(folder):
    return LocalCaptioner(model=str(folder), frames=3, max_tokens=16, device="cpu")


@pytest.fixture
def asked(captioner, monkeypatch):
    """What the model is given, as (text, number of pictures), while it still runs."""
    seen = []
    apply = captioner._processor.apply_chat_template

    def watch(messages, **options):
        inputs = apply(messages, **options)
        text = captioner._processor.decode(inputs["input_ids"][0]).replace("<image>", "")
        seen.append((text, len(inputs["pixel_values"])))
        return inputs

    monkeypatch.setattr(captioner._processor, "apply_chat_template", watch)
    return seen


def answers(captioner, monkeypatch, *texts):
    """Let the model's generated tokens be those of the texts, one after another."""
    left = list(texts)

    def generate(input_ids, max_new_tokens, do_sample, **rest):
        assert not do_sample
        tokens = captioner._processor.tokenizer(left.pop(0), add_special_tokens=False, return_tensors="pt")
        return torch.cat([input_ids, tokens["input_ids"], torch.tensor([[2]])], dim=1)

    monkeypatch.setattr(captioner._model, "generate", generate)
    return left


def test_garbage_is_sent_back_once_and_then_refused(captioner, asked, sample):
    assert isinstance(captioner, Captioner)
    with pytest.raises(CaptionError, match=r"^clip 00007-00000000: .*it must be one JSON object"):
        captioner.caption(sample)
    (first, pictures), (second, again) = asked
    assert (pictures, again) == (3, 3)
    assert first.startswith("user:You describe video clips")
    assert first.endswith("assistant:")
    assert "These are 3 of the 20 frames" in first
    assert second.startswith(first)
    assert second.count("You describe video clips") == 1
    assert "user:That answer can't be used: the caption is " in second


def test_the_answer_is_what_follows_the_question(captioner, asked, sample, monkeypatch):
    good = json.dumps({"short": "A red square moves right.", "shot_type": "long"})
    left = answers(captioner, monkeypatch, f"```json\n{good}\n```")
    assert captioner.caption(sample) == {"short": "A red square moves right.", "shot_type": "long"}
    assert not left
    assert len(asked) == 1


def test_a_mended_answer_is_taken(captioner, asked, sample, monkeypatch):
    answers(captioner, monkeypatch, '{"short": ""}', '{"short": "A square."}')
    assert captioner.caption(sample) == {"short": "A square."}
    assert 'assistant:{"short": ""}</s>user:' in asked[1][0]


def test_the_likeliest_answer_is_always_the_same(captioner, sample, monkeypatch):
    def messages():
        with pytest.raises(CaptionError) as caught:
            captioner.caption(sample)
        return str(caught.value)

    first = messages()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: messages(), range(2))) == [first, first]


def test_frames_matter(captioner, sample, monkeypatch):
    """The pictures reach the model: other frames give other pixels, in their order."""
    seen = []
    answers(captioner, monkeypatch, *['{"short": "x"}'] * 2)
    generate = captioner._model.generate
    monkeypatch.setattr(captioner._model, "generate", lambda **inputs: seen.append(inputs) or generate(**inputs))
    frames_THWC = sample["frames_THWC"][:19]
    captioner.caption({"frames_THWC": frames_THWC})
    captioner.caption({"frames_THWC": frames_THWC[::-1]})
    assert seen[0]["max_new_tokens"] == 16
    torch.testing.assert_close(seen[1]["pixel_values"], seen[0]["pixel_values"].flip(0))
    assert not torch.equal(seen[1]["pixel_values"], seen[0]["pixel_values"])


def test_other_types_of_numbers(folder, sample):
    captioner = LocalCaptioner(model=str(folder), frames=1, max_tokens=16, device="cpu", dtype="bfloat16")
    assert captioner._model.dtype == torch.bfloat16
    with pytest.raises(CaptionError, match="JSON object"):
        captioner.caption(sample)


def test_a_model_without_a_chat_template_is_refused(tmp_path):
    with pytest.raises(CaptionerError, match="no chat template; take a model that is tuned for instructions"):
        LocalCaptioner(model=str(build(tmp_path, chat_template=None)), device="cpu")


def test_pickled_weights_are_not_read(folder, tmp_path):
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CaptionerError, match="can't load the model"):
        LocalCaptioner(model=str(tmp_path), device="cpu")


def test_options_that_can_not_be_are_refused(tmp_path):
    with pytest.raises(CaptionerError, match="needs model: a folder, or hf://org/name"):
        LocalCaptioner()
    with pytest.raises(CaptionerError, match="frames is 0; it must be at least 1"):
        LocalCaptioner(model="x", frames=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaptionerError, match=r"can't load the model .*empty") as caught:
        LocalCaptioner(model=str(tmp_path / "empty"), device="cpu")
    assert len(str(caught.value)) < 800


def test_only_a_hub_id_reaches_for_the_hub(monkeypatch):
    asked = []

    def refuse(place, **options):
        asked.append((place, options["local_files_only"]))
        raise OSError("not here")

    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", refuse)
    for model in ("org/name", "hf://org/name"):
        with pytest.raises(CaptionerError, match="not here"):
            LocalCaptioner(model=model)
    assert asked == [("org/name", True), ("org/name", False)]
