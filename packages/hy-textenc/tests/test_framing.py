import pytest
from hy_textenc import IMAGE_TEMPLATES, TEMPLATES, PromptTemplate, TextEncoderError
from hy_textenc.framing import measure
from hy_textenc.testing import LLAMA_3_SPECIALS, write_clip_tokenizer, write_llama_tokenizer, write_t5_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return write_llama_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("templates", [TEMPLATES, IMAGE_TEMPLATES], ids=["text", "image"])
@pytest.mark.parametrize("media", ["video", "image"])
@pytest.mark.parametrize("prompt", ["a cat", "猫", "", "7", "\tx"])
def test_the_prompt_begins_at_the_crop_and_the_rest_follows_it(tokenizer, templates, media, prompt):
    framing = measure(tokenizer, templates[media])
    ids = tokenizer(templates[media].around(prompt))["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    middle = ids[framing.crop_start : len(ids) - framing.after]
    assert tokenizer.decode(middle) == prompt
    assert framing.prompt_tokens([len(ids)]) == [len(middle)]
    assert framing.length == framing.crop_start + templates[media].kept


def test_the_image_is_where_its_token_is(tokenizer):
    framing = measure(tokenizer, IMAGE_TEMPLATES["video"])
    ids = tokenizer(IMAGE_TEMPLATES["video"].prefix)["input_ids"]
    assert ids[framing.image_at] == tokenizer.convert_tokens_to_ids("<image>")
    # A begin token, the header's three parts and its line break: 5 with Llama 3; "system" is one token there.
    assert framing.image_at == 4 + len(tokenizer("system", add_special_tokens=False)["input_ids"])
    assert measure(tokenizer, TEMPLATES["video"]).image_at is None


def test_the_answers_header_has_llama_3s_five_tokens(tokenizer):
    word = len(tokenizer("assistant", add_special_tokens=False)["input_ids"])
    assert measure(tokenizer, IMAGE_TEMPLATES["video"]).after == 4 + word
    assert measure(tokenizer, TEMPLATES["video"]).after == 1


@pytest.mark.parametrize("write", [write_clip_tokenizer, write_t5_tokenizer])
def test_a_tokenizer_without_the_templates_special_tokens_is_refused(write, tmp_path):
    message = r"does not read <\|start_header_id\|>, <\|end_header_id\|>, <\|eot_id\|> as one token each"
    with pytest.raises(TextEncoderError, match=message):
        measure(write(tmp_path), TEMPLATES["video"])


def test_a_tokenizer_without_the_image_token_is_refused(tmp_path):
    tokenizer = write_llama_tokenizer(tmp_path, images=False)
    measure(tokenizer, TEMPLATES["video"])
    with pytest.raises(TextEncoderError, match="does not read <image> as one token each"):
        measure(tokenizer, IMAGE_TEMPLATES["video"])


def test_a_tokenizer_that_ends_texts_is_refused(tmp_path):
    with pytest.raises(TextEncoderError, match="ends a text with a token of its own"):
        measure(write_t5_tokenizer(tmp_path), PromptTemplate("say {}", kept=8))


def words_for_tokens(count, begins):
    """A tokenizer of Llama 3's size and special ids that reads a number of words before the video template's prompt."""
    names = {name: 128000 + index for index, name in enumerate([*LLAMA_3_SPECIALS[:2], *"......."])}
    names = {LLAMA_3_SPECIALS[0]: 128000, "<|start_header_id|>": 128006, "<|end_header_id|>": 128007}
    names |= {"<|eot_id|>": 128009, "x": 0}
    vocabulary = names | {f"v{index}": index for index in range(1, 128256) if index not in names.values()}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="x"))
    backend.pre_tokenizer = pre_tokenizers.FixedLength(count)
    backend.add_special_tokens([name for name in names if name != "x"])
    begin = LLAMA_3_SPECIALS[0]
    if begins:
        backend.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, 128000)])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_llama_3_must_crop_what_was_released():
    right = PromptTemplate("ab<|eot_id|>{}", kept=8, crop_start=4)
    assert measure(words_for_tokens(1, begins=True), right).crop_start == 4
    for tokenizer, found in ((words_for_tokens(1, begins=False), 3), (words_for_tokens(2, begins=True), 3)):
        message = f"Llama 3 tokenizer {found} tokens stand before the prompt; the released models crop 4"
        with pytest.raises(TextEncoderError, match=message):
            measure(tokenizer, right)
    other = PromptTemplate("ab<|eot_id|>{}", kept=8)
    assert measure(words_for_tokens(2, begins=True), other).crop_start == 3
