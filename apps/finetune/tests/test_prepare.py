"""From a folder of clips to a LoRA, by the commands that a user types."""

import json
import shutil
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from hy_data import write_video
from hy_dit import load_dit, load_lora
from hy_plugins import Plugins
from hy_weights.parts import find_parts
from hyvideo_finetune import FinetuneError
from hyvideo_finetune.cli import main
from hyvideo_finetune.configs import folder
from hyvideo_finetune.prepare.captioner import describer
from hyvideo_finetune.prepare.command import _parser
from safetensors import safe_open

SMALL = ["--size", "48x32", "--frames", "9", "--steps", "4"]


def prepare(clips, checkpoint, *options):
    of_lora = [] if "--full" in options or "--rank" in options else ["--rank", "2"]
    return main(["prepare", str(clips), "--model", str(checkpoint), "--out", "room", *SMALL, *of_lora, *options])


def report():
    return json.loads(Path("room/report.json").read_text())


def recipe():
    return yaml.safe_load(Path("room/recipe.yaml").read_text())


def callback(name):
    return next(one for one in recipe()["trainer"]["callbacks"] if one["class_path"].endswith(f".{name}"))["init_args"]


def test_every_clip_is_told_what_it_becomes(clips, checkpoint, capsys):
    assert prepare(clips, checkpoint, "--no-encode") == 0
    used = {one["name"]: one for one in report()["used"]}
    assert set(used) == {"a.mp4", "b.mp4", "sub/c.mp4"}
    assert used["a.mp4"]["bucket"] == "9x32x48"
    assert used["a.mp4"]["cropped"] == pytest.approx(0)
    assert used["b.mp4"]["windows"] == 1
    assert used["b.mp4"]["frames_used"] == 9
    assert used["sub/c.mp4"]["bucket"] == "5x32x48"
    assert used["sub/c.mp4"]["cropped"] == pytest.approx(0.2)
    assert used["sub/c.mp4"]["caption"] == "waves of kind c"
    assert used["sub/c.mp4"]["caption_from"] == "c.txt"
    assert report()["refused"] == []
    assert Path("room/clips.png").read_bytes().startswith(b"\x89PNG")
    told = capsys.readouterr()
    assert "1 of 9x32x48" in told.err
    assert "GB" in told.out, "what a step needs, by `hyvideo plan`"
    assert "hyvideo finetune fit --config room/recipe.yaml" in told.out


def test_what_cannot_be_used_is_named_and_the_rest_goes_on(clips, checkpoint, draw, capsys):
    (clips / "broken.mp4").write_bytes(b"no video")
    (clips / "broken.txt").write_text("something")
    (clips / "a.txt").write_text(" \n")
    (clips / "b.txt").unlink()
    write_video(clips / "short.mp4", draw(3, 32, 48, 9), Fraction(24))
    (clips / "short.txt").write_text("three frames")
    assert prepare(clips, checkpoint, "--no-encode") == 1
    refused = {one["name"]: one["reason"] for one in report()["refused"]}
    assert refused["a.mp4"] == "its caption in a.txt is empty"
    assert refused["b.mp4"] == "it has no caption: it needs b.txt beside it, or --captioner"
    assert "fewer than 5 frames" in refused["short.mp4"]
    assert set(refused) == {"a.mp4", "b.mp4", "broken.mp4", "short.mp4"}
    assert [one["name"] for one in report()["used"]] == ["sub/c.mp4"]
    assert "refused broken.mp4" in capsys.readouterr().err


def test_a_table_of_captions(clips, checkpoint):
    Path("captions.csv").write_text('file,caption\na.mp4,"one, with a comma"\nnone.mp4,of nothing\n')
    assert prepare(clips, checkpoint, "--captions", "captions.csv", "--no-encode") == 1
    assert [one["caption"] for one in report()["used"]] == ["one, with a comma"]
    refused = {one["name"]: one["reason"] for one in report()["refused"]}
    assert "there is no such video" in refused["none.mp4"]
    assert refused["b.mp4"] == "it has no caption: it needs a line of captions.csv, or --captioner"


def test_a_captioner_fills_what_is_missing(clips, checkpoint):
    (clips / "a.txt").unlink()
    assert prepare(clips, checkpoint, "--captioner", "measured", "--no-encode") == 0
    used = {one["name"]: one for one in report()["used"]}
    assert used["a.mp4"]["caption_from"] == "captioner"
    assert used["a.mp4"]["caption"]
    assert used["b.mp4"]["caption"] == "waves of kind b"


