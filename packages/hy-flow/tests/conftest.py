"""Toys that follow the protocols: latents of two numbers, captions "left" and "right"."""

from types import SimpleNamespace

import pytest
import torch
from hy_plugins import TextTokens


class ToyTextEncoder(torch.nn.Module):
    """Three vectors: for "left", for "right", and for anything else."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(3, 8)
        self.seen = []

    def encode(self, prompts):
        self.seen.extend(prompts)
        index_B = torch.tensor([{"left": 0, "right": 1}.get(prompt, 2) for prompt in prompts])
        tokens_BSD = self.table(index_B)[:, None]
        return TextTokens(tokens_BSD, torch.ones(tokens_BSD.shape[:2], dtype=torch.bool), tokens_BSD[:, 0])


class ToyBackbone(torch.nn.Module):
    """A small network on latents of shape [B, 2, 1, 1, 1]."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(11, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 2)
        )

    def forward(self, latent_BCTHW, timestep_B, text, guidance_B=None):
        inputs_BD = torch.cat((latent_BCTHW.flatten(1), timestep_B[:, None] / 1000, text.pooled_BD), dim=1)
        return self.layers(inputs_BD).view_as(latent_BCTHW)


@pytest.fixture
def toys():
    torch.manual_seed(0)
    return ToyBackbone(), ToyTextEncoder()


@pytest.fixture
def toy_batches():
    """Make `count` batches: "left" is N((-2, 0), 0.3), "right" is N((2, 1), 0.6)."""

    def make(count, size=128):
        generator = torch.Generator().manual_seed(1)
        batches = []
        for _ in range(count):
            right_B = torch.rand(size, generator=generator) < 0.5
            center_BC = torch.where(right_B[:, None], torch.tensor([2.0, 1.0]), torch.tensor([-2.0, 0.0]))
            spread_B1 = torch.where(right_B, 0.6, 0.3)[:, None]
            latent_BC = center_BC + spread_B1 * torch.randn(size, 2, generator=generator)
            captions = ["right" if right else "left" for right in right_B]
            batches.append({"latent_BCTHW": latent_BC.view(size, 2, 1, 1, 1), "captions": captions})
        return batches

    return make


class ToyAutoencoder(torch.nn.Module):
    """Pixels [B, 2, 1, 2, 2] to the mean of their four corners, with a deviation of 0.5, scaled by 0.25; and back."""

    compression = (1, 2, 2)
    latent_channels = 2
    scaling_factor = 0.25

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def encode(self, video_BCTHW):
        assert not torch.is_autocast_enabled("cpu")
        mean_BCTHW = video_BCTHW.mean(dim=(3, 4), keepdim=True) * self.weight
        return SimpleNamespace(mean=mean_BCTHW, logvar=torch.full_like(mean_BCTHW, 0.25).log())

    def decode(self, latent_BCTHW):
        return latent_BCTHW.repeat_interleave(2, 3).repeat_interleave(2, 4)


@pytest.fixture
def toy_autoencoder():
    return ToyAutoencoder()


@pytest.fixture
def trainer(tmp_path):
    """Make a trainer that writes and shows nothing."""
    lightning = pytest.importorskip("lightning.pytorch", reason="training is the extra hy-flow[train]")
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return lambda **settings: lightning.Trainer(
        **{"accelerator": "cpu", "default_root_dir": tmp_path, **quiet, **settings}
    )


@pytest.fixture
def kept_logger():
    """Make a logger that keeps what is logged in its `steps`, and `values(name)` of it by step."""
    loggers = pytest.importorskip("lightning.pytorch.loggers", reason="training is the extra hy-flow[train]")

    class Kept(loggers.Logger):
        name, version = "kept", 0

        def __init__(self):
            super().__init__()
            self.steps = []

        def log_metrics(self, metrics, step=None):
            self.steps.append((step, metrics))

        def log_hyperparams(self, *args, **kwargs):
            self.hyperparams = args[0]

        def values(self, name):
            return {step: metrics[name] for step, metrics in self.steps if name in metrics}

    return Kept


@pytest.fixture
def loader():
    """Make a loader of ready batches."""
    return lambda batches: torch.utils.data.DataLoader(batches, batch_size=None)


@pytest.fixture
def resumable():
    """Batches that go on where a checkpoint was made, by Lightning's protocol for stateful loaders."""

    class Resumable:
        def __init__(self, batches):
            self.batches, self.next = batches, 0

        def __len__(self):
            return len(self.batches)

        def __iter__(self):
            start = self.next = self.next % len(self)
            for batch in self.batches[start:]:
                self.next += 1
                yield batch

        def state_dict(self):
            return {"next": self.next}

        def load_state_dict(self, state):
            self.next = state["next"]

    return Resumable


@pytest.fixture
def stop_at():
    """Make a callback that saves a checkpoint after a step, in the middle of an epoch, and stops."""
    callbacks = pytest.importorskip("lightning.pytorch.callbacks", reason="training is the extra hy-flow[train]")

    class StopAt(callbacks.Callback):
        def __init__(self, step, path):
            self.step, self.path = step, path

        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == self.step:
                trainer.save_checkpoint(self.path)
                trainer.should_stop = True

    return StopAt


@pytest.fixture
def parameters():
    """Copy a module's parameters, by name."""
    return lambda module: {name: value.detach().clone() for name, value in module.named_parameters()}


@pytest.fixture
def same():
    """Whether all tensors of two dicts are equal, bit for bit."""
    return lambda first, second: (
        first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    )
