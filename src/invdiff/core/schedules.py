"""Schedules: the noise levels along which sampling travels, not those of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar, Literal

import numpy as np

from invdiff.core import CLEAN, InvdiffError, Level
from invdiff.core.arguments import admit, admitting
from invdiff.core.limits import limited
from invdiff.core.tensors import constant

MOST_STEPS, LEVEL_BYTES = 10**6, 150
"""Steps of a schedule and entries of a table at most; what a level takes in memory, in bytes."""


@dataclass(frozen=True)
class Schedule:
    """A list of levels from noise to the clean image; the last one is (1, 0).

    steps: number of moves, so levels() has steps + 1 entries. (`VP` has two options for official
    codes that break these two rules: spacing "strided" and end "first".)
    Raises InvdiffError for options of another type, and for levels that do not fall from noise to
    image.
    """

    made_by: ClassVar[str] = "invdiff.VP(STEPS)"

    steps: int = field(default=100, metadata={"help": "moves from noise to image", "min": 1})

    def __post_init__(self) -> None:
        admit(self)
        if self.steps < 1:
            raise InvdiffError(
                f"A schedule needs at least 1 step, but {self.steps} were asked for."
            )
        limited("A schedule", self.steps, "steps", MOST_STEPS, LEVEL_BYTES)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        admitting(cls)

    def _between(self, low: str, high: str) -> None:
        """Raise InvdiffError unless 0 < low <= high, two of the fields."""
        a, b = getattr(self, low), getattr(self, high)
        if not 0 < a <= b:
            raise InvdiffError(
                f"{type(self).__name__}: {low} is above 0 and at most {high}, found {low} = {a:g} "
                f"and {high} = {b:g}."
            )

    def _at_least(self, name: str, low: float) -> None:
        """Raise InvdiffError where a field is below low."""
        value = getattr(self, name)
        if not value >= low:
            raise InvdiffError(
                f"{type(self).__name__}: {name} is at least {low:g}, found {value:g}."
            )

    def _below_one(self, name: str) -> None:
        """Raise InvdiffError unless 0 < field < 1."""
        value = getattr(self, name)
        if not 0 < value < 1:
            raise InvdiffError(
                f"{type(self).__name__}: {name} lies between 0 and 1, found {value:g}."
            )

    def levels(self) -> list[Level]:
        """All levels, first the noisiest, last (1, 0)."""
        raise NotImplementedError


@dataclass(frozen=True)
class VP(Schedule):
    """Variance-preserving: a^2 + s^2 = 1 on a table of `train_steps` betas.

    betas "linear": Ho et al. 2020 (arXiv 2006.11239), betas from beta_min to beta_max.
    betas "scaled-linear": the square roots of the betas are linear (Rombach et al. 2022, arXiv
    2112.10752: Stable Diffusion has beta_min = 0.00085 and beta_max = 0.012).
    betas "cosine": Nichol and Dhariwal 2021 (arXiv 2102.09672), eq. 17, betas capped at 0.999.
    spacing of the table's indices, T = train_steps, n = steps:
      "leading"   0, T/n, 2T/n, ..., rounded down; tops at T - T/n
      "strided"   0, c, 2c, ... below T with c = T // n: the official codes of DDRM, DDNM, PiGDM
                  and RED-diff. It is "leading" where n divides T, and has more than n steps where
                  it does not: VP(30) has 30, VP(30, spacing="strided") has 31.
      "trailing"  T/n - 1, 2T/n - 1, ..., T-1  (DDPM when n = T)
      "ends"      linspace(0, T-1, n), rounded to even at halves: 0, 10, ..., 979, 989, 999 for 100;
                  the respacing of guided diffusion, so the official codes of ILVR, DPS and MCG
      "quad"      T-1 - floor(sqrt(linspace(0, T^2, n))) (DiffPIR), dense near the image
    top: a number T of indices to travel over instead, at most train_steps: the noisier part of the
    table is left out, for solvers that start from an image (VP(20, top=300): 0, 15, ..., 285).
    shift: is added to every index where the table has room for it. The DDIM of latent diffusion
    has 1: VP(50, spacing="strided", shift=1) is 1, 21, ..., 981.
    end: the last move reaches the "clean" image, or the "first" entry of the table with its noise,
    as in the DDIM of latent diffusion (PSLD, ReSample).
    """

    betas: Literal["linear", "scaled-linear", "cosine"] = "linear"
    spacing: Literal["leading", "trailing", "quad", "strided", "ends"] = "leading"
    train_steps: int = 1000
    beta_min: float = 1e-4
    beta_max: float = 0.02
    top: int | None = None
    shift: int = 0
    end: Literal["clean", "first"] = "clean"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least("train_steps", 1)
        limited("VP", self.train_steps, "train_steps", MOST_STEPS, LEVEL_BYTES)
        self._between("beta_min", "beta_max")
        self._below_one("beta_max")
        if self.top is not None and not 1 <= self.top <= self.train_steps:
            raise InvdiffError(f"top lies between 1 and {self.train_steps}, found {self.top}.")

    def alpha_bars(self) -> np.ndarray:
        """The cumulative products of 1 - beta, float64, shape (train_steps,)."""
        T = self.train_steps
        if self.betas == "linear":
            betas = np.linspace(self.beta_min, self.beta_max, T)
        elif self.betas == "scaled-linear":
            betas = np.linspace(self.beta_min**0.5, self.beta_max**0.5, T) ** 2
        else:
            f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * math.pi / 2) ** 2
            betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
        return np.cumprod(1 - betas)

    def indices(self) -> list[int]:
        """Table indices, first the noisiest."""
        T, n = self.train_steps if self.top is None else self.top, self.steps
        if n > T:
            raise InvdiffError(f"{n} steps do not fit a table of {T}; ask for at most {T}.")
        grid = self._grid(T, n)
        fits = 0 <= grid[0] + self.shift and grid[-1] + self.shift < self.train_steps
        return [i + self.shift * fits for i in reversed(grid)]

    def _grid(self, T: int, n: int) -> list[int]:
        """n indices below T, or more with "strided", rising."""
        if self.spacing == "leading":
            return [i * T // n for i in range(n)]
        if self.spacing == "strided":
            return list(range(0, T, T // n))
        if self.spacing == "trailing":
            return [(i + 1) * T // n - 1 for i in range(n)]
        if self.spacing == "ends":
            # summed, as the official code does: where round-off decides, it decides alike
            strides = [0.0] + [(T - 1) / max(n - 1, 1)] * (n - 1)
            return [round(i) for i in accumulate(strides)]
        q = np.floor(np.sqrt(np.linspace(0, T**2, n))).astype(int)
        grid = sorted({int(T - 1 - min(i, T - 1)) for i in q})
        if len(grid) < n:
            raise InvdiffError(f"quad spacing has no {n} distinct indices below {T}.")
        return grid

    def levels(self) -> list[Level]:
        table = [Level(math.sqrt(bar), math.sqrt(1 - bar)) for bar in self.alpha_bars()]
        return [table[i] for i in self.indices()] + [CLEAN if self.end == "clean" else table[0]]


@dataclass(frozen=True)
class VPSDE(Schedule):
    """The variance-preserving SDE at t = linspace(1, eps, steps) (Song et al. 2021).

    arXiv 2011.13456, section 3.4: ln a(t) = -t^2 (beta1 - beta0) / 4 - t beta0 / 2,
    s^2 = 1 - a^2. `VP` is the table of betas that discretises it.
    """

    beta0: float = 0.1
    beta1: float = 20.0
    eps: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least("beta0", 0)
        if not self.beta0 <= self.beta1 or self.beta1 == 0:
            raise InvdiffError(
                f"{type(self).__name__}: beta1 is above 0 and at least beta0, found beta0 = "
                f"{self.beta0:g} and beta1 = {self.beta1:g}."
            )
        self._below_one("eps")

    def levels(self) -> list[Level]:
        t = np.linspace(1, self.eps, self.steps)
        a = np.exp(-(t**2) * (self.beta1 - self.beta0) / 4 - t * self.beta0 / 2)
        return [Level(float(u), self._noise(float(u))) for u in a] + [CLEAN]

    def _noise(self, a: float) -> float:
        """s that belongs to a."""
        return math.sqrt(1 - a**2)


@dataclass(frozen=True)
class SubVP(VPSDE):
    """The sub-VP SDE: a as in `VPSDE`, s = 1 - a^2, so that a^2 + s^2 < 1 (Song et al. 2021)."""

    def _noise(self, a: float) -> float:
        return 1 - a**2


@dataclass(frozen=True)
class VE(Schedule):
    """Variance-exploding: a = 1, s geometric from sigma_max to sigma_min, then 0 (Song 2021).

    Levels are in the unit of the images. Those of Song et al. and of what builds on their networks
    (SNIPS, score-MRI) are published for images on [0, 1]: `published` turns them into levels of
    images on another range.
    """

    sigma_max: float = 100.0
    sigma_min: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self._between("sigma_min", "sigma_max")

    @classmethod
    def published(
        cls,
        steps: int,
        sigma_max: float,
        sigma_min: float,
        value_range: tuple[float, float] = (-1.0, 1.0),
    ) -> VE:
        """Levels published for images on [0, 1], on the range of a prior: twice them on [-1, 1].

        value_range: of the prior's images. Of complex images whose magnitude is at most 1 the
        published levels hold as they are: give (0, 1). Raises InvdiffError for an endless range.
        """
        width = value_range[1] - value_range[0]
        if not 0 < width < math.inf:
            raise InvdiffError(
                f"Published levels are for images on [0, 1], and images on {value_range} have no "
                "width to scale them by; give the range in which they lie, (0, 1) to leave them."
            )
        return VE(steps, width * sigma_max, width * sigma_min)

    def levels(self) -> list[Level]:
        return [Level(1.0, s) for s in _geometric(self.sigma_max, self.sigma_min, self.steps)] + [
            CLEAN
        ]


@dataclass(frozen=True)
class Stairs(VE):
    """Variance-exploding, geometric, each level held: for solvers that take steps at a level.

    steps: of all levels together; there are as many levels as they fill, and the first is held for
    the rest. hold: steps at each level. late_hold: steps at each level below late_sigma.
    """

    hold: int = 3
    late_hold: int = 3
    late_sigma: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low in (("hold", 1), ("late_hold", 1), ("late_sigma", 0)):
            self._at_least(name, low)

    def levels(self) -> list[Level]:
        def stairs(n: int) -> list[float]:
            grid = _geometric(self.sigma_max, self.sigma_min, n)
            return [s for s in grid for _ in range(self._held(s))]

        n = max(1, self.steps // max(self.hold, self.late_hold))
        while len(stairs(n)) < self.steps:
            n += 1
        return [Level(1.0, s) for s in stairs(n)[-self.steps :]] + [CLEAN]

    def _held(self, sigma: float) -> int:
        return self.late_hold if sigma < self.late_sigma else self.hold


@dataclass(frozen=True)
class Karras(Schedule):
    """Variance-exploding with the grid of Karras et al. 2022 (arXiv 2206.00364), eq. 5.

    open_end: sigma_min is where the next level of the grid would stand, in place of which comes the
    clean image: the grid of steps + 1 levels without its last (the official code of DAPS).
    """

    sigma_max: float = 80.0
    sigma_min: float = 0.002
    rho: float = 7.0
    open_end: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._between("sigma_min", "sigma_max")
        if not self.rho > 0:
            raise InvdiffError(f"Karras: rho is above 0, found {self.rho:g}.")

    def levels(self) -> list[Level]:
        n, r = self.steps + self.open_end, self.rho
        hi, lo = self.sigma_max ** (1 / r), self.sigma_min ** (1 / r)
        t = np.linspace(0, 1, n) if n > 1 else np.zeros(1)
        noisy = [Level(1.0, float((hi + u * (lo - hi)) ** r)) for u in t]
        return [*noisy[: self.steps], CLEAN]


@dataclass(frozen=True)
class Flow(Schedule):
    """Rectified flow: x_t = (1 - t) x0 + t eps, t uniform from t_max to 0 (Liu et al. 2022)."""

    t_max: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        self._below_one("t_max")

    def levels(self) -> list[Level]:
        t = np.linspace(self.t_max, 0, self.steps + 1)[:-1]
        return [Level(float(1 - u), float(u)) for u in t] + [CLEAN]


def _geometric(first: float, last: float, n: int) -> list[float]:
    return [float(s) for s in np.geomspace(first, last, n)] if n > 1 else [float(first)]


@constant
def karras_levels(steps: int, sigma_max: float, sigma_min: float) -> list[Level]:
    """The levels of `Karras`, for a sampler within a step."""
    return Karras(steps, sigma_max, sigma_min).levels()
