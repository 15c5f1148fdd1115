"""Noise beyond Gaussian and Poisson: densities against SciPy's, samples against their laws."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from helpers import seeded, seeds
from invdiff.core import InvdiffError
from invdiff.core.encode import decode, encode
from invdiff.core.rng import Rng
from invdiff.noise import (
    CorrelatedGaussian,
    DiagonalGaussian,
    GaussianNoise,
    Laplace,
    Noise,
    Poisson,
    PoissonGaussian,
    Rician,
    StationaryGaussian,
    StudentT,
)
from invdiff.operators import Identity
from invdiff.problem import Problem

N = 20_000
SHAPE = (2, 3, 2, 4)
Z = torch.linspace(-0.9, 1.1, 48, dtype=torch.float64).reshape(SHAPE)
SIGMAS = torch.tensor([0.1, 0.3, 2.0], dtype=torch.float64).reshape(1, 3, 1, 1)
FACTOR = torch.tensor([[0.5, 0, 0], [0.2, 0.4, 0], [-0.3, 0.1, 0.2]], dtype=torch.float64)
COMPLEX = FACTOR + 1j * torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [-0.2, 0.3, 0]])
REAL: dict[str, Noise] = {
    "laplace": Laplace(0.2),
    "student": StudentT(0.2, 2.5),
    "cauchy": StudentT(0.1, 1.0),
    "rician": Rician(0.3),
    "poisson-gaussian": PoissonGaussian(30.0, read_sigma=2.0),
    "diagonal": DiagonalGaussian(SIGMAS),
    "correlated": CorrelatedGaussian(FACTOR @ FACTOR.mT),
    "correlated-rows": CorrelatedGaussian(torch.eye(4).double() + 0.3, axis=3),
    "correlated-all": CorrelatedGaussian(torch.eye(24).double() / 4 + 0.1, axis=None),
    "stationary": StationaryGaussian((0.1, 0.3, 0.5), ((0.9, 0.5, 0.2),)),
    "stationary-colours": StationaryGaussian((0.2, 0.6), ((0.4, 0.1), (0.7, 0.5))),
}
TWO_PARTS: dict[str, Noise] = {
    "laplace": Laplace(0.2),
    "student": StudentT(0.2, 2.5),
    "diagonal": DiagonalGaussian(SIGMAS),
    "correlated": CorrelatedGaussian(COMPLEX @ COMPLEX.mH),
    "correlated-real": CorrelatedGaussian(FACTOR @ FACTOR.mT),
}
each = pytest.mark.parametrize("noise", REAL.values(), ids=REAL)
each_complex = pytest.mark.parametrize("noise", TWO_PARTS.values(), ids=TWO_PARTS)


def field_covariance(noise: StationaryGaussian) -> np.ndarray:
    """Covariance (24, 24) of SHAPE's entries by sums over frequencies, one cosine after the other.

    Two rows of sigmas: that of brightness is shared by all channels, that of differences not.
    """
    h, w = SHAPE[2:]
    kernels = []
    for row in noise.sigmas:
        c = np.zeros((h, w))
        for k in range(h):
            for m in range(w):
                f = math.hypot(min(k, h - k) / h, min(m, w - m) / w)
                logs = np.interp(math.log(max(f, 1e-9)), np.log(noise.frequencies), np.log(row))
                for i in range(h):
                    for j in range(w):
                        c[i, j] += math.exp(2 * logs) * math.cos(
                            2 * math.pi * (k * i / h + m * j / w)
                        )
        kernels.append(c / (h * w))
    shared = kernels[0] - kernels[-1] if len(kernels) == 2 else 0 * kernels[0]
    cov = np.zeros((3, h, w, 3, h, w))
    for a, i, j, b, k, m in np.ndindex(cov.shape):
        lag = ((i - k) % h, (j - m) % w)
        cov[a, i, j, b, k, m] = shared[lag] / 3 + (kernels[-1][lag] if a == b else 0)
    return cov.reshape(24, 24)


def density(name: str, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """log p(y | z) of both samples by SciPy; y and z are (2, 3, 2, 4)."""
    if name in ("laplace", "student", "cauchy"):
        law = {"laplace": stats.laplace(0, 0.2), "student": stats.t(2.5, 0, 0.2)}
        return law.get(name, stats.cauchy(0, 0.1)).logpdf(y - z).reshape(2, -1).sum(1)
    if name == "rician":
        return stats.rice(np.abs(z) / 0.3, 0, 0.3).logpdf(y).reshape(2, -1).sum(1)
    if name == "poisson-gaussian":
        rate = 15.0 * (z + 1)
        return stats.norm(z, np.sqrt(rate + 4.0) / 15.0).logpdf(y).reshape(2, -1).sum(1)
    if name == "diagonal":
        return stats.norm(z, SIGMAS.numpy()).logpdf(y).reshape(2, -1).sum(1)
    if name.startswith("stationary"):
        law = stats.multivariate_normal(np.zeros(24), field_covariance(REAL[name]))
        return law.logpdf((y - z).reshape(2, -1))
    cov = REAL[name].cov.numpy()
    r = {
        "correlated": (y - z).transpose(0, 2, 3, 1).reshape(-1, 3),
        "correlated-rows": (y - z).reshape(-1, 4),
        "correlated-all": (y - z).reshape(-1, 24),
    }[name]
    law = stats.multivariate_normal(np.zeros(len(cov)), cov)
    return np.atleast_1d(law.logpdf(r)).reshape(2, -1).sum(1)


@pytest.mark.parametrize("name", REAL)
def test_density_is_that_of_scipy(name):
    noise = REAL[name]
    y = noise.sample(Z, Rng.of([4, 5]))
    expected = torch.from_numpy(density(name, y.numpy(), Z.numpy()))
    torch.testing.assert_close(noise.log_prob(y, Z), expected, rtol=1e-11, atol=1e-11)


@each
def test_score_is_the_gradient_of_the_density(noise):
    y = noise.sample(Z, Rng.of([4, 5]))
    z = torch.linspace(-0.95, 1.5, 48, dtype=torch.float64).reshape(SHAPE).requires_grad_()
    (expected,) = torch.autograd.grad(noise.log_prob(y, z).sum(), z)
    found = noise.score(y, z.detach())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert (found - noise.score(y + 0.5, z.detach())).abs().max() > 1e-4


@each_complex
def test_complex_score_is_the_gradient_in_both_parts(noise):
    y = noise.sample(torch.complex(Z, -Z), Rng.of([4, 5]))
    both = torch.stack([0.5 * Z, Z]).requires_grad_()
    z = torch.complex(both[0], both[1])
    (expected,) = torch.autograd.grad(noise.log_prob(y, z).sum(), both)
    found = noise.score(y, z.detach())
    torch.testing.assert_close(torch.stack([found.real, found.imag]), expected)


@pytest.mark.parametrize("name", ["laplace", "student", "diagonal", "correlated-real"])
def test_complex_density_is_that_of_both_parts(name):
    noise, y, z = TWO_PARTS[name], torch.complex(Z, -Z), torch.complex(0.5 * Z, Z)
    expected = noise.log_prob(y.real, z.real) + noise.log_prob(y.imag, z.imag)
    torch.testing.assert_close(noise.log_prob(y, z), expected, rtol=1e-12, atol=1e-12)


def test_complex_covariance_is_half_that_of_the_complex_numbers():
    """Density and covariance through the real matrix [[Re, -Im], [Im, Re]] of twice the size."""
    noise, cov = TWO_PARTS["correlated"], COMPLEX @ COMPLEX.mH
    wide = torch.cat([torch.cat([cov.real, -cov.imag], 1), torch.cat([cov.imag, cov.real], 1)])
    y = torch.complex(Z, Z.flip(1))
    r = torch.cat([y.real, y.imag], 1).movedim(1, -1).reshape(-1, 6)
    law = stats.multivariate_normal(np.zeros(6), wide.numpy())
    expected = torch.from_numpy(law.logpdf(r.numpy())).reshape(2, -1).sum(1)
    torch.testing.assert_close(noise.log_prob(y, 0 * y), expected, rtol=1e-11, atol=1e-11)
    n = noise.sample(torch.zeros(1, 3, 50_000, dtype=torch.complex128), Rng.of(1))[0]
    error = (n @ n.mH / 100_000 - cov).abs().max() / cov.abs().max()
    assert error < 5 / math.sqrt(50_000)  # entries have variances of at most max(cov)^2 / n
    assert (n @ n.mT).abs().max() / 100_000 < 5 / math.sqrt(50_000)


def law_at(noise: Noise, z: float) -> stats.rv_continuous:
    """SciPy's law of one entry of y given z."""
    if isinstance(noise, Laplace):
        return stats.laplace(z, noise.scale)
    if isinstance(noise, StudentT):
        return stats.t(noise.df, z, noise.scale)
    assert isinstance(noise, Rician)
    return stats.rice(abs(z) / noise.sigma, 0, noise.sigma)


