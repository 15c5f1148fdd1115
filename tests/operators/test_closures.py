"""Closure quantities: loops, what station gains cannot change, and sets that repeat nothing."""

from __future__ import annotations

import cmath
import itertools
import math
from dataclasses import replace

import pytest
import torch

from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.noise import GaussianNoise
from invdiff.operators import (
    ClosureAmplitudes,
    ClosurePhases,
    Interferometry,
    TelescopeArray,
    earth_rotation,
)
from invdiff.operators.stations import independent_quadrangles
from invdiff.problem import Problem

EHT = earth_rotation(6, 4, 3.0, seed=2)
M = EHT.uv.shape[1]


def visibilities(seed=0):
    return torch.view_as_complex(seeded(2, 3, M, 2, seed=seed))


def full(n):
    """n stations that all measure, once."""
    pairs = torch.tensor(list(itertools.combinations(range(n), 2)))
    return TelescopeArray(
        torch.zeros(1, len(pairs), 2), pairs, torch.zeros(len(pairs), dtype=torch.long)
    )


def test_closures_are_their_formulas():
    v = visibilities()
    phases = ClosurePhases(EHT.triangles())(v)
    for k, (ab, bc, ac) in enumerate(EHT.triangles().tolist()):
        z = [complex(n) for n in v[1, 2]]
        angle = cmath.phase(z[ab]) + cmath.phase(z[bc]) - cmath.phase(z[ac])
        assert abs(complex(phases[1, 2, k]) - cmath.exp(1j * angle)) < 1e-14
    logs = ClosureAmplitudes(EHT.quadrangles())(v)
    ratios = ClosureAmplitudes(EHT.quadrangles(), log=False)(v)
    assert not logs.is_complex() and logs.dtype == torch.float64
    for k, (p, q, r, s) in enumerate(EHT.quadrangles().tolist()):
        a = v[0, 1].abs().tolist()
        ratio = a[p] * a[q] / (a[r] * a[s])
        assert float(ratios[0, 1, k]) == pytest.approx(ratio, rel=1e-13)
        assert float(logs[0, 1, k]) == pytest.approx(math.log(ratio), abs=1e-13)


def test_station_gains_change_nothing():
    """Every station has another complex gain at each time and in each row and channel."""
    v = visibilities()
    log_size, phase = seeded(2, 2, 3, 4, 6, seed=5)
    gains = torch.polar(log_size.exp(), 10 * phase)
    a, b = EHT.pairs.T
    corrupted = gains[..., EHT.times, a] * gains[..., EHT.times, b].conj() * v
    assert (corrupted - v).abs().max() > 1
    for A in (ClosurePhases(EHT.triangles()), ClosureAmplitudes(EHT.quadrangles())):
        torch.testing.assert_close(A(corrupted), A(v), rtol=0, atol=1e-13)
    # negative twin: gains of pairs of stations are no gains of stations
    other = torch.polar(torch.ones(M).double(), seeded(M, seed=6)) * v
    assert (
        ClosurePhases(EHT.triangles())(other) - ClosurePhases(EHT.triangles())(v)
    ).abs().max() > 0.1
    louder = seeded(M, seed=7).exp() * v
    A = ClosureAmplitudes(EHT.quadrangles())
    assert (A(louder) - A(v)).abs().max() > 0.1


def test_loops_follow_stations():
    """a-b, b-c, a-c at one time; the four pairs of a quadrangle meet each station twice."""
    for ab, bc, ac in EHT.triangles().tolist():
        (a, b), (b2, c), (a2, c2) = (EHT.pairs[m].tolist() for m in (ab, bc, ac))
        assert (a, b, c) == (a2, b2, c2) and a < b < c
        assert len({int(EHT.times[m]) for m in (ab, bc, ac)}) == 1
    for loop in EHT.quadrangles().tolist():
        pairs = [EHT.pairs[m].tolist() for m in loop]
        assert sorted(pairs[0] + pairs[1]) == sorted(pairs[2] + pairs[3])
        assert len(set(pairs[0] + pairs[1])) == 4
        assert len({int(EHT.times[m]) for m in loop}) == 1


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_sets_are_independent_and_complete(n):
    """As many as there are numbers that gains do not touch: pairs less gains or phases."""
    array, pairs = full(n), n * (n - 1) // 2
    signs = torch.zeros(len(array.triangles()), pairs).double()
    for k, (ab, bc, ac) in enumerate(array.triangles().tolist()):
        signs[k, [ab, bc, ac]] = torch.tensor([1.0, 1.0, -1.0]).double()
    assert len(signs) == pairs - (n - 1) == torch.linalg.matrix_rank(signs)
    if n < 4:
        with pytest.raises(InvdiffError, match="4 stations measure together"):
            array.quadrangles()
        return
    signs = torch.zeros(len(array.quadrangles()), pairs).double()
    for k, loop in enumerate(array.quadrangles().tolist()):
        signs[k, loop] = torch.tensor([1.0, 1.0, -1.0, -1.0]).double()
    assert len(signs) == pairs - n == torch.linalg.matrix_rank(signs)
    assert len(independent_quadrangles(n)) == len(signs)


