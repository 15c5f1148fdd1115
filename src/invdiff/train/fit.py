"""Train a denoiser by a recipe: progress, log, atomic checkpoints, resume, weights and a card."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from invdiff.core import InvdiffError
from invdiff.core.limits import limited
from invdiff.core.signals import as_interrupt
from invdiff.priors.photo import PhotoPrior, load_weights, psnr_by_sigma, save_weights
from invdiff.priors.spectrum import beside, save
from invdiff.train.card import write_card
from invdiff.train.data import PatchSampler, centre_crops
from invdiff.train.drawings import draw_curve, draw_samples, read_log
from invdiff.train.files import check_data, read
from invdiff.train.processes import Processes, launched
from invdiff.train.recipe import Recipe
from invdiff.train.spectrum import measured, patches
from invdiff.train.trainer import Trainer
from invdiff.train.validation import VALIDATION_SIGMAS, some_of
from invdiff.train.wiener import Wiener

MOST_BYTES = 10**10
"""Of the pixels in the patches of a step."""


def fit(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    steps: int | None = None,
    batch: int | None = None,
    patch: int | None = None,
    key: str | None = None,
    start: Path | None = None,
    minutes: float = math.inf,
    device: str = "auto",
    compile: bool = False,
    mixed: bool = True,
    resume: bool = False,
    save_every: float = 120.0,
    progress: bool = True,
) -> bool:
    """Train until the recipe's last step or for `minutes`; True when training is complete.

    data: folder or tar archive of images, or array file. out: receives checkpoint.pt (to resume),
    log.jsonl, and at the end NAME.safetensors (float16 weights), NAME.spectrum.json (its errors),
    NAME.md (the card), NAME.json (the figures in it), NAME-curve.png and NAME-samples.png (the
    pictures in it).
    steps, batch, patch, key override the recipe. start: weights of an earlier training to begin
    with, of the same network or one with fewer blocks. device: "auto", "cpu", "cuda".
    save_every: seconds between checkpoints. compile: use torch.compile. mixed: run the network in
    bfloat16.
    A checkpoint is replaced in one move; KeyboardInterrupt leaves one, too.
    Where torchrun or `accelerate launch` started several processes, each takes an equal share of
    every batch, on the GPU of its local rank, and the first writes all files. batch stays that of
    a whole step. Checkpoints do not depend on how many processes there are.
    Raises InvdiffError for data without usable images, a patch that does not fit the network,
    a checkpoint without --resume or of another network, a batch that cannot be shared equally, and
    a loss that is not finite.
    """
    changes = {"steps": steps, "batch": batch, "patch": patch, "key": key}
    recipe = replace(recipe, **{k: v for k, v in changes.items() if v})  # type: ignore[arg-type]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists() and not resume:
        raise InvdiffError(
            f"{checkpoint} exists; continue it with --resume, or choose another folder."
        )
    if resume and not checkpoint.exists() and _first():
        raise InvdiffError(
            f"There is no {checkpoint} to go on from; leave --resume out to begin, or give the "
            "--out of the training that was interrupted."
        )
    if out.exists() and not out.is_dir():
        raise InvdiffError(f"{out} is a file; give a folder with --out.")
    check_data(Path(data), key)
    processes = launched(device)
    device = processes.device
    torch.backends.cudnn.benchmark = True
    run = Trainer(recipe, device, compile, mixed, processes)
    _check_batch(recipe, run)
    earlier = None if start is None else load_weights(start)
    if checkpoint.exists():
        run.load(checkpoint)
    elif earlier is not None:
        run.start_from(earlier)
    train, valid = read(Path(data), recipe)
    with _unless_it_fails(out, checkpoint):
        return _train(run, train, valid, out, checkpoint, earlier, minutes, save_every, progress)


def _train(
    run: Trainer,
    train: list[np.ndarray],
    valid: list[np.ndarray],
    out: Path,
    checkpoint: Path,
    earlier: PhotoPrior | None,
    minutes: float,
    save_every: float,
    progress: bool,
) -> bool:
    """`fit` of what was read and checked."""
    recipe, processes = run.recipe, run.processes
    device = processes.device
    processes.check_equal(len(train), "numbers of images")
    processes.check_equal(int(run.prior().fingerprint[:12], 16), "weights")
    if processes.main:
        (out / "log.jsonl").touch()
    sampler = PatchSampler(train, recipe, device)
    crops = centre_crops(valid, recipe, recipe.validated)
    crops = None if crops is None else crops.to(device)
    some = None if crops is None else some_of(crops)
    shown = progress and processes.main
    bar = tqdm(total=recipe.steps, initial=run.step, disable=not shown, unit="step")
    began = saved = time.monotonic()
    before, losses = run.seconds, list[Tensor]()
    with bar, _saved_when_interrupted(run, checkpoint) as came:
        while run.step < recipe.steps:
            late = time.monotonic() - began >= 60 * minutes
            late, interrupted = processes.any(late, bool(came))
            if interrupted:
                raise KeyboardInterrupt
            if late:
                break
            losses.append(run.advance(sampler(run.step)))
            bar.update()
            run.seconds = before + time.monotonic() - began
            if run.reports():
                row = run.report(losses, some)
                bar.set_postfix(loss=f"{row['loss']:.4f}")
                if processes.main:
                    _append(out / "log.jsonl", row)
            if processes.main and time.monotonic() - saved > save_every:
                run.save(checkpoint)
                saved = time.monotonic()
    if processes.main:
        run.save(checkpoint)
        if run.step == recipe.steps:
            facts = _facts(run, len(train), len(valid), crops)
            if earlier is not None:
                facts["started_from"] = earlier.facts
            if crops is not None:
                known = centre_crops(train, recipe, 500)
                facts["others"] = _others(run.prior(), crops, known, recipe)
            beside(out / f"{recipe.name}.safetensors").unlink(missing_ok=True)  # of older weights
            _finish(run, out, facts, some)
            weights = load_weights(out / f"{recipe.name}.safetensors")
            held_out = patches(weights, recipe, valid or train)
            save(measured(weights, held_out), beside(out / f"{recipe.name}.safetensors"))
    processes.wait()
    return run.step == recipe.steps


def _check_batch(recipe: Recipe, run: Trainer) -> None:
    """Raise InvdiffError unless patches fit the network, and a batch the processes."""
    clips, count = recipe.become == "moving clips", run.processes.count
    step = run.net.stride * max(recipe.scales)
    if recipe.patch % step and not clips:
        raise InvdiffError(
            f"Patches of {recipe.patch} pixels do not fit this network; give a multiple of {step}."
        )
    each = 4 * recipe.net.channels * recipe.patch**2
    limited("A step", recipe.batch, "patches of this size", max(1, MOST_BYTES // each), each)
    share = count * (2 if clips and count > 1 else 1)
    if recipe.batch % share:
        raise InvdiffError(
            f"A batch of {recipe.batch} cannot be shared equally by {count} processes; give a "
            f"--batch that is a multiple of {share}."
        )


def _first() -> bool:
    """Whether this is the first of the processes, as torchrun counts them, or the only one."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _unless_it_fails(out: Path, checkpoint: Path) -> Iterator[None]:
    """The folder out, which is removed again where a first training fails before its checkpoint."""
    missing = [p for p in (out, *out.parents) if not p.exists()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if missing and _first() and not checkpoint.exists():
            (out / "log.jsonl").unlink(missing_ok=True)
            with suppress(OSError):  # with other files in it
                for folder in missing:
                    folder.rmdir()
        raise


@contextmanager
def _saved_when_interrupted(run: Trainer, checkpoint: Path) -> Iterator[list[int]]:
    """An interrupt leaves a checkpoint; of several processes, the signals that came (for `any`)."""
    with run.processes.interrupts() as came:
        try:
            yield came
        except (KeyboardInterrupt, Exception) as error:
            if isinstance(as_interrupt(error), KeyboardInterrupt) and run.processes.main:
                run.save(checkpoint)
            raise


def _append(log: Path, row: dict[str, Any]) -> None:
    with open(log, "a") as file:
        file.write(json.dumps(row) + "\n")


def _facts(run: Trainer, training: int, validation: int, crops: Tensor | None) -> dict[str, Any]:
    """What the card tells of a complete training."""
    facts: dict[str, Any] = {
        "recipe": asdict(run.recipe),
        "training_images": training,
        "validation_images": validation,
        "hardware": _hardware(run.processes),
        "hours": round(run.seconds / 3600, 3),
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in run.net.parameters()),
    }
    if crops is not None:
        facts["psnr"] = run.prior().psnr_by_sigma(crops, VALIDATION_SIGMAS)
    return facts


