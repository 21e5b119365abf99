"""LoRAs against diffusers and PEFT: their files in our model, our files in theirs, the same velocity.

Shapes: B batch, C channels, T H W latent frames/height/width, S text tokens, D width.
"""

import pytest
import torch
from diffusers import HunyuanVideoPipeline, HunyuanVideoTransformer3DModel  # pyright: ignore[reportPrivateImportUsage]
from diffusers.loaders.lora_conversion_utils import _convert_hunyuan_video_lora_to_diffusers
from hy_dit import LORA_TARGETS, DiT, DiTConfig, load_lora, save_lora
from hy_dit.layout import DIFFUSERS, to_diffusers_config
from hy_dit.lora import layer_names
from hy_plugins import TextTokens
from hy_weights import LoRA, insert_lora, merge_loras, new_lora, remove_lora
from hy_weights.lora.factors import Factors
from hy_weights.lora.joint import cut
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file

TOLERANCE = 2e-5
CONFIG = DiTConfig(
    in_channels=4,
    out_channels=4,
    width=48,
    heads=2,
    mlp_ratio=4.0,
    double_blocks=2,
    single_blocks=2,
    rope_axes=(4, 8, 12),
    rope_theta=256.0,
    patch=(1, 2, 2),
    text_width=20,
    pooled_width=10,
    guidance_embed=True,
)


class Pair:
    """Our transformer and theirs, with the same weights and the same inputs."""

    def __init__(self) -> None:
        self.dit = DiT(CONFIG)
        with torch.no_grad():
            for parameter in self.dit.parameters():
                parameter.normal_(std=0.8 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
        values = {key: value for key, value in to_diffusers_config(CONFIG).items() if key != "_class_name"}
        self.theirs = HunyuanVideoTransformer3DModel(**values)
        self.theirs.load_state_dict(dict(DIFFUSERS.from_ours(self.dit.state_dict(), CONFIG.width)))
        names = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "scheduler")
        self.pipeline = HunyuanVideoPipeline(transformer=self.theirs, **dict.fromkeys(names))  # type: ignore[arg-type]
        mask_BS = torch.arange(6) < torch.tensor([[4], [6]])
        self.text = TextTokens(torch.randn(2, 6, CONFIG.text_width), mask_BS, torch.randn(2, CONFIG.pooled_width))
        self.latent_BCTHW = torch.randn(2, 4, 2, 6, 4)
        self.timestep_B, self.guidance_B = torch.rand(2) * 1000, torch.rand(2) * 3000

    @torch.no_grad()
    def velocity(self) -> torch.Tensor:
        return self.dit(self.latent_BCTHW, self.timestep_B, self.text, self.guidance_B)

    @torch.no_grad()
    def their_velocity(self) -> torch.Tensor:
        return self.theirs(
            hidden_states=self.latent_BCTHW,
            timestep=self.timestep_B,
            encoder_hidden_states=self.text.tokens_BSD,
            encoder_attention_mask=self.text.mask_BS,
            pooled_projections=self.text.pooled_BD,
            guidance=self.guidance_B,
            return_dict=False,
        )[0]

    def assert_same(self) -> None:
        torch.testing.assert_close(self.velocity(), self.their_velocity(), atol=TOLERANCE, rtol=0)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return Pair()


def random_lora(dit: DiT, targets=("*",), rank=4, alpha=None) -> LoRA:
    """A LoRA that changes the velocity by about as much as it is."""
    lora = new_lora(dit, targets, rank=rank, alpha=alpha)
    for factors in lora.layers.values():
        factors.up.normal_(std=0.5)
    return lora


def uneven(lora: LoRA) -> LoRA:
    """Each layer with a rank and an alpha of its own."""
    layers = {}
    for i, (layer, factors) in enumerate(lora.layers.items()):
        rank = 1 + i % factors.rank
        layers[layer] = Factors(factors.down[:rank], factors.up[:, :rank], 0.5 + i % 3)
    return LoRA(layers)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("make", [lambda lora: lora, uneven], ids=["even", "uneven ranks and alphas"])