@pytest.mark.parametrize("z", [0.0, -0.7, 1.3])
@pytest.mark.parametrize(
    ("noise", "other"),
    [
        (Laplace(0.2), Laplace(0.22)),
        (StudentT(0.2, 3.0), StudentT(0.2, 2.0)),
        (StudentT(0.2, 1.0), StudentT(0.2, 1.3)),
        (Rician(0.5), Rician(0.54)),
    ],
)
def test_samples_have_the_law(noise, other, z):
    """Kolmogorov-Smirnov at 20 000 draws; a law that is a little different is noticed."""
    y = noise.sample(torch.full((1, N), z, dtype=torch.float64), Rng.of(1))[0].numpy()
    assert stats.kstest(y, law_at(noise, z).cdf).pvalue > 1e-4
    assert stats.kstest(y, law_at(other, z).cdf).pvalue < 1e-4


def mixture_cdf(y: np.ndarray, rate: float, gain: float, read: float) -> np.ndarray:
    """P(counts + read n <= gain (y + 1)), the sum over all counts."""
    k = np.arange(int(rate + 12 * math.sqrt(rate) + 20))
    heights = stats.poisson(rate).pmf(k)
    return (heights * stats.norm(k, read).cdf(gain * (y[:, None] + 1))).sum(1)


