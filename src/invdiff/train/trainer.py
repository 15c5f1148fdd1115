"""The optimisation itself: one step, its loss, its rate, and checkpoints."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.photo import PhotoPrior
from invdiff.priors.photo_net import PhotoNet, channels_last, coordinates
from invdiff.priors.precond import predicts_edm
from invdiff.train.processes import Processes
from invdiff.train.recipe import Recipe
from invdiff.train.validation import interval, measure

ALONE = Processes()


class Trainer:
    """Network, running mean of its weights, optimiser, and the step they have reached.

    processes: those that train together; all of them hold the same state.
    """

    def __init__(
        self,
        recipe: Recipe,
        device: str,
        compile: bool,
        mixed: bool = True,
        processes: Processes = ALONE,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.mixed, self.processes = mixed, processes
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

    def start_from(self, prior: PhotoPrior) -> None:
        """Begin with the weights of a trained network, which may have fewer blocks.

        A block begins as the identity, so a deeper network begins as the function that the trained
        one is. Raises InvdiffError when the networks differ in more than their blocks.
        """
        weights, own = prior.net.state_dict(), self.net.state_dict()
        block = re.compile(r"(down|up)\.\d+\.\d+\.")
        fits = all(k in own and own[k].shape == w.shape for k, w in weights.items())
        if not fits or not all(k in weights or block.match(k) for k in own):
            raise InvdiffError(
                f"The weights to start from ({prior.net.config}) do not fit the network of the "
                f"recipe {self.recipe.name} ({self.recipe.net}); only blocks may be added."
            )
        for net in (self.net, self.ema):
            net.load_state_dict(weights, strict=False)

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
        """One step on clean images x0; the loss of eq. 8, unit weight in the network's units.

        Where the network is located, each of them is a whole image. Of several processes, each is
        given the whole batch and takes its rows; the loss is that of its rows.
        """
        p, g, dev, mine = self.precond, self.generator, x0.device, self.processes.rows
        sigmas = self.sigmas(len(x0))[mine]

        def each(c: Callable[[float], float]) -> Tensor:
            return torch.tensor([c(s) for s in sigmas], device=dev)[:, None, None, None]

        g.manual_seed(self.recipe.seed * 1_000_003 + 500_009 + self.step)
        z = torch.randn(x0.shape, generator=g, device=dev)[mine]
        x0 = x0[mine]
        x = x0 + each(float) * z
        target = (x0 - each(p.c_skip) * x) / each(p.c_out)
        place = coordinates(*x.shape[-2:]).to(dev)[:, : 4 * self.recipe.net.located]
        x_in = torch.cat([each(p.c_in) * x, place.expand(len(x), -1, -1, -1)], dim=1)
        x_in = x_in.contiguous(memory_format=torch.channels_last)
        with torch.autocast(dev.type, dtype=torch.bfloat16, enabled=self.mixed):
            output = self.forward(x_in, each(p.c_noise).flatten())
        loss = (output.float() - target).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.processes.average_(self._grads())
        with _undivided():
            self._update()
        return loss.detach()

    def _update(self) -> None:
        """Move the weights along the gradient, and their running mean after them."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self._clip(self._grads())
        self.optimizer.step()
        self.step += 1
        decay = min(self.recipe.ema, self.step / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.ema.parameters()), list(self.net.parameters()), 1 - decay
            )

    def _grads(self) -> list[Tensor]:
        return [p.grad for p in self.net.parameters() if p.grad is not None]

    def _clip(self, grads: list[Tensor]) -> None:
        """Shorten a gradient much longer than usual: one bad batch can undo hours."""
        norm = torch.stack([g.norm() for g in grads]).norm()
        longest = self.recipe.grad_clip * self.norm
        torch._foreach_mul_(grads, (longest / norm).clamp_max(1.0))
        self.norm.lerp_(torch.minimum(norm, longest), 0.02)

    def report(self, losses: list[Tensor], crops: Tensor | None) -> dict[str, Any]:
        """A line of the log; empties losses. Raises InvdiffError when the loss is not finite.

        The loss is that of whole batches, so all processes must call it. crops: held-out images to
        measure, at intervals and after the last step; the main process does.
        """
        mean = torch.stack(losses).mean()
        self.processes.average_([mean])
        loss = float(mean)
        losses.clear()
        if not math.isfinite(loss):
            raise InvdiffError(f"The loss is {loss} at step {self.step}; lower the rate lr.")
        row: dict[str, Any] = {"step": self.step, "loss": loss, "seconds": round(self.seconds, 1)}
        r = self.recipe
        due = self.step % interval(r.steps) == 0 or self.step == r.steps
        if crops is not None and due and self.processes.main:
            row |= measure(self.prior(), crops, r)
        return row

    def reports(self) -> bool:
        """Whether the log gets a line after this step."""
        r = self.recipe
        return self.step % 200 == 0 or self.step % interval(r.steps) == 0 or self.step == r.steps

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
        path.parent.mkdir(parents=True, exist_ok=True)  # another process may have left it, empty
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
