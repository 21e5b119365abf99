"""Our text encoders against diffusers' own prompt encoding: the same weights and tokenizers, the same states.

Shapes: B batch, S text tokens, D width.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    HunyuanVideoImageToVideoPipeline,  # pyright: ignore[reportPrivateImportUsage]
    HunyuanVideoPipeline,  # pyright: ignore[reportPrivateImportUsage]
)
from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video, pipeline_hunyuan_video_image2video
from hy_textenc import IMAGE_TEMPLATES, TEMPLATES, HunyuanVideoTextEncoder, load_text_encoder, testing
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextModel,
    LlamaModel,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*tokens of a prompt are not read")

PROMPTS = {
    "short": "a red ball rolls slowly to the left",
    "empty": "",
    "long": "The camera pans over a quiet harbour at dawn, " * 20,
    "multilingual": "一只猫在跑, Бегущая кошка, ひらがな, 고양이가 달린다, हिन्दी",
    "emoji": "🐈‍⬛ and 👩‍👩‍👧‍👦 🚀",
    "lines": "first\n\nsecond\r\n\n\nthird",
    "braces": "{} {0} {name} {{",
    "marks": "  two  spaces, a tab\t, “quotes” & <|eot_id|> ",
}
EACH = pytest.mark.parametrize("prompt", PROMPTS.values(), ids=list(PROMPTS))


def part(kind: Any, folder: Path) -> Any:
    """Read a part as diffusers does: whole."""
    return kind.from_pretrained(folder).eval() if hasattr(kind, "forward") else kind.from_pretrained(folder)


def pipeline_of(kind: Any, folder: Path, **parts: Any) -> Any:
    return kind(
        tokenizer=part(PreTrainedTokenizerFast, folder / "tokenizer"),
        text_encoder_2=part(CLIPTextModel, folder / "text_encoder_2"),
        tokenizer_2=part(PreTrainedTokenizerFast, folder / "tokenizer_2"),
        transformer=None,
        vae=None,
        scheduler=None,
        **parts,
    )


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Both implementations of text to video."""
    folder = testing.write_text_parts(tmp_path_factory.mktemp("texts"))
    llama = part(LlamaModel, folder / "text_encoder")
    return SimpleNamespace(
        ours={media: load_text_encoder(folder, media=media) for media in TEMPLATES},
        theirs=pipeline_of(HunyuanVideoPipeline, folder, text_encoder=llama),
    )


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    sizes = [(40, 60), (64, 30), (28, 28), (90, 90), (33, 47), (50, 50), (31, 31), (29, 99)]
    return [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


@pytest.fixture(scope="module")
def with_images(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Both implementations of image to video; diffusers is told how tokenizer and Llava measure the template."""
    folder = testing.write_text_parts(tmp_path_factory.mktemp("images"), images=True)
    llava = part(LlavaForConditionalGeneration, folder / "text_encoder")
    processor = part(CLIPImageProcessorPil, folder / "image_processor")
    theirs = pipeline_of(HunyuanVideoImageToVideoPipeline, folder, text_encoder=llava, image_processor=processor)
    # What diffusers cuts off is four tokens, "assistant" being one as in Llama 3: so it must be here.
    ids = theirs.tokenizer(IMAGE_TEMPLATES["video"].prefix)["input_ids"]
    place = ids.index(theirs.tokenizer.convert_tokens_to_ids("<image>"))
    measured = {"crop_start": len(ids), "image_emb_start": place, "image_emb_end": place + 16, "image_emb_len": 16}
    template = {"template": IMAGE_TEMPLATES["video"].text} | measured
    assert len(theirs.tokenizer("assistant", add_special_tokens=False)["input_ids"]) == 1
    ours = {every: HunyuanVideoTextEncoder(folder, interleave=every) for every in (4, 2, 1)}
    return SimpleNamespace(ours=ours, theirs=theirs, template=template)


def check_equal(ours: Tensor | None, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_the_templates_are_those_of_diffusers() -> None:
    for ours, theirs in (
        (TEMPLATES["video"], pipeline_hunyuan_video.DEFAULT_PROMPT_TEMPLATE),
        (IMAGE_TEMPLATES["video"], pipeline_hunyuan_video_image2video.DEFAULT_PROMPT_TEMPLATE),
    ):
        assert {"template": ours.text, "crop_start": ours.crop_start}.items() <= theirs.items()


@EACH
@pytest.mark.parametrize("media", ["video", "image"])
@torch.no_grad()
def test_a_text_gives_the_states_that_diffusers_gives(texts, prompt, media):
    ours = texts.ours[media].encode([prompt])
    template = {"template": TEMPLATES[media].text, "crop_start": texts.ours[media].mllm.framing.crop_start}
    kept = TEMPLATES[media].kept
    states_BSD, mask_BS = texts.theirs._get_llama_prompt_embeds([prompt], template, max_sequence_length=kept)
    check_equal(ours.tokens_BSD, states_BSD)
    assert torch.equal(ours.mask_BS, mask_BS.bool())
    check_equal(ours.pooled_BD, texts.theirs._get_clip_prompt_embeds([prompt]))


@torch.no_grad()
def test_a_batch_gives_what_diffusers_gives(texts):
    prompts = list(PROMPTS.values())
    ours = texts.ours["video"].encode(prompts)
    template = {"template": TEMPLATES["video"].text, "crop_start": texts.ours["video"].mllm.framing.crop_start}
    states_BSD, pooled_BD, mask_BS = texts.theirs.encode_prompt(prompts, prompt_template=template)
    check_equal(ours.tokens_BSD, states_BSD)
    check_equal(ours.pooled_BD, pooled_BD)
    assert torch.equal(ours.mask_BS, mask_BS.bool())


def of_diffusers(setup: SimpleNamespace, prompt: str, image: Image.Image, interleave: int) -> tuple[Tensor, Tensor]:
    """States and mask of one prompt: diffusers' image path is right for one at a time."""
    with torch.no_grad():
        return setup.theirs._get_llama_prompt_embeds(
            image, prompt, setup.template, max_sequence_length=256, image_embed_interleave=interleave
        )


@EACH
@pytest.mark.parametrize("interleave", [4, 2, 1])
def test_a_text_with_an_image_gives_the_states_that_diffusers_gives(with_images, images, prompt, interleave):
    ours = with_images.ours[interleave].encode([prompt], images[:1])
    states_BSD, mask_BS = of_diffusers(with_images, prompt, images[0], interleave)
    assert ours.tokens_BSD.shape == (1, 16 // interleave + 252, 32)
    check_equal(ours.tokens_BSD, states_BSD)
    assert torch.equal(ours.mask_BS, mask_BS.bool())
    check_equal(ours.pooled_BD, with_images.theirs._get_clip_prompt_embeds([prompt]))


def test_a_batch_with_images_gives_what_diffusers_gives_for_each(with_images, images):
    """Where lengths differ, or one prompt is cut and another isn't: diffusers' own batch fails or mixes them up."""
    prompts = list(PROMPTS.values())
    ours = with_images.ours[4].encode(prompts, images)
    for index, prompt in enumerate(prompts):
        states_BSD, mask_BS = of_diffusers(with_images, prompt, images[index], 4)
        check_equal(ours.tokens_BSD[index], states_BSD[0])
        assert torch.equal(ours.mask_BS[index], mask_BS[0].bool())


@pytest.mark.parametrize("spare", [6, 5, 4, 3, 2, 1, 0, -1, -2])
def test_a_text_cut_within_the_answers_header_gives_what_diffusers_gives(with_images, images, spare):
    """The prompt leaves this many tokens to the template's five last ones."""
    prompt = "x" * (256 - spare)
    ours = with_images.ours[4].encode([prompt], images[:1])
    states_BSD, mask_BS = of_diffusers(with_images, prompt, images[0], 4)
    check_equal(ours.tokens_BSD, states_BSD)
    assert torch.equal(ours.mask_BS, mask_BS.bool())
