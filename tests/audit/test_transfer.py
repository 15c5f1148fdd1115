"""Mean and variance of each singular value: closed forms of the literature, and by simulation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from invdiff.audit.transfer import DRAWS, SNR, apart, null_errors, singular, transfer
from invdiff.core.schedules import VP, Karras
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.dps import DPS
from invdiff.solvers.eps import EPS
from invdiff.solvers.one_call import OneCall
from invdiff.solvers.pigdm import PiGDM
from invdiff.solvers.unconditional import Unconditional


def test_the_figures_are_those_of_the_closed_forms():
    """The score of PiGDM, 100 steps: the exact mean, and the variance of the ancestral sampler."""
    found = transfer(PiGDM())
    assert found is not None and found.closed and not found.noiseless
    scaled = found.coefficient * singular()
    assert scaled.tolist() == pytest.approx([0.9901, 0.8621, 0.5, 0.2, 0.0588, 0], abs=1e-4)
    known = {10.0: 0.0062, 2.5: 0.1169, 0.5: 0.7331, 0.0: 0.9216}
    for snr, variance in known.items():
        assert float(found.variance[SNR.index(snr)]) == pytest.approx(variance, abs=1e-4)
    assert float(found.error.max()) < 0.21


def test_simulation_agrees_with_the_closed_form():
    solver = DDRM()
    exact, drawn = transfer(solver), transfer(solver, simulate=True)
    assert exact is not None and drawn is not None and exact.closed and not drawn.closed
    for name, se in zip(("coefficient", "variance"), drawn.standard_errors, strict=True):
        off = (getattr(exact, name) - getattr(drawn, name)).abs()
        assert bool((off <= 5 * se + 1e-9).all()), name
    assert apart(exact, drawn) < 5
    assert apart(replace(exact, variance=1.3 * exact.variance), drawn) > 5


def test_what_is_not_affine_is_simulated_and_what_ignores_y_is_far():
    """The negative twins of the closed form."""
    norm = transfer(DPS(schedule=VP(10)))
    assert norm is not None and not norm.closed and norm.draws == DRAWS
    plain = transfer(Unconditional(schedule=Karras(50, 80.0, 0.02)))
    assert plain is not None and plain.closed
    assert float(plain.error[0]) > 10 and float(plain.error[-1]) < 0.1
    assert float(plain.coefficient.abs().max()) == 0


def test_a_solver_of_isometries_is_given_the_modes_one_by_one():
    """Its mean is exact, and its variance is as much too small as its steps are long."""
    few, many = (transfer(EPS().with_steps(n)) for n in (100, 400))
    assert few is not None and many is not None and few.closed
    assert few.s.tolist() == singular()[:-1].tolist() and len(few.error) == len(SNR) - 1
    start = 1 / 80**2  # of x_T a share that depends on x0, which the start leaves out
    assert torch.allclose(few.coefficient, few.exact[0], rtol=start)
    ratio = few.error / many.error  # where y is sharpest, the last level of 0.01 is felt too
    assert torch.allclose(ratio[1:], torch.full_like(ratio[1:], 4.0), rtol=0.1)
    assert float(ratio[0]) > 3
    drawn = transfer(EPS(), simulate=True)
    assert drawn is not None
    assert bool(((drawn.variance - few.variance).abs() < 5 * drawn.standard_errors[1]).all())
    assert null_errors(DRAWS, 60, s=drawn.s).shape == (60, len(SNR) - 1)
    assert transfer(OneCall()) is None  # its level is the task's to give


def test_the_null_of_simulated_errors():
    """It falls as the square root of the draws, and lies far below a wrong variance."""
    few, many = (null_errors(n, 60).mean(0) for n in (100, 1600))
    assert torch.allclose(few / many, torch.full((len(SNR),), 4.0, dtype=torch.float64), rtol=0.25)
    assert float(null_errors(DRAWS, 60).quantile(0.99, 0).max()) < 0.2
