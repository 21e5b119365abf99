"""Sheets of samples: the same prompts from the same noise, with averaged weights, as files and for loggers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hy_data import CannotWrite, read_video
from hy_flow.lightning import EMA, FlowMatching
from hy_plugins import TextTokens
from hy_vae3d import VAE3D, Tiling, VAE3DConfig
from hy_vae3d.fitting import VAEMemoryError
from hyvideo_pretrain.samples import SampleSheetError, SampleSheets
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.optim import SGD

pytestmark = pytest.mark.filterwarnings(
    "ignore:.isinstance.treespec",
    "ignore:The .*dataloader.* does not have",
    "ignore:The number of training batches",
    "ignore:You defined a .validation_step. but have no",
)


class Backbone(torch.nn.Module):
    """Its answer is one number everywhere, which is also what it learns."""

    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(()))
        self.asked = []

    def forward(self, latent_BCTHW, timestep_B, text):
        self.asked.append((latent_BCTHW.clone(), self.level.item(), self.training))
        return self.level.expand_as(latent_BCTHW) * text.pooled_BD.view(-1, 1, 1, 1, 1)


class TextEncoder:
    def encode(self, prompts):
        pooled_BD = torch.tensor([[float(len(prompt))] for prompt in prompts])
        return TextTokens(pooled_BD[:, None], torch.ones(len(prompts), 1, dtype=torch.bool), pooled_BD)


class Autoencoder(torch.nn.Module):
    """Each latent is a block of 4 frames (but the first) of 2 by 2 pixels, 2 channels of three."""

    compression, latent_channels, scaling_factor = (4, 2, 2), 2, 0.5

    def encode(self, video_BCTHW):
        raise AssertionError

    def decode(self, latent_BCTHW):
        wide = latent_BCTHW.repeat_interleave(2, 3).repeat_interleave(2, 4)
        long = torch.cat([wide[:, :, :1], wide[:, :, 1:].repeat_interleave(4, 2)], dim=2)
        return torch.cat([long, long[:, :1]], dim=1)


def fit(sheets, *callbacks, steps=4, logger=False, **settings):
    backbone = Backbone()
    batch = {"latent_BCTHW": torch.ones(2, 2, 1, 2, 2), "captions": ["a", "a"]}
    module = FlowMatching(
        backbone, TextEncoder(), optimizer=lambda p: SGD(p, lr=0.1), warmup_steps=0, decay="constant", **settings
    )
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, sheets],
    )
    trainer.fit(module, torch.utils.data.DataLoader([batch] * steps, batch_size=None))
    return backbone


def sheets(folder, **settings):
    small = {"every": 2, "width": 8, "height": 6, "frames": 5, "steps": 2, "shift": 1.0, "guidance": 1.0}
    return SampleSheets(["ab", "abc", "abcd"], str(folder), Autoencoder(), **(small | settings))


def test_files_are_written_every_so_many_steps(tmp_path):
    fit(sheets(tmp_path / "samples"))
    names = ["step-0000002.mp4", "step-0000002.png", "step-0000004.mp4", "step-0000004.png"]
    assert sorted(file.name for file in (tmp_path / "samples").iterdir()) == names
    clip = read_video(tmp_path / "samples" / names[0])
    assert clip.frames_THWC.shape == (5, 12, 16, 3), "three clips of 8 by 6 on a grid of two by two"
    assert clip.frames_THWC[:, 7:, 9:].max() < 30, "the fourth place is black"
    assert clip.fps == 24


def test_noise_is_the_same_every_time_and_each_prompts_own(tmp_path):
    backbone = fit(sheets(tmp_path))
    starts = [latent for latent, _, training in backbone.asked if not training][::2]
    assert len(starts) == 6
    assert all(torch.equal(first, again) for first, again in zip(starts[:3], starts[3:], strict=True))
    assert not torch.equal(starts[0], starts[1])
    assert starts[0].shape == (1, 2, 2, 3, 4)


def test_averaged_weights_are_sampled_and_training_goes_on_with_its_own(tmp_path):
    plain = fit(sheets(tmp_path / "plain", every=100))
    backbone = fit(sheets(tmp_path), EMA(0.5))
    trained = [level for _, level, training in backbone.asked if training]
    assert trained == [level for _, level, _ in plain.asked]
    sampled = [level for _, level, training in backbone.asked if not training]
    average = 0.5 * trained[1] + 0.5 * trained[2]  # after two steps
    assert sampled[:6] == pytest.approx([average] * 6)
    assert average != trained[2]


def test_the_scaling_factor_is_taken_out_before_decoding(tmp_path):
    module = SimpleNamespace(device=torch.device("cpu"), sample=lambda *_, **__: torch.full((1, 2, 2, 3, 4), 0.25))
    frames, *_ = sheets(tmp_path)._clips(module)
    assert frames.shape == (5, 6, 8, 3)
    assert frames.unique().tolist() == [round((0.5 + 1) * 127.5)]


def test_a_picture_has_no_video(tmp_path):
    fit(sheets(tmp_path, frames=1), steps=2)
    assert [file.name for file in tmp_path.iterdir()] == ["step-0000002.png"]
    assert (tmp_path / "step-0000002.png").read_bytes().startswith(b"\x89PNG")


def test_tensorboard_gets_the_sheet_when_it_is_the_trainers_logger(tmp_path):
    logger = TensorBoardLogger(tmp_path / "log", name="")
    fit(sheets(tmp_path / "samples"), steps=2, logger=logger)
    logger.finalize("success")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(logger.log_dir).Reload()
    (image,) = events.Images("samples")
    assert image.step == 2


def test_the_modules_autoencoder_decodes_unless_another_is_given(tmp_path):
    without = SampleSheets(["ab"], str(tmp_path), every=2, width=8, height=6, frames=1, steps=1, guidance=1.0)
    with pytest.raises(SampleSheetError, match="there is no autoencoder to decode samples with"):
        fit(without)
    fit(without, steps=2, autoencoder=Autoencoder())
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("size", [{"frames": 4}, {"width": 7}, {"height": 5}])
def test_a_size_that_does_not_fit_is_refused_before_the_training(tmp_path, size):
    message = r"do not fit the autoencoder: frames are 4n\+1, width and height multiples of 2 and 2"
    with pytest.raises(SampleSheetError, match=message):
        fit(sheets(tmp_path, **size))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"prompts": []}, {"every": 0}])
def test_a_sheet_of_nothing_is_refused(tmp_path, wrong):
    with pytest.raises(SampleSheetError, match="needs prompts, and every must be at least 1"):
        SampleSheets(**{"prompts": ["a"], "folder": str(tmp_path), **wrong})


def test_what_was_before_stands_beside_what_is(tmp_path):
    callback = sheets(tmp_path, before=True)
    fit(callback, steps=2)
    names = ["before.npz", "step-0000000.mp4", "step-0000000.png", "step-0000002.mp4", "step-0000002.png"]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    before = np.load(tmp_path / "before.npz")["clips"]
    assert before.shape == (3, 5, 6, 8, 3)
    assert read_video(tmp_path / "step-0000002.mp4").frames_THWC.shape == (5, 18, 16, 3), "a row per prompt"
    assert read_video(tmp_path / "step-0000000.mp4").frames_THWC.shape == (5, 12, 16, 3)
    now = [torch.full((5, 6, 8, 3), level, dtype=torch.uint8) for level in range(3)]
    rows = list(callback._rows(7, now))
    assert [row.label for row in rows[:2]] == ["before: ab", "step 7: ab"]
    assert all(np.array_equal(row.frames_THWC, shown) for row, shown in zip(rows[::2], before, strict=True))
    assert all(np.array_equal(row.frames_THWC, shown) for row, shown in zip(rows[1::2], now, strict=True))


def test_what_was_before_is_not_taken_for_another_prompts(tmp_path, caplog):
    fit(sheets(tmp_path, before=True), steps=2)
    callback = sheets(tmp_path, before=True)
    callback.prompts = ["abc", "ab", "abcd"]
    rows = list(callback._rows(7, [torch.zeros(5, 6, 8, 3, dtype=torch.uint8)] * 3))
    assert [row.label for row in rows] == ["abc", "ab", "abcd"]
    assert "has other prompts or sizes than this run" in caplog.text


@pytest.mark.parametrize("error", [CannotWrite("the disk is full"), VAEMemoryError("30 GB are missing")])
def test_a_sheet_that_can_not_be_made_costs_nothing_else(tmp_path, monkeypatch, caplog, error):
    def fail(*_, **__):
        raise error

    where = "write_contact_sheet" if isinstance(error, CannotWrite) else "to_levels"
    monkeypatch.setattr(f"hyvideo_pretrain.samples.{where}", fail)
    backbone = fit(sheets(tmp_path), EMA(0.5))
    assert sum(training for *_, training in backbone.asked) == 4
    assert f"no samples of step 4: {error}" in caplog.text


def test_an_autoencoder_of_its_own_takes_tiles_where_it_must_and_leaves_the_device(tmp_path, monkeypatch):
    vae = VAE3D(VAE3DConfig(latent_channels=2, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4))
    asked, tiling = {}, Tiling()
    monkeypatch.setattr(
        "hyvideo_pretrain.samples.fitting_tiling", lambda *_, **options: (asked.update(options), tiling)[1]
    )
    moves, move = [], vae.to
    monkeypatch.setattr(vae, "to", lambda device: (moves.append(str(device)), move(device))[1])
    callback = SampleSheets(["ab"], str(tmp_path), vae, width=16, height=16, frames=5)
    module = SimpleNamespace(device=torch.device("cpu"), sample=lambda *_, **__: torch.zeros(1, 2, 2, 2, 2))
    assert callback._clips(module)[0].shape == (5, 16, 16, 3)
    assert vae.tiling is tiling
    assert (asked["halves"], asked["dtype"]) == (("decode",), torch.float32)
    assert moves == ["cpu", "cpu"]


def test_a_resumed_run_does_not_sample_the_same_step_again(tmp_path):
    callback = sheets(tmp_path)
    callback.on_train_start(SimpleNamespace(global_step=4), None)
    callback.on_train_batch_end(SimpleNamespace(global_step=4), None, None, None, 0)  # accumulates: no step was taken
    assert not list(tmp_path.iterdir())
