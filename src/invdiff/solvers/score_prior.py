"""Score-based priors: a law q is fitted to the posterior, with log p(x) of the diffusion model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from invdiff.core import batch_norm
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VPSDE, Schedule
from invdiff.priors.base import Prior
from invdiff.priors.bound import Bound
from invdiff.priors.likelihood import ProbabilityFlow, Window, rademacher
from invdiff.problem import Problem
from invdiff.sampling.needs import Need
from invdiff.sampling.particles import same_measurement
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State
from invdiff.sampling.steps import adam
from invdiff.solvers.families import DiagonalFamily, Family, RealNVP


@dataclass(frozen=True)
class ScorePrior(Solver):
    """min over q of E_q[-log p(y | x) - log p(x)] - entropy(q): one Adam step is one step.

    Feng, Smith, Rubinstein, Chang, Bouman, Freeman 2023, "Score-based diffusion models as
    principled priors for inverse imaging", arXiv 2304.11751 (`prior_term="exact"`: log p by the
    probability-flow equation), and Feng, Bouman 2024, "Variational Bayesian imaging with an
    efficient surrogate score-based prior", arXiv 2309.01949 (`"elbo"`: its lower bound b).
    x = G(z), z ~ N(0, I): phi -> extra["weights"], one row for each law that is fitted.

    One law is fitted to each measurement, whatever the number of its samples: `coupled`. It learns
    from noise of the seed of the measurement's first row; sample k is G at a fixed z of its own
    seed, in every state; x0 is G(0). Rows are of one measurement when y and A are the same.
    extra["evidence"]: the last estimate of the lower bound of log p(y) that is maximised.
    The schedule gives the number of steps, and with its first and last level above 0 the noise
    levels of the prior's density; nothing travels along it.

    Deviations: the coupling layers are those of `solvers.families.RealNVP`, 8 flow steps of 2 by
    default (the paper: 32); `times` noise levels a step, shared by the draws (the paper: one for
    each); the warm-up is a share of the run, and a cool-down is offered; the default run is short
    (the official ones: 10000 steps at 2e-4 or 20000 at 1e-5, of 64 draws). The official softplus
    at the output, for positive images, is not offered. The official code weighs the data by a
    sigmoid of the step even when told not to: here that is `anneal`.
    """

    name: ClassVar[str] = "score-prior"
    paper: ClassVar[str] = "Feng et al. 2023, arXiv 2304.11751; Feng, Bouman 2024, arXiv 2309.01949"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PRIOR_VJP, Need.OPERATOR_VJP, Need.DENSITY})
    coupled: ClassVar[bool] = True
    when_it_diverges: ClassVar[str] = "a smaller lr"

    prior_term: Literal["elbo", "exact"] = knob("elbo", "log p(x): its lower bound, or exact")
    family: Literal["realnvp", "gaussian"] = knob("realnvp", "the laws that q is chosen from")
    draws: int = knob(16, "draws of q per step", 1)
    times: int = knob(4, "noise levels per step for elbo; at most one for each draw counts", 1)
    tilt: float = knob(0.0, "small noise levels are drawn as sigma^-tilt more often in elbo", 0, 4)
    lr: float = knob(2e-3, "step size of Adam, after the warm-up", 0)
    warmup: float = knob(0.25, "share of the run in which the step size rises from 0", 0, 1)
    cooldown: float = knob(
        0.0, "share of the run in which the step size falls to 0, at its end", 0, 1
    )
    clip: float = knob(1.0, "gradients of a larger norm are scaled down to it", 0)
    data_weight: float = knob(1.0, "weight of the log-likelihood; 0 ignores y", 0)
    anneal: bool = knob(False, "the data weight rises as a sigmoid around step 12000")
    flow_steps: int = knob(8, "pairs of coupling layers of realnvp", 1)
    width: float = knob(0.125, "hidden width of realnvp, as a share of the number of pixels", 0)
    ode_steps: int = knob(30, "Runge-Kutta steps for exact", 1)
    probes: int = knob(16, "random vectors for the trace in exact; 0 is the exact trace", 0)
    schedule: Schedule = field(default=VE(1000, 100.0, 0.01), kw_only=True)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """configs/dpi_config.py of berthyf96/score_prior, as far as ScorePrior has it: 64 draws
        with a noise level for each, 20000 steps at 1e-5, warm-up of 5000, 32 pairs of coupling
        layers."""
        how = cls(draws=64, times=64, lr=1e-5, anneal=True, flow_steps=32, schedule=VPSDE(20000))
        return {"imaging": how}

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        like = problem.x_like
        z = rng.normal(like, "sample")
        first = same_measurement(problem, z[:1])
        fitted, q = sorted(set(first)), self._family(problem)
        weights = q.start(rng.rows(fitted).normal(like.new_empty(len(fitted), q.size), "weights"))
        extra = {
            "z": z,
            "law": like.new_tensor([fitted.index(f) for f in first]),
            "weights": weights,
            "m": 0 * weights,
            "v": 0 * weights,
            "evidence": like.new_zeros(len(fitted)),
        }
        return State(0, *self._samples(q, extra, weights), extra)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        k, e, q = state.step, state.extra, self._family(problem)
        law = e["law"].tolist()
        grads, evidence = [], []
        for i, w in enumerate(e["weights"]):
            row = law.index(i)
            own, size = rng.rows([row]), (1, self.draws, *q.shape)
            z = own.normal(w.new_empty(size), "draws")[0]
            x, log_det, pull = q.push_vjp(w, z)
            log_y, grad_y = self._likelihood(problem, row, x)
            log_x, grad_x = self._prior(prior, x, own)
            data = self.data_weight * self._annealing(k)
            share = torch.full_like(log_det, 1 / self.draws)
            grads.append(-pull((data * grad_y + grad_x) / self.draws, share))
            entropy = 0.5 * z[0].numel() * math.log(2 * math.pi * math.e) + log_det
            evidence.append((data * log_y + log_x + entropy).mean())
        g = torch.stack(grads)
        g = g * (self.clip / batch_norm(g).clamp_min(self.clip))
        rise, fall = (max(share * self.num_steps, 1.0) for share in (self.warmup, self.cooldown))
        lr = self.lr * min(1.0, (k + 1) / rise, (self.num_steps - k) / fall)
        change, m, v = adam(g, e["m"], e["v"], k)
        weights = e["weights"] - lr * change
        new = {"weights": weights, "m": m, "v": v, "evidence": torch.stack(evidence)}
        return State(k + 1, *self._samples(q, e, weights), {**e, **new})

    def _likelihood(self, problem: Problem, row: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p(y | x) for the measurement of a row, (draws,), and its gradient in x."""
        index = torch.tensor([row], device=x.device)
        A, y = problem.A.rows(index), problem.y[index]
        z = A(x)
        y = y.expand_as(z)
        return problem.noise.log_prob(y, z), A.vjp(x, problem.noise.score(y, z))

    def _prior(self, prior: Prior, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """log p(x) or an estimate of its bound, (draws,), and its gradient in x."""
        window = Window(self.levels[-2].sigma, self.levels[0].sigma)
        if self.prior_term == "exact":
            flow = ProbabilityFlow(window, steps=self.ode_steps)
            probes = rademacher(x[None], self.probes, rng)[:, 0] if self.probes else None
            return flow.log_prob_grad(prior, x, probes)
        bound, times = Bound(window.of(prior), self.tilt), min(self.times, self.draws)
        eps = rng.normal(x[None], "eps")[0]
        start = float(rng.uniform(x.new_empty(1, 1), "time"))
        parts = zip(x.tensor_split(times), eps.tensor_split(times), strict=True)
        found = [
            bound.estimate(prior, part, (start + j / times) % 1.0, noise)
            for j, (part, noise) in enumerate(parts)
        ]
        values, grads = zip(*found, strict=True)
        return torch.cat(values), torch.cat(grads)

    def _annealing(self, k: int) -> float:
        """Weight of the data at step k: 1, or that of the official code."""
        return 1 / (1 + math.exp(-0.002 * (k - 12000))) if self.anneal else 1.0

    def _family(self, problem: Problem) -> Family:
        shape = problem.x_shape
        if self.family == "gaussian":
            return DiagonalFamily(shape)
        return RealNVP(shape, self.flow_steps, max(8, round(self.width * math.prod(shape))))

    def _samples(
        self, q: Family, extra: Mapping[str, Tensor], weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """G(z) and G(0) of every row, under the law of its measurement."""
        z = extra["z"]
        x, centre = torch.empty_like(z), torch.empty_like(z)
        for i, w in enumerate(weights):
            own = extra["law"] == i
            made = q.push(w, torch.cat([torch.zeros_like(z[:1]), z[own]]))[0]
            x[own], centre[own] = made[1:], made[:1]
        return x, centre
