"""Several devices: which problem and prior each has, and batches that run side by side on them."""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling.solver import Solver
from invdiff.sampling.state import State


@dataclass(frozen=True, eq=False)
class Place:
    """A device's own problem, as solvers see it, and prior."""

    problem: Problem
    prior: Prior


@dataclass(frozen=True, eq=False)
class Moment:
    """A batch after a step. number: which batch; nfe, vjps: spent on it. output: its samples, once
    they are made, on the CPU, and weights: their log weights, of a solver that weighs them."""

    number: int
    state: State
    nfe: int
    vjps: int
    output: Tensor | None = None
    weights: tuple[Tensor, ...] = ()

    @property
    def made(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The output and the weights, once there is an output."""
        assert self.output is not None
        return self.output, self.weights


Run = Callable[[int, Place], Iterator[Moment]]
"""The moments of a batch at a place, of which the last has the output."""


def placed(
    devices: Sequence[str], problem: Problem, prior: Prior, solver: Solver
) -> tuple[Place, ...]:
    """The places of a run: where problem and prior are, or one for each device, with copies.

    Raises InvdiffError for a device that is not there, and for several with a coupled solver.
    """
    if not devices:
        return (Place(problem, prior),)
    check_split(solver, devices)
    found = [present(name) for name in devices]
    return tuple(Place(problem.to(at), copy.deepcopy(prior).to(at)) for at in found)


def check_split(solver: Solver, devices: Sequence[str]) -> None:
    """Raise InvdiffError where samples of a coupled solver would be split over devices."""
    if len(devices) > 1 and solver.coupled:
        raise InvdiffError(
            f"{solver.name} draws samples that depend on each other, which cannot be split over "
            "devices; give one device."
        )


KINDS = "cpu, cuda, cuda:NUMBER or mps"


def present(name: str | torch.device) -> torch.device:
    """The device called name. Raises InvdiffError, in one sentence, where it is not there."""
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise InvdiffError(f"There is no device {str(name)!r}; give {KINDS}.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise InvdiffError(
                "This machine has no CUDA device that torch can use; give --device cpu."
            )
        if (device.index or 0) >= count:
            last = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
            raise InvdiffError(f"There is no device {str(name)!r}; this machine has {last}.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InvdiffError("This machine has no MPS device that torch can use; give --device cpu.")
    return device


def moments(run: Run, numbers: Sequence[int], places: Sequence[Place]) -> Iterator[Moment]:
    """The moments of all batches: one after the other, or with several places side by side.

    A place takes the next batch when it has done one. What a batch raises is raised here; when the
    reader stops, so do the places, after the step that they are at.
    """
    if len(places) == 1:
        for number in numbers:
            yield from run(number, places[0])
        return
    todo, told = iter(numbers), queue.Queue[Moment | BaseException | None](len(places))
    lock, stopped = threading.Lock(), threading.Event()

    def work(place: Place) -> None:
        last: BaseException | None = None
        try:
            while not stopped.is_set():
                with lock:
                    number = next(todo, None)
                if number is None:
                    break
                for moment in run(number, place):
                    told.put(moment)
                    if stopped.is_set():
                        break
        except BaseException as error:  # raised again by the reader
            last = error
        told.put(last)

    workers = [threading.Thread(target=work, args=(place,), daemon=True) for place in places]
    for worker in workers:
        worker.start()
    left = len(workers)
    try:
        while left:
            moment = told.get()
            if isinstance(moment, Moment):
                yield moment
                continue
            left -= 1
            if moment is not None:
                raise moment
    finally:
        stopped.set()
        while left:
            left -= not isinstance(told.get(), Moment)
        for worker in workers:
            worker.join()