def test_pictures_beside_videos_have_their_share(clips, checkpoint, draw):
    import cv2

    cv2.imwrite(str(clips / "still.png"), draw(1, 64, 96, 3)[0])
    (clips / "still.txt").write_text("a still")
    assert prepare(clips, checkpoint, "--no-encode") == 0
    (stage,) = recipe()["data"]["init_args"]["stages"]
    assert stage["image_fraction"] == 0.25
    assert {one["name"]: one["bucket"] for one in report()["used"]}["still.png"] == "1x32x48"


def test_nothing_to_use_ends_with_the_reasons(tmp_path, checkpoint):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FinetuneError, match="no videos and no pictures"):
        prepare(tmp_path / "empty", checkpoint)
    with pytest.raises(FinetuneError, match="no such folder"):
        prepare(tmp_path / "nowhere", checkpoint)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frames", "8"], "4n\\+1"),
        (["--rank", "0"], "at least 1"),
        (["--full", "--quantize", "int8"], "base that stays as it is"),
        (["--full", "--rank", "8"], "--rank and --lora-format are of a LoRA"),
        (["--full", "--lora-format", "kohya"], "--rank and --lora-format are of a LoRA"),
        (["--learning-rate", "-1"], "learning rate is -1; it must be above 0"),
        (["--learning-rate", "nan"], "learning rate is nan"),
        (["--size", "0x0"], "0x0 can't be trained on"),
        (["--size", "10x10"], "10x10 can't be trained on"),
        (["--size", "99999x99999"], "99999x99999 can't be trained on; give a --size from 16x16 to 3840x2160"),
        (["--captioner-option", "a=1"], "--captioner-option a is given, but no --captioner"),
        (["--captioner", "measured", "--captioner-option", "nonsense=1"], "'nonsense'; its options are "),
        (["--captions", "none.csv"], "no such file"),
    ],
)
def test_wrong_options(clips, checkpoint, options, message):
    with pytest.raises(FinetuneError, match=message):
        prepare(clips, checkpoint, *options)
    assert not Path("room").exists()


def test_a_room_is_not_overwritten_unasked(clips, checkpoint):
    prepare(clips, checkpoint, "--no-encode")
    with pytest.raises(FinetuneError, match="holds a recipe already"):
        prepare(clips, checkpoint, "--no-encode")
    assert prepare(clips, checkpoint, "--no-encode", "--overwrite", "--rank", "3") == 0
    assert recipe()["model"]["init_args"]["rank"] == 3


def test_wishes_reach_the_recipe(clips, checkpoint):
    options = ["--quantize", "int8", "--offload", "--lora-format", "kohya", "--learning-rate", "3e-4", "--batch", "2"]
    prepare(clips, checkpoint, *options, "--prompt", "a wave", "--no-encode")
    arguments = recipe()["model"]["init_args"]
    assert (arguments["quantize_to"], arguments["optimizer"]["init_args"]["lr"]) == ("int8", 3e-4)
    assert callback("Offload")["blocks"] == callback("Recompute")["blocks"]
    assert callback("SaveLoRA")["lora_format"] == "kohya"
    assert callback("SampleSheets")["prompts"] == ["a wave"]
    assert (arguments["shift"], callback("SampleSheets")["shift"]) == (3.0, 3.0)
    assert recipe()["data"]["init_args"]["stages"][0]["batch_size"] == 2


def test_a_caption_that_is_no_text_costs_one_clip(clips, checkpoint):
    (clips / "a.txt").write_bytes(b"\xff\xfe\x00")
    assert prepare(clips, checkpoint, "--no-encode") == 1
    (refused,) = report()["refused"]
    assert refused["name"] == "a.mp4"
    assert refused["reason"].startswith("a.txt can't be read as text in UTF-8")


def test_names_that_differ_in_dots_alone_are_two_clips(clips, checkpoint, capsys):
    for name in ("[b].x", "[b]_x", "[b]%2Ex"):
        (clips / f"{name}.mp4").write_bytes((clips / "a.mp4").read_bytes())
        (clips / f"{name}.txt").write_text(f"the one called {name}")
    assert prepare(clips, checkpoint, "--no-encode") == 0
    used = {one["name"]: one["caption"] for one in report()["used"]}
    assert len(used) == 6
    assert used["[b].x.mp4"] == "the one called [b].x"
    assert "[b].x.mp4" in capsys.readouterr().err, "brackets are no markup"


