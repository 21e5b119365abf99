"""The largest batches of a recipe's buckets."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hy_data.stage import Stage
from hy_dit import DiT
from hy_weights import CheckpointError, write_model
from hyvideo_plan.batches import MOST, StepMemory, fit_stages
from hyvideo_plan.cli import main
from hyvideo_plan.errors import PlanError
from hyvideo_plan.estimate import training_step
from hyvideo_plan.recipe import read_recipe
from hyvideo_plan.setup import Setup
from hyvideo_plan.video import Video

TRAIN = Setup(task="train", precision="mixed")
MEMORY = 1_000_000_000


@pytest.mark.parametrize(
    ("turned", "single_blocks", "video", "batch"),
    [
        ({}, 1, Video(width=512, height=256, frames=33), 5),
        ({}, 0, Video(width=64, height=128, frames=9), 40),
        ({"recompute": True}, 0, Video(width=64, height=128, frames=9), 40),
    ],
    ids=str,
)
def test_three_runs_tell_what_any_batch_holds(recipe, turned, single_blocks, video, batch):
    found = replace(read_recipe(recipe()), setup=replace(TRAIN, **turned))
    dit = replace(found.model.dit, single_blocks=single_blocks)
    found = replace(found, model=replace(found.model, dit=dit))
    step = StepMemory(found, video.tokens)
    real = training_step(found.model, video, replace(found.setup, batch=batch)).total
    assert step.total(batch, video.tokens) == pytest.approx(real, rel=0.03)


@pytest.mark.parametrize("memory", [100_000_000, 123_456_789, 10**9, 40 * 10**9])
@pytest.mark.parametrize("tokens", [16, 80, 1280, 40_000])
def test_the_largest_batch_fits_and_one_more_does_not(recipe, tokens, memory):
    step = StepMemory(read_recipe(recipe()), tokens)
    batch = step.largest(tokens, memory)
    assert step.total(batch, tokens) <= memory
    assert batch == MOST or step.total(batch + 1, tokens) > memory


def test_where_not_one_clip_fits_the_batch_is_0(recipe):
    step = StepMemory(read_recipe(recipe()), 80)
    least = step.total(1, 80)
    assert step.largest(80, least) >= 1
    assert step.largest(80, least - 1) == 0
    assert step.largest(80, 0) == 0


def test_each_bucket_of_each_stage_has_its_batch(recipe):
    found = read_recipe(recipe())
    step, fits = StepMemory(found, 80), fit_stages(found, MEMORY)
    assert [list(stage.batch_sizes) for stage in fits] == [
        ["1x64x256", "1x128x128"],
        ["1x64x64", "9x64x64", "17x64x64"],
    ]
    for fit in (fit for stage in fits for fit in stage.fits):
        assert fit.tokens == Video(frames=fit.bucket.frames, height=fit.bucket.height, width=fit.bucket.width).tokens
        assert (fit.batch, fit.total) == (step.largest(fit.tokens, MEMORY), step.total(fit.batch, fit.tokens))
    images, videos = (list(stage.batch_sizes.values()) for stage in fits)
    assert images[0] == images[1]
    assert videos == sorted(videos, reverse=True)
    assert videos[0] > videos[-1] > 1


CALLBACKS = {
    "EMA": {"class_path": "hy_flow.lightning.EMA"},
    "Recompute": {
        "class_path": "hy_parallel.lightning.Recompute",
        "init_args": {"blocks": ["backbone.double_blocks.*", "backbone.single_blocks.*"]},
    },
}


def test_the_recipes_settings_are_honoured(recipe):
    def largest(**trainer):
        return fit_stages(read_recipe(recipe(trainer=trainer)), MEMORY)[1].batch_sizes["17x64x64"]

    usual = largest()
    assert largest(callbacks=[CALLBACKS["Recompute"]]) > 1.2 * usual  # the more, the deeper the model
    assert largest(callbacks=[CALLBACKS["EMA"]]) < usual
    assert largest(precision="bf16-true") > usual > largest(precision=None)


@pytest.mark.parametrize(
    ("callback", "size"),
    [
        ({"class_path": "hy_flow.lightning.EMA"}, 4),
        ({"class_path": "hy_flow.lightning.EMA", "init_args": {"precision": "bfloat16"}}, 2),
        ({"class_path": "hy_flow.lightning.EMA", "init_args": {"device": "cpu"}}, 0),
        ({"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging"}, 4),
        ({"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}, 0),
    ],
)
def test_averaged_weights_count_where_they_are(recipe, callback, size):
    found = read_recipe(recipe(trainer={"callbacks": [callback]}))
    assert found.setup.average_bytes == size
    video = Video(width=64, height=64, frames=1)
    without = training_step(found.model, video, TRAIN)
    counted = training_step(found.model, video, found.setup)
    assert counted.total - without.total == size * (without.weights // 4)


@pytest.mark.parametrize("library", ["bitsandbytes", "torchao"])
def test_an_optimizer_in_8_bits_is_planned_as_one(recipe, library):
    file = recipe(encoder={"optimizer": {"class_path": f"{library}.optim.AdamW8bit", "init_args": {"lr": 1e-4}}})
    planned = read_recipe(file).setup
    assert planned == replace(read_recipe(recipe()).setup, eight_bit_optimizer=True)


@pytest.mark.parametrize(
    ("settings", "callbacks", "turned"),
    [
        ({}, [], {"lora_rank": 32}),
        ({"rank": 4, "dtype": "float32"}, [], {"lora_rank": 4, "precision": "mixed"}),
        ({"quantize_to": "int8"}, ["Offload"], {"lora_rank": 32, "eight_bit_weights": True, "resident_blocks": 2}),
        ({"quantize_to": "nf4"}, [], {"lora_rank": 32, "four_bit_weights": True}),
    ],
    ids=str,
)
def test_a_loras_recipe_is_planned_with_its_base(recipe, settings, callbacks, turned):
    dit = replace(recipe.dit, single_blocks=1)  # where a LoRA's targets are too
    write_model("base", DiT(dit).state_dict(), asdict(dit))
    listed = [{"class_path": f"hy_parallel.lightning.{name}", "init_args": {"blocks": []}} for name in callbacks]
    found = read_recipe(recipe(encoder={"base": "base", **settings}, trainer={"callbacks": listed}))
    assert found.model.dit == dit
    assert found.setup == Setup(**({"task": "train", "precision": "bfloat16"} | turned))
    assert fit_stages(found, MEMORY)[1].batch_sizes["17x64x64"] > 1


@pytest.mark.parametrize(
    "changes", [{"every": 2}, {"keep_attention": True}, {"blocks": ["backbone.double_blocks.*"]}], ids=str
)
def test_a_part_that_is_computed_again_is_planned_as_none_and_said(recipe, changes):
    callback = CALLBACKS["Recompute"] | {"init_args": CALLBACKS["Recompute"]["init_args"] | changes}
    found = read_recipe(recipe(trainer={"callbacks": [callback]}))
    assert not found.setup.recompute
    assert "computed again" in found.notes[0]


def test_the_command_prints_a_table_and_what_to_paste(recipe, capsys):
    file = recipe()
    assert main(["batches", "--config", str(file), "--memory", "1GB", "--margin", "0"]) == 0
    told = capsys.readouterr().out
    sizes = fit_stages(read_recipe(file), MEMORY)[1].batch_sizes
    assert f"videos: batch_sizes: {json.dumps(sizes)}" in told
    assert "mixed; the largest batches in 1.0 GB per device" in told
    (row,) = [line.split() for line in told.splitlines() if "17x64x64" in line and "batch_sizes" not in line]
    assert row[:4] == ["videos", "17x64x64", "80", str(sizes["17x64x64"])]


def test_the_margin_is_left_free(recipe, capsys):
    def biggest(*options):
        assert main(["batches", "--config", str(recipe()), "--memory", "1GB", "--json", *options]) == 0
        told = json.loads(capsys.readouterr().out)
        return told["memory"], told["stages"]["videos"]["17x64x64"]["batch"]

    assert biggest()[0] == 900_000_000
    assert biggest("--margin", "0.4")[1] < biggest()[1] < biggest("--margin", "0")[1]


def test_what_is_written_is_the_recipes_stages_with_the_batch_sizes(recipe, capsys):
    file = recipe()
    assert main(["batches", "--config", str(file), "--memory", "1GB", "--out", "runs/batches.yaml"]) == 0
    sizes = [stage.batch_sizes for stage in fit_stages(read_recipe(file), 900_000_000)]
    lines = Path("runs/batches.yaml").read_text().splitlines()
    assert [line.strip() for line in lines[1:4]] == ["data:", "init_args:", "stages:"]
    stages = [json.loads(line.partition("- ")[2]) for line in lines[4:]]
    assert stages == [stage | {"batch_sizes": size} for stage, size in zip(recipe.stages, sizes, strict=True)]
    for stage, size in zip(stages, sizes, strict=True):
        made = Stage(**stage)
        assert {f"{one.frames}x{one.height}x{one.width}": made.batch_of(one) for one in _buckets(made)} == size


def _buckets(stage):
    return {bucket for stream in stage.streams() for bucket in stream.buckets}


def test_where_nothing_fits_it_is_said(recipe, capsys):
    assert main(["batches", "--config", str(recipe()), "--memory", "20MB"]) == 1
    told = capsys.readouterr().out
    assert "none fits" in told
    assert "videos: batch_sizes: {}" in told


def test_a_recipe_with_a_bucket_that_does_not_fit_is_not_written(recipe, capsys):
    found = read_recipe(recipe())
    least = {fit.tokens: fit.total for stage in fit_stages(found, 1) for fit in stage.fits}
    memory = ["--memory", f"{(least[16] + 1000) / 1e6:.6f}MB", "--margin", "0"]
    with pytest.raises(PlanError, match=r"nothing is written: .* not one clip fits of ") as refused:
        main(["batches", "--config", "recipe.yaml", *memory, "--out", "batches.yaml"])
    told = str(refused.value)
    assert refused.value.exit_code == 2
    assert f"17x64x64 of stage videos ({least[80] / 1e9:.2f} GB)" in told
    assert "1x64x64" not in told
    assert "the callback Recompute would need less" in told
    assert not Path("batches.yaml").exists()
    (enough,) = re.findall(r"with --memory ([0-9.]+GB)", told)
    assert main(["batches", "--config", "recipe.yaml", "--memory", enough, "--margin", "0", "--out", "b.yaml"]) == 0
    assert Path("b.yaml").exists()


def test_pixels_are_said_not_to_be_planned_for(recipe, capsys):
    data = {"class_path": "nowhere.Data", "init_args": {"stages": recipe.stages}}
    main(["batches", "--config", str(recipe(data=data)), "--memory", "1GB"])
    assert "note: batches of pixels: the autoencoder" in capsys.readouterr().out


def test_a_backbone_may_be_a_checkpoint(recipe, tmp_path):
    def backbone(init_args):
        return {"init_args": {"backbone": {"class_path": "hy_dit.load_dit", "init_args": init_args}}}

    assert read_recipe(recipe(model=backbone({"path": "tiny"}))).model.dit.width == 256
    with pytest.raises(PlanError, match="no model 'nowhere'"):
        read_recipe(recipe(model=backbone({"path": "nowhere"})))
    with pytest.raises(PlanError, match="neither a config nor a path"):
        read_recipe(recipe(model=backbone({})))
    with pytest.raises(CheckpointError, match="unknown key 'wide'"):
        read_recipe(recipe(model=backbone({"config": {"wide": 3}})))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"init_args": {}}}, "model.init_args.backbone should name a transformer"),
        ({"data": {"init_args": {}}}, "data.init_args.stages should list the stages"),
        (
            {"data": {"init_args": {"stages": [{"name": "a"}]}}},
            r"stages\[0\]: stage 'a': give either buckets or scales",
        ),
        ({"data": {"init_args": {"stages": [{"nam": "a"}]}}}, r"stages\[0\]: .*nam"),
        ({"trainer": {"precision": "16-mixed"}}, "trainer.precision is 16-mixed; planned are bf16-mixed"),
        ({"date": 3}, "recipe.yaml: no recipe of `hyvideo pretrain`"),
    ],
)
def test_what_is_no_recipe_is_refused(recipe, changes, message):
    with pytest.raises(PlanError, match=message):
        read_recipe(recipe(**changes))


def test_the_command_line_says_what_is_missing(recipe, capsys):
    recipe()
    with pytest.raises(PlanError, match="give --memory, such as 80GB, or --device"):
        main(["batches", "--config", "recipe.yaml"])
    with pytest.raises(PlanError, match="margin is 1; it is a share"):
        main(["batches", "--config", "recipe.yaml", "--memory", "1GB", "--margin", "1"])
    with pytest.raises(PlanError, match=r"none\.yaml: no recipe"):
        main(["batches", "--config", "none.yaml", "--memory", "1GB"])
    with pytest.raises(SystemExit):
        main(["batches"])
    assert "--config" in capsys.readouterr().err