@pytest.mark.parametrize(("z", "peak"), [(-0.8, 10.0), (0.5, 100.0)])
def test_poisson_gaussian_samples_are_exact(z, peak):
    """Of one count, where the normal approximation of the density is far off, and of 75."""
    noise = PoissonGaussian(peak, read_sigma=0.4)
    y = noise.sample(torch.full((1, N), z, dtype=torch.float64), Rng.of(1))[0].numpy()
    rate = float(noise.rate(torch.tensor(z)))
    exact = stats.kstest(y, lambda v: mixture_cdf(v, rate, noise.gain, 0.4))
    normal = stats.kstest(y, stats.norm(z, math.sqrt(rate + 0.16) / noise.gain).cdf)
    assert exact.pvalue > 1e-4
    if rate < 2:
        assert normal.pvalue < 1e-10


def test_the_normal_approximation_improves_with_the_counts():
    """Total variation from the exact law: it falls as the skewness, 1 / sqrt(rate)."""
    found = []
    for rate in (25.0, 100.0, 400.0):
        read, c = 3.0, np.linspace(0.0, 2 * rate, 2001)
        k = np.arange(int(3 * rate + 60))
        exact = stats.poisson(rate).pmf(k) @ stats.norm(k[:, None], read).pdf(c)
        normal = stats.norm(rate, math.sqrt(rate + read**2)).pdf(c)
        found.append(0.5 * np.abs(exact - normal).sum() * (c[1] - c[0]))
    skew = [r / (r + 9) ** 1.5 for r in (25.0, 100.0, 400.0)]
    for i in (0, 1):
        assert found[i + 1] / found[i] == pytest.approx(skew[i + 1] / skew[i], rel=0.1)


