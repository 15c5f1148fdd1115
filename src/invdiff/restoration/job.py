"""What a restoration is made of, from a file and its options."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from invdiff import measured
from invdiff.core import WARNING, InvdiffError, checksum
from invdiff.core.encode import encode
from invdiff.core.limits import in_words
from invdiff.fields import changed, convert
from invdiff.files.pictures import words
from invdiff.noise import GaussianNoise
from invdiff.plugins import LOADED
from invdiff.priors.base import Prior
from invdiff.priors.hub import local
from invdiff.priors.load import BUILT_IN, load_prior
from invdiff.priors.precision import AskedPrecision, settled
from invdiff.priors.windows import Windows, for_clips
from invdiff.problem import Problem
from invdiff.sampling.needs import Need
from invdiff.sampling.places import check_split, present
from invdiff.sampling.pose import Posed, pose
from invdiff.sampling.result import Result, describe
from invdiff.sampling.solver import Solver
from invdiff.sampling.stream import check_posed
from invdiff.tasks.auto import choose, configured, estimator
from invdiff.tasks.base import Task, View
from invdiff.tasks.photo import PhotoTask

Want = Literal["estimate", "samples", "both"]
MEGAPIXELS = {False: 1.0, True: 0.3}
"""Pixels that are restored together by default, without and with gradients through the prior."""
MOST = 100_000
"""Samples of one measurement."""
PIXELS = 3 * 256 * 256
"""Numbers of a picture of common size."""


@dataclass(frozen=True, eq=False)
class Job:
    """A restoration that is ready to run.

    view: how the results are shown. facts: goes into run.json beside what `solve` writes; tensors:
    go beside them. lines: (label, text) that tell the user what will be done. want: which of the
    two outputs are made: the estimate by `estimator` (None: the mean of samples stands for it), and
    samples by `solver`. devices: over which samples are split, where there are several. earlier:
    the run that this one repeats.
    """

    posed: Posed
    prior: Prior
    solver: Solver
    samples: int
    seed: int
    batch: int
    out: Path
    view: View
    facts: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    lines: tuple[tuple[str, str], ...] = ()
    portable: bool = False
    estimator: Solver | None = None
    want: Want = "both"
    devices: tuple[str, ...] = ()
    earlier: Result | None = None

    @property
    def problem(self) -> Problem:
        """The problem as the file poses it."""
        return self.posed.asked

    @property
    def draws(self) -> bool:
        """Whether samples are drawn: also where nothing but their mean is an estimate."""
        return self.want != "estimate" or self.estimator is None

    @property
    def chunks(self) -> int:
        """Batches that the samples are divided into."""
        return 1 if self.solver.coupled else -(-self.samples * self.problem.batch // self.batch)

    @cached_property
    def digest(self) -> str:
        """Hash of all that the results depend on."""
        tensors = dict(self.tensors)
        about = describe(self.problem, self.prior, self.solver, tensors)
        about |= {"seed": self.seed, "samples": self.samples, "batch": self.batch}
        about |= {"device": self.problem.y.device.type, "facts": self.facts, "want": self.want}
        about |= {"portable": self.portable, "estimator": repr(self.estimator)}
        return checksum.of_json(about | {"tensors": checksum.of_tensors(tensors)})


def prepare(
    task: Task,
    file: str | Path,
    *,
    prior: str | Prior | None = None,
    prior_options: Mapping[str, Any] | None = None,
    check_prior: bool = True,
    precision: AskedPrecision = "auto",
    solver: str | Solver = "auto",
    configure: Callable[[Solver], Solver] = lambda solver: solver,
    samples: int = 4,
    seed: int = 0,
    batch: int | None = None,
    want: Want = "both",
    device: str = "auto",
    out: Path | None = None,
) -> Job:
    """The job of restoring a file. Raises InvdiffError for whatever does not fit.

    prior: a name, a path, or a prior; None for that of the task. solver: a name, for which the
    task's preset is taken, or a solver; configure changes it. batch: samples that are run together.
    out: folder for the results.
    """
    samples, seed = convert(int, samples, "samples"), convert(int, seed, "seed")
    batch = None if batch is None else convert(int, batch, "batch")
    want, asked = convert(Want, want, "want"), convert(AskedPrecision, precision, "precision")
    checked_counts(samples, batch)
    task.check_input(Path(file))
    devices, more = torch_devices(device), dict(prior_options or {})
    device = devices[0]
    if isinstance(prior, Prior):
        spec, used = prior.name, prior
        kept = getattr(prior, "precision", "float32")
    else:
        named = prior or task.prior
        is_path = named not in BUILT_IN and local(named) is not None
        spec = str(Path(named).resolve()) if is_path else named
        kept = settled(asked, spec, device)
        used = load_prior(spec, device, kept, check=check_prior, **more)
    m = task.read(Path(file), used)
    used = for_clips(used, m.problem.x_shape)
    posed = pose(m.problem, used)
    preset, why = _solver(task, solver, posed.problem)
    chosen = configure(preset)
    best = None if want == "samples" else estimator(task, posed.problem)
    check_posed(posed, used, chosen)
    check_split(chosen, devices)
    stem = Path(file).stem
    rows = samples * m.problem.batch
    if batch is None:
        batch = min(-(-rows // len(devices)), default_batch(chosen, m.problem))
    coverage = measured.words(task.name, spec, chosen)
    white = type(m.problem.noise) is GaussianNoise
    misses = measured.disagreement(task.name, spec, chosen, m.problem.sigma_y) if white else ""
    drawn = [
        ("solver", f"{chosen.name}, {chosen.num_steps} steps ({why})"),
        ("samples", f"{samples}, {batch} at a time"),
        *([("", coverage)] if coverage and samples > 1 else []),
        *([("", misses)] if misses and chosen == preset else []),
    ]
    options = {k.removeprefix("--"): v for k, v in changed(task).items()}
    told = ", ".join([task.name, *(f"{key} {value}" for key, value in options.items())])
    how = f"{', '.join(devices)}{'' if kept == 'float32' else f', precision {kept}'}"
    lines = [
        ("photo" if isinstance(task, PhotoTask) else "file", f"{file} ({m.about})"),
        *(("", note) for note in m.notes),
        ("task", f"{told}, to {words(m.view.size(m.problem.x_shape))} pixels"),
        ("noise", m.noise),
        *([("estimate", f"{best[0].name}, {best[0].num_steps} steps ({best[1]})")] if best else []),
        *([] if want == "estimate" and best else drawn),
        ("prior", f"{spec}, on {how}"),
        *in_windows(used, m.problem),
        *presumed(used),
    ]
    tensors: dict[str, Tensor] = {}
    wrong = [n.removeprefix(WARNING) for n in m.notes if n.startswith(WARNING)]
    facts = {
        "photo": {"name": stem, "warnings": wrong},
        "task": {"name": task.name, **encode(task, tensors, "task")},
        "plugins": dict(LOADED),
        "noise": m.noise,
        "view": encode(m.view, tensors, "view"),
        "prior_spec": spec,
        "prior_options": more,
        "prior_presumed": list(used.presumed),
        "precision": kept,
        "want": want,
    }
    return Job(
        posed.to(device), used, chosen, samples, seed, batch,
        out or Path(f"restored-{stem}"), m.view, facts, tensors, tuple(lines), False,
        best[0] if best else None, want, devices,
    )  # fmt: skip


def checked_counts(samples: int, batch: int | None) -> None:
    """Raise InvdiffError for numbers of samples that no run has."""
    for key, number in (("samples", samples), ("batch", 1 if batch is None else batch)):
        if not 1 <= number <= MOST:
            if number < 1:
                raise InvdiffError(f"--{key} is at least 1, found {number}.")
            raise InvdiffError(
                f"--{key} is at most {MOST}, found {number}; colour pictures of 256 x 256 would "
                f"take {in_words(number * 4 * PIXELS)} of memory."
            )


def _solver(task: Task, solver: str | Solver, problem: Problem) -> tuple[Solver, str]:
    """The solver with its preset, and why it."""
    if isinstance(solver, Solver):
        return solver, "as given"
    if solver == "auto":
        found, reason = choose(task, problem)
        return found, f"auto: {reason}"
    return configured(task, solver, problem), "as asked"


def presumed(prior: Prior) -> list[tuple[str, str]]:
    """The line that tells how the prior is presumed to have been trained, if its file is silent."""
    if not prior.presumed:
        return []
    return [("presumed", f"{', '.join(prior.presumed)}; --prior-options tells otherwise")]


def in_windows(prior: Prior, problem: Problem) -> list[tuple[str, str]]:
    """The line that tells of the windows of a clip, if it is longer than the prior takes."""
    if not isinstance(prior, Windows):
        return []
    cuts = prior.cuts(problem.x_shape[1])
    return [
        ("", f"{len(cuts.starts)} windows of {cuts.length} frames, {cuts.overlap} or more shared")
    ]


def default_batch(solver: Solver, problem: Problem) -> int:
    """Samples that are restored together, so that memory stays near that of one large picture."""
    limit = MEGAPIXELS[solver.always_needs(Need.PRIOR_VJP)] * 1e6
    return max(1, int(limit / math.prod(problem.x_shape[1:])))


def torch_devices(names: str) -> tuple[str, ...]:
    """The devices called names, as cuda:0,1 or cpu; `auto` is a CUDA device where there is one.

    Raises InvdiffError for one that is not there.
    """
    found: list[str] = []
    for name in str(names).split(","):  # a torch.device too
        name = name.strip()
        kind = found[-1].partition(":")[0] if found else ""
        found.append(_device(f"{kind}:{name}" if name.isdecimal() else name))
    return tuple(found)


def torch_device(names: str) -> str:
    """The first of the devices called names."""
    return torch_devices(names)[0]


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return str(present(name))
