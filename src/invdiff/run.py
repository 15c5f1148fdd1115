"""The driver: stream yields States, solve reads them into a Result. Nothing here prints."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from invdiff import __version__
from invdiff.core import InvdiffError, Problem, State
from invdiff.needs import check
from invdiff.noise import Gaussian
from invdiff.operators.base import Affine
from invdiff.priors.base import Counted, Prior
from invdiff.rng import Rng
from invdiff.serial import decode, encode
from invdiff.solvers import registry
from invdiff.solvers.base import Solver


class DivergedError(InvdiffError):
    """A sampler left the finite numbers; the message names the step and what to turn down."""


def centred(problem: Problem) -> Problem:
    """The problem without the offset of an affine operator: the same for Gaussian noise."""
    A = problem.A
    if isinstance(A, Affine) and isinstance(problem.noise, Gaussian):
        y = problem.y - A.offset.to(problem.y.device, problem.y.dtype)
        return Problem(y, A.linear, problem.noise, problem.x_shape)
    return problem


def stream(
    problem: Problem,
    prior: Prior,
    solver: Solver,
    seeds: Sequence[int],
    start: State | None = None,
    portable: bool = False,
) -> Iterator[State]:
    """Yield the state before the first step (or `start`), and after every step.

    seeds: one integer for each row of problem.y. start: a saved state to go on from; the result is
    bit for bit that of an uninterrupted run. portable: draw noise on the CPU.
    Raises IncompatibleError before any network call, DivergedError when a state is not finite.
    """
    problem = centred(problem)
    check(solver, problem, prior, [cls() for cls in registry().values()])
    if len(seeds) != problem.batch:
        raise InvdiffError(f"{problem.batch} measurements need as many seeds, found {len(seeds)}.")
    rng = Rng.of(seeds, portable)
    with torch.no_grad():
        state = start or solver.init(problem, prior, rng.at(-1))
    yield state
    while state.step < solver.num_steps:
        with torch.no_grad():
            state = solver.step(state, problem, prior, rng.at(state.step))
        if state.x.device.type == "cpu" or state.step == solver.num_steps:
            _check_finite(state, solver)
        yield state


def finish(
    state: State, problem: Problem, prior: Prior, solver: Solver, seeds: Sequence[int]
) -> Tensor:
    """The samples of the last state of a stream, (B, *x_shape)."""
    with torch.no_grad():
        rng = Rng.of(seeds).at(state.step)
        return solver.finish(state, centred(problem), prior, rng)


def _check_finite(state: State, solver: Solver) -> None:
    if not bool(torch.isfinite(state.x.sum())):
        knobs = [k for k in ("zeta", "weight", "snr", "lam") if hasattr(solver, k)]
        advice = f"a smaller {knobs[0]} or more steps" if knobs else "more steps"
        raise DivergedError(
            f"{solver.name} left the finite numbers at step {state.step} of {solver.num_steps}; "
            f"try {advice}."
        )


def row_seed(seed: int, measurement: int, sample: int) -> int:
    """Seed of one sample of one measurement: the same in any batch and on any machine."""
    digest = hashlib.blake2b(f"{seed}/{measurement}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True)
class Result:
    """Samples of a run and all that is needed to make them again.

    samples: (measurements, samples, *x_shape), in the prior's range, on the CPU.
    nfe: evaluations of the prior per image; vjps: vector-Jacobian products per image.
    seconds: wall-clock time. config: problem, prior, solver, seeds and versions, as JSON values.
    tensors: the tensors that config refers to.
    """

    samples: Tensor
    nfe: int
    vjps: int
    seconds: float
    config: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def mean(self) -> Tensor:
        """Mean of the samples, (measurements, *x_shape): the estimate of least squared error."""
        return self.samples.mean(1)

    @property
    def std(self) -> Tensor:
        """Standard deviation over samples, (measurements, *x_shape); 0 for a single sample."""
        if self.samples.shape[1] == 1:
            return torch.zeros_like(self.mean)
        return self.samples.std(1)

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write run.json and run.safetensors; the folder appears when both are complete.

        Raises InvdiffError when the folder exists and overwrite is False.
        """
        folder = Path(folder)
        if folder.exists() and not overwrite:
            raise InvdiffError(f"{folder} exists; choose another folder or allow overwriting.")
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        record = {**self.config, "nfe": self.nfe, "vjps": self.vjps, "seconds": self.seconds}
        tensors = {**self.tensors, "samples": self.samples.contiguous()}
        save_file(tensors, part / "run.safetensors")
        (part / "run.json").write_text(json.dumps(record, indent=1) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
        return folder

    @staticmethod
    def load(folder: str | Path) -> Result:
        """A result from the folder that save wrote."""
        folder = Path(folder)
        if not (folder / "run.json").is_file() or not (folder / "run.safetensors").is_file():
            raise InvdiffError(f"{folder} holds no saved run (run.json and run.safetensors).")
        config = json.loads((folder / "run.json").read_text())
        tensors = load_file(folder / "run.safetensors")
        samples = tensors.pop("samples")
        nfe, vjps, seconds = (config.pop(k) for k in ("nfe", "vjps", "seconds"))
        return Result(samples, nfe, vjps, seconds, config, tensors)

    def problem(self) -> Problem:
        """The problem that was solved."""
        found: Problem = decode(self.config["problem"], self.tensors)
        return found

    def solver(self) -> Solver:
        """The solver that solved it."""
        found: Solver = decode(self.config["solver"], self.tensors)
        return found

    def again(self, prior: Prior) -> Result:
        """Run once more with the same prior: the same samples, on the same kind of device."""
        known = self.config["prior"]["fingerprint"]
        if known != prior.fingerprint:
            raise InvdiffError(
                f"The run used the prior {self.config['prior']['name']} ({known}), but this one is "
                f"{prior.name} ({prior.fingerprint}); give the same weights."
            )
        c = self.config
        return solve(
            self.problem(), prior, self.solver(), c["samples"], c["seed"], portable=c["portable"]
        )


def solve(
    problem: Problem,
    prior: Prior,
    solver: Solver,
    samples: int = 1,
    seed: int = 0,
    batch: int | None = None,
    portable: bool = False,
    watch: Callable[[State, int, int], None] | None = None,
) -> Result:
    """Draw samples of every measurement in the problem.

    samples: per measurement. seed: of the whole run; sample k of measurement m depends on
    (seed, m, k) only. batch: rows that are run together; all of them when None.
    watch(state, chunk, chunks): called after every step, for progress and previews.
    Raises IncompatibleError, DivergedError and InvdiffError, each in one sentence.
    """
    if samples < 1:
        raise InvdiffError(f"At least 1 sample is needed, but {samples} were asked for.")
    rows = [(m, k) for m in range(problem.batch) for k in range(samples)]
    size = len(rows) if batch is None or solver.coupled else max(1, batch)
    chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
    counted = Counted(prior)
    began = time.perf_counter()
    outputs: list[Tensor] = []
    for i, chunk in enumerate(chunks):
        part = problem.rows(torch.tensor([m for m, _ in chunk], device=problem.y.device))
        seeds = [row_seed(seed, m, k) for m, k in chunk]
        for state in stream(part, counted, solver, seeds, portable=portable):
            if watch is not None:
                watch(state, i, len(chunks))
        outputs.append(finish(state, part, counted, solver, seeds).cpu())
    tensors: dict[str, Tensor] = {}
    config = describe(problem, prior, solver, tensors) | {
        "seed": seed,
        "samples": samples,
        "portable": portable,
        "device": str(problem.y.device),
    }
    return Result(
        torch.cat(outputs).reshape(problem.batch, samples, *problem.x_shape),
        counted.nfe // len(chunks),
        counted.vjps // len(chunks),
        time.perf_counter() - began,
        config,
        tensors,
    )


def describe(
    problem: Problem, prior: Prior, solver: Solver, tensors: dict[str, Tensor]
) -> dict[str, Any]:
    """What is solved with what, as JSON values; tensors are put into `tensors`.

    A part that cannot be written (an operator of the user's own) is recorded by its repr.
    """

    def form(value: Any, name: str) -> Any:
        try:
            return encode(value, tensors, name)
        except InvdiffError:
            return {"repr": repr(value)}

    return {
        "invdiff": __version__,
        "torch": torch.__version__,
        "problem": form(problem, "problem"),
        "prior": {"name": prior.name, "fingerprint": prior.fingerprint},
        "solver": form(solver, "solver"),
    }
