"""What a restoration is made of: from a file and its options, or from an earlier run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from invdiff import measured
from invdiff.core import InvdiffError
from invdiff.core.encode import decode, encode
from invdiff.core.limits import in_words
from invdiff.fields import changed, convert
from invdiff.files.pictures import words
from invdiff.plugins import LOADED
from invdiff.priors.base import Prior
from invdiff.priors.hub import local
from invdiff.priors.load import BUILT_IN, load_prior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need
from invdiff.sampling.pose import Posed, pose
from invdiff.sampling.result import Result, describe
from invdiff.sampling.run import check_posed
from invdiff.sampling.solver import Solver
from invdiff.tasks.auto import choose, configured, estimator
from invdiff.tasks.base import WARNING, Task, View
from invdiff.tasks.photo import PhotoTask

Want = Literal["estimate", "samples", "both"]
Precision = Literal["float32", "bfloat16"]
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
    samples by `solver`.
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

    @property
    def digest(self) -> str:
        """Hash of everything that the samples depend on."""
        tensors: dict[str, Tensor] = {}
        about = describe(self.problem, self.prior, self.solver, tensors)
        about |= {"seed": self.seed, "samples": self.samples, "batch": self.batch}
        about |= {"device": self.problem.y.device.type, "facts": self.facts, "want": self.want}
        hashed = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for name in sorted(tensors):
            hashed.update(tensors[name].numpy().tobytes())
        return hashed.hexdigest()[:16]


def prepare(
    task: Task,
    file: str | Path,
    *,
    prior: str | Prior | None = None,
    prior_options: Mapping[str, Any] | None = None,
    check_prior: bool = True,
    precision: Precision = "float32",
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
    want, precision = convert(Want, want, "want"), convert(Precision, precision, "precision")
    for key, number in (("samples", samples), ("batch", 1 if batch is None else batch)):
        if not 1 <= number <= MOST:
            if number < 1:
                raise InvdiffError(f"--{key} is at least 1, found {number}.")
            raise InvdiffError(
                f"--{key} is at most {MOST}, found {number}; colour pictures of 256 x 256 would "
                f"take {in_words(number * 4 * PIXELS)} of memory."
            )
    task.check_input(Path(file))
    device, more = torch_device(device), dict(prior_options or {})
    if isinstance(prior, Prior):
        spec, used = prior.name, prior
    else:
        named = prior or task.prior
        is_path = named not in BUILT_IN and local(named) is not None
        spec = str(Path(named).resolve()) if is_path else named
        used = load_prior(spec, device, precision, check=check_prior, **more)
    m = task.read(Path(file), used)
    posed = pose(m.problem, used)
    chosen, why = _solver(task, solver, posed.problem)
    chosen = configure(chosen)
    best = None if want == "samples" else estimator(task, posed.problem)
    check_posed(posed, used, chosen)
    stem = Path(file).stem
    rows = samples * m.problem.batch
    batch = min(rows, default_batch(chosen, m.problem)) if batch is None else batch
    coverage = measured.words(task.name, spec, chosen)
    drawn = [
        ("solver", f"{chosen.name}, {chosen.num_steps} steps ({why})"),
        ("samples", f"{samples}, {batch} at a time"),
        *([("", coverage)] if coverage and samples > 1 else []),
    ]
    options = {k.removeprefix("--"): v for k, v in changed(task).items()}
    told = ", ".join([task.name, *(f"{key} {value}" for key, value in options.items())])
    lines = [
        ("photo" if isinstance(task, PhotoTask) else "file", f"{file} ({m.about})"),
        *(("", note) for note in m.notes),
        ("task", f"{told}, to {words(m.view.size(m.problem.x_shape))} pixels"),
        ("noise", m.noise),
        *([("estimate", f"{best[0].name}, {best[0].num_steps} steps ({best[1]})")] if best else []),
        *([] if want == "estimate" and best else drawn),
        ("prior", f"{spec}, on {device}"),
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
        "precision": precision,
        "want": want,
    }
    return Job(
        posed.to(device), used, chosen, samples, seed, batch,
        out or Path(f"restored-{stem}"), m.view, facts, tensors, tuple(lines), False,
        best[0] if best else None, want,
    )  # fmt: skip


def _solver(task: Task, solver: str | Solver, problem: Problem) -> tuple[Solver, str]:
    """The solver with its preset, and why it."""
    if isinstance(solver, Solver):
        return solver, "as given"
    if solver == "auto":
        found, reason = choose(task, problem)
        return found, f"auto: {reason}"
    return configured(task, solver, problem), "as asked"


def repeated(
    source: str | Path, prior: str | None = None, device: str | None = None, out: Path | None = None
) -> Job:
    """The job of an earlier run, from its folder or run.json.

    prior: where the weights are now; device: another than that of the run.
    Raises InvdiffError when it cannot be done.
    """
    if not str(source).strip():
        raise InvdiffError(f"--from needs the folder of a run, found {str(source)!r}.")
    try:
        return _repeated(Path(source), prior, device, out)
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise InvdiffError(
            f"{source} is not the run.json of a restoration as it was written; make the run anew."
        ) from error


def _repeated(source: Path, prior: str | None, device: str | None, out: Path | None) -> Job:
    folder = source if source.is_dir() else source.parent
    if not source.exists():
        raise InvdiffError(
            f"There is no {source}, so no saved run; --from takes the folder of one."
        )
    if source.is_file() and source.name != "run.json":
        raise InvdiffError(f"{source} is not the run.json of a restoration.")
    result = Result.load(folder)
    c = result.config
    try:
        facts = {k: c[k] for k in ("photo", "task", "view", "prior_spec", "precision")}
        problem, solver = result.problem(), result.solver()
        view = decode(facts["view"], result.tensors)
        samples, seed, batch, portable = (c[k] for k in ("samples", "seed", "batch", "portable"))
        if min(samples, batch) < 1 or not isinstance(seed, int) or not isinstance(view, View):
            raise TypeError
    except (LookupError, TypeError) as error:
        raise InvdiffError(f"{source} is not the run.json of a restoration.") from error
    except InvdiffError as error:
        missing = [name for name in c.get("plugins", {}) if name not in LOADED]
        if not missing:
            raise
        raise InvdiffError(
            f"{source} was made with what is not part of invdiff; give --plugin {missing[0]}."
        ) from error
    usable = c["device"] == "cpu" or torch.cuda.is_available()
    device = torch_device(device or (c["device"] if usable else "auto"))
    spec = prior or facts["prior_spec"]
    facts["prior_options"] = c.get("prior_options", {})  # runs before there were any have none
    used = load_prior(spec, device, facts["precision"], check=False, **facts["prior_options"])
    result.check_prior(used)
    facts["want"] = want = c.get("want", "samples")
    facts["plugins"] = c.get("plugins", {})
    facts["prior_presumed"] = list(used.presumed)
    facts["noise"] = c.get("noise", "")
    lines = [
        ("run", f"{source}: {facts['task']['name']} of {facts['photo']['name']}"),
        ("solver", f"{solver.name}, {solver.num_steps} steps, seed {seed}"),
        ("samples", f"{samples}, {batch} at a time, on {device}, prior {spec}"),
        *presumed(used),
    ]
    if device.split(":")[0] != c["device"].split(":")[0]:
        lines.append(("", f"made on {c['device']}: on {device} other noise is drawn"))
    tensors = {k: v for k, v in result.tensors.items() if k.startswith(("view.", "task."))}
    posed = pose(problem.to(device), used)
    check_posed(posed, used, solver)
    return Job(
        posed, used, solver, samples, seed, batch,
        out or folder.with_name(folder.resolve().name + "-again"), view,
        facts, tensors, tuple(lines), portable, result.estimator(), want,
    )  # fmt: skip


def presumed(prior: Prior) -> list[tuple[str, str]]:
    """The line that tells how the prior is presumed to have been trained, if its file is silent."""
    if not prior.presumed:
        return []
    return [("presumed", f"{', '.join(prior.presumed)}; --prior-options tells otherwise")]


def default_batch(solver: Solver, problem: Problem) -> int:
    """Samples that are restored together, so that memory stays near that of one large picture."""
    limit = MEGAPIXELS[Need.PRIOR_VJP in solver.needs] * 1e6
    return max(1, int(limit / (problem.x_shape[-1] * problem.x_shape[-2])))


def torch_device(name: str) -> str:
    """The device called name; `auto` is a CUDA device where there is one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    name = str(name)  # a torch.device too
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise InvdiffError(f"There is no device {name!r}; give auto, cpu or cuda.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InvdiffError("This machine has no CUDA device that torch can use; give --device cpu.")
    return name
