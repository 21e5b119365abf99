"""Looking at a training: the same prompts, sampled from the same noise, time after time.

Shapes: B batch, C channels, T H W frames/height/width.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hy_data import CannotWrite
from hy_data.contact_sheet import Row, contact_sheet, write_contact_sheet
from hy_data.files import staged
from hy_data.video import write_video
from hy_flow import counter_noise
from hy_flow.lightning import averaged
from hy_plugins import HyError
from hy_plugins.protocols import Autoencoder
from hy_vae3d import VAE3D, load_vae
from hy_vae3d.fitting import VAEMemoryError, fitting_tiling
from hy_vae3d.pixels import to_levels
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from hyvideo_pretrain.bundled import model_folder

log = logging.getLogger(__name__)

_BEFORE = "before.npz"


class SampleSheetError(HyError, ValueError):
    """What was asked for cannot be sampled."""


class SampleSheets(Callback):
    """Samples fixed prompts from fixed noise every so many steps, with averaged weights where `EMA` averages them.

    Writes `step-0001000.png`, a row of frames per prompt, and `step-0001000.mp4`, all clips side by side. The trainer's
    TensorBoard gets the sheet, and its W&B sheet and video; both take part only if they are the trainer's loggers. Only
    the first process samples, the others wait. With `before`, every prompt is also sampled before the first step, and
    each sheet and video shows that beside what has become of it. An autoencoder of its own is on the device while it
    decodes, and no longer, in tiles where a whole clip does not fit there. A sheet for which there is no memory or no
    room on the disk is left out, and that is logged.

    Args:
        prompts: A clip each.
        folder: Where the files go.
        autoencoder: Decodes the latents: an object, a folder, or a bundled model's name; None: the trained module's.
        every: Optimizer steps from one sheet to the next.
        width: Of the clips, in pixels.
        height: The same.
        frames: 4n+1; 1 is a picture, of which no video is written.
        fps: Frames per second.
        steps: Of the sampler.
        shift: Of its schedule.
        guidance: Scale of classifier-free guidance.
        before: Whether samples of before the training are shown too.
        seed: Of the noise, which prompt number n always has to itself.

    Raises:
        SampleSheetError: There are no prompts, or a size does not fit the autoencoder.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        folder: str,
        autoencoder: Autoencoder | str | None = None,
        every: int = 1000,
        width: int = 256,
        height: int = 256,
        frames: int = 33,
        fps: float = 24.0,
        steps: int = 30,
        shift: float = 7.0,
        guidance: float = 6.0,
        before: bool = False,
        seed: int = 0,
    ) -> None:
        if not prompts or every < 1:
            raise SampleSheetError("a sheet needs prompts, and every must be at least 1")
        self.prompts = prompts
        self.folder = Path(folder)
        self.autoencoder = autoencoder
        self.every = every
        self.size = frames, height, width
        self.fps = fps
        self.settings = {"steps": steps, "shift": shift, "guidance": guidance}
        self.before = before
        self.seed = seed
        self._last = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse before the training what would fail in it."""
        if isinstance(self.autoencoder, str):
            self.autoencoder = load_vae(model_folder(self.autoencoder))
        decoder = self._decoder(pl_module)
        fits = [(size - (axis == 0)) % step == 0 for axis, (size, step) in enumerate(_with(self.size, decoder))]
        if not all(fits):
            frames, height, width = self.size
            ct, ch, cw = decoder.compression
            raise SampleSheetError(
                f"{frames} frames of {width}x{height} do not fit the autoencoder: frames are {ct}n+1, width and height "
                f"multiples of {cw} and {ch}"
            )
        if hasattr(decoder, "parameters"):
            decoder.eval()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sample what is to be compared with; a resumed run has done so."""
        self._last = trainer.global_step
        if self.before and trainer.global_step == 0:
            self._sample(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Sample, when it is time."""
        if trainer.global_step == self._last or trainer.global_step % self.every:
            return
        self._last = trainer.global_step
        self._sample(trainer, pl_module)

    def _sample(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.is_global_zero:
            try:
                with averaged(trainer, module), trainer.precision_plugin.val_step_context():
                    clips = self._clips(module)
                self._show(trainer, clips)
            except (CannotWrite, VAEMemoryError) as error:
                log.warning("no samples of step %d: %s", trainer.global_step, error)
        trainer.strategy.barrier("SampleSheets")

    def _decoder(self, module: LightningModule) -> Any:
        decoder = self.autoencoder or getattr(module, "autoencoder", None)
        if decoder is None:
            raise SampleSheetError("there is no autoencoder to decode samples with: give one to SampleSheets")
        return decoder

    @torch.no_grad()
    def _clips(self, module: LightningModule) -> list[Tensor]:
        """Sample the prompts: uint8 frames [T, H, W, C] of each."""
        latents = [self._latent(module, number) for number in range(len(self.prompts))]
        with self._working(module) as decoder, torch.autocast(module.device.type, enabled=False):
            return [to_levels(decoder.decode(latent_BCTHW / decoder.scaling_factor)) for latent_BCTHW in latents]

    @contextmanager
    def _working(self, module: LightningModule) -> Iterator[Any]:
        """The decoder, ready to decode; one of our own leaves the device again."""
        decoder = self._decoder(module)
        if not hasattr(decoder, "parameters") or self.autoencoder is None:
            yield decoder
            return
        if isinstance(decoder, VAE3D):
            dtype = next(decoder.parameters()).dtype
            decoder.tiling = fitting_tiling(
                decoder.config, self.size, halves=("decode",), dtype=dtype, device=module.device
            )
        try:
            yield decoder.to(module.device)
        finally:
            decoder.to("cpu")

    def _latent(self, module: LightningModule, number: int) -> Tensor:
        """Sample a prompt's latent [1, C, T, H, W]."""
        decoder = self._decoder(module)
        frames, height, width = (math.ceil(size / step) for size, step in _with(self.size, decoder))
        shape = (1, decoder.latent_channels, frames, height, width)
        noise_BCTHW = counter_noise(shape, self.seed, stream="sample sheet", rows=[number], device=module.device)
        sample: Any = module.sample
        return sample([self.prompts[number]], noise_BCTHW, **self.settings)

    def _show(self, trainer: Trainer, clips: Sequence[Tensor]) -> None:
        name = f"step-{trainer.global_step:07d}"
        rows = list(self._rows(trainer.global_step, clips))
        write_contact_sheet(self.folder / f"{name}.png", rows)
        video = self.folder / f"{name}.mp4" if self.size[0] > 1 else None
        if video is not None:
            columns = 2 if len(rows) > len(clips) else math.ceil(math.sqrt(len(clips)))
            write_video(video, _side_by_side([row.frames_THWC for row in rows], columns), self.fps)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples", contact_sheet(rows), trainer.global_step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image("samples", [contact_sheet(rows)], trainer.global_step)
                if video is not None:
                    logger.log_video("sample videos", [str(video)], trainer.global_step)

    def _rows(self, step: int, clips: Sequence[Tensor]) -> Iterator[Row]:
        """A row per prompt; where samples of before are compared with, two."""
        now = np.stack([clip.numpy() for clip in clips])
        if self.before and step == 0:
            with staged(self.folder / _BEFORE) as partial, partial.open("wb") as file:
                np.savez(file, clips=now, prompts=list(self.prompts))
        compared = self._compared(now.shape) if self.before and step > 0 else None
        for number, prompt in enumerate(self.prompts):
            if compared is not None:
                yield Row(f"before: {prompt}", compared[number])
            yield Row(prompt if compared is None else f"step {step}: {prompt}", now[number])

    def _compared(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
        """The samples of before the training; None if there are none of these prompts and sizes."""
        file = self.folder / _BEFORE
        if not file.exists():
            return None
        with np.load(file) as kept:
            if kept["prompts"].tolist() == list(self.prompts) and kept["clips"].shape == shape:
                return kept["clips"]
        log.warning("%s has other prompts or sizes than this run: nothing is compared with it", file)
        return None


def _with(size: Sequence[int], decoder: Any) -> Iterator[tuple[int, int]]:
    return zip(size, decoder.compression, strict=True)


def _side_by_side(clips: Sequence[npt.NDArray[np.uint8]], columns: int) -> npt.NDArray[np.uint8]:
    """Lay clips of one size out in a grid; places without a clip are black."""
    places = [*clips, *[np.zeros_like(clips[0])] * (-len(clips) % columns)]
    lines = [np.concatenate(places[start : start + columns], axis=2) for start in range(0, len(places), columns)]
    return np.concatenate(lines, axis=1)
