"""log p(x) of a prior, exact up to a solver's tolerance: the probability-flow equation.

With x = x0 + sigma eps and the denoiser D, the deterministic flow that keeps the laws of x is
dx / d ln sigma = x - D(x, sigma), and d log p / d ln sigma = tr(dD/dx) - n along it. Hence

    log p_{s0}(x) = log p_{s1}(x') + n ln(s1 / s0) - int_{s0}^{s1} tr(dD/dx) dln sigma

where x' is reached from x, s0 = sigma_min and s1 = sigma_max. It is solved here for u = a x with
a = 1 / sqrt(1 + sigma^2), the variance-preserving frame, in which data of unit variance stand
still: du / d ln sigma = a (a u - D).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from invdiff.core import InvdiffError, Level, log_normal
from invdiff.core.rng import Rng
from invdiff.priors.base import Prior

Field = Callable[[Tensor, float], tuple[Tensor, Tensor]]
"""(u, ln sigma) to (du / d ln sigma, tr dD/dx), shapes of u and (B,)."""


@dataclass(frozen=True)
class Window:
    """The noise levels between which a density is computed, and the law at the noisy end.

    sigma_min: x is scored by the law of x0 + sigma_min eps, which is smooth; > 0.
    sigma_max: where the law is taken to be N(0, sigma_max^2 + data_std^2). data_std = 1 is N(0, I)
    in the variance-preserving frame, as in the paper; data_std = 0 is the paper's law for the
    variance-exploding frame. Either is off by O(|mean of the data| / sigma_max) in log p.
    """

    sigma_min: float = 0.01
    sigma_max: float = 100.0
    data_std: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min <= self.sigma_max < math.inf or not self.data_std >= 0:
            raise InvdiffError(
                "A density needs noise levels 0 < sigma_min <= sigma_max and data_std >= 0, found "
                f"{self.sigma_min}, {self.sigma_max} and {self.data_std}."
            )

    def of(self, prior: Prior) -> Window:
        """The part of the window in which prior can be trusted."""
        low = max(self.sigma_min, prior.sigma_min)
        return Window(low, max(low, min(self.sigma_max, prior.sigma_max)), self.data_std)

    @property
    def span(self) -> float:
        """ln(sigma_max / sigma_min)."""
        return math.log(self.sigma_max / self.sigma_min)

    @property
    def top_variance(self) -> float:
        """Variance of every pixel at sigma_max."""
        return self.sigma_max**2 + self.data_std**2


def rademacher(x: Tensor, count: int, rng: Rng) -> Tensor:
    """`count` fields of random signs for every sample, (count, B, ...): probes of a trace.

    The i-th of a sample depends on its own seed only.
    """
    signs = [rng.normal(x, f"probe/{i}").ge(0).to(x.dtype) * 2 - 1 for i in range(count)]
    return torch.stack(signs)


@dataclass(frozen=True)
class ProbabilityFlow:
    """log p(x) by the probability-flow equation.

    Song et al. 2021 (arXiv 2011.13456), eq. 39; as an image prior: Feng et al. 2023
    (arXiv 2304.11751). x is taken as it is, as x(t0): no noise is added to it.
    method "rk4": `steps` equal steps in ln sigma of the classical Runge-Kutta method. Its gradient
      is that of the discrete steps, each computed again when its turn comes, so that the memory is
      that of one step. Samples do not see each other.
    method "dopri5": Dormand and Prince's adaptive pair by torchdiffeq (the extra `bayes`), with
      the backsolve adjoint for gradients. All samples share the step sizes, so within the
      tolerances rtol and atol a sample's result depends on the batch.
    The trace is that of `probes` (K, B, *shape), the same throughout a solve: the mean over K of
    v^T (dD/dx) v, unbiased for white v (`rademacher`); exact, one product for each of the n
    pixels, where probes is None. One solve with rk4 costs 4 `steps` evaluations, with K (or n)
    vector-Jacobian products each; a gradient about three times as much.
    """

    window: Window = field(default_factory=Window)
    method: Literal["rk4", "dopri5"] = "rk4"
    steps: int = 50
    rtol: float = 1e-3
    atol: float = 1e-5

    def __post_init__(self) -> None:
        if self.method not in ("rk4", "dopri5") or self.steps < 1:
            raise InvdiffError(
                "A flow is solved by rk4 in at least 1 step, or by dopri5; found "
                f"{self.method!r} and {self.steps} steps."
            )

    def log_prob(self, prior: Prior, x: Tensor, probes: Tensor | None = None) -> Tensor:
        """log p(x) at sigma_min of every sample, (B,); x is (B, *shape) in the prior's range."""
        with torch.no_grad():
            window, u, trace = self._run(prior, x, probes)
            return self._assemble(window, u[-1], trace)

    def log_prob_grad(
        self, prior: Prior, x: Tensor, probes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """log p(x), (B,), and its gradient, shape of x.

        The prior is differentiated twice, through `Prior.x0`.
        """
        if self.method == "dopri5":
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                log_p = self._assemble(*self._run(prior, x, probes, last=True))
                return log_p.detach(), torch.autograd.grad(log_p.sum(), x)[0]
        with torch.no_grad():
            window, us, trace = self._run(prior, x, probes)
            log_p = self._assemble(window, us[-1], trace)
        a0, a1 = (_frame(math.log(s)).a for s in (window.sigma_min, window.sigma_max))
        g = -us[-1] / (a1**2 * window.top_variance)
        times, h = self._grid(window)
        f = _field(prior, probes)
        for t, u in zip(reversed(times), reversed(us[:-1]), strict=True):
            with torch.enable_grad():
                u = u.detach().requires_grad_()
                end, rise = _rk4(f, u, t, h)
                (g,) = torch.autograd.grad((end * g).sum() - rise.sum(), u)
        return log_p, a0 * g

    def _grid(self, window: Window) -> tuple[list[float], float]:
        h = window.span / self.steps
        return [math.log(window.sigma_min) + i * h for i in range(self.steps)], h

    def _run(
        self, prior: Prior, x: Tensor, probes: Tensor | None, last: bool = False
    ) -> tuple[Window, Any, Tensor]:
        """The window, u at all grid points (or the last), and the integral of the trace."""
        window, f = self.window.of(prior), _field(prior, probes)
        u = _frame(math.log(window.sigma_min)).a * x
        trace = torch.zeros_like(u.flatten(1)[:, 0])
        if self.method == "dopri5":
            ends = _dopri5(f, u, trace, window, self.rtol, self.atol)
            return window, ends[0] if last else [ends[0]], ends[1]
        us = [u]
        times, h = self._grid(window)
        for t in times:
            u, rise = _rk4(f, us[-1], t, h)
            us.append(u)
            trace = trace + rise
        return window, us, trace

    def _assemble(self, window: Window, u: Tensor, trace: Tensor) -> Tensor:
        end = u / _frame(math.log(window.sigma_max)).a
        return log_normal(end, window.top_variance) + u[0].numel() * window.span - trace


def _frame(t: float) -> Level:
    """The variance-preserving level with ln sigma = t."""
    a = 1 / math.hypot(1, math.exp(t))
    return Level(a, math.exp(t) * a)


def _field(prior: Prior, probes: Tensor | None) -> Field:
    """The right-hand side; differentiable in u where gradients are on."""

    def vectors(u: Tensor) -> Any:
        if probes is not None:
            return probes
        eye = torch.eye(u[0].numel(), dtype=u.dtype, device=u.device)
        return eye.reshape(-1, 1, *u.shape[1:]).expand(-1, *u.shape)

    def f(u: Tensor, t: float) -> tuple[Tensor, Tensor]:
        level, onward, each = _frame(t), torch.is_grad_enabled(), vectors(u)
        if onward:
            if not u.requires_grad:
                u = u.detach().requires_grad_()
            x0 = prior.x0(u, level)
            pull: Callable[[Tensor], Tensor] = partial(_differentiable_vjp, x0, u)
        else:
            x0, pull = prior.x0_vjp(u, level, once=len(each) == 1)
        total = torch.stack([(v * pull(v)).flatten(1).sum(1) for v in each]).sum(0)
        scale = level.a if probes is None else level.a / len(each)
        return level.a * (level.a * u - x0), scale * total

    return f


def _differentiable_vjp(x0: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return torch.autograd.grad(x0, u, v, create_graph=True)[0]


def _rk4(f: Field, u: Tensor, t: float, h: float) -> tuple[Tensor, Tensor]:
    """One step: u at t + h, and the integral of the trace."""
    k1, r1 = f(u, t)
    k2, r2 = f(u + h / 2 * k1, t + h / 2)
    k3, r3 = f(u + h / 2 * k2, t + h / 2)
    k4, r4 = f(u + h * k3, t + h)
    return u + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), h / 6 * (r1 + 2 * r2 + 2 * r3 + r4)


def _dopri5(
    f: Field, u: Tensor, trace: Tensor, window: Window, rtol: float, atol: float
) -> tuple[Tensor, Tensor]:
    """(u, integral of the trace) at sigma_max, with gradients by the adjoint equation."""
    try:
        from torchdiffeq import odeint_adjoint
    except ImportError:
        raise InvdiffError(
            "The adaptive solver needs torchdiffeq; install it with `pip install invdiff[bayes]`, "
            "or take the method rk4."
        ) from None

    class Right(torch.nn.Module):
        def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return f(state[0], float(t.detach()))

    ends = u.new_tensor([math.log(window.sigma_min), math.log(window.sigma_max)])
    us, traces = odeint_adjoint(
        Right(),
        (u, trace),
        ends,
        rtol=rtol,
        atol=atol,
        method="dopri5",
        adjoint_params=(),
        adjoint_options={"norm": "seminorm"},
    )
    return us[-1], traces[-1]
