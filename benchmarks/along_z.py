"""Does a term along z help a stack of CT slices? HQS estimates, without and with total variation.

    python benchmarks/along_z.py --choose lung1.npy --report lung2.npy

Files hold (slices, height, width) in HU, neighbours in order; the middle `--slices` are taken, at
half the size. Beside them a stack that is nearly the same in every slice: one slice, warped by half
a pixel from slice to slice. Each is measured with the noise of a low dose, and by few views.
The term is t |x_k - x_(k+1)|_1 with t in HU, by its proximal map: within every data step (as Chung,
Lee, Ye 2024, arXiv 2303.05754, do by ADMM), or once, after the last step. Written are PSNR on 2500
HU, and the flicker: the root mean square of z-differences of the error, in HU. The strength with
the best PSNR on the first volume is the one of which the second tells whether it pays.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff import HQS, Prior, Problem, Radon, Rng, load_prior, sparse_view, transmit
from invdiff.priors.units import HU_WINDOW, hu_to_x, x_to_hu
from invdiff.sampling.pose import pose
from invdiff.sampling.state import State
from invdiff.scans.ct_noise import usual_noise
from invdiff.scans.problems import on_unit_norm
from invdiff.tasks import Ct, LowDoseCt, NoiseLevel
from invdiff.tasks.auto import estimator

STRENGTHS = (0.5, 2.0, 6.0)
RANGE = HU_WINDOW[1] - HU_WINDOW[0]
WATER, MM = 0.02, 1.4
"""Attenuation of water per mm; mm of a pixel."""


def shrunk(x: Tensor, t: float, iterations: int = 40) -> Tensor:
    """argmin |z - x|^2 / 2 + t sum |z_k - z_(k+1)| along axis 0, by its dual problem.

    Accelerated projected gradients: Beck, Teboulle 2009, "Fast gradient-based algorithms for
    constrained total variation", IEEE Trans. Image Process. 18, 2419.
    """
    edge = torch.zeros_like(x[:1])

    def adjoint(u: Tensor) -> Tensor:
        return torch.cat([edge, u]) - torch.cat([u, edge])

    u = w = torch.zeros_like(x[1:])
    a = 1.0
    for _ in range(iterations):
        z = x - adjoint(w)
        new = (w + (z[1:] - z[:-1]) / 4).clamp(-t, t)
        b = (1 + math.sqrt(1 + 4 * a * a)) / 2
        u, w, a = new, new + (a - 1) / b * (new - u), b
    return x - adjoint(u)


@dataclass(frozen=True)
class Along(HQS):
    """HQS with the term in its data step. t: in the units of x."""

    t: float = 0.0

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        rho = self.lam * (max(problem.sigma_y, self.sigma_floor) / level.sigma) ** 2

        def data(x: Tensor) -> Tensor:
            X = x + problem.linear.ridge(problem.residual(x), rho)
            return shrunk(X, self.t) if self.t else X

        X = data(state.x)
        x0 = torch.cat([prior.denoise(row[None], level.sigma) for row in X])
        if to.s == 0 and self.final == "data":
            x0 = data(x0)
        return State(state.step + 1, x0, x0.clone())


def estimated(problem: Problem, prior: Prior, best: HQS, t: float) -> Tensor:
    """The estimate of a problem that was posed, in HU."""
    solver = Along(best.lam, best.final, best.sigma_floor, t * 2 / RANGE, schedule=best.schedule)
    rng = Rng.of([0] * problem.batch)
    with torch.no_grad():
        state = solver.init(problem, prior, rng)
        for _ in range(solver.num_steps):
            state = solver.step(state, problem, prior, rng)
    return x_to_hu(state.x)


def low_dose(hu: Tensor, prior: Prior, level: float) -> tuple[Problem, HQS]:
    field = usual_noise(level)
    y = torch.cat([field.sample(hu[k : k + 1], Rng.of(100 + k)) for k in range(len(hu))])
    task = LowDoseCt(noise=NoiseLevel.of(level))
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/y.npy", y[:, 0].numpy())
        problem = pose(task.read(Path(folder) / "y.npy", prior).problem, prior).problem
    return problem, estimator(task, problem)[0]


def few_views(hu: Tensor, prior: Prior, views: int, photons: float = 1e5) -> tuple[Problem, HQS]:
    n = hu.shape[-1]
    A = Radon(sparse_view(views), (n, n), pixel=MM)
    clean = A(WATER * (1 + hu / 1000))
    y = torch.cat([transmit(z[None], photons, Rng.of(100 + k)) for k, z in enumerate(clean)])
    bottom, top = (WATER * (1 + float(x_to_hu(torch.tensor(x))) / 1000) for x in (-1.0, 1.0))
    sigma = float((y - clean).square().mean().sqrt())
    problem = pose(on_unit_norm(y, A, bottom, top, sigma, None, 30), prior).problem
    return problem, estimator(Ct(), problem)[0]


MEASURED = {
    "low dose, 40 HU": lambda hu, prior: low_dose(hu, prior, 40.0),
    "low dose, 100 HU": lambda hu, prior: low_dose(hu, prior, 100.0),
    "30 views": lambda hu, prior: few_views(hu, prior, 30),
}


def scores(found: Tensor, hu: Tensor) -> tuple[float, float]:
    """PSNR in dB, and the flicker in HU."""
    error = found - hu
    psnr = 20 * math.log10(RANGE / float(error.square().mean().sqrt()))
    return psnr, float((error[1:] - error[:-1]).square().mean().sqrt())


def trials(hu: Tensor, prior: Prior) -> dict[str, dict[str, tuple[float, float]]]:
    """By measurement and term: its scores."""
    found = dict[str, dict[str, tuple[float, float]]]()
    for name, make in MEASURED.items():
        problem, best = make(hu, prior)
        plain = estimated(problem, prior, best, 0.0)
        row = {"none": scores(plain, hu)}
        for t in STRENGTHS:
            row[f"within, t = {t:g}"] = scores(estimated(problem, prior, best, t), hu)
            row[f"after, t = {t:g}"] = scores(x_to_hu(shrunk(hu_to_x(plain), t * 2 / RANGE)), hu)
        found[name] = row
    return found


def volume(file: Path, slices: int) -> Tensor:
    hu = np.load(file)
    first = (len(hu) - slices) // 2
    kept = torch.from_numpy(hu[first : first + slices].astype(np.float32)).clamp(*HU_WINDOW)
    return F.avg_pool2d(kept[:, None], 2)


def warped(hu: Tensor, slices: int, pixels: float) -> Tensor:
    """A slice (1, H, W) moved by a smooth field that grows by so many pixels from slice to slice,
    in root mean square about."""
    rng, n = np.random.default_rng(0), hu.shape[-1]
    coarse = torch.from_numpy(rng.normal(size=(1, 2, 6, 6))).float()
    field = F.interpolate(coarse, size=(n, n), mode="bicubic", align_corners=True)[0]
    field = field / field.square().sum(0).mean().sqrt() * pixels * 2 / (n - 1)
    y, x = torch.meshgrid(torch.linspace(-1, 1, n), torch.linspace(-1, 1, n), indexing="ij")
    grids = [
        torch.stack([x, y], -1) + (k - slices / 2) * field.permute(1, 2, 0) for k in range(slices)
    ]
    moved = F.grid_sample(
        hu[None].expand(slices, -1, -1, -1), torch.stack(grids), mode="bicubic",
        padding_mode="border", align_corners=True,
    )  # fmt: skip
    return moved.clamp(*HU_WINDOW)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--choose", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--slices", type=int, default=6)
    args = parser.parse_args()
    prior = load_prior("ct")
    first, second = (volume(f, args.slices) for f in (args.choose, args.report))
    middle = args.slices // 2
    stacks = {
        "volumes": (first, second),
        "warps": tuple(warped(v[middle], args.slices, 0.5) for v in (first, second)),
    }
    for kind, (mine, other) in stacks.items():
        moved = [float((v[1:] - v[:-1]).square().mean().sqrt()) for v in (mine, other)]
        print(f"{kind}: z-differences of {moved[0]:.0f} and {moved[1]:.0f} HU", flush=True)
        chosen, told = trials(mine, prior), trials(other, prior)
        for name, row in chosen.items():
            best = max((k for k in row if k != "none"), key=lambda k: row[k][0])
            for label, found in (("chosen on", row), ("reported", told[name])):
                a, b = found["none"], found[best]
                print(
                    f"  {name:<17}{label:<10}PSNR {a[0]:.2f} -> {b[0]:.2f} dB, flicker "
                    f"{a[1]:.1f} -> {b[1]:.1f} HU by {best}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
