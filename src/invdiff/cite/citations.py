"""What to cite: for a run, for solvers, operators and priors.

Facts are read where the code states them: the `paper` of a solver, the docstrings of operators and
noise models, the cards of priors.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from invdiff.cite.references import Reference, completed, parse, unique
from invdiff.core import InvdiffError
from invdiff.priors.load import BUILT_IN
from invdiff.sampling.solver import Solver
from invdiff.solvers import registry


@dataclass(frozen=True)
class Source:
    """Something to cite. what: part of the run; words: what is said of it; references: papers."""

    what: str
    words: str = ""
    references: tuple[Reference, ...] = ()


def of_run(path: Path) -> tuple[str, list[Source]]:
    """The version of invdiff that made a run, and what it used.

    Raises InvdiffError where path is no run.json, and no folder with one.
    """
    file = path / "run.json" if path.is_dir() else path
    try:
        c = json.loads(file.read_text(encoding="utf-8"))
        version, problem, prior = str(c["invdiff"]), c["problem"]["fields"], c["prior"]["name"]
        forms = [("solver", c["solver"]), ("estimator", c.get("estimator"))]
        sources = [s for role, form in forms for s in _of_form(form, role)]
        sources += _of_parts(problem["A"], "operator", "invdiff.operators")
        sources += _of_parts(problem["noise"], "noise", "invdiff.noise")
        sources += _of_steps(c)
        return version, [*sources, of_prior(str(c.get("prior_spec", prior)))]
    except InvdiffError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise InvdiffError(
            f"{path} holds no run; give a folder with the run.json of a restoration."
        ) from None


def _of_form(form: Any, role: str) -> list[Source]:
    """What to cite for a solver as run.json has it, and for solvers inside of it."""
    if form is None:
        return []
    classes = {cls.__name__: cls for cls in registry().values()}
    found = [classes[n] for n in _names(form) if n in classes]
    if not found:
        return [
            Source(role, f"{form.get('repr', form.get('type'))}: cite what its authors ask for")
        ]
    return [s for cls in found for s in of_solver(cls, role)]


def _names(form: Any) -> Iterator[str]:
    """The names of all classes in a part of run.json, from outside in."""
    if isinstance(form, dict):
        if "type" in form:
            yield str(form["type"]).rpartition(":")[2]
        for value in form.values():
            yield from _names(value)
    elif isinstance(form, list):
        for value in form:
            yield from _names(value)


def of_solver(cls: type[Solver], role: str = "solver") -> list[Source]:
    """What to cite for a solver: its papers, and those of another of ours that it names."""
    others = registry()
    known = [r for c in others.values() for r in parse(c.__doc__ or "")]
    found = [completed(completed(r, parse(cls.__doc__ or "")), known) for r in parse(cls.paper)]
    ours = "this project" in cls.paper
    bare = not all(r.findable for r in found)
    named = [others[n] for n in re.findall(r"[\w+-]+", cls.paper) if n in others and ours]
    own = Source(f"{role} {cls.name}", cls.paper if ours or bare else "", tuple(unique(found)))
    return [own, *(s for other in named for s in of_solver(other, role))]


def _described(thing: Any) -> tuple[Reference, ...]:
    """The sources that a docstring names."""
    own = parse(thing.__doc__ or "")
    known = [r for c in registry().values() for r in parse(c.__doc__ or "")]
    return tuple(unique(completed(completed(r, own), known) for r in own))


def _of_parts(form: Any, role: str, module: str) -> list[Source]:
    """What to cite for the operator, or the noise, of run.json: the sources in its docstring."""
    home, found = importlib.import_module(module), []
    for name in dict.fromkeys(_names(form)):
        if name in home.__all__ and (references := _described(getattr(home, name))):
            found.append(Source(f"{role} {name}", references=references))
    return found


def _told(task: dict[str, Any]) -> dict[str, Any]:
    """The options of the task of run.json, by their flags; those of format 1 are texts already."""
    if "fields" not in task:
        return dict(task.get("options", {}))
    found = {name.replace("_", "-"): value for name, value in task["fields"].items()}
    maps = found.get("coil-maps", "")
    if task["name"] == "mri":
        found["coil-maps"] = "espirit" if maps is None else maps["fields"]["path"]
    return found


def _of_steps(c: dict[str, Any]) -> list[Source]:
    """What was done to the measurement before the run, as far as run.json tells."""
    told, task = str(c.get("noise", "")), c.get("task", {})
    options = _told(task)
    found = []
    if "finest detail" in told:
        found.append(("noise level", "invdiff.noise.estimate", "noise_from_detail"))
    if options.get("coil-maps") == "espirit" and '"maps": {' in json.dumps(c["problem"]):
        found.append(("coil maps", "invdiff.operators.coils", "espirit"))
    if options.get("rings") == "remove":
        found.append(("removal of rings", "invdiff.scans.drift", "without_rings"))
    return [
        Source(what, references=_described(getattr(importlib.import_module(module), name)))
        for what, module, name in found
    ]


def of_prior(spec: str) -> Source:
    """What to cite for a prior: the data that its card names.

    spec: a name, a file or a folder.
    """
    if spec in BUILT_IN:
        card = (
            resources.files("invdiff.priors").joinpath("weights", f"{spec}.md").read_text("utf-8")
        )
    else:
        beside = Path(spec).with_suffix(".md")
        card = beside.read_text("utf-8") if beside.is_file() else ""
    data = re.search(r"^- Data: (.*)$", card, re.MULTILINE)
    if data:
        return Source(f"prior {spec}", f"Data: {data[1]}", tuple(parse(data[1])))
    return Source(f"prior {spec}", "none of invdiff's own: cite what those who made it ask for")