def test_variances_of_the_entries():
    noise = DiagonalGaussian(SIGMAS[..., 0])
    n = noise.sample(torch.zeros(1, 3, N, dtype=torch.float64), Rng.of(1))[0]
    error = (n.square().mean(1) / SIGMAS.flatten() ** 2 - 1).abs() * math.sqrt(N / 2)
    assert float(error.max()) < 5
    assert float((n.square().mean(1) / (1.1 * SIGMAS.flatten()) ** 2 - 1).abs().min()) > 0.1


def test_equal_levels_are_white_noise():
    white, rng = GaussianNoise(0.3), Rng.of([4, 5])
    same = DiagonalGaussian(torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64))
    coils = CorrelatedGaussian(0.09 * torch.eye(3).double())
    for noise in (same, coils):
        assert noise.level == pytest.approx(0.3, rel=1e-12)
        y = white.sample(torch.complex(Z, -Z), rng)
        torch.testing.assert_close(noise.sample(torch.complex(Z, -Z), rng), y)
        torch.testing.assert_close(noise.log_prob(y, 0 * y), white.log_prob(y, 0 * y))
        torch.testing.assert_close(noise.score(y, 0 * y), white.score(y, 0 * y))


def test_rician_far_from_zero_is_gaussian():
    """log I0(u) = u - log(2 pi u) / 2 + 1 / (8 u) + O(u^-2), u = 1600 where z is 40 sigma."""
    z, y = torch.full((1, 50), 8.0).double(), torch.linspace(7.5, 8.5, 50)[None].double()
    far = GaussianNoise(0.2).log_prob(y, z) + 0.5 * (y / z).log().sum()
    u = y * z / 0.04
    torch.testing.assert_close(
        Rician(0.2).log_prob(y, z), far + (1 / (8 * u)).sum(1), rtol=0, atol=50 / 1600**2
    )
    y = y.float()  # 50 terms of single precision, and no difference of numbers of size u = 1600
    single, double = (Rician(0.2).log_prob(t, z.to(t.dtype)) for t in (y, y.double()))
    assert float((single - double).abs()) < 50 * 16 * torch.finfo(torch.float32).eps


def test_rician_does_not_see_the_sign_and_refuses_negative_magnitudes():
    noise, y = Rician(0.3), Rician(0.3).sample(Z, Rng.of([1, 2]))
    torch.testing.assert_close(noise.log_prob(y, Z), noise.log_prob(y, -Z))
    torch.testing.assert_close(noise.score(y, Z), -noise.score(y, -Z))
    assert torch.isfinite(noise.log_prob(0 * y, Z)).all()
    with pytest.raises(InvdiffError, match="3 values of y are negative"):
        Problem(-torch.ones(1, 1, 1, 3), Identity(), noise, (1, 1, 3))


@each
def test_a_row_depends_on_its_own_seed(noise):
    y = noise.sample(Z, Rng.of([4, 5]))
    assert torch.equal(y[1:], noise.sample(Z[1:], Rng.of([5])))
    assert not torch.equal(y[1:], noise.sample(Z[1:], Rng.of([6])))
    assert noise.log_prob(y, Z).shape == (2,) and noise.has_density
    torch.testing.assert_close(noise.log_prob(y, Z)[1:], noise.log_prob(y[1:], Z[1:]))


def test_draws_of_another_role_are_independent():
    """The counts of Poisson-Gaussian noise and its read noise have a key each."""
    z, rng = torch.full((1, N), 0.5, dtype=torch.float64), Rng.of(1)
    noise = PoissonGaussian(50.0, read_sigma=3.0)
    counts = Poisson(50.0).sample(z, rng)
    read = noise.sample(z, rng) - counts
    assert abs(float(torch.corrcoef(torch.cat([counts, read]))[0, 1])) < 5 / math.sqrt(N)


