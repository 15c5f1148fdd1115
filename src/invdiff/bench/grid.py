"""The grid of a bench: measurements of images, solvers, priors; one line for each cell."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from invdiff.batch.items import seed_of
from invdiff.bench import peers
from invdiff.bench.fid import keep
from invdiff.bench.frames import KINDS, RANGE, Framing
from invdiff.bench.perceptual import Network
from invdiff.bench.scores import scores, views
from invdiff.bench.suites import Suite, SuiteCase
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.priors.ranged import Ranged
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.sampling.solver import Solver
from invdiff.solvers import solver_class
from invdiff.tasks import TASKS
from invdiff.tasks.auto import choose, configured, estimator, in_steps


@dataclass(frozen=True)
class Grid:
    """What a bench measures. solvers: names, `auto`, `estimate`, or NAME@TASK for the settings of
    the authors' own code. side: of the middle that is cut out of every image. samples: of each
    measurement. steps: at most. lpips, fid: networks, where there are weights. out: the folder
    where features for FID go."""

    images: tuple[Path, ...]
    suite: Suite
    solvers: tuple[str, ...]
    priors: tuple[str, ...] = ("photo",)
    side: int = 256
    samples: int = 4
    seed: int = 0
    steps: int = 1000
    lpips: Network | None = None
    fid: Network | None = None
    out: Path = Path()
    _priors: dict[str, Prior] = field(default_factory=dict, compare=False)

    def names(self) -> list[tuple[str, SuiteCase, str, str, Path]]:
        """(item, case, prior, solver, image) of every cell, in the order of measuring."""
        return [
            (f"{case.name}/{prior}/{solver}/{image.name}", case, prior, solver, image)
            for case in self.suite.cases
            for prior in self.priors
            for image in self.images
            for solver in self.solvers
        ]

    def lines(self, done: set[str]) -> Iterator[dict[str, Any]]:
        """The line of every cell that is not done: what was measured, or `error`."""
        for item, case, prior, solver, image in self.names():
            if item not in done:
                line = {"item": item, "case": case.name, "prior": prior, "solver": solver}
                line |= {"image": image.name}
                try:
                    yield line | self._measured(item, case, prior, solver, image)
                except InvdiffError as error:
                    yield line | {"error": str(error)}

    def prior(self, spec: str) -> Prior:
        """A prior, loaded once, of images on [-1, 1].

        Raises InvdiffError for one of other images than the suite's, or of another size.
        """
        if spec not in self._priors:
            found = load_prior(spec)
            self._check(found, spec)
            ranged = tuple(found.value_range) != RANGE
            self._priors[spec] = Ranged(found) if ranged else found
        return self._priors[spec]

    def _check(self, found: Prior, spec: str) -> None:
        kinds = " or ".join(f"{KINDS[n]} images" for n in self.suite.channels)
        if found.autoencoder is not None:
            raise InvdiffError(f"This suite takes priors of {kinds}; {spec} is one of latents.")
        if found.shape is None:
            return
        channels, *size = found.shape
        if len(size) != 2 or channels not in self.suite.channels:
            told = " x ".join("any" if n is None else str(n) for n in found.shape)
            raise InvdiffError(f"This suite takes priors of {kinds}; {spec} is one of {told}.")
        if any(n not in (None, self.side) for n in size):
            raise InvdiffError(
                f"{spec} knows images of {size[1]} x {size[0]} pixels alone, and --side is "
                f"{self.side}."
            )

    def frame(self, prior: Prior) -> Framing:
        """Of the images of a prior."""
        channels = self.suite.channels[0] if prior.shape is None else prior.shape[0]
        return Framing(channels or self.suite.channels[0], self.suite.scans)

    def _measured(
        self, item: str, case: SuiteCase, spec: str, name: str, image: Path
    ) -> dict[str, Any]:
        prior = self.prior(spec)
        frame = self.frame(prior)
        truth = frame.truth(image, self.side)
        seed = seed_of(self.seed, f"{case.name}/{image.name}")
        problem = measurement(case, truth, seed)
        began = time.perf_counter()
        samples, told = self._samples(case, name, problem, prior)
        line = told | {"seconds": round(time.perf_counter() - began, 3)}
        line["samples"] = samples.shape[1]
        line["values"] = scores(problem, samples, truth, frame, self.lpips)
        if self.fid is not None:
            seen_samples, seen = views(problem, samples, truth, frame)
            line["features"] = keep(self.out, item, self.fid, seen, seen_samples)
        return line

    def _samples(
        self, case: SuiteCase, name: str, problem: Problem, prior: Prior
    ) -> tuple[Tensor, dict[str, Any]]:
        """Samples (1, K, *x_shape) by the solver of a name, and what they cost."""
        if peers.is_peer(name):
            peer = peers.find(name)
            steps = min(peer.steps, self.steps)
            drawn, spent = peers.sample(peer, problem, prior, self.samples, self.seed, steps)
            told = {"steps": steps, "evaluations": spent, "library": peers.library_version(name)}
            return drawn, told
        solver = solver_of(name, case, problem)
        if solver.num_steps > self.steps:
            authors = "@" in name
            solver = solver.with_steps(self.steps) if authors else in_steps(solver, self.steps)
        count = 1 if solver.estimates else self.samples
        result = solve(problem, prior, solver, count, seed=self.seed)
        return result.samples, {"steps": solver.num_steps, "evaluations": result.nfe}


def measurement(case: SuiteCase, truth: Tensor, seed: int) -> Problem:
    """The measurement of an image, whose mask and noise are those of the seed."""
    height, width = truth.shape[-2:]
    make = case.of_complex if case.of_complex and truth.shape[1] == 2 else case.operator
    A = make((height, width), seed)
    noise = GaussianNoise(case.sigma) if case.sigma else NOISELESS
    y = noise.sample(A(truth), Rng.of(seed))
    return Problem(A.restrict(y), A, noise, tuple(truth.shape[1:]))


def solver_of(name: str, case: SuiteCase, problem: Problem) -> Solver:
    """The solver that a name means: with the task's preset, or the settings of its authors.

    Raises InvdiffError for a name that is unknown, and for `estimate` where there is none.
    """
    task = TASKS[case.task]
    if name == "auto":
        return choose(task, problem)[0]
    if name == "estimate":
        found = estimator(task, problem)
        if found is None:
            raise InvdiffError(f"There is no estimate of {case.name} but the mean of samples.")
        return found[0]
    known, _, settings = name.partition("@")
    if settings:
        return solver_class(known).official(settings, RANGE)
    return configured(task, known, problem)


def check_names(solvers: Sequence[str]) -> None:
    """Raise InvdiffError for a solver that nobody knows, or whose library is missing."""
    for name in solvers:
        if peers.is_peer(name):
            peers.check(name)
            continue
        known, _, settings = name.partition("@")
        if known not in ("auto", "estimate"):
            cls = solver_class(known)
            if settings:
                cls.official(settings, RANGE)