def test_what_we_save_for_diffusers_does_the_same_there(pair, tmp_path, make, strength):
    lora = make(random_lora(pair.dit, rank=4, alpha=2.0))
    save_lora(tmp_path / "lora.safetensors", lora, pair.dit, style="diffusers")
    pair.pipeline.load_lora_weights(tmp_path / "lora.safetensors", adapter_name="it")
    pair.theirs.set_adapters("it", strength)
    plain = pair.velocity()
    with merge_loras(pair.dit, [(lora, strength)]):
        pair.assert_same()
        assert ((pair.velocity() - plain).std() > 0.1) == (strength > 0)
    insert_lora(pair.dit, lora, strength=strength)
    pair.assert_same()
    remove_lora(pair.dit)
    assert torch.equal(pair.velocity(), plain)


def test_several_loras_at_once_do_the_same_as_there(pair, tmp_path):
    loras = {"one": random_lora(pair.dit), "two": uneven(random_lora(pair.dit, LORA_TARGETS, alpha=7))}
    strengths = {"one": 0.5, "two": 1.5}
    for name, lora in loras.items():
        save_lora(tmp_path / f"{name}.safetensors", lora, pair.dit, style="diffusers")
        pair.pipeline.load_lora_weights(tmp_path / f"{name}.safetensors", adapter_name=name)
        insert_lora(pair.dit, lora, name, strength=strengths[name])
    pair.theirs.set_adapters(list(strengths), list(strengths.values()))
    pair.assert_same()
    for name in loras:
        remove_lora(pair.dit, name)
    with merge_loras(pair.dit, [(lora, strengths[name]) for name, lora in loras.items()]):
        pair.assert_same()


PEFT_CASES = {
    "attention": {"target_modules": ["to_q", "to_k", "to_v", "to_out.0"]},
    "alpha": {"target_modules": ["to_q", "to_k", "to_v", "proj_mlp"], "lora_alpha": 10},
    "some parts of a joint layer": {"target_modules": ["to_k", "add_v_proj"], "lora_alpha": 2},
    "parts of different ranks": {
        "target_modules": ["to_q", "to_k", "to_v", "proj_mlp"],
        "rank_pattern": {"to_k": 2, r"single_transformer_blocks\.1\.proj_mlp": 5},
    },
    "parts of different scales": {
        "target_modules": ["to_q", "to_k", "to_v", "add_q_proj", "add_k_proj"],
        "rank_pattern": {"to_k": 2},
        "alpha_pattern": {"to_k": 5, "transformer_blocks.0.attn.to_v": 1, "^transformer_blocks.1.attn.to_q": 2},
    },
    "rank-stabilised": {"target_modules": ["to_q", "proj_out"], "lora_alpha": 6, "use_rslora": True},
    "halves that are swapped, a convolution": {"target_modules": ["norm_out.linear", "x_embedder.proj"]},
    "every layer": {"target_modules": "all-linear", "lora_alpha": 3},
}


@pytest.mark.parametrize("saver", ["diffusers", "peft"])
@pytest.mark.parametrize("settings", PEFT_CASES.values(), ids=list(PEFT_CASES))
def test_what_they_train_does_the_same_here(pair, tmp_path, settings, saver):
    config = LoraConfig(**({"r": 3, "lora_alpha": 3} | settings), init_lora_weights=False)
    if saver == "diffusers":
        pair.theirs.add_adapter(config)
        metadata = pair.theirs.peft_config["default"].to_dict()
        HunyuanVideoPipeline.save_lora_weights(
            tmp_path / "lora",
            {**get_peft_model_state_dict(pair.theirs)},
            transformer_lora_adapter_metadata={**metadata, "peft_type": "LORA"},
        )
    else:
        get_peft_model(pair.theirs, config).save_pretrained(tmp_path / "lora")
    lora = load_lora(tmp_path / "lora", pair.dit)
    plain = pair.velocity()
    with merge_loras(pair.dit, [(lora, 1.0)]):
        pair.assert_same()
        assert not torch.allclose(pair.velocity(), plain, atol=1e-3)


