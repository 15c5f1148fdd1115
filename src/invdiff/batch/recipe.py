"""What is done with every item, as JSON values: it reads the same on every machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from invdiff import fields, plugins
from invdiff.batch.items import BatchItem, beside, is_pattern, seed_of
from invdiff.core import InvdiffError, checksum
from invdiff.core.option import flag
from invdiff.priors.base import Prior
from invdiff.priors.hub import local
from invdiff.priors.load import BUILT_IN, load_prior
from invdiff.priors.precision import AskedPrecision, settled
from invdiff.priors.windows import of_clips
from invdiff.restoration.job import Job, Want, checked_counts, prepare, torch_device
from invdiff.restoration.knobs import as_asked, with_knobs
from invdiff.solvers import solver_class
from invdiff.tasks import task_class
from invdiff.tasks.base import Task
from invdiff.tasks.photo import PhotoTask


@dataclass(frozen=True)
class BatchRecipe:
    """A restoration, of whichever file. options: of the task, as text; patterns among them.

    prior_options: as `load_prior` takes them. truth: pattern of what is clean, or the file that is
    the truth of all. plugins: what
    --plugin named.
    """

    task: str
    options: Mapping[str, Any] = field(default_factory=dict)
    solver: str = "auto"
    knobs: Mapping[str, str] = field(default_factory=dict)
    steps: int | None = None
    samples: int = 4
    seed: int = 0
    batch: int | None = None
    want: Want = "both"
    precision: AskedPrecision = "auto"
    device: str = "auto"
    prior: str | None = None
    prior_options: Mapping[str, Any] = field(default_factory=dict)
    no_check: bool = False
    truth: str | None = None
    plugins: tuple[str, ...] = ()

    @staticmethod
    def of(told: Mapping[str, Any]) -> BatchRecipe:
        """From the JSON values of `as_dict`."""
        known = {k: v for k, v in told.items() if k in BatchRecipe.__dataclass_fields__}
        return BatchRecipe(**known | {"plugins": tuple(told["plugins"])})

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self) | {"plugins": list(self.plugins)}

    @property
    def digest(self) -> str:
        """Hash of all that a result depends on beside the item and the versions."""
        return checksum.of_json(self.as_dict())

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of what lies beside items, and the truth of all."""
        found = tuple(v for v in self.options.values() if is_pattern(v))
        return found if self.truth is None else (*found, self.truth)

    @property
    def kind(self) -> type[Task]:
        """The class of the task."""
        return task_class(self.task)

    @property
    def pictures(self) -> bool:
        """Whether a page or a frame is an item: not where the prior is of clips, whose items are
        whole animations and videos."""
        return issubclass(self.kind, PhotoTask) and not of_clips(self.prior or self.kind.prior)

    def checked(self) -> BatchRecipe:
        """The same with paths from the root. Raises InvdiffError for what is wrong in any case."""
        plain = {k: v for k, v in self.options.items() if not is_pattern(v)}
        known, kinds = fields.options(self.kind), fields.hints(self.kind)
        if len(plain) == len(self.options):
            fields.build(self.kind, plain, self.task)
        for name, value in plain.items():
            if name in known:
                fields.convert(kinds[name], value, name)
        missing = [n for n in self.options if n not in known]
        if missing:
            fields.build(self.kind, {missing[0]: "0"}, self.task)
        checked_counts(self.samples, self.batch)
        if self.solver == "auto" and self.knobs:
            name = next(iter(self.knobs))
            raise InvdiffError(
                f"--solver.{name} is a knob of a solver; name it too, with --solver NAME."
            )
        if self.solver != "auto":
            own = {k: v for k, v in self.knobs.items() if not k.startswith("path.")}
            with_knobs(solver_class(self.solver)(), own)
        if self.steps is not None:
            named = self.kind.auto.solver if self.solver == "auto" else self.solver
            solver_class(named)().with_steps(self.steps)
        torch_device(self.device)
        files = {
            name: os.path.abspath(value)
            for name, value in plain.items()
            if getattr(kinds[name], "from_file", kinds[name] is Path) and Path(str(value)).exists()
        }
        prior = self.prior
        if prior is not None and prior not in BUILT_IN and local(prior) is not None:
            prior = str(Path(prior).resolve())
        spec, device = prior or self.kind.prior, torch_device(self.device)
        told = self.as_dict() | {"options": {**self.options, **files}, "prior": prior}
        if self.truth is not None and not is_pattern(self.truth):
            told["truth"] = os.path.abspath(self.truth)
            if not os.path.exists(told["truth"]):
                raise InvdiffError(
                    f"There is no {self.truth}; --truth is a file, or a pattern as "
                    "{stem}-truth.png, of which each item has one."
                )
        told |= {"precision": settled(self.precision, spec, device)}
        return BatchRecipe.of(told)

    def loaded_prior(self) -> Prior:
        """The prior of all items. Raises InvdiffError as `load_prior` does."""
        return load_prior(
            self.prior or self.kind.prior, torch_device(self.device), self.precision,
            check=not self.no_check, **self.prior_options,
        )  # fmt: skip

    def load_plugins(self) -> None:
        """Import the plugins, once in a process."""
        plugins.load_installed()
        for spec in self.plugins:
            if spec not in plugins.ASKED:
                plugins.load(spec)

    def sidecars(self, item: BatchItem, file: Path) -> dict[str, Path]:
        """The files beside an item, by option. file: of the item, as it lies on this machine."""
        named = {**self.options, "truth": self.truth}
        near = {k: beside(v, item) for k, v in named.items() if is_pattern(v)}
        found = {k: file.parent / Path(v).name if item.shared else Path(v) for k, v in near.items()}
        if self.truth is not None and "truth" not in found:
            found["truth"] = Path(self.truth)
        return found

    def task_of(self, item: BatchItem, file: Path) -> Task:
        """The task of one item. Raises InvdiffError, in the command line's words."""
        near = {k: str(v) for k, v in self.sidecars(item, file).items() if k != "truth"}
        near |= {"series": item.within["series"]} if "series" in item.within else {}
        return fields.build(self.kind, {**self.options, **near}, self.task)

    def job(self, item: BatchItem, file: Path, prior: Prior, task: Task | None = None) -> Job:
        """The job of one item, by its task. Raises InvdiffError, in the command line's words."""
        task = self.task_of(item, file) if task is None else task
        if task.parts(file) is not None:
            raise InvdiffError(
                "Several images of one file are asked for, and an item of a batch is one; ask for "
                "one, or give invdiff restore the file."
            )

        return prepare(
            task, file, prior=prior, precision=self.precision, solver=self.solver,
            configure=lambda s: as_asked(s, self.knobs, self.steps), samples=self.samples,
            seed=seed_of(self.seed, item.id), batch=self.batch, want=self.want, device=self.device,
        )  # fmt: skip

    def differs(self, other: Mapping[str, Any]) -> list[str]:
        """What another recipe, as JSON values, has otherwise, in words."""
        mine, said = self.as_dict(), []
        for key in mine:
            pairs = [(key, mine[key], other.get(key))]
            if key == "options" and isinstance(other.get(key), Mapping):
                names = sorted({*mine[key], *other[key]})
                pairs = [(n, mine[key].get(n), other[key].get(n)) for n in names]
            said += [
                f"{flag(n)} {theirs}, now {here}" for n, here, theirs in pairs if here != theirs
            ]
        return said
