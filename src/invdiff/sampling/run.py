"""The driver: stream yields States, solve reads them into a Result. Nothing here prints."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from invdiff.core import InvdiffError, undisturbed
from invdiff.core.arguments import checked
from invdiff.core.limits import limited
from invdiff.operators.algebra import Operator
from invdiff.operators.algebra.krylov import Bounds, watched_bounds
from invdiff.priors.base import Counted, Prior
from invdiff.problem import Problem
from invdiff.sampling import importance
from invdiff.sampling.places import Moment, Place, moments, placed
from invdiff.sampling.pose import Posed
from invdiff.sampling.result import Result, describe
from invdiff.sampling.solver import Solver
from invdiff.sampling.state import State
from invdiff.sampling.stream import finished, posed_for, states

MOST_ROWS, ROW_BYTES = 10**6, 200
"""Samples of a run at most, all measurements together; what a row takes beside its image."""


def row_seed(seed: int, measurement: int, sample: int) -> int:
    """Seed of one sample of one measurement: the same in any batch and on any machine."""
    digest = hashlib.blake2b(f"{seed}/{measurement}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True)
class Snapshot:
    """Where a run of `solve` stands after a step: all that it needs to go on from there.

    done: samples of the chunks that are complete, each (rows, *x_shape), on the CPU.
    state: of the chunk that is under way. steps: of one chunk; chunks: of the whole run.
    nfe, vjps, seconds: spent so far, by all chunks together. weights: log weights of the samples
    that are done, each (rows,), of a solver that weighs them.
    """

    done: tuple[Tensor, ...]
    state: State
    steps: int
    chunks: int
    nfe: int = 0
    vjps: int = 0
    seconds: float = 0.0
    weights: tuple[Tensor, ...] = ()

    @property
    def steps_done(self) -> int:
        """Steps that have been done, of chunks * steps."""
        return len(self.done) * self.steps + self.state.step


@checked
def solve(
    problem: Problem,
    prior: Prior,
    solver: Solver,
    samples: int = 1,
    seed: int = 0,
    batch: int | None = None,
    portable: bool = False,
    watch: Callable[[Snapshot], None] | None = None,
    start: Snapshot | None = None,
    estimator: Solver | None = None,
    devices: Sequence[str] = (),
) -> Result:
    """Draw samples of every measurement in the problem.

    samples: per measurement. seed: of the whole run; sample k of measurement m depends on
    (seed, m, k) only. batch: rows that are run together; all of them when None.
    watch(snapshot): called before the first step of a chunk and after every step, for progress,
    previews and checkpoints. start: a snapshot of the same run to go on from; the result is bit for
    bit that of an uninterrupted run.
    estimator: a deterministic solver, as HQS or OneCall, whose one picture of each measurement is
    `Result.estimate`; it runs before the samples, and nfe counts these alone.
    devices: where batches run side by side, as "cuda:0", "cuda:1"; each has a copy of the problem
    and the prior, and without batch an equal share of the rows. The samples are those of one such
    device, bit for bit, and watch sees the first batch that is not done. Without devices, all runs
    where the problem and the prior are.
    Raises IncompatibleError, DivergedError and InvdiffError, each in one sentence.
    """
    if estimator is not None:
        best = estimate(problem, prior, estimator, batch, portable)
        drawn = solve(
            problem, prior, solver, samples, seed, batch, portable, watch, start, None, devices
        )
        return with_estimate(drawn, best)
    posed = posed_for(problem, prior, solver)
    return draw(posed, prior, solver, samples, seed, batch, portable, watch, start, None, devices)


def draw(
    posed: Posed,
    prior: Prior,
    solver: Solver,
    samples: int = 1,
    seed: int = 0,
    batch: int | None = None,
    portable: bool = False,
    watch: Callable[[Snapshot], None] | None = None,
    start: Snapshot | None = None,
    seeds: Sequence[int] | None = None,
    devices: Sequence[str] = (),
) -> Result:
    """`solve` of a problem that was posed, with a solver that can.

    seeds: one for each measurement, in place of seed; it is then drawn as in a run of its own.
    """
    if samples < 1:
        raise InvdiffError(f"At least 1 sample is needed, but {samples} were asked for.")
    each = ROW_BYTES + posed.asked.x_like[0].nbytes
    limited("A run", samples * posed.asked.batch, "samples", MOST_ROWS, each)
    if batch is not None and batch < 1:
        raise InvdiffError(f"A batch holds at least 1 sample, but {batch} were asked for.")
    asked, problem = posed.asked, posed.problem
    rows = [(m, k) for m in range(problem.batch) for k in range(samples)]
    places = placed(devices, problem, prior, solver)
    size = batch
    if size is None or solver.coupled:
        size = -(-len(rows) // len(places))
    chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
    _check_start(start, chunks, solver, problem)
    own = [(seed, m) for m in range(problem.batch)] if seeds is None else [(s, 0) for s in seeds]
    before = (start.nfe, start.vjps, start.seconds) if start else (0, 0, 0.0)
    began, unsolved = time.perf_counter() - before[2], [Bounds() for _ in chunks]

    def run(number: int, place: Place) -> Iterator[Moment]:
        y, counted = place.problem.y, Counted(place.prior)
        part = place.problem.rows(torch.tensor([m for m, _ in chunks[number]], device=y.device))
        drawn = [row_seed(*own[m], k) for m, k in chunks[number]]
        first = start.state if start and number == len(start.done) else None
        with watched_bounds(unsolved[number]):
            for state in states(part, counted, solver, drawn, first, portable):
                yield Moment(number, state, counted.nfe, counted.vjps)
        weights = tuple(state.extra[k].cpu() for k in state.extra if k == importance.KEY)
        output = finished(state, part, counted, solver, drawn, portable).cpu()
        yield Moment(number, state, counted.nfe, counted.vjps, output, weights)

    outputs, weights = (list(start.done), list(start.weights)) if start else ([], [])
    ready: dict[int, Moment] = {}  # batches that are done, but for one before them
    spent: dict[int, tuple[int, int]] = {-1: before[:2]}
    for moment in moments(run, range(len(outputs), len(chunks)), places):
        spent[moment.number] = moment.nfe, moment.vjps
        if moment.output is not None:
            ready[moment.number] = moment
        elif watch is not None and moment.number == len(outputs):
            nfe, vjps = _sum(spent[i] for i in spent if i <= moment.number)
            at = (nfe, vjps, time.perf_counter() - began)
            done = tuple(outputs), moment.state, solver.num_steps, len(chunks)
            watch(Snapshot(*done, *at, tuple(weights)))
        while len(outputs) in ready:
            output, more = ready.pop(len(outputs)).made
            outputs.append(output)
            weights += more
    nfe, vjps = _sum(spent.values())
    tensors: dict[str, Tensor] = {}
    config = describe(asked, prior, solver, tensors) | {
        "seed": seed,
        "samples": samples,
        "batch": size,
        "portable": portable,
        "device": str(problem.y.device),
    }
    if len(places) > 1:
        config["devices"] = [str(place.problem.y.device) for place in places]
    if (left := sum(unsolved, Bounds())).systems:
        config["unsolved"] = asdict(left)
    found = torch.cat(outputs)
    decoder = None if prior.autoencoder is None else prior.autoencoder.decoder
    images = found if decoder is None else _decode(decoder, found, size, problem.y.device)
    return Result(
        images.reshape(problem.batch, samples, *images.shape[1:]),
        nfe // len(chunks),
        vjps // len(chunks),
        time.perf_counter() - began,
        config,
        tensors,
        None if decoder is None else found.reshape(problem.batch, samples, *found.shape[1:]),
        log_weight=torch.cat(weights).reshape(problem.batch, samples) if weights else None,
    )


@checked
def estimate(
    problem: Problem,
    prior: Prior,
    estimator: Solver,
    batch: int | None = None,
    portable: bool = False,
    watch: Callable[[Snapshot], None] | None = None,
) -> Result:
    """One best picture of every measurement, by a solver that draws no noise: a run of one sample.

    Its `estimate` is that sample. Raises InvdiffError for a solver that draws noise.
    """
    posed = posed_for(problem, prior, estimator)
    return one_picture(posed, prior, estimator, batch, portable, watch)


def one_picture(
    posed: Posed,
    prior: Prior,
    estimator: Solver,
    batch: int | None = None,
    portable: bool = False,
    watch: Callable[[Snapshot], None] | None = None,
    start: Snapshot | None = None,
) -> Result:
    """`estimate` of a problem that was posed, with a solver that can; from a snapshot of it."""
    if not estimator.estimates:
        raise InvdiffError(
            f"{estimator.name} draws samples and makes no estimate; take hqs or one-call."
        )
    found = draw(posed, prior, estimator, 1, 0, batch, portable, watch, start)
    config = found.config | {"want": "estimate", "estimator": found.config["solver"]}
    return replace(found, config=config, estimate=found.samples[:, 0].clone())


def with_estimate(samples: Result, best: Result) -> Result:
    """A run of samples together with the estimate of another run of the same problem."""
    tensors = samples.tensors | best.tensors
    config = samples.config | {
        "want": "both",
        "estimator": best.config["estimator"],
        "estimate_nfe": best.nfe,
    }
    return replace(samples, config=config, tensors=tensors, estimate=best.estimate)


def _sum(spent: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Evaluations and pulls of several batches."""
    nfe, vjps = zip(*spent, strict=True)
    return sum(nfe), sum(vjps)


