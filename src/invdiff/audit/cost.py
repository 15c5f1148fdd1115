"""What a sample costs: calls of the prior and of the operator, seconds beside them, and memory.

One picture of 64 x 64 with three channels, of which means of 4 x 4 pixels and noise are seen. Calls
are counted over a whole run, with a prior of one multiplication: they depend on no network. Seconds
and memory come from the first steps of a run with the prior `photo`.
"""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from invdiff.audit.distance import UNCHANGED
from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.operators.algebra import Spectral
from invdiff.operators.algebra.decoded import decoded
from invdiff.operators.downsample import AveragePool
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.problem import Problem
from invdiff.restoration.race import PULL
from invdiff.sampling.needs import Need, missing
from invdiff.sampling.run import solve
from invdiff.sampling.solver import Solver

PRIOR, SIDE, SIGMA = "photo", 64, 0.05
SAMPLES, STEPS = 2, 5
"""Samples that are drawn together; steps of a run whose seconds and memory are measured."""
FORWARD, BACK = ("__call__",), ("adjoint", "vjp")
SOLVED = ("pinv", "pinv_residual", "solve", "ridge", "U", "Ut", "V", "Vt")
"""Methods of an operator: A x; A^T y; what inverts it, exactly or by its singular vectors."""


def price(values: dict[str, Any]) -> float:
    """Evaluations of a sample, with a gradient as PULL of them."""
    return float(values["evaluations"] + PULL * values["gradients"])


class Clocked(Prior):
    """A prior that clocks the time inside its network, and counts the images that it was given.

    seconds: by `clock`. images, pulled: of all evaluations, and of all vector-Jacobian products.
    """

    def __init__(self, prior: Prior, clock: Callable[[], float] = time.perf_counter) -> None:
        self.prior, self.seconds, self.clock = prior, 0.0, clock
        self.images = self.pulled = 0
        self.name, self.shape, self.spectrum = prior.name, prior.shape, prior.spectrum
        self.value_range = prior.value_range

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return self.x0(x, Level(1.0, sigma))

    def x0(self, xt: Tensor, level: Level) -> Tensor:
        began = self.clock()
        x0 = self.prior.x0(xt, level)
        self.seconds += self.clock() - began
        self.images += len(xt)
        return x0

    def x0_vjp(
        self, xt: Tensor, level: Level, once: bool = False
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        began = self.clock()
        x0, pull = self.prior.x0_vjp(xt, level, once)
        self.seconds += self.clock() - began
        self.images += len(xt)

        def clocked(v: Tensor) -> Tensor:
            began = self.clock()
            g = pull(v)
            self.seconds += self.clock() - began
            self.pulled += len(v)
            return g

        return x0, clocked


class Free(Prior):
    """The denoiser of white unit images: one multiplication. spectrum: which it has by name."""

    name = "free"

    def __init__(self, spectrum: Any = None) -> None:
        self.spectrum = spectrum

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return x / (1 + sigma**2)


class Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all tensors that were made within it and live at once: `peak` is the most.

    It sees results of operators of torch, and not what one of them needs while it runs.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known = set[int]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, tuple | list) else (out,):
            if isinstance(made, Tensor):
                self._add(made.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        if (key := storage._cdata) not in self._known:
            self._known.add(key)
            self.now += (size := storage.nbytes())
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def counting(A: Spectral, calls: dict[str, int]) -> Spectral:
    """The same operator; each use of it from outside adds one to calls[method]."""
    inside = [False]

    def counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Spectral, *args: Any, **told: Any) -> Any:
            if inside[0]:
                return method(self, *args, **told)
            calls[name] = calls.get(name, 0) + 1
            inside[0] = True
            try:
                return method(self, *args, **told)
            finally:
                inside[0] = False

        return call

    cls, found = type(A), copy.copy(A)
    methods = {n: counted(n, getattr(cls, n)) for n in (*FORWARD, *BACK, *SOLVED)}
    object.__setattr__(found, "__class__", type(cls.__name__, (cls,), methods))
    return found


@lru_cache(maxsize=1)
def problem() -> Problem:
    """What all are measured on; the picture is noise of one width at each scale."""
    wide = [torch.nn.functional.interpolate(
        torch.randn(1, 3, n, n, generator=torch.Generator().manual_seed(n)), (SIDE, SIDE),
        mode="bilinear") for n in (4, 16, 64)]  # fmt: skip
    A, truth = AveragePool(4, (SIDE, SIDE)), 0.2 * torch.stack(wide).sum(0)
    y = GaussianNoise(SIGMA).sample(A(truth), Rng.of([1]))
    return Problem(y, A, GaussianNoise(SIGMA), tuple(truth.shape[1:]))


def posed(solver: Solver, prior: Prior, calls: dict[str, int] | None = None) -> Problem | None:
    """The problem as the solver takes it: with noise where it can. None where it takes neither."""
    p = problem()
    if calls is not None:
        p = replace(p, A=counting(p.spectral, calls))
    if solver.always_needs(Need.AUTOENCODER):
        p = replace(p, A=decoded(p.A, UNCHANGED))
    for found in (p, replace(p, noise=NOISELESS)):
        if not missing(solver, found, prior):
            return found
    return None


def counted(solver: Solver) -> dict[str, float] | None:
    """Of one sample, in a whole run of the solver: images evaluated, and pulled back through the
    prior; of the run: uses of the operator."""
    calls: dict[str, int] = {}
    prior = Clocked(Free(load_prior(PRIOR).spectrum))
    p = posed(solver, prior, calls)
    if p is None:
        return None
    calls.clear()
    result = solve(p, prior, solver, SAMPLES)
    count = result.samples.shape[1]
    each = {"forward": FORWARD, "back": BACK, "inverse": SOLVED}
    return {
        "evaluations": round(prior.images / count, 2),
        "gradients": round(prior.pulled / count, 2),
        **{kind: sum(calls.get(n, 0) for n in names) for kind, names in each.items()},
    }


def measured(solver: Solver) -> dict[str, Any] | None:
    """The cost of a sample; None where the solver cannot take the problem.

    ratio: processor time of STEPS steps over that inside the network. seconds: inside the network,
    of the whole run of one sample, by its evaluations. memory: bytes of the tensors that live at
    once in a run of SAMPLES samples, without the weights.
    """
    found = counted(solver)
    if found is None:
        return None
    network = load_prior(PRIOR)
    short = solver.with_steps(min(STEPS, solver.num_steps))
    p = posed(short, network)
    assert p is not None
    with Held() as held:
        result = solve(p, network, short, SAMPLES)
    clocked = Clocked(network, time.process_time)
    began = time.process_time()
    solve(p, clocked, short, SAMPLES)
    spent = time.process_time() - began
    count = result.samples.shape[1]
    each = clocked.seconds / max(1, clocked.images + clocked.pulled)
    return found | {
        "ratio": round(spent / clocked.seconds, 3) if clocked.seconds else None,
        "seconds": round(each * (found["evaluations"] + found["gradients"]), 2),
        "memory": held.peak,
        "samples": count,
    }
