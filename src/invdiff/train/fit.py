"""Train a denoiser by a recipe: progress, log, atomic checkpoints, resume, weights and a card."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from invdiff.core import InvdiffError
from invdiff.priors.photo import PhotoPrior, save_weights
from invdiff.priors.photo_net import PhotoNet, channels_last
from invdiff.priors.precond import predicts_edm
from invdiff.train.card import write_card
from invdiff.train.data import PatchSampler, centre_crops, read_folder
from invdiff.train.recipes import Recipe

VALIDATION_SIGMAS = (0.05, 0.1, 0.2, 0.5, 1.0)


def fit(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    steps: int | None = None,
    batch: int | None = None,
    patch: int | None = None,
    minutes: float = math.inf,
    device: str = "auto",
    compile: bool = False,
    mixed: bool = True,
    resume: bool = False,
    save_every: float = 120.0,
    progress: bool = True,
) -> bool:
    """Train until the recipe's last step or for `minutes`; True when training is complete.

    data: folder of images. out: receives checkpoint.pt (to resume), log.jsonl, and at the end
    NAME.safetensors (float16 weights), NAME.md (the card) and NAME.json (the figures in it).
    steps, batch, patch override the recipe. device: "auto", "cpu", "cuda". save_every: seconds
    between checkpoints. compile: use torch.compile. mixed: run the network in bfloat16.
    A checkpoint is replaced in one move; KeyboardInterrupt leaves one, too.
    Raises InvdiffError for a folder without usable images, a patch that does not fit the network,
    a checkpoint without --resume or of another network, and a loss that is not finite.
    """
    changes = {"steps": steps, "batch": batch, "patch": patch}
    recipe = replace(recipe, **{k: v for k, v in changes.items() if v})  # type: ignore[arg-type]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists() and not resume:
        raise InvdiffError(
            f"{checkpoint} exists; continue it with --resume, or choose another folder."
        )
    train, valid = read_folder(Path(data), recipe)
    torch.backends.cudnn.benchmark = True
    run = _Run(recipe, device, compile, mixed)
    if recipe.patch % run.net.stride:
        raise InvdiffError(
            f"Patches of {recipe.patch} pixels do not fit this network; "
            f"give a multiple of {run.net.stride}."
        )
    out.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        run.load(checkpoint)
    sampler = PatchSampler(train, recipe, device)
    crops = centre_crops(valid, 256)
    crops = None if crops is None else crops[:12].to(device)
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
    if crops is not None:
        facts["psnr"] = prior.psnr_by_sigma(crops, VALIDATION_SIGMAS)
    save_weights(run.ema, out / f"{recipe.name}.safetensors", facts)
    _write(out / f"{recipe.name}.json", json.dumps(facts, indent=1) + "\n")
    _write(out / f"{recipe.name}.md", write_card(facts))
    return True


class _Run:
    """Network, running mean of its weights, optimiser, and the step they have reached."""

    def __init__(self, recipe: Recipe, device: str, compile: bool, mixed: bool = True) -> None:
        torch.manual_seed(recipe.seed)
        self.mixed = mixed
        self.recipe, self.device, self.step, self.seconds = recipe, device, 0, 0.0
        self.precond = predicts_edm(recipe.net.sigma_data)
        self.net = channels_last(PhotoNet(recipe.net).to(device))
        self.ema = channels_last(PhotoNet(recipe.net).to(device))
        self.ema.load_state_dict(self.net.state_dict())
        self.ema.requires_grad_(False)
        self.forward = torch.compile(self.net) if compile else self.net
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=1e-4
        )
        self.generator = torch.Generator(device=device)
        self.norm = torch.ones((), device=device)  # running mean of the gradient's norm

    def rate(self) -> float:
        """Learning rate of the current step."""
        r = self.recipe
        warm = min(1.0, (self.step + 1) / r.warmup)
        return r.lr * warm * min(1.0, (r.steps - self.step) / (r.cooldown * r.steps))

    def sigmas(self, n: int) -> list[float]:
        """n noise levels, drawn on the host: a function of (recipe.seed, step)."""
        r, g = self.recipe, torch.Generator()
        g.manual_seed(r.seed * 1_000_003 + 250_007 + self.step)
        lo, hi = math.log(r.sigma_min), math.log(r.sigma_max)
        normal = r.p_mean + r.p_std * torch.randn(n, generator=g)
        uniform = lo + (hi - lo) * torch.rand(n, generator=g)
        tail = torch.rand(n, generator=g) < r.tail
        return torch.where(tail, uniform, normal).clamp(lo, hi).exp().tolist()

    def advance(self, x0: Tensor) -> Tensor:
        """One step on clean patches x0; the loss of eq. 8, unit weight in the network's units."""
        p, g, dev, sigmas = self.precond, self.generator, x0.device, self.sigmas(len(x0))

        def each(c: Callable[[float], float]) -> Tensor:
            return torch.tensor([c(s) for s in sigmas], device=dev)[:, None, None, None]

        g.manual_seed(self.recipe.seed * 1_000_003 + 500_009 + self.step)
        x = x0 + each(float) * torch.randn(x0.shape, generator=g, device=dev)
        target = (x0 - each(p.c_skip) * x) / each(p.c_out)
        x_in = (each(p.c_in) * x).contiguous(memory_format=torch.channels_last)
        with torch.autocast(dev.type, dtype=torch.bfloat16, enabled=self.mixed):
            output = self.forward(x_in, each(p.c_noise).flatten())
        loss = (output.float() - target).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        with _undivided():
            self._update()
        return loss.detach()

    def _update(self) -> None:
        """Move the weights along the gradient, and their running mean after them."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self._clip([p.grad for p in self.net.parameters() if p.grad is not None])
        self.optimizer.step()
        self.step += 1
        decay = min(self.recipe.ema, self.step / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.ema.parameters()), list(self.net.parameters()), 1 - decay
            )

    def _clip(self, grads: list[Tensor]) -> None:
        """Shorten a gradient much longer than usual: one bad batch can undo hours."""
        norm = torch.stack([g.norm() for g in grads]).norm()
        longest = self.recipe.grad_clip * self.norm
        torch._foreach_mul_(grads, (longest / norm).clamp_max(1.0))
        self.norm.lerp_(torch.minimum(norm, longest), 0.02)

    def report(self, losses: list[Tensor], crops: Tensor | None) -> dict[str, Any]:
        """A line of the log; empties losses. Raises InvdiffError when the loss is not finite."""
        loss = float(torch.stack(losses).mean())
        losses.clear()
        if not math.isfinite(loss):
            raise InvdiffError(f"The loss is {loss} at step {self.step}; lower the rate lr.")
        row: dict[str, Any] = {"step": self.step, "loss": loss, "seconds": round(self.seconds, 1)}
        if crops is not None and self.step % 2000 == 0:
            row["psnr"] = self.prior().psnr_by_sigma(crops, VALIDATION_SIGMAS)
        return row

    def prior(self) -> PhotoPrior:
        """The denoiser of the running mean of the weights."""
        return PhotoPrior(self.ema)

    def save(self, path: Path) -> None:
        """Write a checkpoint in one move."""
        state = {
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "norm": self.norm,
            "step": self.step,
            "seconds": self.seconds,
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint. Raises InvdiffError when it is broken or of another net."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.net.load_state_dict(state["net"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.norm.copy_(state["norm"])
            self.step, self.seconds = state["step"], state["seconds"]
        except Exception as error:
            raise InvdiffError(
                f"{path} is no checkpoint of the recipe {self.recipe.name} "
                f"({type(error).__name__}); choose another folder."
            ) from error


@contextlib.contextmanager
def _undivided() -> Iterator[None]:
    """An interrupt waits for the block's end: weights that are half updated cannot be resumed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(n, lambda number, frame: came.append(number)) for n in numbers]
    try:
        yield
    finally:
        for n, handler in zip(numbers, before, strict=True):
            signal.signal(n, handler)
        for arrived in came:
            signal.raise_signal(arrived)


def _hardware(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"CPU, {os.cpu_count()} cores"


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text)
    os.replace(part, path)
