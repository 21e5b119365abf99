import io

import pytest
from hyvideo_sample.progress import Stages
from rich.console import Console


@pytest.fixture
def shown():
    """A display and what it prints when it ends."""
    stages = Stages()
    stages.live.console.file = text = io.StringIO()
    return stages, text


def test_progress_goes_to_stderr():
    assert isinstance(Stages().console, Console)
    assert Stages().console.stderr


def test_stages_are_named_and_counted(shown):
    stages, text = shown
    with stages:
        with stages.stage("load the VAE"):
            pass
        with stages.stage("denoise", 3, "steps") as done:
            for _ in range(3):
                done()
    lines = text.getvalue().splitlines()
    assert lines[0].startswith("load the VAE")
    assert lines[1].startswith("denoise")
    assert "3/3 steps" in lines[1]
    assert all(task.finished for task in stages.tasks)


@pytest.mark.parametrize(("seconds", "rate"), [(0.1, "10.0/s"), (4.0, "4.0 s each")])
def test_the_rate_reads_well_fast_or_slow(shown, seconds, rate, monkeypatch):
    stages, text = shown
    now = [0.0]
    stages.get_time = lambda: now[0]
    with stages, stages.stage("denoise", 4, "steps") as done:
        for _ in range(4):
            now[0] += seconds
            done()
    assert rate in text.getvalue()