@pytest.mark.parametrize("df", [0.5, 1.0, 7.0])
def test_gamma_draws(df):
    g = Rng.of(3).gamma(df, torch.empty(1, N, dtype=torch.float64), "g")[0].numpy()
    assert stats.kstest(g, stats.gamma(df).cdf).pvalue > 1e-4
    assert stats.kstest(g, stats.gamma(1.1 * df).cdf).pvalue < 1e-4


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    "make",
    [
        Laplace,
        StudentT,
        lambda v: StudentT(1.0, v),
        Rician,
        lambda v: PoissonGaussian(10.0, read_sigma=v),
    ],
)
def test_parameters_are_finite_and_positive(make, bad):
    with pytest.raises(InvdiffError, match="a finite number above 0, found"):
        make(bad)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_sigmas_are_positive(bad):
    with pytest.raises(InvdiffError, match="above 0"):
        DiagonalGaussian(torch.tensor([[1.0, bad]]))


@pytest.mark.parametrize(
    ("cov", "word"),
    [
        (torch.ones(2, 3), "square"),
        (torch.full((2, 2), math.nan), "finite"),
        (torch.ones(2, 2), "positive definite"),
        (torch.tensor([[1.0, 0.5], [0.2, 1.0]]), "Hermitian"),
        (-torch.eye(2), "positive definite"),
        (torch.eye(2).int(), "int32"),
        ("text", "a square matrix of finite numbers"),
        ([["a"]], "a square matrix of finite numbers"),
    ],
)
def test_a_covariance_is_one(cov, word):
    with pytest.raises(InvdiffError, match=word):
        CorrelatedGaussian(cov)


def test_arrays_and_lists_are_tensors_too():
    assert torch.equal(CorrelatedGaussian(np.eye(2)).cov, torch.eye(2).double())
    assert torch.equal(DiagonalGaussian([[1.0, math.inf]]).sigmas, torch.tensor([[1.0, math.inf]]))


@pytest.mark.parametrize("level", [-1.0, math.nan, math.inf])
def test_a_level_is_one(level):
    for make in (CorrelatedGaussian, DiagonalGaussian):
        with pytest.raises(InvdiffError, match="A level of whitened noise"):
            make(torch.eye(2) + (make is DiagonalGaussian), level=level)


@pytest.mark.parametrize("scale", [(math.inf,), (10.0, math.nan), (10.0, 0.0, math.inf)])
def test_counts_have_a_finite_scale(scale):
    with pytest.raises(InvdiffError, match="finite number above 0|must exceed"):
        Poisson(*scale)


@pytest.mark.parametrize(
    ("noise", "y", "word"),
    [
        (DiagonalGaussian(torch.ones(1, 2, 1, 1)), Z, "do not fit"),
        (DiagonalGaussian(torch.ones(1, 3)), Z, "do not fit"),
        (CorrelatedGaussian(torch.eye(2)), Z, "does not fit 3"),
        (CorrelatedGaussian(torch.eye(2), axis=4), Z, "no axis 4"),
        (CorrelatedGaussian(COMPLEX @ COMPLEX.mH), Z, "complex measurements"),
        (Rician(0.1), torch.complex(Z, Z), "measures real numbers, but y is complex"),
        (
            PoissonGaussian(9.0, read_sigma=1.0),
            torch.complex(Z, Z),
            "measures real numbers, but y is complex",
        ),
    ],
)
def test_a_measurement_that_does_not_fit_is_refused(noise, y, word):
    with pytest.raises(InvdiffError, match=word):
        Problem(y, Identity(), noise, SHAPE[1:])


def test_infinite_sigmas_are_entries_that_were_not_measured():
    sigmas = SIGMAS.clone()
    sigmas[0, 1] = math.inf
    noise, y = DiagonalGaussian(sigmas), Z.clone()
    y[:, 1] = math.nan
    problem = Problem(y, Identity(), noise, SHAPE[1:])
    assert not problem.y[:, 1].any() and torch.equal(problem.y[:, ::2], Z[:, ::2])
    rest = DiagonalGaussian(SIGMAS[:, ::2])
    torch.testing.assert_close(noise.log_prob(problem.y, 0.5 * Z),
                               rest.log_prob(Z[:, ::2], 0.5 * Z[:, ::2]))  # fmt: skip
    assert not noise.score(y, Z)[:, 1].any()
    weights = DiagonalGaussian.from_weights(1 / sigmas.square())
    torch.testing.assert_close(weights.sigmas, sigmas)
    with pytest.raises(InvdiffError, match="nothing was measured"):
        DiagonalGaussian(torch.full((1, 1, 2, 2), math.inf))


