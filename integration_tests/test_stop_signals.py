"""The command in processes of its own: a scheduler's signal ends it with the code that means "try again"."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hy_weights import read_manifest, verify
from lightning.pytorch.demos.boring_classes import BoringDataModule

RECIPE = """
model:
  class_path: lightning.pytorch.demos.boring_classes.BoringModel
data:
  class_path: lightning.pytorch.demos.boring_classes.BoringDataModule
trainer:
  accelerator: cpu
  devices: 2
  strategy: ddp
  max_steps: 100000
  limit_val_batches: 0
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: hyvideo_pretrain.checkpoints.Checkpoints
      init_args: {folder: run, every: 5}
"""


@pytest.fixture
def pretrain(tmp_path):
    """Start the command in a session of its own, which is ended with the test."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    started = []

    def start(*options):
        command = [str(Path(sys.executable).parent / "hyvideo"), "pretrain", "fit", "--config", "recipe.yaml", *options]
        log = (tmp_path / f"log-{len(started)}").open("w")
        paths = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
        started.append(
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": paths},
                stderr=log,
                stdout=log,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def starts_another(process):
    """Whether the second process of the run is there, be it only beginning to import."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        with suppress(OSError):  # it has ended
            if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes():
                return True
    return False


class Slow(BoringDataModule):
    """Tells that it looks at its data, which takes long."""

    def prepare_data(self):
        Path("looking").touch()
        time.sleep(120)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_a_signal_to_a_process_that_looks_at_its_data_ends_it_as_it_says(pretrain, tmp_path, number, code):
    process = pretrain("--trainer.devices", "1", "--trainer.strategy", "auto", "--data", "test_stop_signals.Slow")
    limit = time.monotonic() + 120
    while not (tmp_path / "looking").exists():
        assert process.poll() is None, (tmp_path / "log-0").read_text()
        assert time.monotonic() < limit, "it does not begin"
        time.sleep(0.05)
    os.kill(process.pid, number)
    assert process.wait(60) == code, (tmp_path / "log-0").read_text()
    assert "stopped before the first step" in (tmp_path / "log-0").read_text()
    assert "Traceback" not in (tmp_path / "log-0").read_text()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux to see a process being started")
def test_a_signal_to_all_while_the_second_process_starts_asks_for_another_try(pretrain, tmp_path):
    process, limit = pretrain(), time.monotonic() + 120
    while not starts_another(process):
        assert process.poll() is None, (tmp_path / "log-0").read_text()
        assert time.monotonic() < limit, "it starts no second process"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    log = tmp_path / "log-0"
    assert process.wait(120) == 75, log.read_text()
    assert "stopped before the first step" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert not (tmp_path / "run" / "latest").exists()


def test_a_signal_to_one_of_two_processes_saves_and_asks_for_another_try(pretrain, tmp_path):
    process = pretrain()
    limit = time.monotonic() + 120
    while not (tmp_path / "run" / "latest").exists():
        assert process.poll() is None, (tmp_path / "log-0").read_text()
        assert time.monotonic() < limit, "it does not begin"
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)  # the first process only
    assert process.wait(60) == 75, (tmp_path / "log-0").read_text()
    verify(tmp_path / "run" / "latest")
    steps = read_manifest(tmp_path / "run" / "latest")["provenance"]["step"]
    log = (tmp_path / "log-0").read_text()
    assert f"stopped after step {steps}; saved run/step-{steps:08d}; go on with --resume" in log
    assert "Traceback" not in log

    process = pretrain("--resume", "--trainer.max_steps", str(steps + 3))
    assert process.wait(120) == 0, (tmp_path / "log-1").read_text()
    assert read_manifest(tmp_path / "run" / "latest")["provenance"]["step"] == steps + 3
