"""The whole of sampling, from a prompt to frames, against diffusers' own pipeline on the same folders and noise."""

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,  # pyright: ignore[reportPrivateImportUsage]
    FlowMatchEulerDiscreteScheduler,  # pyright: ignore[reportPrivateImportUsage]
    HunyuanVideoPipeline,  # pyright: ignore[reportPrivateImportUsage]
    HunyuanVideoTransformer3DModel,  # pyright: ignore[reportPrivateImportUsage]
)
from hy_dit import LORA_TARGETS, load_dit, save_lora
from hy_textenc.pretrained import PretrainedEncoder
from hy_textenc.templates import TEMPLATES
from hy_textenc.testing import write_text_parts
from hy_weights import CheckpointError, base_metadata, new_lora, read_config
from hyvideo_sample import pipeline
from hyvideo_sample.cli import main
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPTextModel, LlamaModel

PROMPT, NEGATIVE = "a red ball rolls — 红色的球 🎈", "rain, blur"
SIZE, FRAMES, STEPS = (32, 48), 9, 3  # height and width


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pipeline in diffusers' layout, small and untrained."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "diffusers"
    folder.mkdir()
    write_text_parts(folder)
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=1,
        attention_head_dim=128,  # from which the released file's reader knows how channels are shared between axes
        num_layers=1,
        num_single_layers=2,
        num_refiner_layers=2,
        text_embed_dim=read_config(folder / "text_encoder")["hidden_size"],
        pooled_projection_dim=read_config(folder / "text_encoder_2")["hidden_size"],
        rope_axes_dim=(16, 56, 56),
        guidance_embeds=True,
    )
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    transformer.save_pretrained(folder / "transformer")
    widths: Any = (8, 8, 8, 8)
    vae = AutoencoderKLHunyuanVideo(latent_channels=4, block_out_channels=widths, layers_per_block=1, norm_num_groups=4)
    vae.save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=5.0).save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="module")
def released(folder):
    """The same model in the released layout: one pickled transformer, and a VAE with its own configuration."""
    place = folder.with_name("released")
    inside = place / "hunyuan-video-t2v-720p"
    (inside / "transformers").mkdir(parents=True)
    dit = load_dit(folder / "transformer")
    torch.save({"module": dit.state_dict()}, inside / "transformers/mp_rank_00_model_states.pt")
    vae = AutoencoderKLHunyuanVideo.from_pretrained(folder / "vae")
    (inside / "vae").mkdir()
    shutil.copy(folder / "vae/config.json", inside / "vae")
    torch.save(
        {"state_dict": {f"vae.{key}": value for key, value in vae.state_dict().items()}},
        inside / "vae/pytorch_model.pt",
    )
    for number in ("", "_2"):
        shutil.copytree(folder / f"text_encoder{number}", place / f"text_encoder{number}")
        shutil.copytree(folder / f"tokenizer{number}", place / f"text_encoder{number}", dirs_exist_ok=True)
    return place


