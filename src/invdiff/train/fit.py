"""Train a denoiser by a recipe: progress, log, atomic checkpoints, resume, weights and a card."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from invdiff.core import InvdiffError
from invdiff.priors.photo import PhotoPrior, load_weights, psnr_by_sigma, save_weights
from invdiff.train.card import write_card
from invdiff.train.data import PatchSampler, centre_crops
from invdiff.train.files import read
from invdiff.train.recipe import Recipe
from invdiff.train.trainer import VALIDATION_SIGMAS, Trainer
from invdiff.train.wiener import Wiener


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
    log.jsonl, and at the end NAME.safetensors (float16 weights), NAME.md (the card) and NAME.json
    (the figures in it).
    steps, batch, patch, key override the recipe. start: weights of an earlier training to begin
    with, of the same network or one with fewer blocks. device: "auto", "cpu", "cuda".
    save_every: seconds between checkpoints. compile: use torch.compile. mixed: run the network in
    bfloat16.
    A checkpoint is replaced in one move; KeyboardInterrupt leaves one, too.
    Raises InvdiffError for data without usable images, a patch that does not fit the network,
    a checkpoint without --resume or of another network, and a loss that is not finite.
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
    train, valid = read(Path(data), recipe)
    torch.backends.cudnn.benchmark = True
    run = Trainer(recipe, device, compile, mixed)
    step = run.net.stride * max(recipe.scales)
    if recipe.patch % step and recipe.become != "moving clips":
        raise InvdiffError(
            f"Patches of {recipe.patch} pixels do not fit this network; give a multiple of {step}."
        )
    out.mkdir(parents=True, exist_ok=True)
    earlier = None if start is None else load_weights(start)
    if checkpoint.exists():
        run.load(checkpoint)
    elif earlier is not None:
        run.start_from(earlier)
    sampler = PatchSampler(train, recipe, device)
    crops = centre_crops(valid, recipe, recipe.validated)
    crops = None if crops is None else crops.to(device)
    bar = tqdm(total=recipe.steps, initial=run.step, disable=not progress, unit="step")
    began = saved = time.monotonic()
    before, losses = run.seconds, list[Tensor]()
    with bar, open(out / "log.jsonl", "a") as log:
        try:
            while run.step < recipe.steps and time.monotonic() - began < 60 * minutes:
                losses.append(run.advance(sampler(run.step)))
                bar.update()
                run.seconds = before + time.monotonic() - began
                if run.step % 200 == 0 or run.step == recipe.steps:
                    row = run.report(losses, crops)
                    log.write(json.dumps(row) + "\n")
                    log.flush()
                    bar.set_postfix(loss=f"{row['loss']:.4f}")
                if time.monotonic() - saved > save_every:
                    run.save(checkpoint)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            run.save(checkpoint)
            raise
    run.save(checkpoint)
    if run.step < recipe.steps:
        return False
    prior = run.prior()
    facts = {
        "recipe": asdict(recipe),
        "training_images": len(train),
        "validation_images": len(valid),
        "hardware": _hardware(device),
        "hours": round(run.seconds / 3600, 3),
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in run.net.parameters()),
    }
    if earlier is not None:
        facts["started_from"] = earlier.facts
    if crops is not None:
        facts["psnr"] = prior.psnr_by_sigma(crops, VALIDATION_SIGMAS)
        facts["others"] = _others(prior, crops, centre_crops(train, recipe, 500), recipe)
    save_weights(run.ema, out / f"{recipe.name}.safetensors", facts)
    _write(out / f"{recipe.name}.json", json.dumps(facts, indent=1) + "\n")
    _write(out / f"{recipe.name}.md", write_card(facts))
    return True


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


def _hardware(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"CPU, {os.cpu_count()} cores"


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text)
    os.replace(part, path)