@pytest.mark.parametrize("settings", PEFT_CASES.values(), ids=list(PEFT_CASES))
def test_their_file_through_ours_and_back_is_the_same_matrix(pair, tmp_path, settings):
    config = LoraConfig(**({"r": 3, "lora_alpha": 3} | settings), init_lora_weights=False)
    get_peft_model(pair.theirs, config).save_pretrained(tmp_path / "lora")
    lora = load_lora(tmp_path / "lora", pair.dit)
    save_lora(tmp_path / "back.safetensors", lora, pair.dit, style="diffusers")
    again = load_lora(tmp_path / "back.safetensors", pair.dit)
    for layer, factors in lora.layers.items():
        assert torch.equal(again.layers[layer].down, factors.down), layer
        assert torch.equal(again.layers[layer].up, factors.up), layer
        assert again.layers[layer].alpha == pytest.approx(factors.alpha, rel=1e-12), layer


def test_their_file_comes_back_tensor_for_tensor_where_the_parts_are_alike(pair, tmp_path):
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["to_q", "to_v", "proj_mlp"], init_lora_weights=False)
    pair.theirs.add_adapter(config)
    HunyuanVideoPipeline.save_lora_weights(tmp_path, {**get_peft_model_state_dict(pair.theirs)})
    save_lora(tmp_path / "back.safetensors", load_lora(tmp_path, pair.dit), pair.dit, style="diffusers")
    theirs, back = (load_file(tmp_path / name) for name in ("pytorch_lora_weights.safetensors", "back.safetensors"))
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], value) for key, value in theirs.items())


# Of a LoRA under the released names, diffusers' own translation reads no alpha, cuts linear1 at the large model's 3072
# channels, cuts the refiner's joint `lora_A` as if it were a `lora_B`, and swaps halves of the last layer's `lora_A`.
THEY_TRANSLATE = (
    "double_blocks.*",
    "single_blocks.*.linear2",
    "single_blocks.*.modulation.linear",
    "final_layer.linear",
)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_what_we_save_for_comfy_does_the_same_in_diffusers(pair, tmp_path, strength):
    lora = random_lora(pair.dit, THEY_TRANSLATE)
    save_lora(tmp_path / "lora.safetensors", lora, pair.dit, style="comfy")
    pair.pipeline.load_lora_weights(tmp_path / "lora.safetensors", adapter_name="it")
    pair.theirs.set_adapters("it", strength)
    with merge_loras(pair.dit, [(load_lora(tmp_path / "lora.safetensors", pair.dit), strength)]):
        pair.assert_same()


def test_linear1_of_the_large_model_is_cut_as_diffusers_does():
    with torch.device("meta"):
        dit = DiT(DiTConfig.preset("hunyuan-video"))
    lora = random_lora(dit, ["single_blocks.7.linear1"], rank=2)
    factors = lora.layers["single_blocks.7.linear1"]
    name = "diffusion_model.single_blocks.7.linear1"
    theirs = _convert_hunyuan_video_lora_to_diffusers(
        {f"{name}.lora_A.weight": factors.down, f"{name}.lora_B.weight": factors.up}
    )
    parts = cut(layer_names(dit), "single_blocks.7.linear1", factors)
    assert {f"transformer.{part}.lora_{side}.weight" for part in parts for side in "AB"} == theirs.keys()
    for part, ours in parts.items():
        assert torch.equal(theirs[f"transformer.{part}.lora_A.weight"], ours.down)
        assert torch.equal(theirs[f"transformer.{part}.lora_B.weight"], ours.up)
