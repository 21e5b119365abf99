"""One run of the command: gather, check everything, make, report.

Shapes: B batch, C channels, T H W latent frames, height, width.
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hy_plugins import HyError, Plugins
from torch import Tensor

from hyvideo_sample.checkpoint import Checkpoint, open_checkpoint
from hyvideo_sample.cli import Request
from hyvideo_sample.decoding import prepared
from hyvideo_sample.files import check_place, read_record, slug, suffix
from hyvideo_sample.latents import finishing, latent_place, read_latent, sample_place
from hyvideo_sample.loras import choose
from hyvideo_sample.noise import noise_digest, read_noise, require_shape
from hyvideo_sample.pipeline import Pipeline, placed
from hyvideo_sample.progress import Stages
from hyvideo_sample.record import Record
from hyvideo_sample.rewriting import rewrite_prompts
from hyvideo_sample.settings import SampleError, Settings


def run(request: Request) -> int:
    """Do what a command line asks for.

    Returns:
        0, or 1 if some prompts of a file failed.

    Raises:
        HyError: what was asked for can't be made; nothing was written.
        CheckpointError: the model is damaged.
    """
    started = time.monotonic()
    plugins = Plugins()
    latent_BCTHW, record = read_latent(request.decode) if request.decode else (None, _replayed(request))
    checkpoint = open_checkpoint(request.model or (record and record.model), plugins)
    if record:
        _compare_models(record, checkpoint, request)
    settings = placed(replace(record.settings if record else checkpoint.defaults, **request.given))
    noise_1CTHW, settings = _noise(request, settings, checkpoint)
    loras = record.loras if request.decode and record else choose(request.loras, record.loras if record else ())
    checkpoint.check(settings)
    sampler = _sampler(request, settings, plugins)
    prompts = _prompts(request, settings)
    for out in prompts:
        check_place(out, settings, overwrite=request.overwrite)
        _check_latent(out, request)
    if request.threads:
        torch.set_num_threads(request.threads)
    with Stages() as stages:
        settings = prepared(settings, checkpoint, stages)
        pipeline = Pipeline(
            checkpoint=checkpoint,
            settings=settings,
            plugins=plugins,
            stages=stages,
            keep_latents=request.keep_latents,
            noise_1CTHW=noise_1CTHW,
            loras=loras,
            any_base=request.any_base,
            store=request.store,
        )
        try:
            if request.decode and latent_BCTHW is not None:
                (out,) = prompts
                pipeline.finish(out, latent_BCTHW, request.decode)
            else:
                texts, originals = _texts(prompts, settings, request, stages)
                pipeline.run(texts, originals, sampler)
        except BaseException:  # the user's Ctrl-C among them
            for file in pipeline.kept.values():
                stages.note(f"a latent is kept, so this finishes the sample: {finishing(file)}")
            raise
    if pipeline.failures and not request.prompts:
        raise next(iter(pipeline.failures.values()))
    _report(prompts, pipeline.failures, settings, time.monotonic() - started, request)
    return 1 if pipeline.failures else 0


def _replayed(request: Request) -> Record | None:
    return read_record(request.replay) if request.replay else None


def _noise(request: Request, settings: Settings, checkpoint: Checkpoint) -> tuple[Tensor | None, Settings]:
    """The noise that was given, if any, and the settings that tell of it."""
    if request.noise_file:
        noise_1CTHW = read_noise(request.noise_file)
        require_shape(noise_1CTHW, (1, checkpoint.dit.in_channels, *settings.latent_grid))
        return noise_1CTHW, replace(settings, noise=noise_digest(noise_1CTHW))
    if request.given.keys() & {"seed", "noise_source"} and not request.decode:
        return None, replace(settings, noise="")
    if settings.noise and not request.decode:
        raise SampleError(
            f"{request.replay} was made from noise that was given; give its file as --noise (SHA-256 of its numbers: "
            f"{settings.noise[:12]})"
        )
    return None, settings


def _sampler(request: Request, settings: Settings, plugins: Plugins) -> Any:
    """What follows the velocity; decoding needs none, so a latent is finished where its sampler is not installed."""
    if "shift" in request.given and settings.schedule != "shifted":
        raise SampleError(
            f"the schedule {settings.schedule} has no shift: leave out --shift, or give --schedule shifted too"
        )
    return None if request.decode else plugins.load("sampler", settings.sampler)()


def _check_latent(out: Path, request: Request) -> None:
    """Refuse to sample again what only waits for its decoding."""
    file = latent_place(out)
    if file.exists() and not request.overwrite and not request.decode:
        raise SampleError(
            f"{file} exists already: an earlier run's latent. To make its sample: {finishing(file)}. To replace it, "
            "give --overwrite"
        )


def _compare_models(record: Record, checkpoint: Checkpoint, request: Request) -> None:
    """Refuse to repeat a sample with another model, unless that model was asked for."""
    if record.model_sha256 == checkpoint.digest:
        return
    what = f"{request.replay or request.decode} was made with another model than {checkpoint.name} is now"
    if not request.model:
        digests = f"manifest {record.model_sha256[:12]} then, {checkpoint.digest[:12]} now"
        raise SampleError(f"{what} ({digests}); give --model with the old one's place, or {checkpoint.name} to use it")
    print(f"note: {what}: the frames will differ", file=sys.stderr)


def _prompts(request: Request, settings: Settings) -> dict[Path, str]:
    """The files to make, each with its prompt."""
    ending = suffix(settings)
    if request.prompts is None:
        if request.out:
            return {request.out: settings.prompt}
        if request.decode:
            return {sample_place(request.decode, settings): settings.prompt}
        if request.replay:
            return {request.replay.with_name(f"{request.replay.stem}-replay{ending}"): settings.prompt}
        return {Path(f"{slug(settings.prompt)}-{settings.seed}{ending}"): settings.prompt}
    try:
        lines = request.prompts.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SampleError(f"{request.prompts} is not UTF-8 text; save it as that, one prompt per line") from error
    except OSError as error:
        what = f"can't be read ({error.strerror})"
        raise SampleError(f"{request.prompts} {what}; give a text file with one prompt per line") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise SampleError(f"{request.prompts} holds no prompt; write one per line")
    folder = request.out or Path()
    return {folder / f"{number:03}-{slug(prompt)}{ending}": prompt for number, prompt in enumerate(prompts, start=1)}


def _texts(
    prompts: Mapping[Path, str], settings: Settings, request: Request, stages: Stages
) -> tuple[Mapping[Path, str], dict[Path, str]]:
    """The text that each sample is made of, and what was asked for where that is another."""
    if request.rewrite:
        texts = rewrite_prompts(prompts, request, stages)
        return texts, {out: prompt for out, prompt in prompts.items() if texts[out] != prompt}
    kept = settings.original if request.replay and "prompt" not in request.given else ""
    return prompts, dict.fromkeys(prompts, kept)


def _report(
    prompts: Mapping[Path, str], failures: Mapping[Path, HyError], settings: Settings, seconds: float, request: Request
) -> None:
    for error in failures.values():
        print(f"failed: {error}", file=sys.stderr)
    length = f", {settings.frames} frames, {settings.frames / settings.fps:.2f} s at {settings.fps:g} fps"
    what = settings.size + (length if settings.frames > 1 else "")
    made = f"{len(prompts) - len(failures)} of {len(prompts)} samples in " if request.prompts else ""
    print(f"{made}{request.out if made else next(iter(prompts))}: {what}, made in {seconds:.1f} s")
