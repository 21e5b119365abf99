import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hy_dit import DiT, DiTConfig
from hy_plugins import Plugins
from hy_weights import CheckpointError, write_model
from hyvideo_plan import plugin
from hyvideo_plan.cli import main
from hyvideo_plan.errors import PlanError

TINY = ["--model", "tiny"]


def planned(capsys, *argv):
    code = main([*argv, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_command_is_offered():
    plugins = Plugins(discover=False)
    plugins.register(plugin, name="plan")
    assert plugins.load("command", "plan") is main


def test_help_needs_no_torch():
    code = "import sys; from hyvideo_plan.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_all_is_told_as_json(capsys):
    code, told = planned(capsys, *TINY, "--size", "112x48", "--frames", "17", "--steps", "4", "--tflops", "0.1")
    assert code == 0
    assert (told["parameters"], told["video"]["tokens"], told["advice"]) == (10_291_904, 5 * 3 * 7, None)
    assert [phase["name"] for phase in told["phases"]] == ["text", "denoise", "decode"]
    assert told["peak"] == max(phase["total"] for phase in told["phases"])
    denoise, decode = told["phases"][1:]
    assert denoise["flops"] == 4 * told["flops_per_step"]
    assert told["seconds"]["step"] == pytest.approx(told["flops_per_step"] / 0.1e12)
    assert told["seconds"]["run"] == pytest.approx((denoise["flops"] + decode["flops"]) / 0.1e12)


def test_training_is_mixed_unless_told_otherwise(capsys):
    assert planned(capsys, "train", *TINY)[1]["setup"]["precision"] == "mixed"
    assert planned(capsys, *TINY)[1]["setup"]["precision"] == "bfloat16"


def test_every_option_reaches_the_setup(capsys):
    argv = "--devices 2 --shards --sequence-parallel --tiling --recompute --eight-bit-optimizer --lora 4 --batch 3"
    more = ["--precision", "float32", "--ema", "bfloat16"]
    setup = planned(capsys, "train", *TINY, *argv.split(), *more)[1]["setup"]
    assert setup == {
        "task": "train",
        "precision": "float32",
        "batch": 3,
        "steps": 50,
        "guidance": True,
        "devices": 2,
        "keep_all": False,
        "tiled": True,
        "recompute": True,
        "eight_bit_weights": False,
        "four_bit_weights": False,
        "eight_bit_optimizer": True,
        "resident_blocks": 0,
        "sharded": True,
        "sequence_parallel": True,
        "lora_rank": 4,
        "average_bytes": 2,
    }
    argv = "--offload 3 --eight-bit-weights --keep-all --no-guidance"
    setup = planned(capsys, *TINY, *argv.split())[1]["setup"]
    assert (setup["resident_blocks"], setup["eight_bit_weights"], setup["keep_all"]) == (3, True, True)
    assert setup["guidance"] is False


def test_devices_of_a_sequence_share_a_step(capsys):
    argv = (*TINY, "--devices", "4", "--tflops", "1")
    alone, shared = (planned(capsys, *argv, *more)[1]["seconds"]["step"] for more in ((), ("--sequence-parallel",)))
    assert alone == pytest.approx(4 * shared)


def test_the_memory_that_is_missing_sets_the_exit_code(capsys):
    assert planned(capsys, *TINY, "--memory", "1GiB")[0] == 0
    code, told = planned(capsys, *TINY, "--memory", "1MB")
    assert (code, told["advice"]["fits"], told["memory"]) == (1, False, 1_000_000)
    assert {knob["name"] for knob in told["advice"]["knobs"]} >= {"4-bit weights", "block offload"}


def test_a_device_brings_its_memory_and_its_assumption(capsys):
    assert main([*TINY, "--device", "rtx4090"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "it fits in 25.8 GB" in text
    assert "assumption: 32% of the 165 TFLOP/s of rtx4090's data sheet" in text
    assert main([*TINY, "--device", "rtx4090", "--tflops", "50"]) == 0
    assert "assumption" not in capsys.readouterr().out


def test_the_table_tells_what_is_missing(capsys):
    assert main([*TINY, "--memory", "1MB"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "nothing makes it fit in 0.0 GB" in text
    assert "GB are missing even with" in text
    assert "time: give --device or --tflops" in text


def test_a_checkpoint_is_planned_by_its_config(tmp_path, capsys):
    config = DiTConfig.preset("tiny")
    sizes = {name: getattr(config, name) for name in DiTConfig.__dataclass_fields__} | {"single_blocks": 1}
    dit = DiT(DiTConfig(**sizes))
    write_model(tmp_path / "mine" / "dit", dit.state_dict(), sizes)
    expected = sum(parameter.numel() for parameter in dit.parameters())
    for path in (tmp_path / "mine", tmp_path / "mine" / "dit"):
        assert planned(capsys, "--model", str(path))[1]["parameters"] == expected
    write_model(tmp_path / "t2x", {}, {"width": 128, "depth": 1})
    assert planned(capsys, "--model", str(tmp_path / "t2x"))[1]["video"]["frames"] == 1
    (tmp_path / "mine" / "dit" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json"):
        main(["--model", str(tmp_path / "mine")])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--size", "635x271"], "size is 635x271; both sides must be multiples of 16: 640x272 is the nearest"),
        (["--frames", "18"], r"frames is 18; the VAE takes 4n\+1 frames: 17 and 21 are the nearest"),
        (["--frames", "0"], "frames is 0; it must be at least 1"),
        (["--steps", "0"], "steps is 0"),
        (["--batch", "-1"], "batch is -1"),
        (["--lora", "-4"], "lora is -4"),
        (["--tflops", "0"], "tflops is 0.0; it must be a number above 0"),
        (["--device", "h900"], "no device 'h900' in the table .*; give --tflops and --memory instead"),
        (["--shards"], "--shards and --sequence-parallel divide over several devices; give --devices"),
        (["--shards", "--devices", "2", "--offload", "2"], "--offload and --shards"),
        (["train", "--offload", "2"], "are for frozen weights; --lora trains adapters"),
        (
            ["--model", "huge"],
            "no model 'huge': give a checkpoint's path, or one of hunyuan-video-cfgdistill, .*t2x-6.6b",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(argv, message):
    with pytest.raises(PlanError, match=message):
        main([*TINY, *argv])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--memory", "24"], "'24' is not a size such as 24GB"),
        (["--memory", "24 parsecs"], "is not a size such as 24GB"),
        (["--size", "64"], "'64' is not WIDTHxHEIGHT"),
        (["rehearse"], "invalid choice: 'rehearse'"),
    ],
)
def test_what_cannot_be_read_ends_with_code_2(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_readme_commands_run(capsys, monkeypatch, tmp_path):
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^hyvideo plan .*", text, re.MULTILINE)
    assert commands
    monkeypatch.chdir(tmp_path)
    backbone = {"class_path": "hy_dit.load_dit", "init_args": {"path": "tiny"}}
    stages = [{"name": "only", "buckets": [[1, 64, 64]], "batch_size": 1}]
    recipe = {"model": {"init_args": {"backbone": backbone}}, "data": {"init_args": {"stages": stages}}}
    Path("recipe.yaml").write_text(json.dumps(recipe))
    for command in commands:
        assert main(shlex.split(command, comments=True)[2:]) in (0, 1), command
        assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--frames", "99999999999999999999997"], "this plans up to 4096 pixels a side and 4001 frames"),
        (["--batch", "10000000000000000000"], "batch is 10000000000000000000; it must be 1 to 100,000"),
        (["--offload", "-2"], "offload is -2; it must be at least 1 block"),
        (["--memory", "0GB"], "memory is 0; give what one device has"),
        (["--tflops", "inf"], "tflops is inf; it must be a number above 0"),
        (["--lora", "8"], "--lora is for training; the task is sample"),
        (["--ema", "float32"], "--ema is for training; the task is sample"),
        (["train", "--keep-all"], "--keep-all is for sampling; the task is train"),
        (["train", "--lora", "99999999"], "lora is 99999999; a rank is 1 to 4096"),
    ],
)
def test_slips_of_the_keyboard_are_refused_before_anything_runs(argv, message):
    with pytest.raises(PlanError, match=message):
        main([*argv, "--model", "tiny"])
