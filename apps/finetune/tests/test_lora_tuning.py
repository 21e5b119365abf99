"""Only adapters train, only adapters are saved, and a resumed run needs the base it was begun on."""

import warnings
from functools import partial

import pytest
import torch
from hy_dit import load_dit, load_lora
from hy_flow.lightning import EMA, Unfreezing
from hy_textenc import load_text_encoder
from hy_weights import LoRAError, merge_loras
from hyvideo_finetune import FinetuneError, LoRATuning, SaveLoRA
from lightning import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from safetensors import safe_open
from torch.optim import SGD

pytestmark = pytest.mark.filterwarnings(
    "ignore:.isinstance.treespec", "ignore:The .*dataloader.* does not have many workers"
)


def tuning(checkpoint, **settings):
    small = {"rank": 2, "dtype": "float32", "optimizer": partial(SGD, lr=0.5), "warmup_steps": 0, "decay": "constant"}
    return LoRATuning(str(checkpoint), load_text_encoder(checkpoint / "text_encoder"), **(small | settings))


def batches():
    """One, that every epoch has anew: a loader that has no state goes on where an epoch begins."""
    latent_BCTHW = torch.randn(2, 4, 2, 4, 6, generator=torch.Generator().manual_seed(3))
    return torch.utils.data.DataLoader([{"latent_BCTHW": latent_BCTHW, "captions": ["ab", "c"]}], batch_size=None)


def fit(module, steps, *callbacks, resume=None, save=None):
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, batches(), ckpt_path=resume, weights_only=True)
    if save is not None:
        trainer.save_checkpoint(save)
    return module


def factors(lora):
    return {name: (one.down, one.up) for name, one in lora.layers.items()}


def same(one, other):
    first, second = factors(one), factors(other)
    return first.keys() == second.keys() and all(
        torch.equal(a, b) for name in first for a, b in zip(first[name], second[name], strict=True)
    )


def test_a_training_changes_the_lora_and_nothing_else(checkpoint):
    module = tuning(checkpoint)
    before = module.lora()
    assert all(not up.any() for _, up in factors(before).values()), "an untrained LoRA changes nothing"
    fit(module, 3)
    assert any(up.any() for _, up in factors(module.lora()).values())
    base = load_dit(checkpoint / "dit").state_dict()
    after = module.dit.state_dict()
    assert all(torch.equal(after[name], value) for name, value in base.items())


def test_every_block_has_adapters_and_modulations_have_none(checkpoint):
    layers = tuning(checkpoint).lora().layers
    assert "double_blocks.0.img_attn_qkv" in layers
    assert "single_blocks.1.linear2" in layers
    assert not any("mod" in name for name in layers)
    chosen = tuning(checkpoint, targets=["single_blocks.1.*"]).lora().layers
    assert {name.rpartition(".")[0] for name in chosen} == {"single_blocks.1", "single_blocks.1.modulation"}


def test_a_checkpoint_holds_the_adapters_alone(checkpoint, tmp_path):
    fit(tuning(checkpoint), 1, save=tmp_path / "state.ckpt")
    state = torch.load(tmp_path / "state.ckpt", weights_only=True)
    assert all(".adapters.default." in name for name in state["state_dict"])
    assert state["state_dict"]


def test_a_resumed_run_ends_as_the_unbroken_one(checkpoint, tmp_path):
    whole = fit(tuning(checkpoint), 4)
    fit(tuning(checkpoint), 2, save=tmp_path / "state.ckpt")
    resumed = fit(tuning(checkpoint), 4, resume=tmp_path / "state.ckpt")
    assert same(whole.lora(), resumed.lora())


def test_a_checkpoint_on_another_base_is_refused(checkpoint, other_checkpoint, tmp_path):
    fit(tuning(checkpoint), 1, save=tmp_path / "state.ckpt")
    message = rf"LoRA is on {checkpoint}, this one on {other_checkpoint}: base_sha256 was \w+ and is \w+"
    with pytest.raises(FinetuneError, match=message):
        fit(tuning(other_checkpoint), 2, resume=tmp_path / "state.ckpt")


def test_a_base_that_has_learned_its_guidance_is_told_one(guided_checkpoint):
    seen = []
    module = tuning(guided_checkpoint, embedded_guidance=1.0)
    forward = module.dit.forward
    module.dit.forward = lambda *values: (seen.append(values[3].tolist()), forward(*values))[1]
    fit(module, 1)
    assert seen == [[1000.0, 1000.0]]


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_adapters_train_beside_8_bit_weights(checkpoint, scheme):
    module = fit(tuning(checkpoint, quantize_to=scheme), 2)
    weight = module.dit.single_blocks[0].linear1.weight
    assert weight.element_size() == 1
    assert any(up.any() for _, up in factors(module.lora()).values())


def test_a_lora_is_gone_on_with(checkpoint, other_checkpoint, tmp_path):
    file = tmp_path / "look.safetensors"
    first = fit(tuning(checkpoint, rank=3, alpha=1.5), 2, SaveLoRA(str(file), dtype="float32"))
    second = tuning(checkpoint, start=str(file))
    assert same(first.lora(), second.lora())
    assert {one.alpha for one in second.lora().layers.values()} == {1.5}
    with pytest.raises(FinetuneError, match="start brings its own"):
        tuning(checkpoint, start=str(file), alpha=1.0)
    with pytest.raises(LoRAError, match=rf"was trained on {checkpoint}.* any_base: true"):
        tuning(other_checkpoint, start=str(file))
    assert same(tuning(other_checkpoint, start=str(file), any_base=True).lora(), first.lora())


