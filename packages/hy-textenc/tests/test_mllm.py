import json
import warnings

import pytest
import torch
from hy_plugins.testing import TextEncoderContract
from hy_textenc import IMAGE_TEMPLATES, TEMPLATES, MLLMEncoder, TextEncoderError
from transformers import (
    CLIPImageProcessorPil,
    LlamaForCausalLM,
    LlamaModel,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

PROMPTS = ["a red ball", "", "a cat\n\nruns {} 猫 🐈‍⬛", "{0} " * 60, "slow " * 200]


def check_equal(actual, expected):
    # Of states up to 6: texts are padded on one side and not on the other, where sums are made in another order.
    torch.testing.assert_close(actual, expected, rtol=0, atol=5e-6)


class TestTheLanguageModelKeepsTheContract(TextEncoderContract):
    @pytest.fixture(autouse=True)
    def folder(self, llama):
        self.path = llama

    def make(self):
        return MLLMEncoder(self.path).load()


def states_of_all_layers(folder, text):
    """Hidden states of one text by the whole model, unpadded, layer by layer, and its ids."""
    tokenizer, model = PreTrainedTokenizerFast.from_pretrained(folder), LlamaModel.from_pretrained(folder)
    ids_BS = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        return model(input_ids=ids_BS, output_hidden_states=True).hidden_states, ids_BS[0]


@pytest.mark.filterwarnings("ignore:llava-llama-3")
@pytest.mark.parametrize(("media", "kept"), [("video", 256), ("image", 315)])
def test_states_are_the_third_last_of_all_layers_from_the_prompt_on(llama, media, kept):
    encoder = MLLMEncoder(llama, media=media)
    text = encoder.encode(PROMPTS)
    assert text.tokens_BSD.shape == (5, kept, 32)
    assert text.pooled_BD is None
    crop = encoder.framing.crop_start
    for index, prompt in enumerate(PROMPTS):
        layers, ids_S = states_of_all_layers(llama, TEMPLATES[media].around(prompt))
        assert len(layers) == 6
        real = min(len(ids_S) - crop, kept)
        assert text.mask_BS[index].tolist() == [True] * real + [False] * (kept - real)
        check_equal(text.tokens_BSD[index, :real], layers[-3][0, crop : crop + real])


def test_what_the_template_says_before_the_prompt_changes_it(llama):
    video, image = (MLLMEncoder(llama, media=media).encode(["a cat"]) for media in ("video", "image"))
    assert (video.tokens_BSD[:, :3] - image.tokens_BSD[:, :3]).abs().max() > 1e-2


def test_the_last_layers_and_the_norm_are_not_in_memory(llama, llava):
    model = MLLMEncoder(llama).load().model
    assert len(model.layers) == 3
    assert not [name for name, _ in model.named_parameters() if name.startswith("norm")]
    assert len(MLLMEncoder(llava).load().model.language_model.layers) == 3
    assert MLLMEncoder(llama).config.num_hidden_layers == 5, "the configuration is of the whole model"


def test_a_whole_llava_reads_texts_with_its_language_model(llava, llama, copied):
    other = copied(llama)
    LlavaForConditionalGeneration.from_pretrained(llava).model.language_model.save_pretrained(other)
    alone, whole = MLLMEncoder(other).encode(["a cat"]), MLLMEncoder(llava).encode(["a cat"])
    assert torch.equal(alone.tokens_BSD, whole.tokens_BSD)


def test_a_causal_language_model_will_do_as_tencents_script_saves_it(llama, copied):
    other = copied(llama)
    torch.manual_seed(5)
    model = LlamaForCausalLM(LlamaModel.from_pretrained(llama).config)
    model.model.load_state_dict(LlamaModel.from_pretrained(llama).state_dict())
    model.save_pretrained(other)
    assert torch.equal(MLLMEncoder(other).encode(["a"]).tokens_BSD, MLLMEncoder(llama).encode(["a"]).tokens_BSD)


def with_an_image(folder, media, prompt, image, interleave):
    """States and mask of one prompt with its image, taken from the whole model step by step as the release does."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    template = IMAGE_TEMPLATES[media]
    crop = len(tokenizer(template.prefix)["input_ids"])
    header = len(tokenizer(template.suffix, add_special_tokens=False)["input_ids"])
    most = crop + template.kept
    ids = tokenizer(template.around(prompt))["input_ids"]
    double_return = tokenizer("\n\n", add_special_tokens=False)["input_ids"]
    assert ids[-1:] == double_return
    end = min(len(ids) - 1, most)
    ids = ids[:most]
    place = ids.index(tokenizer.convert_tokens_to_ids("<image>"))
    expanded = [*ids[:place], *[ids[place]] * 16, *ids[place + 1 :]]
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor([expanded]),
            pixel_values=processor([image], return_tensors="pt")["pixel_values"],
            output_hidden_states=True,
        )
    states_SD = output.hidden_states[-3][0]
    text = [index + 15 for index in (*range(crop, end - header + 1), *range(end, len(ids)))]
    return states_SD[[*range(place, place + 16, interleave), *text]]


@pytest.mark.filterwarnings("ignore:llava-llama-3")
@pytest.mark.parametrize(("media", "interleave", "width"), [("video", 4, 4), ("video", 2, 8), ("image", 1, 16)])
def test_an_image_brings_its_tokens_and_the_answers_header_goes(llava, images, media, interleave, width):
    encoder = MLLMEncoder(llava, media=media, interleave=interleave)
    pictures = [*images, images[0], images[1]]
    text = encoder.encode(PROMPTS, pictures)
    header = len(encoder.tokenizer(IMAGE_TEMPLATES[media].suffix, add_special_tokens=False)["input_ids"])
    assert text.tokens_BSD.shape == (5, width + IMAGE_TEMPLATES[media].kept - header + 1, 32)
    for index, prompt in enumerate(PROMPTS):
        expected = with_an_image(llava, media, prompt, pictures[index], interleave)
        assert text.mask_BS[index].sum() == len(expected)
        assert (text.mask_BS[index].int().diff() <= 0).all()
        check_equal(text.tokens_BSD[index, : len(expected)], expected)


@pytest.mark.filterwarnings("ignore:llava-llama-3")
@pytest.mark.parametrize("with_images", [False, True])
def test_a_batch_gives_what_each_prompt_gives_alone(llava, images, with_images):
    encoder = MLLMEncoder(llava)
    pictures = [*images, images[0], images[1]] if with_images else None
    together = encoder.encode(PROMPTS, pictures)
    for index, prompt in enumerate(PROMPTS):
        alone = encoder.encode([prompt], pictures and [pictures[index]])
        assert torch.equal(alone.mask_BS[0], together.mask_BS[index])
        check_equal(alone.tokens_BSD[0], together.tokens_BSD[index])


def test_a_picture_of_another_mode_is_read_as_rgb(llava, images):
    encoder = MLLMEncoder(llava)
    opaque = images[0].convert("RGBA")
    found, expected = (encoder.encode(["a cat"], [image]) for image in (opaque, images[0]))
    assert torch.equal(found.tokens_BSD, expected.tokens_BSD)


def test_another_image_gives_other_states_to_image_and_text(llava, images):
    first, second = (MLLMEncoder(llava).encode(["a cat"], [image]).tokens_BSD[0] for image in images[:2])
    assert (first[:4] - second[:4]).abs().max() > 1e-3
    assert (first[4:8] - second[4:8]).abs().max() > 1e-4


def test_a_long_prompt_is_cut_with_one_warning_that_counts(llama, llava, images):
    encoder = MLLMEncoder(llama)
    with pytest.warns(UserWarning, match=r"^llava-llama-3: the last 44 tokens of a prompt .* keeps the first 256$"):
        encoder.encode(["x" * 300])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(["x" * 300])
        MLLMEncoder(llama).encode(["x" * 256])
    encoder = MLLMEncoder(llava)
    room = 256 - encoder._image_framing(["a"], images[:1]).after + 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(["x" * room], images[:1])
    with pytest.warns(UserWarning, match=rf"the last 3 tokens of a prompt .* keeps the first {room}$"):
        encoder.encode(["x" * (room + 3)], images[:1])


@pytest.mark.parametrize("prompts", ["a cat", [], [None], ["a", 3]])
def test_what_is_not_a_list_of_prompts_is_refused(llama, prompts):
    with pytest.raises(TextEncoderError, match=r"a list of at least one prompt|a prompt is a string"):
        MLLMEncoder(llama).encode(prompts)


def test_images_that_cannot_be_read_are_refused(llama, llava, images, copied):
    with pytest.raises(TextEncoderError, match="a language model alone; images need a whole Llava"):
        MLLMEncoder(llama).encode(["a"], images[:1])
    encoder = MLLMEncoder(llava)
    with pytest.raises(TextEncoderError, match="2 prompts need as many images, not 1"):
        encoder.encode(["a", "b"], images[:1])
    with pytest.raises(TextEncoderError, match="prompt 1 holds <image>, which stands for the image: 'an <image>'"):
        encoder.encode(["a", "an <image>"], images[:2])
    with pytest.raises(TextEncoderError, match="the images can't be read"):
        encoder.encode(["a"], ["no image"])
    assert encoder.encode(["an <image>"]).mask_BS.sum() > 1, "without an image it is a word like any other"
    other = copied(llava)
    (other / "preprocessor_config.json").write_text("{")
    with pytest.raises(TextEncoderError, match="the image processor can't be read"):
        MLLMEncoder(other).encode(["a"], images[:1])
    (other / "preprocessor_config.json").unlink()
    with pytest.raises(TextEncoderError, match=r"images need preprocessor_config\.json here, or beside it"):
        MLLMEncoder(other).encode(["a"], images[:1])


def test_configuration_and_tokenizer_must_mean_the_same_image_token(llava, copied, images):
    other = copied(llava)
    config = json.loads((other / "config.json").read_text())
    config["image_token_index"] -= 1
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(TextEncoderError, match=r"<image> is token \d+ in config\.json, \d+ in the tokenizer"):
        MLLMEncoder(other).encode(["a"], images[:1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"media": "audio"}, "media is 'audio'; it can be video or image"), ({"interleave": 0}, "interleave is 0")],
)
def test_an_impossible_setting_is_named(llama, settings, message):
    with pytest.raises(TextEncoderError, match=message):
        MLLMEncoder(llama, **settings)


def test_a_model_of_two_layers_has_no_third_last_state(llama, copied):
    other = copied(llama)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(
        TextEncoderError, match=r"config\.json: num_hidden_layers is 2; the states are taken before the"
    ):
        MLLMEncoder(other)
