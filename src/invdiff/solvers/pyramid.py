"""Pyramidal diffusion: a coarse image first, then finer ones that start from it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor

from invdiff.core import CLEAN, InvdiffError, Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP, Schedule
from invdiff.operators.algebra import Linear
from invdiff.operators.downsample import Upsample
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Solver, knob
from invdiff.sampling.state import State


class Move(NamedTuple):
    """One reverse step: at which scale (0 is the image's own, k is 2^k times smaller), between
    which levels."""

    scale: int
    level: Level
    to: Level


@dataclass(frozen=True)
class Pyramid(Solver):
    """The whole reverse chain at the coarsest scale; then, scale by scale, x <- a up(x) + s z and
    the last t0 of the chain; with a data term in every step.

    Ryu, Ye 2022, "Pyramidal denoising diffusion probabilistic models", arXiv 2208.01864: one
    network for all scales, started at finer ones as in Chung, Sim, Ye 2022 (arXiv 2112.05146).
    An image of H x W pixels has ceil(H / 2^k) x ceil(W / 2^k) at scale k = scales - 1, ..., 0, but
    no scale has a side below `smallest`: what would be smaller is done at the last size above it.
    The operator of scale k is A @ Upsample(2^k), on small images what A is on large ones. For the
    mean over blocks of S x S pixels it is the mean over blocks of S / 2^k.

    data "gradient": x' - rho grad_{x_t} |y - A_k x0|, as DPS does it; rho is in the frame of a
    variance-preserving schedule. data "overwrite": x' + A_k^+ (a y + s A_k z - A_k x') at the level
    that x' has reached, after ILVR; noise in y is then copied.
    schedule.steps counts the steps of all scales; every finer one takes t0 of those of the
    coarsest. With fewer steps than scales the coarsest are left out. x of a state has the size of
    its scale; x0 is enlarged by repetition.

    The defaults of rho, t0 and the number of steps are not the paper's: they were chosen by eye.
    A network that was trained at one resolution only will run, but it takes a small picture for a
    piece of a large one: the method wants one that was trained at all scales.
    """

    name: ClassVar[str] = "pyramid"
    paper: ClassVar[str] = "Ryu, Ye 2022, arXiv 2208.01864"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PRIOR_VJP, Need.OPERATOR_VJP})

    when_it_diverges: ClassVar[str] = "a smaller rho or more steps"

    scales: int = knob(3, "how many scales, each with half the side of the next", 1, 10)
    t0: float = knob(0.25, "share of the chain that is run at each finer scale", 1e-3, 1)
    data: Literal["gradient", "overwrite"] = knob("gradient", "how y enters each step")
    rho: float = knob(2.0, "step size of the gradient; 0 ignores y", 0)
    eta_ddim: float = knob(1.0, "fresh noise per step: 0 is deterministic, 1 is DDPM", 0, 1)
    smallest: int = knob(8, "no side of a scale has fewer pixels than this", 1)
    schedule: Schedule = field(default=VP(300), kw_only=True)

    def requires(self) -> tuple[frozenset[Need], ...]:
        return (frozenset({Need.PINV}) if self.data == "overwrite" else self.needs,)

    @property
    def moves(self) -> list[Move]:
        """All steps, computed once: of the coarsest scale, then of the finer ones."""
        if "_moves" not in self.__dict__:
            n = self.schedule.steps
            finer = min(self.scales, n) - 1
            share = max(1, int(n * self.t0 / (1 + finer * self.t0)))
            chain = dataclasses.replace(self.schedule, steps=n - finer * share).levels()
            parts = [chain] + [chain[-share - 1 :]] * finer
            self.__dict__["_moves"] = [
                Move(finer - i, *pair) for i, part in enumerate(parts) for pair in pairwise(part)
            ]
        moves: list[Move] = self.__dict__["_moves"]
        return moves

    @property
    def levels(self) -> list[Level]:
        """Where every step starts, and the clean end."""
        return [move.level for move in self.moves] + [CLEAN]

    def factor(self, scale: int, size: tuple[int, ...]) -> int:
        """How many times smaller than size (H, W) the images of a scale are, per side."""
        factor: int = 2**scale
        while factor > 1 and -(-min(size) // factor) < self.smallest:
            factor //= 2
        return factor

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        size, first = problem.x_shape[-2:], self.moves[0]
        small = _sides(size, self.factor(first.scale, size))
        sides = prior.shape[-2:] if prior.shape else (None, None)
        if any(want not in (None, have) for want, have in zip(sides, small, strict=True)):
            raise InvdiffError(
                f"pyramid begins with {small[0]} x {small[1]} pixels, but the prior {prior.name} "
                "has a fixed size; take a prior of any size, or 1 scale."
            )
        like = problem.x_like.new_empty(problem.batch, *problem.x_shape[:-2], *small)
        z = rng.normal(like, "init")
        return State(0, first.level.s * z, torch.zeros_like(problem.x_like))

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        scale, level, to = self.moves[state.step]
        x, size = state.x, problem.x_shape[-2:]
        factor, before = self.factor(scale, size), self.moves[max(state.step - 1, 0)].scale
        if scale != before:
            ratio = self.factor(before, size) // factor
            x = level.a * enlarged(x, ratio, _sides(size, factor), "bicubic")
            x = x + level.s * rng.normal(x, "jump")
        A = problem.A @ _up(factor, size, "nearest") if factor > 1 else problem.A
        z = rng.normal(x, "step")
        if self.data == "gradient":
            x0, pull = prior.x0_vjp(x, level, once=True)
            new = steps.ddim(x0, eps_from(x, x0, level), level, to, z, self.eta_ddim)
            new = new + self.rho * pull(A.vjp(x0, steps.unit(problem.y - A(x0))))
        else:
            x0 = prior.x0(x, level)
            new = steps.ddim(x0, eps_from(x, x0, level), level, to, z, self.eta_ddim)
            z = rng.normal(x, "known")
            new = steps.replace(new, problem, to, z, A=cast("Linear", A))
        return State(state.step + 1, new, enlarged(x0, factor, size, "nearest"))


Kind = Literal["nearest", "bicubic"]


def enlarged(x: Tensor, factor: int, size: tuple[int, ...], kind: Kind) -> Tensor:
    """x with `factor` times as many pixels per side, cut to size (H, W)."""
    return _up(factor, size, kind)(x) if factor > 1 else x


@lru_cache(maxsize=64)
def _up(factor: int, size: tuple[int, ...], kind: Kind) -> Upsample:
    return Upsample(factor, (size[0], size[1]), kind)


def _sides(size: tuple[int, ...], factor: int) -> tuple[int, int]:
    return -(-size[0] // factor), -(-size[1] // factor)
