"""From scans to problems: scales, units, noise, and what does not fit."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise
from invdiff.operators import Fourier, Radon, Sense, ring_maps
from invdiff.operators.coils import root_sum_of_squares
from invdiff.operators.mri import as_complex
from invdiff.operators.radon import sparse_view
from invdiff.problem.whiten import whiten
from invdiff.scans import KSpace, Sinogram
from invdiff.scans.kspace_problem import middle, mri_problem
from invdiff.scans.problems import ct_problem

SIZE = (32, 24)


def head() -> Tensor:
    """A complex ellipse on a dark ground, (1, 2, 32, 24), magnitude 50."""
    y, x = (torch.linspace(-1, 1, n) for n in SIZE)
    inside = ((y[:, None] / 0.8) ** 2 + (x / 0.7) ** 2 < 1).float()
    phase = 0.5 * x.expand(SIZE)
    return 50 * torch.stack([inside * phase.cos(), inside * phase.sin()])[None]


def scanned(coils: int, sigma: float = 0.0) -> tuple[KSpace, Tensor]:
    """k-space of the head with every second column, and the maps (coils, H, W)."""
    mask = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    mask[..., ::2] = mask[..., 8:16] = True
    maps = ring_maps(coils, SIZE).to(torch.complex64)
    A = Fourier(mask) if coils == 1 else Sense(maps, mask)
    y = A.restrict(GaussianNoise(sigma).sample(A(head()), Rng.of(0)))
    return KSpace(y[0], mask[0, 0]), maps[0]


@pytest.mark.parametrize("coils", [1, 4])
def test_an_mri_problem_is_scaled_and_explained_by_its_truth(coils: int) -> None:
    """99 % of the zero-filled image lie below 1, and y = A(truth / scale)."""
    k, maps = scanned(coils)
    m = mri_problem(k, maps if coils > 1 else None, sigma=0.1)
    x = head() / m.scale
    assert m.problem.residual(x).abs().max() < 1e-4
    back = root_sum_of_squares(m.problem.linear.adjoint(m.problem.y)).flatten()
    assert float(back.quantile(0.99)) == pytest.approx(1.0, abs=1e-4)
    assert m.problem.sigma_y == pytest.approx(0.1 / m.scale) and m.sigma == 0.1
    wrong = m.problem.residual(x.flip(-1)).abs().max()
    assert wrong > 0.1


def test_the_noise_of_k_space_is_estimated() -> None:
    """From above, for there is some signal in the outermost samples, too."""
    k, maps = scanned(4, sigma=5.0)
    n = 4 * 2 * int(k.mask.sum()) / 20
    whole = mri_problem(k, maps).sigma
    assert 5 * (1 - 5 * 1.17 / math.sqrt(n)) < whole < 10
    # the middle, where the signal is, has the same noise
    assert mri_problem(scanned(1, sigma=5.0)[0], rows=8).sigma < 10


def test_too_few_samples_tell_no_noise() -> None:
    k, _ = scanned(1)
    small = middle(k, 8)
    with pytest.raises(InvdiffError, match=r"too few to estimate the noise from; give --noise"):
        mri_problem(small)
    assert mri_problem(small, sigma=0.5).sigma == 0.5


def test_the_middle_of_k_space() -> None:
    """Its zero frequency stays in the middle, and all of the mask with it."""
    k, _ = scanned(1)
    cut = middle(k, 16)
    assert cut.mask.shape == (16, 12)
    assert cut.data[0, 8, 6] == k.data[0, 16, 12] and cut.mask[8, 6]
    for rows in (0, 33):
        with pytest.raises(InvdiffError, match="from 1 to 32"):
            middle(k, rows)


def test_maps_must_fit() -> None:
    k, maps = scanned(4)
    with pytest.raises(InvdiffError, match=r"coil maps have shape \(3, 32, 24\)"):
        mri_problem(k, maps[:3])
    assert as_complex(head()).abs().max() == pytest.approx(50)


WATER, MM, SIDE = 0.02, 4.0, 48


def disc() -> Tensor:
    """A disc of 60 HU in air, smooth at its edge, (1, 1, 48, 48)."""
    at = torch.linspace(-1, 1, SIDE)
    far = torch.hypot(at[:, None], at)
    return (1060 * torch.sigmoid((0.6 - far) * 25) - 1000)[None, None]


def turned(trusted: bool = True) -> tuple[Sinogram, Radon]:
    """Sinogram of the disc from 60 views, and the geometry."""
    A = Radon(sparse_view(60), (SIDE, SIDE), pixel=MM)
    z = A(WATER * (1 + disc() / 1000))[0, 0]
    seen = torch.ones_like(z, dtype=torch.bool)
    if not trusted:
        seen[:, 30] = False
        z[:, 30] = 77.0
    return Sinogram(z, A.angles, torch.full_like(z, 1e-4), seen), A


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("views", [None, 10])
def test_a_ct_problem_is_in_hounsfield_units(trusted: bool, views: int | None) -> None:
    """Its operator has norm 1, the truth in x explains y, and bins that lie do not count."""
    s, A = turned(trusted)
    c = ct_problem(s, A, water=WATER, views=views)
    x = c.to_x(disc())
    assert c.units == "HU" and (c.low, c.high) == (-1024.0, 1500.0)
    scale = float(c.problem.y.abs().max())
    assert c.problem.residual(x).abs().max() < 1e-4 * scale
    assert c.problem.residual(c.to_x(disc() + 50)).abs().max() > 1e-2 * scale
    assert c.sigma == pytest.approx(0.01) and "photons" in c.how
    inner = c.problem.A if trusted else c.problem.A.inner  # type: ignore[attr-defined]
    assert len(inner.angles) == (views or 60)
    assert inner.norm((1, SIDE, SIDE)) == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("trusted", [True, False])
def test_every_ray_has_the_noise_of_its_photons(trusted: bool) -> None:
    """The likelihood is that of the line integrals; whitened, the operator has norm 1."""
    s, A = turned(trusted)
    assert s.variance is not None
    photons = 1e4 * (-s.integrals.clamp(0, 3)).exp()
    s = dataclasses.replace(s, variance=1 / photons)
    c = ct_problem(s, A, water=WATER)
    assert whiten(c.problem).linear.norm((1, SIDE, SIDE)) == pytest.approx(1.0, rel=0.01)
    a, b = disc(), disc() + 20 * torch.linspace(-1, 1, SIDE)
    z = [A(WATER * (1 + hu / 1000))[0, 0] for hu in (a, b)]
    misfit = [((s.integrals - t).square() * photons / 2)[s.trusted].sum() for t in z]
    log_p = [c.problem.noise.log_prob(c.problem.y, c.problem.A(c.to_x(hu))) for hu in (a, b)]
    assert float(misfit[1] - misfit[0]) > 1
    assert float(log_p[0] - log_p[1]) == pytest.approx(float(misfit[1] - misfit[0]), rel=1e-3)
    assert "each ray its own, 0.01 to " in c.how
    equal = ct_problem(s, A, water=WATER, equal=True)
    assert isinstance(equal.problem.noise, GaussianNoise) and equal.how.startswith("of the photons")
    assert equal.sigma == c.sigma == pytest.approx(float((1 / photons)[s.trusted].mean().sqrt()))
    assert isinstance(ct_problem(s, A, water=WATER, sigma=0.1).problem.noise, GaussianNoise)


def test_filtered_back_projection_is_in_units_too() -> None:
    """In the middle of the disc, where 60 views are enough, to a tenth of its contrast."""
    s, A = turned()
    c = ct_problem(s, A, water=WATER)
    middle_of = c.first[0, 20:28, 20:28]
    assert float((middle_of - 60).abs().max()) < 106
    plain = ct_problem(s, A)
    assert plain.units != "HU" and plain.low == 0.0
    assert 0.0212 < plain.high < 1.3 * 0.0212  # attenuation of 60 HU


def test_noise_without_counts_is_estimated() -> None:
    """From the finest differences: on white noise alone, within 5 standard errors."""
    s, A = turned()
    z = GaussianNoise(0.05).sample(torch.zeros(1, *s.integrals.shape), Rng.of(0))[0]
    blank = Sinogram(s.integrals + z, s.angles, None, s.trusted)
    found = ct_problem(blank, A)
    n = z.numel() / 3  # neighbouring differences share their bins
    texture = 0.01
    assert found.sigma == pytest.approx(0.05, abs=5 * 1.17 * 0.05 / math.sqrt(n) + texture)
    assert "finest differences" in found.how
    assert ct_problem(blank, A, sigma=0.3).how == "as given"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"water": 0.0}, "above 0"),
        ({"views": 0}, "from 1 to 60"),
        ({"views": 61}, "from 1 to 60"),
        ({"sigma": -1.0}, "not negative"),
    ],
)
def test_bad_ct(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(InvdiffError, match=sentence):
        ct_problem(*turned(), **options)  # type: ignore[arg-type]