def test_videos_as_pictures(clips, checkpoint):
    assert prepare(clips, checkpoint, "--frames", "1", "--no-encode") == 0
    assert {one["bucket"].partition("x")[0] for one in report()["used"]} == {"1"}
    assert len(report()["used"]) == 3


def test_a_captioner_gets_its_options(clips, checkpoint, monkeypatch):
    given = {}

    class Says:
        def __init__(self, **options):
            given.update(options)

        def caption(self, sample):
            return {"short": f"{sample['key']} at {sample['fps']}"}

    monkeypatch.setattr("hyvideo_finetune.prepare.captioner.Plugins", lambda: SimpleNamespace(load=lambda *_: Says))
    options = ["--captioner-option", "base-url=http://127.0.0.1", "--captioner-option", "tries=3"]
    asked = _parser().parse_args([str(clips), "--model", "m", "--out", "room", "--captioner", "says", *options])
    describe = describer(asked.captioner, dict(asked.captioner_options))
    assert given == {"base_url": "http://127.0.0.1", "tries": 3}
    assert describe(clips / "a.mp4") == "a at 24"


def test_a_room_among_the_clips_is_refused(clips, checkpoint):
    with pytest.raises(FinetuneError, match=r"lies in .*, whose files are all looked at"):
        main(["prepare", str(clips), "--model", str(checkpoint), "--out", str(clips / "room")])
    assert not (clips / "room").exists()


def test_from_folder_to_lora(clips, checkpoint):
    assert prepare(clips, checkpoint, "--quantize", "int8", "--offload") == 0
    config = ["--config", "room/recipe.yaml", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    assert main(["fit", *config, *quiet]) == 0
    lora = load_lora("room/run/lora.safetensors", load_dit(checkpoint / "dit"))
    assert {one.rank for one in lora.layers.values()} == {2}
    with safe_open("room/run/lora.safetensors", "pt") as opened:
        assert opened.metadata()["steps"] == "4"
        assert len(opened.metadata()["data_sha256"]) == 64
    assert sorted(file.name for file in Path("room/run/samples").iterdir()) == [
        "before.npz",
        "step-0000000.mp4",
        "step-0000000.png",
    ]
    assert main(["fit", *config, *quiet, "--trainer.max_steps=6", "--resume"]) == 0
    with safe_open("room/run/lora.safetensors", "pt") as opened:
        assert opened.metadata()["steps"] == "6"


def test_all_weights(clips, checkpoint):
    assert prepare(clips, checkpoint, "--full", "--learning-rate", "0.01") == 0
    settings = ["--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    assert main(["fit", "--config", "room/recipe.yaml", *settings]) == 0
    before, after = load_dit(checkpoint / "dit").state_dict(), load_dit("room/run/model/dit").state_dict()
    changed = [name for name, value in before.items() if not torch.equal(after[name].float(), value)]
    assert "single_blocks.0.linear1.weight" in changed
    parts, base = find_parts(Path("room/run/model")), find_parts(checkpoint)
    assert parts.sampling == base.sampling
    sample = Plugins().load("command", "sample")
    assert sample(["waves", "--model", "room/run/model", "--size", "32x32", "--frames", "1", "--out", "x.png"]) == 0


def test_a_trained_transformer_takes_the_place_of_another_layouts(checkpoint, tmp_path):
    for part in ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"):
        (tmp_path / "mine" / part).mkdir(parents=True)
    shutil.copytree(checkpoint / "dit", tmp_path / "mine/transformer")
    assert load_dit(find_parts(tmp_path / "mine").dit).config == load_dit(checkpoint / "dit").config


@pytest.mark.parametrize("name", ["full", "sft"])
def test_recipes_train_weights_in_float32(name):
    recipe = yaml.safe_load((folder() / f"{name}.yaml").read_text())
    backbone = recipe["model"]["init_args"]["backbone"]
    assert backbone["class_path"] == "hyvideo_finetune.trainable_dit"
    assert backbone["init_args"]["dtype"] == "float32"


def test_a_captioner_that_fails_costs_one_clip(clips, checkpoint):
    (clips / "broken.mp4").write_bytes(b"no video")
    assert prepare(clips, checkpoint, "--captioner", "measured", "--no-encode") == 1
    assert "the captioner failed" in report()["refused"][0]["reason"]
    assert len(report()["used"]) == 3
