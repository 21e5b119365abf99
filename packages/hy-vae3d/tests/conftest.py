"""What the tests of training share."""

import pytest


@pytest.fixture
def trainer():
    """Make a trainer on the CPU that writes and shows nothing."""
    lightning = pytest.importorskip("lightning", reason="training is the extra hy-vae3d[train]")
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return lambda **settings: lightning.Trainer(**{"accelerator": "cpu", **quiet, **settings})
