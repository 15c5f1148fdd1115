"""The job of an earlier run, from the run.json that it wrote; nothing in it is opened by itself."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from invdiff.core import InvdiffError
from invdiff.core.encode import decode
from invdiff.fields import convert
from invdiff.plugins import LOADED
from invdiff.priors.load import BUILT_IN, load_prior
from invdiff.priors.windows import for_clips
from invdiff.problem import Problem
from invdiff.restoration.job import MOST, Job, presumed, torch_devices
from invdiff.restoration.restored import stacked
from invdiff.sampling import record
from invdiff.sampling.places import check_split, present
from invdiff.sampling.pose import pose
from invdiff.sampling.result import Result
from invdiff.sampling.solver import Solver
from invdiff.sampling.stream import check_posed
from invdiff.tasks.base import View

UNFIT = (
    LookupError, TypeError, AttributeError, ArithmeticError, ValueError, AssertionError,
    RuntimeError,
)  # fmt: skip
"""What Python raises where the fields of a file contradict each other."""


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
    except InvdiffError:
        raise
    except UNFIT as error:
        if "memory" in str(error):
            raise
        raise unfit(source) from error


def unfit(source: str | Path) -> InvdiffError:
    """The error for a run.json whose fields contradict each other."""
    return InvdiffError(
        f"{source} is not the run.json of a restoration as it was written; make the run anew."
    )


def _repeated(source: Path, prior: str | None, device: str | None, out: Path | None) -> Job:
    folder = source if source.is_dir() else source.parent
    if not source.exists():
        raise InvdiffError(
            f"There is no {source}; give the folder of a saved run, or the run.json in it."
        )
    if source.is_file() and source.name != "run.json":
        raise InvdiffError(f"{source} is not the run.json of a restoration.")
    result = Result.load(folder)
    c = result.config
    missing = [key for key in record.OF_RESTORATIONS if key not in c]
    if missing:
        raise InvdiffError(
            f"{source} is not the run.json of a restoration: {missing[0]} is missing."
        )
    facts = {key: c[key] for key in record.OF_RESTORATIONS}
    problem, solver, view = _parts(source, result)
    samples, seed, batch, portable = (c[k] for k in ("samples", "seed", "batch", "portable"))
    if samples > MOST:
        raise InvdiffError(f"{source} is not a run as it was written: samples is above {MOST}.")
    devices = torch_devices(device or _usable(c["device"]))
    check_split(solver, devices)
    device = devices[0]
    spec = prior or facts["prior_spec"]
    if prior is None and spec not in BUILT_IN:
        raise InvdiffError(
            f"{source} names the prior {spec}, which is not part of invdiff and is not opened "
            f"because a file says so; give --prior {spec} if you trust it."
        )
    facts["prior_options"] = _options(c)
    used = load_prior(spec, device, facts["precision"], check=False, **facts["prior_options"])
    used = for_clips(used, problem.x_shape)
    result.check_prior(used)
    facts["want"] = want = c.get("want", "samples")
    facts["plugins"] = c.get("plugins", {})
    facts["prior_presumed"] = list(used.presumed)
    facts["noise"] = c.get("noise", "")
    lines = [
        ("run", f"{source}: {facts['task']['name']} of {facts['photo']['name']}"),
        ("solver", f"{solver.name}, {solver.num_steps} steps, seed {seed}"),
        ("samples", f"{samples}, {batch} at a time, on {', '.join(devices)}, prior {spec}"),
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
        facts, tensors, tuple(lines), portable, result.estimator(), want, devices, result,
    )  # fmt: skip


def _usable(device: str) -> str:
    """The device of a run, or `auto` where it is not there."""
    try:
        return str(present(device))
    except InvdiffError:
        return "auto"


def _parts(source: Path, result: Result) -> tuple[Problem, Solver, View]:
    """Problem, solver and view of a saved run, which fit its samples."""
    try:
        problem, solver = result.problem(), result.solver()
        view = decode(result.config["view"], result.tensors)
        if not isinstance(view, View):
            raise InvdiffError(f"{source} is not a run as it was written: view is no view.")
    except InvdiffError as error:
        missing = [name for name in result.config.get("plugins", {}) if name not in LOADED]
        if not missing:
            raise
        raise InvdiffError(
            f"{source} was made with what is not part of invdiff; give --plugin {missing[0]}."
        ) from error
    drawn = tuple(result.samples.shape)
    if (problem.batch, *problem.x_shape) != (drawn[0], *drawn[2:]):
        raise InvdiffError(
            f"{source} is not a run as it was written: its problem is of {problem.batch} images of "
            f"shape {problem.x_shape}, but the samples have shape {drawn}."
        )
    with tempfile.TemporaryDirectory() as folder:  # what the results would meet after the run
        values = view.values(stacked(result.samples))
        view.measurement(problem)
        view.save(Path(folder), "trial", values[0])
    return problem, solver, view


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the prior; runs before there were any have none."""
    found = dict(config.get("prior_options", {}))
    for name, kind in (("label", int), ("guidance", float), ("prompt", str)):
        if found.get(name) is not None:
            found[name] = convert(kind, found[name], name)
    for name in ("spec", "device", "precision", "check"):
        if name in found:
            raise InvdiffError(f"prior_options.{name} is no option of a prior.")
    return found
