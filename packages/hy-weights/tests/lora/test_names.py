import pytest

SPELLINGS = {
    "blocks.1.proj": "blocks.1.proj",
    "diffusion_model.blocks.1.proj": "blocks.1.proj",
    "transformer.blocks.1.proj": "blocks.1.proj",
    "base_model.model.blocks.1.proj": "blocks.1.proj",
    "lora_unet_blocks_1_proj": "blocks.1.proj",
    "Hunyuan_video_I2V_lora_blocks_1_qkv_mlp": "blocks.1.qkv_mlp",
    "diffusion_model.final": "last",
    "lora_unet_blocks_0_other_proj": "blocks.0.proj",
}


@pytest.mark.parametrize(("spelling", "layer"), SPELLINGS.items())
def test_our_layer_is_found_under_any_prefix(names, spelling, layer):
    assert names.find(spelling) == (layer, None)


@pytest.mark.parametrize("prefix", ["transformer.", "base_model.model.", ""])
def test_their_layer_is_a_part_of_ours(names, prefix):
    assert names.find(f"{prefix}their_blocks.0.k") == ("blocks.0.qkv_mlp", "their_blocks.0.k")


def test_their_layer_is_found_without_dots(names):
    assert names.find("lora_transformer_their_blocks_1_out") == ("blocks.1.proj", "their_blocks.1.out")


@pytest.mark.parametrize("spelling", ["blocks.2.proj", "text_encoder.blocks.0.proj", "lora_te1_blocks_0_proj", ""])
def test_what_the_model_does_not_have_is_not_found(names, spelling):
    assert names.find(spelling) is None


def test_parts_follow_each_other_in_our_rows(names):
    parts = names.parts("blocks.0.qkv_mlp")
    assert [name.rpartition(".")[2] for name in parts] == ["q", "k", "v", "mlp"]
    assert [tuple(shape) for shape in parts.values()] == [(6, 6), (6, 6), (6, 6), (12, 6)]


@pytest.mark.parametrize(
    ("spelling", "layer"),
    [
        ("diffusion_model.blocks.0.prpj", "blocks.0.proj"),
        ("lora_unet_blocks_1_qvk_mlp", "blocks.1.qkv_mlp"),
        ("transformer.their_block.0.mlp", "blocks.0.qkv_mlp"),
        ("text_model.encoder.fc1", None),
    ],
)
def test_a_layer_with_a_similar_name_is_suggested(names, spelling, layer):
    assert names.suggest(spelling) == layer
