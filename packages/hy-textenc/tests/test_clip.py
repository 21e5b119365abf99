import json

import pytest
import torch
from hy_plugins.testing import TextEncoderContract
from hy_textenc import CLIPTextEncoder, TextEncoderError
from hy_textenc.testing import CLIP_SPECIALS, write_clip, write_clip_tokenizer
from hy_textenc.tokens import load_tokenizer
from tokenizers import pre_tokenizers
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPVisionConfig, PreTrainedTokenizerFast

PROMPTS = ["a red ball", "", "猫 🐈 {}", "x" * 100]


class TestClipKeepsTheContract(TextEncoderContract):
    @pytest.fixture(autouse=True)
    def folder(self, clip):
        self.path = clip

    def make(self):
        return CLIPTextEncoder(self.path).load()


def end_states(folder, prompt):
    """All states of one prompt by transformers' own class, unpadded; a text's last is the end token's."""
    tokenizer, model = PreTrainedTokenizerFast.from_pretrained(folder), CLIPTextModel.from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer([prompt], max_length=77, truncation=True, return_tensors="pt")).last_hidden_state[0]


@pytest.mark.filterwarnings("ignore:clip-l")
def test_the_pooled_vector_is_the_end_tokens_state(clip):
    text = CLIPTextEncoder(clip).encode(PROMPTS)
    assert text.tokens_BSD.shape == (4, 77, 24)
    assert text.pooled_BD.shape == (4, 24)
    for index, prompt in enumerate(PROMPTS):
        expected = end_states(clip, prompt)
        assert text.mask_BS[index].sum() == len(expected) <= 77
        torch.testing.assert_close(text.tokens_BSD[index, : len(expected)], expected, rtol=0, atol=2e-6)
        torch.testing.assert_close(text.pooled_BD[index], expected[-1], rtol=0, atol=2e-6)


def test_a_whole_clip_will_do(clip, tmp_path):
    torch.manual_seed(0)
    text = CLIPTextModel.from_pretrained(clip)
    vision = CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    whole = CLIPModel(CLIPConfig(text_config=text.config.to_dict(), vision_config=vision.to_dict(), projection_dim=12))
    whole.text_model.load_state_dict(getattr(text, "text_model", text).state_dict())  # older releases wrap it
    whole.save_pretrained(tmp_path)
    write_clip_tokenizer(tmp_path)
    encoder = CLIPTextEncoder(tmp_path)
    assert torch.equal(encoder.encode(["a"]).pooled_BD, CLIPTextEncoder(clip).encode(["a"]).pooled_BD)
    assert not [name for name, _ in encoder.named_parameters() if "vision" in name]


def test_a_vocabulary_and_its_merges_are_a_tokenizer_too(clip, tmp_path):
    """As diffusers' pipelines have CLIP's."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *(letter + "</w>" for letter in letters), "re", "red</w>", *CLIP_SPECIALS]
    start, end = CLIP_SPECIALS
    roles = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    (tmp_path / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", **roles}))
    tokenizer = load_tokenizer(tmp_path)
    write_clip(tmp_path, tokenizer)
    encoder = CLIPTextEncoder(tmp_path)
    ids = encoder.tokenizer("A Red  i")["input_ids"]
    assert [names[index] for index in ids] == [start, "a</w>", "red</w>", "i</w>", end]
    assert encoder.encode(["a red", ""]).mask_BS.sum(dim=1).tolist() == [4, 2]


def test_the_end_token_of_old_configurations_is_the_highest(clip, tmp_path):
    tokenizer = write_clip_tokenizer(tmp_path)
    write_clip(tmp_path, tokenizer, eos_token_id=2)
    assert CLIPTextEncoder(tmp_path).config.eos_token_id == 2
    assert torch.equal(CLIPTextEncoder(tmp_path).encode(["a"]).pooled_BD, CLIPTextEncoder(clip).encode(["a"]).pooled_BD)


def test_a_tokenizer_that_does_not_end_texts_is_refused(clip, copied):
    other = copied(clip)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    (other / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}))
    with pytest.raises(TextEncoderError, match=r"a text ends with token \d+; config\.json's end token is \d+"):
        CLIPTextEncoder(other)


def test_a_long_prompt_is_cut_with_a_warning(clip):
    with pytest.warns(UserWarning, match=r"^clip-l: the last 25 tokens of a prompt .* it keeps the first 75$"):
        text = CLIPTextEncoder(clip).encode(["x" * 100])
    assert text.mask_BS.all()
