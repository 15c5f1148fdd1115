"""What a restoration is made of: from parsed options, or from an earlier run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from invdiff import measured, zoo
from invdiff.commands import options
from invdiff.commands.options import Given
from invdiff.core import InvdiffError, Problem
from invdiff.forms import FORMS
from invdiff.forms.base import View
from invdiff.io import check_file, words
from invdiff.needs import Need, check
from invdiff.photo_noise import WARNING
from invdiff.priors.base import Prior
from invdiff.priors.load import BUILT_IN, load_prior
from invdiff.result import Result, describe
from invdiff.run import posed
from invdiff.serial import decode, encode
from invdiff.solvers import registry, solver_class
from invdiff.solvers.base import Solver

Want = Literal["estimate", "samples", "both"]
MEGAPIXELS = {False: 1.0, True: 0.3}
"""Pixels that are restored together by default, without and with gradients through the prior."""


@dataclass(frozen=True, eq=False)
class Job:
    """A restoration that is ready to run.

    view: how the results are shown. facts: goes into run.json beside what `solve` writes; tensors:
    go beside them. lines: (label, text) that tell the user what will be done. want: which of the
    two outputs are made: the estimate by `estimator` (None: the mean of samples stands for it), and
    samples by `solver`. coverage: what was measured of such samples, in words. warnings: what was
    seen to be wrong before the run.
    """

    problem: Problem
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
    coverage: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def draws(self) -> bool:
        """Whether samples are drawn: also where nothing but their mean is an estimate."""
        return self.want != "estimate" or self.estimator is None

    @property
    def chunks(self) -> int:
        """Batches that the samples are divided into."""
        return 1 if self.solver.coupled else -(-self.samples // self.batch)

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


def fresh(given: Given) -> Job:
    """The job that options ask for. Raises InvdiffError for whatever does not fit."""
    if "photo" not in given:
        raise InvdiffError("FILE is missing; give the photo, or other measurement, to restore.")
    name, values = options.task_options(given)
    task = zoo.task(name)
    sigma = options.noise_told(task, given)
    for key in ("samples", "batch"):
        if given.get(key, 1) < 1:
            raise InvdiffError(f"--{key} is at least 1, found {given[key]}.")
    _check_solver(given)
    check_file(Path(given["photo"]))
    device = torch_device(given.get("device", "auto"))
    named, precision = given.get("prior", task.prior), given.get("precision", "float32")
    is_path = named not in BUILT_IN and Path(named).exists()
    spec = str(Path(named).resolve()) if is_path else named
    more = options.prior_options(given)
    prior = load_prior(spec, device, precision, check="no_check" not in given, **more)
    m = FORMS[task.form].read(task, given["photo"], values, sigma, prior)
    asked = posed(m.problem, prior)
    solver, why = _solver(name, given, asked)
    best, want = zoo.estimator(name, asked), given.get("want", "both")
    if want == "samples":
        best = None
    check(solver, asked, prior, [cls() for cls in registry().values()])
    samples, stem = given.get("samples", 4), Path(given["photo"]).stem
    batch = given.get("batch", min(samples, default_batch(solver, m.problem)))
    coverage = measured.words(name, named, solver)
    drawn = [
        ("solver", f"{solver.name}, {solver.num_steps} steps ({why})"),
        ("samples", f"{samples}, {batch} at a time"),
        *([("", coverage)] if coverage and samples > 1 else []),
    ]
    told = ", ".join([name, *(f"{key} {value}" for key, value in values.items())])
    lines = [
        ("photo" if task.form == "photo" else "file", f"{given['photo']} ({m.about})"),
        *(("", note) for note in m.notes),
        ("task", f"{told}, to {words(m.view.size(m.problem.x_shape))} pixels"),
        ("noise", m.noise),
        *([("estimate", f"{best[0].name}, {best[0].num_steps} steps ({best[1]})")] if best else []),
        *([] if want == "estimate" and best else drawn),
        ("prior", f"{named}, on {device}"),
        *presumed(prior),
    ]
    tensors: dict[str, Tensor] = {}
    wrong = [n.removeprefix(WARNING) for n in m.notes if n.startswith(WARNING)]
    facts = {
        "photo": {"name": stem, "warnings": wrong},
        "task": {"name": name, "options": {k: str(v) for k, v in values.items()}},
        "noise": m.noise,
        "view": encode(m.view, tensors, "view"),
        "prior_spec": spec,
        "prior_options": more,
        "prior_presumed": list(prior.presumed),
        "precision": precision,
    }
    out = Path(given.get("out", f"restored-{stem}"))
    return Job(
        m.problem.to(device), prior, solver, samples, given.get("seed", 0), batch, out, m.view,
        facts, tensors, tuple(lines), False, best[0] if best else None, want, coverage,
        tuple(wrong),
    )  # fmt: skip


def _check_solver(given: Given) -> None:
    """Raise InvdiffError, before anything is read, when the solver or its knobs are unknown."""
    name = given.get("solver", {}).get("name", "auto")
    if name != "auto":
        options.with_knobs(solver_class(name)(), given["solver"])


def _solver(task: str, given: Given, problem: Problem) -> tuple[Solver, str]:
    """The configured solver, and why it."""
    knobs = given.get("solver", {})
    name = knobs.get("name", "auto")
    if name == "auto":
        solver, reason = zoo.auto(task, problem)
        why = f"auto: {reason}"
    else:
        solver, why = zoo.configured(task, name, problem), "as asked"
    solver = options.with_knobs(solver, knobs)
    return (solver.with_steps(given["steps"]) if "steps" in given else solver), why


def repeated(given: Given) -> Job:
    """The job of an earlier run, from its run.json. Raises InvdiffError when it cannot be done."""
    allowed = {"from", "out", "overwrite", "prior", "device", "quiet", "resume"}
    extra = sorted(set(given) - allowed)
    if extra:
        name = "FILE" if extra[0] == "photo" else f"--{extra[0]}"
        raise InvdiffError(f"--from repeats a run exactly as it was; leave {name} out.")
    source = Path(given["from"])
    folder = source if source.is_dir() else source.parent
    if source.is_file() and source.name != "run.json":
        raise InvdiffError(f"{source} is not the run.json of a restoration.")
    result = Result.load(folder)
    try:
        facts = {k: result.config[k] for k in ("photo", "task", "view", "prior_spec", "precision")}
        problem, solver, c = result.problem(), result.solver(), result.config
        view = decode(facts["view"], result.tensors)
        samples, seed, batch, portable = (c[k] for k in ("samples", "seed", "batch", "portable"))
    except (LookupError, TypeError) as error:
        raise InvdiffError(f"{source} is not the run.json of a restoration.") from error
    usable = c["device"] == "cpu" or torch.cuda.is_available()
    device = torch_device(given.get("device", c["device"] if usable else "auto"))
    spec = given.get("prior", facts["prior_spec"])
    facts["prior_options"] = c.get("prior_options", {})  # runs before there were any have none
    prior = load_prior(spec, device, facts["precision"], check=False, **facts["prior_options"])
    result.check_prior(prior)
    want = c.get("want", "samples")
    facts["prior_presumed"] = list(prior.presumed)
    facts["noise"] = c.get("noise", "")
    lines = [
        ("run", f"{source}: {facts['task']['name']} of {facts['photo']['name']}"),
        ("solver", f"{solver.name}, {solver.num_steps} steps, seed {seed}"),
        ("samples", f"{samples}, {batch} at a time, on {device}, prior {spec}"),
        *presumed(prior),
    ]
    if device.split(":")[0] != c["device"].split(":")[0]:
        lines.append(("", f"made on {c['device']}: on {device} other noise is drawn"))
    out = Path(given.get("out", folder.with_name(folder.resolve().name + "-again")))
    tensors = {k: v for k, v in result.tensors.items() if k.startswith("view.")}
    return Job(
        problem.to(device), prior, solver, samples, seed, batch, out, view,
        facts, tensors, tuple(lines), portable, result.estimator(), want,
        measured.words(facts["task"]["name"], spec, solver),
        tuple(facts["photo"].get("warnings", ())),
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
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise InvdiffError(f"There is no device {name!r}; give auto, cpu or cuda.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InvdiffError("This machine has no CUDA device that torch can use; give --device cpu.")
    return name


def renamed(job: Job, result: Result) -> Result:
    """The result with the job's own facts and tensors."""
    return replace(result, config=result.config | job.facts, tensors=result.tensors | job.tensors)
