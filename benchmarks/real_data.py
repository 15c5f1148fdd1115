"""Two real measurements as problems, with a part of each kept back to judge the answers by."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from invdiff import Problem, centre_of_rotation, fbp, read_kspace, read_sinogram
from invdiff.noise import DiagonalGaussian, noise_from_kspace
from invdiff.operators.mri import Sense
from invdiff.operators.radon import Radon
from invdiff.scans import Sinogram, excess, without_drift, without_rings
from invdiff.scans.kspace import radius
from invdiff.scans.kspace_problem import mri_problem
from invdiff.scans.problems import on_unit_norm

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ROWS, HELD = 128, 0.1
SIDE = {2: 192, 4: 96}
"""Pixels across the picture of the tooth for so many detector pixels to a bin."""


@dataclass(frozen=True, eq=False)
class Real:
    """A measurement to reconstruct from, and numbers that none of the answers saw.

    sigmas: standard deviation of the noise of y, of its shape, infinite where it does not count;
    the solvers may be told more, for errors of the model.
    held_y, held_A, held_sigmas: the same for what was kept back; None where nothing was.
    regions: parts of y by name. facts: what was found of the data, for the page.
    """

    title: str
    problem: Problem
    sigmas: Tensor
    held_y: Tensor | None = None
    held_A: Sense | Radon | None = None
    held_sigmas: Tensor | None = None
    regions: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, float | str] = field(default_factory=dict)

    def chi2(self, x: Tensor) -> float:
        """Mean square of the residual of y over its variance, per real number."""
        return _chi2(self.problem.y - self.problem.A(x), self.sigmas)

    def told(self, x: Tensor) -> float:
        """The same over the variance that the solvers were told."""
        n = self.problem.noise
        sigmas = n.sigmas if isinstance(n, DiagonalGaussian) else self.sigmas
        return _chi2(self.problem.y - self.problem.A(x), sigmas)

    def held(self, x: Tensor) -> float | None:
        """The same of what was kept back."""
        if self.held_y is None or self.held_A is None or self.held_sigmas is None:
            return None
        return _chi2(self.held_y - self.held_A(x), self.held_sigmas)

    def within(self, name: str, x: Tensor) -> float:
        """The same of a region of y."""
        inside = self.regions[name].expand(self.sigmas.shape)
        sigmas = torch.where(inside, self.sigmas, torch.inf)
        return _chi2(self.problem.y - self.problem.A(x), sigmas)


def _chi2(r: Tensor, sigmas: Tensor) -> float:
    counts = sigmas.isfinite().expand(r.shape)
    z = (r / sigmas)[counts]
    z = torch.view_as_real(z) if z.is_complex() else z
    return float(z.double().square().mean())


def brain(file: Path = EXAMPLES / "brain8coil.npz") -> Real:
    """Eight coils, the middle 128 rows; a tenth of the samples outside calibration kept back."""
    k = read_kspace(file)
    found = mri_problem(k, rows=ROWS)
    p, A = found.problem, found.problem.A
    assert isinstance(A, Sense)
    seen = A.mask.bool()
    h, w = seen.shape[-2:]
    calibration = torch.zeros_like(seen)
    calibration[..., h // 2 - 12 : h // 2 + 12, w // 2 - 12 : w // 2 + 12] = True
    chance = torch.rand(seen.shape, generator=torch.Generator().manual_seed(0))
    candidates = seen & ~calibration
    kept_back = candidates & (chance < HELD * int(seen.sum()) / int(candidates.sum()))
    used = seen & ~kept_back

    def counted(mask: Tensor) -> Tensor:
        return torch.where(mask, p.sigma_y, torch.inf).expand(p.y.shape)

    held_A = dataclasses.replace(A, mask=kept_back)
    problem = Problem(p.y, dataclasses.replace(A, mask=used), p.noise, p.x_shape)
    centre = (radius(seen[0, 0]) < 0.2)[None, None]
    facts: dict[str, float | str] = {
        "rim": noise_from_kspace(k.data).sigma,
        "coils": found.sigma,
        "coils, full": mri_problem(k).sigma,
        "sigma": p.sigma_y,
        "samples": int(used.sum()),
        "held": int(kept_back.sum()),
    }
    return Real(
        "brain", problem, counted(used), held_A.restrict(p.y), held_A, counted(kept_back),
        {"centre": centre & used, "rest": ~centre & used}, facts,
    )  # fmt: skip


def tooth(
    views: int | None, join: int, corrected: bool = True, file: Path = EXAMPLES / "tooth.npz"
) -> Real:
    """A tooth from `views` of its 181 views (None: all), or from data as the flat field left it.

    join: detector pixels to a bin, as wide as a pixel. Rays that miss the picture are left out.
    Rings are found in the views that are used, and the drift of the beam in each view by itself.
    """
    raw = read_sinogram(file, join=join)
    side = SIDE[join]
    shift = centre_of_rotation(raw)
    count = len(raw.angles)
    chosen = torch.arange(count) if views is None else torch.arange(views) * count // views
    rest = torch.tensor([k for k in range(count) if k not in chosen.tolist()], dtype=torch.long)
    s, beyond = raw, 0.0
    if corrected:
        part = raw.views(chosen)
        rings = (part.integrals - without_rings(part).integrals)[:1]
        s = without_drift(dataclasses.replace(raw, integrals=raw.integrals - rings))
        beyond = excess(s.views(chosen))
    cut, shift = _inside(s, shift, side)
    used = cut.views(chosen)
    assert used.variance is not None and cut.variance is not None
    every = used.radon((side, side), shift)
    top = 1.1 * float(fbp(used.y, every).flatten().quantile(0.995))
    p = on_unit_norm(used.y, every, 0.0, top, 1.0)
    unit = p.sigma_y  # of a line integral, in the units of p.y
    photons = torch.where(used.trusted, used.variance.sqrt() * unit, torch.inf)[None, None]
    told = (photons.square() + (beyond * unit) ** 2).sqrt()
    problem = Problem(p.y, p.A, DiagonalGaussian(told), p.x_shape)
    facts: dict[str, float | str] = {
        "photon noise": float(used.variance.mean().sqrt()),
        "excess": beyond,
        "shift": shift,
        "level": problem.noise.level,  # type: ignore[attr-defined]
        "rays": int(used.trusted.sum()),
    }
    title = f"tooth, {len(chosen)} views"
    if not len(rest):
        return Real(title, problem, photons, facts=facts)
    other = cut.views(rest)
    assert other.variance is not None and isinstance(p.A, Radon)
    whole = other.radon((side, side), shift)
    held_A = dataclasses.replace(whole, pixel=p.A.pixel)
    offset = whole(torch.full((1, 1, side, side), top / 2))
    held_sigmas = torch.where(other.trusted, other.variance.sqrt() * unit, torch.inf)[None, None]
    held_y = (other.y - offset) * unit
    return Real(title, problem, photons, held_y, held_A, held_sigmas, facts=facts)


def _inside(s: Sinogram, shift: float, side: int) -> tuple[Sinogram, float]:
    """The rays that meet a picture of `side` pixels around the axis, and the shift among these."""
    bins = s.integrals.shape[1]
    axis = (bins - 1) / 2 + shift
    first = max(0, round(axis - side / 2 + 0.5))
    here = slice(first, min(bins, first + side))
    variance = None if s.variance is None else s.variance[:, here]
    cut = dataclasses.replace(
        s, integrals=s.integrals[:, here], variance=variance, trusted=s.trusted[:, here]
    )
    return cut, axis - first - (cut.integrals.shape[1] - 1) / 2