def _finish(run: Trainer, out: Path, facts: dict[str, Any], some: Tensor | None) -> None:
    """Write the weights, the pictures, the facts and the card."""
    r, pictures = run.recipe, dict[str, str]()
    rows = read_log(out / "log.jsonl")
    if rows:
        pictures["curve"] = f"{r.name}-curve.png"
        draw_curve(rows, out / pictures["curve"])
    if some is not None and any("held_out_loss" in row for row in rows):  # old logs have none
        facts["curve_images"] = len(some)
    shape = r.shape or (r.net.channels, None, None)
    prior = PhotoPrior(run.ema, shape=shape)
    try:
        name = f"{r.name}-samples.png"
        sides = tuple(side or r.patch for side in shape)
        draw_samples(prior, sides, out / name, run.processes.device)
        pictures["samples"] = name
    except InvdiffError as error:  # a network that has learnt little may diverge
        facts["no_samples"] = str(error)
    facts["pictures"] = pictures
    save_weights(run.ema, out / f"{r.name}.safetensors", facts)
    _write(out / f"{r.name}.json", json.dumps(facts, indent=1) + "\n")
    _write(out / f"{r.name}.md", write_card(facts))


def _others(
    prior: PhotoPrior, crops: Tensor, known: Tensor | None, recipe: Recipe
) -> dict[str, dict[str, float]]:
    """PSNR of the Wiener filter that training images give, and of both on reduced images."""
    found = {}
    for scale in recipe.scales:
        small = F.avg_pool2d(crops, scale)
        where = f" at {small.shape[-2]} x {small.shape[-1]}" if scale > 1 else ""
        if scale > 1:
            found[f"PSNR{where}"] = prior.psnr_by_sigma(small, VALIDATION_SIGMAS)
        if known is not None:
            wiener = Wiener(F.avg_pool2d(known.to(crops.device), scale))
            found[f"Wiener filter{where}"] = psnr_by_sigma(wiener, small, VALIDATION_SIGMAS)
    return found


def _hardware(processes: Processes) -> str:
    if processes.device.startswith("cuda"):
        name = torch.cuda.get_device_name()
        return name if processes.count == 1 else f"{processes.count} x {name}"
    several = "" if processes.count == 1 else f", {processes.count} processes"
    return f"CPU, {os.cpu_count()} cores{several}"


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text)
    os.replace(part, path)
