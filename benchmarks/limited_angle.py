"""The scale of a slice that is seen over a limited angle: the rule of now against the earlier one.

    python benchmarks/limited_angle.py [slices.npz] [--span 90] [--count 4] [--side 128]

Chest slices (`hu`, (slices, H, W) or (H, W)) are scanned through pixels of half the size, with 1e5
photons in a free ray, and reconstructed without --water by what `restore ct` takes. The earlier
rule is 1.1 times the 0.995 quantile of the back-projection of the views that there are.
Printed: the top of the scale over that of the full scan, and the NMSE of the estimate and of the
mean of two samples over the slice.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import invdiff
from invdiff.core.rng import Rng
from invdiff.operators.radon import Radon, limited_angle
from invdiff.operators.tomography import fbp, transmit
from invdiff.sampling.pose import pose
from invdiff.scans.problems import ct_problem
from invdiff.scans.sinogram import Sinogram
from invdiff.tasks import Ct
from invdiff.tasks.auto import choose, estimator

HERE = Path(__file__).parent
PHOTONS = 1e5


def slices(path: Path, side: int, count: int) -> Tensor:
    """Attenuation per mm of (count, 1, 2 side, 2 side) pixels, the last ones of the file."""
    hu = torch.from_numpy(np.load(path)["hu"].astype(np.float32))
    hu = hu.reshape(-1, 1, *hu.shape[-2:])[-count:].clamp_min(-1000)
    return 0.02 * (1 + F.interpolate(hu, (2 * side, 2 * side), mode="area") / 1000)


def scanned(fine: Tensor, span: float, pixel: float, seed: int) -> tuple[Sinogram, Radon]:
    """A scan of (1, 1, 2 n, 2 n) pixels in steps of a degree, and its operator at n pixels."""
    n = fine.shape[-1] // 2
    A = Radon(limited_angle(span), (n, n), pixel=pixel)
    exact = Radon.of(A.geometry.rescaled(2), (2 * n, 2 * n), pixel / 2)
    z = transmit(exact(fine), PHOTONS, Rng.of(seed))[0, 0]
    variance = z.exp() / PHOTONS
    return Sinogram(z, A.angles, variance, torch.ones_like(z, dtype=torch.bool)), A


def earlier(s: Sinogram, A: Radon) -> float:
    """The top of the scale by the earlier rule."""
    return 1.1 * float(fbp(s.y, A).flatten().quantile(0.995))


def errors(s: Sinogram, A: Radon, top: float | None, truth: Tensor) -> tuple[float, float, float]:
    """(top, NMSE of the estimate, NMSE of the mean of two samples)."""
    c = ct_problem(s, A, top=top)
    prior = invdiff.load_prior("ct")
    posed = pose(c.problem, prior).problem
    best = estimator(Ct, posed)
    assert best is not None
    solver = choose(Ct, posed)[0]
    r = invdiff.solve(c.problem, prior, solver, 2, seed=1, estimator=best[0])
    assert r.estimate is not None

    def nmse(x: Tensor) -> float:
        values = c.low + (x + 1) * (c.high - c.low) / 2
        return float((values - truth).square().sum() / truth.square().sum())

    return c.high, nmse(r.estimate), nmse(r.mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", default=HERE.parent / "examples" / "chest-ct.npz")
    parser.add_argument("--span", type=float, default=90.0)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--side", type=int, default=128)
    args = parser.parse_args()
    pixel = 360 / args.side
    for k, fine in enumerate(slices(Path(args.file), args.side, args.count)):
        truth = F.avg_pool2d(fine[None], 2)
        s, A = scanned(fine[None], args.span, pixel, k)
        full = ct_problem(*scanned(fine[None], 180.0, pixel, k)).high
        for name, top in (("earlier", earlier(s, A)), ("now", None), ("full scan's", full)):
            high, estimate, mean = errors(s, A, top, truth)
            print(
                f"slice {k}  {name:12} top {high / full:.3f} of the full scan's  NMSE "
                f"{estimate:.4f} estimate, {mean:.4f} mean",
                flush=True,
            )


if __name__ == "__main__":
    main()