def test_an_image_is_measured_and_a_shift_is_lost():
    """Closures do not know where an image stands, and not how bright it is."""
    V = Interferometry(EHT.uv, (9, 9))
    phases, amplitudes = (
        A @ V for A in (ClosurePhases(EHT.triangles()), ClosureAmplitudes(EHT.quadrangles()))
    )
    x = torch.zeros(1, 1, 9, 9).double()
    x[..., 3:6, 3:6] = seeded(3, 3).abs()
    for A in (phases, amplitudes):
        y = A(x)
        assert tuple(y.shape[1:]) == A.y_shape((1, 9, 9))
        torch.testing.assert_close(A(x.roll((2, -1), (2, 3))), y, rtol=0, atol=1e-11)
        torch.testing.assert_close(A(3 * x), y, rtol=0, atol=1e-11)
        assert (A(x.flip(-1)) - y).abs().max() > 1e-2


def test_the_residual_does_not_jump():
    """Angles of pi - e and -pi + e are 2 pi apart, their phasors 2 sin e."""
    A = ClosurePhases(torch.tensor([[0, 1, 2]]))
    e, ones = 1e-3, torch.ones(1, 1, 2, dtype=torch.complex128)
    y = [
        A(torch.cat([ones, cmath.exp(1j * t) * ones[..., :1]], dim=2))
        for t in (math.pi - e, -math.pi + e)
    ]
    assert float((y[0] - y[1]).abs()) == pytest.approx(2 * math.sin(e), rel=1e-9)


def test_gradients_of_the_log_likelihood():
    """vjp of the noise's score is the derivative of log p, by central differences."""
    x = seeded(1, 1, 6, 6)
    V = Interferometry(EHT.uv, (6, 6))
    for closures in (ClosurePhases(EHT.triangles()), ClosureAmplitudes(EHT.quadrangles())):
        A, noise = closures @ V, GaussianNoise(0.3)
        y, d, h = A(seeded(1, 1, 6, 6, seed=1)), seeded(1, 1, 6, 6, seed=2), 1e-6
        Problem(y, A, noise, (1, 6, 6))
        slope = (noise.log_prob(y, A(x + h * d)) - noise.log_prob(y, A(x - h * d))) / (2 * h)
        gradient = A.vjp(x, noise.score(y, A(x)))
        assert float((gradient * d).sum()) == pytest.approx(float(slope), rel=1e-5)


def test_dark_visibilities_have_a_finite_value_and_gradient():
    zero = torch.zeros(1, 1, M, dtype=torch.complex128)
    for A in (ClosurePhases(EHT.triangles()), ClosureAmplitudes(EHT.quadrangles())):
        y = A(zero)
        assert torch.isfinite(torch.view_as_real(y) if y.is_complex() else y).all() and not y.any()
        assert not A.vjp(zero, torch.ones_like(y)).any()
    faint = 1e-30 * visibilities()
    y = ClosurePhases(EHT.triangles())(faint)
    torch.testing.assert_close(y.abs(), torch.ones_like(y.abs()))


def test_the_array_is_that_of_its_frequencies():
    assert torch.equal(EHT.uv, earth_rotation(6, 4, 3.0, seed=2).uv)
    assert EHT.pairs.shape == (M, 2) and EHT.times.shape == (M,)
    assert (EHT.pairs[:, 0] < EHT.pairs[:, 1]).all() and EHT.times.max() < 4
    together = torch.cat([EHT.times[:, None], EHT.pairs], dim=1)
    assert len(together.unique(dim=0)) == M


def test_errors_are_sentences():
    holes = replace(EHT, uv=EHT.uv[:, 1:], pairs=EHT.pairs[1:], times=EHT.times[1:])
    for ask in (holes.triangles, holes.quadrangles):
        with pytest.raises(InvdiffError, match="have no visibility"):
            ask()
    with pytest.raises(InvdiffError, match="no time at which 3 stations"):
        full(2).triangles()
    for bad in (torch.zeros(0, 3).long(), torch.zeros(2, 4).long(), torch.zeros(2, 3)):
        with pytest.raises(InvdiffError, match="whole numbers of shape .count, 3"):
            ClosurePhases(bad)
    with pytest.raises(InvdiffError, match="from 0"):
        ClosureAmplitudes(torch.tensor([[0, 1, 2, -1]]))
    for shape in ((1, 3), (4,), (1, 2, 4)):
        with pytest.raises(InvdiffError, match="4 or more"):
            ClosureAmplitudes(torch.tensor([[0, 1, 2, 3]])).y_shape(shape)