@pytest.fixture(scope="module")
def theirs(folder):
    """diffusers' pipeline over that folder."""
    text_encoder = LlamaModel.from_pretrained(folder / "text_encoder")
    pipe = HunyuanVideoPipeline(
        text_encoder=text_encoder,
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder_2=CLIPTextModel.from_pretrained(folder / "text_encoder_2"),
        tokenizer_2=AutoTokenizer.from_pretrained(folder / "tokenizer_2"),
        transformer=HunyuanVideoTransformer3DModel.from_pretrained(folder / "transformer"),
        vae=AutoencoderKLHunyuanVideo.from_pretrained(folder / "vae"),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.vae.use_framewise_decoding = False  # its own tiles over time are not the released ones
    return pipe


@pytest.fixture
def sampled(tmp_path, monkeypatch):
    """Runs the command and gives the frames as they are before a lossy video is made of them."""
    frames = []
    monkeypatch.setattr(pipeline, "write_sample", lambda out, frames_THWC, record: frames.append(frames_THWC))

    def run(model, noise, *argv, frames_wanted=FRAMES):
        save_file({"noise": noise}, tmp_path / "noise.safetensors")
        size = f"{SIZE[1]}x{SIZE[0]}"
        argv = [PROMPT, "--model", str(model), "--noise", str(tmp_path / "noise.safetensors"), "--size", size, *argv]
        argv += ["--frames", str(frames_wanted), "--steps", str(STEPS), "--dtype", "float32"]
        assert main([*argv, "--out", str(tmp_path / "clip.mp4"), "--device", "cpu"]) == 0
        return frames.pop()

    return run


def noise(frames=FRAMES):
    return torch.randn(
        1, 4, (frames - 1) // 4 + 1, SIZE[0] // 8, SIZE[1] // 8, generator=torch.Generator().manual_seed(3)
    )


def expected(pipe, frames=FRAMES, media="video", **options):
    """Their frames; where the prompt begins is measured, since their default counts the released tokenizer's tokens."""
    height, width = SIZE
    template = TEMPLATES[media]
    crop_start = len(pipe.tokenizer(template.prefix).input_ids)
    video = pipe(
        PROMPT,
        height=height,
        width=width,
        num_frames=frames,
        num_inference_steps=STEPS,
        latents=noise(frames),
        output_type="np",
        prompt_template={"template": template.text, "crop_start": crop_start},
        max_sequence_length=template.kept,
        **options,
    ).frames[0]
    return np.asarray(video) * 255


def assert_near(ours_THWC, expected_THWC):
    """At most one level of 255 apart, in frames that show something."""
    assert ours_THWC.shape == expected_THWC.shape
    assert expected_THWC.std() > 10
    assert np.abs(ours_THWC - expected_THWC.round()).max() <= 1


def test_embedded_guidance(folder, theirs, sampled):
    frames_THWC = sampled(folder, noise(), "--guidance", "6")
    assert_near(frames_THWC, expected(theirs, guidance_scale=6.0))
    assert np.abs(frames_THWC - expected(theirs, guidance_scale=3.0)).max() > 2


def test_true_guidance_with_a_negative_prompt(folder, theirs, sampled):
    frames_THWC = sampled(folder, noise(), "--guidance", "4", "--true-cfg", "3", "--negative", NEGATIVE)
    assert_near(frames_THWC, expected(theirs, guidance_scale=4.0, true_cfg_scale=3.0, negative_prompt=NEGATIVE))
    assert np.abs(frames_THWC - expected(theirs, guidance_scale=4.0)).max() > 2


def test_the_released_layout(released, theirs, sampled):
    frames_THWC = sampled(released, noise(), "--guidance", "6", "--shift", "5")
    assert_near(frames_THWC, expected(theirs, guidance_scale=6.0))


def test_a_picture_is_read_by_the_template_of_pictures(folder, theirs, sampled):
    frames_THWC = sampled(folder, noise(1), "--guidance", "6", frames_wanted=1)
    assert_near(frames_THWC, expected(theirs, 1, "image", guidance_scale=6.0))
    assert np.abs(frames_THWC - expected(theirs, 1, "video", guidance_scale=6.0)).max() > 2


def test_prompts_of_a_store_spare_the_text_encoders(folder, sampled, tmp_path, monkeypatch):
    plain_THWC = sampled(folder, noise())
    first_THWC = sampled(folder, noise(), "--store", str(tmp_path / "states"))
    assert np.abs(first_THWC.astype(int) - plain_THWC).max() <= 1
    monkeypatch.setattr(PretrainedEncoder, "load", lambda self: pytest.fail("it was loaded"))
    assert np.array_equal(sampled(folder, noise(), "--store", str(tmp_path / "states")), first_THWC)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("style", ["diffusers", "comfy"])
def test_a_lora_of_ours_does_the_same_in_their_pipeline(folder, theirs, sampled, tmp_path, style, strength):
    dit = load_dit(folder / "transformer")
    # diffusers cuts linear1 of a comfy file at the large model's channels
    targets = LORA_TARGETS if style == "diffusers" else ["double_blocks.*", "single_blocks.*.linear2"]
    lora = new_lora(dit, targets, rank=4, alpha=4.0)
    for factors in lora.layers.values():
        factors.up.normal_(std=0.3)
    file = tmp_path / "look.safetensors"
    metadata = {**base_metadata(folder / "transformer", "base"), "steps": 500, "data_sha256": "0" * 64}
    save_lora(file, lora, dit, style=style, metadata=metadata)
    frames_THWC = sampled(folder, noise(), "--guidance", "6", "--lora", f"{file}={strength}")
    plain = expected(theirs, guidance_scale=6.0)
    theirs.load_lora_weights(file, adapter_name="look")
    try:
        theirs.set_adapters("look", strength)
        assert_near(frames_THWC, expected(theirs, guidance_scale=6.0))
    finally:
        theirs.unload_lora_weights()
    assert (np.abs(frames_THWC - plain).max() > 2) == (strength > 0)


def test_a_part_that_is_missing_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    shutil.rmtree(tmp_path / "model/tokenizer_2")
    with pytest.raises(CheckpointError, match="lacks tokenizer_2"):
        main(["a ball", "--model", str(tmp_path / "model")])