def test_what_is_merged_is_held_to_the_base(checkpoint, other_checkpoint, tmp_path):
    look, mine = str(tmp_path / "look.safetensors"), str(tmp_path / "mine.safetensors")
    fit(tuning(checkpoint), 2, SaveLoRA(look))
    with pytest.raises(LoRAError, match=rf"look\.safetensors was trained on {checkpoint}"):
        tuning(other_checkpoint, merged={look: 0.5})
    tuning(other_checkpoint, merged={look: 0.5}, any_base=True)
    fit(tuning(checkpoint, merged={look: 0.5}), 1, SaveLoRA(mine))
    with pytest.raises(LoRAError, match=r"with LoRAs merged into it, .*look\.safetensors=0\.5"):
        tuning(checkpoint, start=mine)
    tuning(checkpoint, start=mine, merged={look: 0.5})


def test_merged_loras_are_known_by_their_content(checkpoint, tmp_path):
    look = tmp_path / "look.safetensors"
    fit(tuning(checkpoint), 2, SaveLoRA(str(look)))
    fit(tuning(checkpoint, merged={str(look): 0.5}), 1, save=tmp_path / "state.ckpt")
    moved = look.rename(tmp_path / "moved.safetensors")
    fit(tuning(checkpoint, merged={str(moved): 0.5}), 2, resume=tmp_path / "state.ckpt")
    fit(tuning(checkpoint, seed=1), 2, SaveLoRA(str(look)))
    with pytest.raises(FinetuneError, match="merged_sha256 was"):
        fit(tuning(checkpoint, merged={str(look): 0.5}), 2, resume=tmp_path / "state.ckpt")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.0}, "alpha of double_blocks.0.img_attn_qkv was 2.0 and is 1.0"),
        ({"rank": 3}, "rank of double_blocks.0.img_attn_qkv was 2 and is 3"),
        ({"dropout": 0.1}, "dropout was 0.0 and is 0.1"),
        ({"dtype": "bfloat16"}, "dtype was float32 and is bfloat16"),
        ({"quantize_to": "int8"}, "quantize_to was None and is int8"),
        ({"targets": ["single_blocks.*"]}, "rank of single_blocks.0.modulation.linear was None and is 2"),
        ({"targets": ["single_blocks.*.linear1"]}, "rank of .* was 2 and is None"),
    ],
)
def test_a_run_goes_on_with_the_settings_it_was_begun_with(checkpoint, tmp_path, settings, message):
    fit(tuning(checkpoint), 1, save=tmp_path / "state.ckpt")
    with pytest.raises(FinetuneError, match=message):
        fit(tuning(checkpoint, **settings), 2, resume=tmp_path / "state.ckpt")


@pytest.mark.parametrize("average", [EMA, EMAWeightAveraging])
def test_averages_of_weights_are_refused_before_the_base_is_copied(checkpoint, average):
    callback = average(decay=0.9)
    with pytest.raises(FinetuneError, match=f"{average.__name__} would copy the whole base"):
        fit(tuning(checkpoint), 1, callback)
    assert callback._average_model is None


def test_unfreezing_leaves_the_base_as_it_is(checkpoint, tmp_path):
    module = fit(
        tuning(checkpoint),
        3,
        Unfreezing(["backbone.single_blocks.*", "backbone.double_blocks.*"], every=1),
        save=tmp_path / "state.ckpt",
    )
    base, after = load_dit(checkpoint / "dit").state_dict(), module.dit.state_dict()
    assert all(torch.equal(after[name], value) for name, value in base.items())
    assert any(up.any() for _, up in factors(module.lora()).values())


@pytest.mark.parametrize("scheme", [None, "int8"])
def test_loras_are_merged_into_the_base(checkpoint, tmp_path, scheme):
    file = tmp_path / "look.safetensors"
    fit(tuning(checkpoint), 2, SaveLoRA(str(file), dtype="float32"))
    module = tuning(checkpoint, merged={str(file): 0.5}, quantize_to=scheme)
    expected = load_dit(checkpoint / "dit")
    merge_loras(expected, [(load_lora(file, expected), 0.5)])
    weight = expected.double_blocks[0].img_attn_qkv.weight
    found = module.dit.double_blocks[0].img_attn_qkv
    if scheme is None:
        assert torch.equal(found.weight, weight)
    else:
        torch.testing.assert_close(
            found.weight * found.weight_scale, weight, rtol=0, atol=float(weight.detach().abs().max()) / 127
        )


@pytest.mark.parametrize("style", ["comfy", "diffusers", "kohya"])
def test_the_file_is_the_lora_and_tells_where_it_comes_from(checkpoint, tmp_path, style):
    file = tmp_path / "out" / "look.safetensors"
    module = fit(tuning(checkpoint), 4, SaveLoRA(str(file), lora_format=style, every=2, dtype="float32"))
    names = sorted(one.name for one in file.parent.iterdir())
    assert names == ["look-step-0000002.safetensors", "look-step-0000004.safetensors", "look.safetensors"]
    read = load_lora(file, load_dit(checkpoint / "dit"))
    for name, one in module.lora().layers.items():
        torch.testing.assert_close(read.layers[name].delta(), one.delta())
    with safe_open(file, "pt") as opened:
        told = opened.metadata()
    assert told["rank"] == "2" or style == "diffusers"
    assert told["steps"] == "4"
    assert told["base"] == str(checkpoint)
    assert len(told["base_sha256"]) == 64


def test_a_wrong_name_is_refused_before_the_training():
    with pytest.raises(FinetuneError, match=r"ends in \.safetensors"):
        SaveLoRA("look.pt")
