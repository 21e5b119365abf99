import pytest
import torch
from hy_plugins.testing import TextEncoderContract
from hy_textenc import T5Encoder, TextEncoderError
from hy_textenc.testing import write_t5_tokenizer
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel, T5ForConditionalGeneration

PROMPTS = ["a red ball", "", "猫 🐈 {}", "x" * 100]


class TestT5KeepsTheContract(TextEncoderContract):
    @pytest.fixture(autouse=True)
    def folder(self, t5):
        self.path = t5

    def make(self):
        return T5Encoder(self.path).load()


@pytest.mark.filterwarnings("ignore:t5")
def test_states_are_the_encoders_and_padding_is_not_seen(t5):
    text = T5Encoder(t5, max_tokens=40).encode(PROMPTS)
    assert text.tokens_BSD.shape == (4, 40, 24)
    assert text.pooled_BD is None
    tokenizer, model = PreTrainedTokenizerFast.from_pretrained(t5), T5EncoderModel.from_pretrained(t5)
    for index, prompt in enumerate(PROMPTS):
        ids_BS = tokenizer([prompt], max_length=40, truncation=True, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected = model(ids_BS).last_hidden_state[0]
        assert text.mask_BS[index].sum() == len(expected)
        torch.testing.assert_close(text.tokens_BSD[index, : len(expected)], expected, rtol=0, atol=5e-6)


def test_the_decoder_stays_on_disk(tmp_path):
    tokenizer = write_t5_tokenizer(tmp_path)
    config = T5Config(vocab_size=len(tokenizer), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    encoder = T5Encoder(tmp_path).load()
    assert not [name for name, _ in encoder.named_parameters() if "decoder" in name]
    assert encoder.width == encoder.encode(["a"]).tokens_BSD.shape[2] == 8


def test_a_long_prompt_is_cut_with_a_warning(t5):
    with pytest.warns(UserWarning, match=r"^t5: the last 61 tokens of a prompt are not read; it keeps the first 39$"):
        T5Encoder(t5, max_tokens=40).encode(["x" * 100])


def test_at_least_one_token_is_read(t5):
    with pytest.raises(TextEncoderError, match="max_tokens is 0"):
        T5Encoder(t5, max_tokens=0)