def _decode(decoder: Operator, latents: Tensor, size: int, device: torch.device) -> Tensor:
    """The images of latents, `size` rows at a time on the device, on the CPU."""
    with undisturbed(device):
        parts = [decoder(z.to(device)).cpu() for z in torch.split(latents, size)]
    return torch.cat(parts)


def _check_start(
    start: Snapshot | None, chunks: list[list[tuple[int, int]]], solver: Solver, problem: Problem
) -> None:
    """Raise InvdiffError unless start is a snapshot of a run of these chunks."""
    if start is None:
        return
    state, under_way = start.state, len(start.done)
    same = start.chunks == len(chunks) and start.steps == solver.num_steps
    same = same and under_way < len(chunks) and 0 <= state.step <= solver.num_steps
    done = [(len(c), *problem.x_shape) for c in chunks[:under_way]]
    if not same or [tuple(d.shape) for d in start.done] != done:
        raise InvdiffError("The snapshot is of another run; repeat the one that it was taken from.")
    like, rows = problem.x_like, len(chunks[under_way])
    parts = [state.x, state.x0, *state.extra.values(), *start.done, *start.weights]
    fits = len(state.x) == rows and tuple(state.x0.shape) == (rows, *problem.x_shape)
    fits = fits and {p.dtype for p in (state.x, state.x0, *start.done)} == {like.dtype}
    if not fits or not all(bool(torch.isfinite(part).all()) for part in parts):
        raise InvdiffError(
            "The snapshot holds other numbers than a run does; begin anew, without it."
        )


@checked
def again(result: Result, prior: Prior) -> Result:
    """Run once more what made result: the same samples, on the same kind of device.

    Raises InvdiffError when prior is not the one that was used.
    """
    result.check_prior(prior)
    c, problem, solver = result.config, result.problem(), result.solver()
    if c.get("want") == "estimate" and "estimator" in c:
        return estimate(problem, prior, solver, c["batch"], c["portable"])
    return solve(
        problem, prior, solver, c["samples"], c["seed"], c["batch"], portable=c["portable"],
        estimator=result.estimator(),
    )  # fmt: skip