def test_rows_of_a_problem_take_their_noise_and_its_level_along():
    noise = DiagonalGaussian(1 + seeded(3, 1, 2, 2).abs())
    problem = Problem(seeded(3, 1, 2, 2), Identity(), noise, (1, 2, 2))
    some = problem.rows(torch.tensor([2, 0, 2]))
    assert torch.equal(some.noise.sigmas, noise.sigmas[[2, 0, 2]])
    assert some.noise.level == noise.level
    single = problem.to("cpu", torch.float32)
    assert single.noise.sigmas.dtype == torch.float32 and single.noise.level == noise.level
    assert some.noise.sample(some.y, Rng.of(seeds(3))).shape == (3, 1, 2, 2)


@pytest.mark.parametrize("noise", [*REAL.values(), *TWO_PARTS.values()])
def test_noise_can_be_written_and_read(noise):
    tensors: dict[str, torch.Tensor] = {}
    again = decode(json.loads(json.dumps(encode(noise, tensors, "noise"))), tensors)
    assert type(again) is type(noise) and repr(again) == repr(noise)
    for f in dataclasses.fields(noise):
        a, b = getattr(again, f.name), getattr(noise, f.name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_a_file_that_names_the_former_module_is_read():
    form = {"type": "invdiff.noise:Gaussian", "fields": {"sigma": 0.25}}
    assert decode(form, {}) == GaussianNoise(0.25)


def test_a_stationary_field_has_its_spectrum():
    """Power at each frequency of many draws, and white noise where all sigmas are equal."""
    noise = StationaryGaussian((0.05, 0.25, 0.6), ((1.0, 0.5, 0.1), (0.3, 0.3, 0.2)))
    n = noise.sample(torch.zeros(400, 3, 8, 9, dtype=torch.float64), Rng.of(range(400)))
    power = torch.fft.fft2(noise.turned(n), norm="ortho").abs().square().mean(0)
    ratio = power / noise.spectrum((8, 9)).square()
    # each is a mean of 400 chi-squares of 1 or 2 degrees of freedom, 216 of them
    assert float((ratio - 1).abs().max()) < 4.5 * math.sqrt(2 / 400)
    assert noise.level == 1.0
    white = StationaryGaussian((0.1, 0.5), ((0.3, 0.3),))
    y, z = seeded(2, 3, 8, 9), seeded(2, 3, 8, 9, seed=4)
    torch.testing.assert_close(white.log_prob(y, z), GaussianNoise(0.3).log_prob(y, z))
    torch.testing.assert_close(white.whiten(y), y / 0.3)
    torch.testing.assert_close(noise.scaled(2.0).whiten(y), noise.whiten(y) / 2)


@pytest.mark.parametrize(
    ("frequencies", "sigmas", "sentence"),
    [
        ((0.2, 0.1), ((1.0, 1.0),), "rise"),
        ((0.0, 0.1), ((1.0, 1.0),), "rise"),
        ((0.1, 0.2), ((1.0,),), "rows of 1"),
        ((0.1,), ((1.0,),) * 3, "One or two rows"),
        ((0.1,), ((0.0,),), "above 0"),
    ],
)
def test_bad_spectra(frequencies, sigmas, sentence):
    with pytest.raises(InvdiffError, match=sentence):
        StationaryGaussian(frequencies, sigmas)


def test_stationary_noise_of_other_measurements():
    two = StationaryGaussian((0.1,), ((1.0,), (0.5,)))
    for y in (torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4), torch.zeros(1, 3, 4, 4) + 0j):
        with pytest.raises(InvdiffError):
            Problem(y, Identity(), two, tuple(y.shape[1:]))
