"""The top of the scale of a slice that is seen over a limited angle or by few views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import invdiff
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.operators.radon import Radon, limited_angle, sparse_view
from invdiff.operators.tomography import fbp, transmit
from invdiff.sampling.pose import pose
from invdiff.scans import Sinogram
from invdiff.scans.problems import CT, ct_problem
from invdiff.scans.scale import is_complete, top_of_scale
from invdiff.tasks import Ct
from invdiff.tasks.auto import estimator
from invdiff.tasks.ct_view import FloatView

SIDE, PIXEL = 48, 360 / 48


def chest() -> Tensor:
    """Attenuation per mm, (1, 1, 2 SIDE, 2 SIDE), of the slice of the examples."""
    file = invdiff.__file__.split("src")[0] + "examples/chest-ct.npz"
    hu = torch.from_numpy(np.load(file)["hu"].astype(np.float32))[None, None].clamp_min(-1000)
    return 0.02 * (1 + F.interpolate(hu, (2 * SIDE, 2 * SIDE), mode="area") / 1000)


def scanned(angles: tuple[float, ...]) -> tuple[Sinogram, Radon]:
    """A scan through pixels of half the size, with 1e5 photons."""
    A = Radon(angles, (SIDE, SIDE), pixel=PIXEL)
    exact = Radon.of(A.geometry.rescaled(2), (2 * SIDE, 2 * SIDE), PIXEL / 2)
    z = transmit(exact(chest()), 1e5, Rng.of(0))[0, 0]
    return Sinogram(z, angles, z.exp() / 1e5, torch.ones_like(z, dtype=torch.bool)), A


def earlier(s: Sinogram, A: Radon) -> float:
    """1.1 times the 0.995 quantile of the back-projection, whatever was seen."""
    return 1.1 * float(fbp(s.y, A).flatten().quantile(0.995))


def test_the_top_of_a_limited_angle_is_that_of_the_full_scan() -> None:
    """Within 10 percent for 90 degrees; the back-projection misses a third of it."""
    s, A = scanned(limited_angle(180.0, 2.0))
    assert is_complete(A)
    full, how = top_of_scale(s.y, A, fbp(s.y, A)[0])
    assert full == earlier(s, A) and "back-projection" in how  # full scans stay as they were
    s, A = scanned(limited_angle(90.0, 2.0))
    top, how = top_of_scale(s.y, A, fbp(s.y, A)[0])
    assert top == pytest.approx(full, rel=0.1) and "the views show 90 of 180 degrees" in how
    assert earlier(s, A) < 0.75 * full
    few, how = scanned(sparse_view(8)), ""
    top, how = top_of_scale(few[0].y, few[1], fbp(few[0].y, few[1])[0])
    assert top == pytest.approx(full, rel=0.15) and "8 views of 68 bins are few" in how


def test_the_error_falls_with_the_right_scale() -> None:
    """By a quarter at least, for what `restore ct` takes as the estimate."""
    s, A = scanned(limited_angle(90.0, 2.0))
    truth, prior = F.avg_pool2d(chest(), 2), invdiff.load_prior("ct")

    def nmse(top: float | None) -> float:
        c = ct_problem(s, A, top=top)
        best = estimator(Ct, pose(c.problem, prior).problem)
        assert best is not None
        x = invdiff.solve(c.problem, prior, best[0], 1, seed=0).samples[0]
        values = c.low + (x + 1) * (c.high - c.low) / 2
        return float((values - truth).square().sum() / truth.square().sum())

    assert nmse(None) < 0.75 * nmse(earlier(s, A))


def problem(**options: float) -> CT:
    return ct_problem(*scanned(limited_angle(90.0, 6.0)), **options)


def test_the_top_may_be_told() -> None:
    c = problem(top=0.05)
    assert (c.low, c.high, c.scale) == (0.0, 0.05, "as given")
    with pytest.raises(InvdiffError, match="leave --water or --top out"):
        problem(top=0.05, water=0.02)
    for top in (0.0, -1.0, float("nan")):
        with pytest.raises(InvdiffError, match="attenuation above 0"):
            problem(top=top)


def test_samples_beyond_the_scale_are_told() -> None:
    view = FloatView(torch.zeros(1, 4, 4), 0.0, 0.03, "attenuation per length", 0.0, 0.03)
    x = torch.zeros(2, 1, 10, 10)
    assert view.warnings(x) == []
    x[:, :, 0, :2] = 1.05
    assert view.warnings(x) == []
    x[:, :, 0, :5] = 3.6
    (said,) = view.warnings(x)
    assert "5 % of the pixels are brighter" in said and "a larger --top" in said and "0.069" in said
