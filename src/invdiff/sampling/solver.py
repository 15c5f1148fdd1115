"""What a solver is: a frozen dataclass whose pure step turns a State into a State."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from invdiff.core import InvdiffError, Level, nearest
from invdiff.core.arguments import admit, admitting
from invdiff.core.option import check_ranges
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP, Schedule
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need
from invdiff.sampling.state import State

Claim = Literal["exact", "asymptotic", "heuristic"]
Range = tuple[float, float]
UNIT: Range = (-1.0, 1.0)
"""The range of the images of most priors."""


def knob(
    default: Any,
    help: str,
    min: float | None = None,
    max: float | None = None,
    infinite: bool = False,
) -> Any:
    """A dataclass field with its help text and range: read by the command line and by tables.

    infinite: whether infinity is a value.
    """
    about = {"help": help, "min": min, "max": max, "infinite": infinite}
    return dataclasses.field(default=default, metadata=about)


@dataclass(frozen=True)
class Solver:
    """Base of all posterior samplers. A subclass is one paper, in one file.

    name: as users type it. paper: authors, year, arXiv id, algorithm. needs: what it asks of a
    problem and prior; where that depends on knobs, `requires` says it. claim: what its samples
    are: `exact` posterior samples, `asymptotic` ones as the budget grows, or `heuristic`. coupled:
    True when samples interact, so that a batch must not be split. ignores_y: True for the
    unconditional sampler alone. estimates: True when no noise is drawn, so that all samples are one
    picture.
    weighted: True when samples come with weights (`importance.py`), for rows that start from noise
    alone. when_it_diverges: advice.
    schedule: the levels along which it travels.
    """

    made_by: ClassVar[str] = "invdiff.DDRM()"
    name: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    claim: ClassVar[Claim] = "heuristic"
    coupled: ClassVar[bool] = False
    ignores_y: ClassVar[bool] = False
    estimates: ClassVar[bool] = False
    weighted: ClassVar[bool] = False
    when_it_diverges: ClassVar[str] = "a schedule within the noise levels of the prior"

    schedule: Schedule = dataclasses.field(default=VP(100), kw_only=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        admitting(cls)

    def __post_init__(self) -> None:
        """Raise InvdiffError for a knob of another type, or outside its range."""
        admit(self)
        check_ranges(self, self.name)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """Name of a task to the configuration that the authors' own code has for it; none here.

        value_range: as in `official`. A subclass names the files that it was read from.
        """
        return {}

    @classmethod
    def official(cls, task: str, value_range: Range = UNIT) -> Self:
        """The configuration that the authors' own code has for a task of `configurations`.

        value_range: of the prior's images. Levels and steps that were published for images on
        [0, 1] are turned into those of this range; it has no effect on other solvers.
        Raises InvdiffError for any other task, and for a solver without published code.
        """
        known = cls.configurations(value_range)
        if not known:
            raise InvdiffError(f"No official configuration of {cls.name} is known here.")
        if task not in known:
            raise nearest(task, known, f"official configuration of {cls.name}")
        return known[task]

    def requires(self) -> tuple[frozenset[Need], ...]:
        """Complete sets of needs, any one of which will do: by default one, `needs`.

        A method with one form for noisy and one for noiseless data has two.
        """
        return (self.needs,)

    def always_needs(self, need: Need) -> bool:
        """Whether a need is in each of those sets."""
        return all(need in needs for needs in self.requires())

    @property
    def levels(self) -> list[Level]:
        """The schedule's levels, computed once."""
        if "_levels" not in self.__dict__:
            self.__dict__["_levels"] = self.schedule.levels()
        levels: list[Level] = self.__dict__["_levels"]
        return levels

    @property
    def num_steps(self) -> int:
        """How often step is called from init to the end."""
        return len(self.levels) - 1

    def with_steps(self, steps: int) -> Self:
        """The same solver on the same kind of schedule with another number of steps."""
        return dataclasses.replace(self, schedule=dataclasses.replace(self.schedule, steps=steps))

    def course(self, problem: Problem, prior: Prior) -> bool:
        """Which of two courses a run takes, where they differ in evaluations of the prior.

        Measurements of two courses are not run together: each would be told the cost of the other.
        """
        return False

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        """Pure noise at the first level; solvers that start elsewhere override it."""
        top = self.levels[0]
        z = rng.normal(problem.x_like, "init")
        return State(0, top.s * z, 0.0 * z)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        """One step from levels[state.step] to levels[state.step + 1]; pure."""
        raise NotImplementedError

    def finish(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> Tensor:
        """The samples, (B, *x_shape), of the last state."""
        return state.x


_REGISTERED: dict[str, type[Solver]] = {}


def register(*classes: type[Solver]) -> None:
    """Make solvers known by their names: to `registry`, and so to menus and to advice.

    A class may be registered again, also when its module was loaded twice.
    Raises InvdiffError for a name that another solver has.
    """
    for cls in classes:
        known = _REGISTERED.get(cls.name, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InvdiffError(
                f"{cls.__name__} cannot be called {cls.name}, which is the name of "
                f"{known.__name__}; give it another name."
            )
        _REGISTERED[cls.name] = cls


def registry() -> dict[str, type[Solver]]:
    """Name to class of every solver that was registered, in alphabetical order.

    Those of `invdiff.solvers` are registered when it is imported.
    """
    return dict(sorted(_REGISTERED.items()))
