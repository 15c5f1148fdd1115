"""MRI operators against their formulas in plain loops, and what coils promise."""

from __future__ import annotations

import cmath
import math
import sys

import numpy as np
import pytest
import torch

import invdiff.operators as ops
from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import CorrelatedGaussian, GaussianNoise, noise_from_scan
from invdiff.priors.base import Denoiser
from invdiff.priors.gaussian import GaussianPrior
from invdiff.priors.posterior import matrix
from invdiff.problem import Problem
from invdiff.sampling.result import Result
from invdiff.sampling.run import solve
from invdiff.solvers import solver_class

SIZES = [(4, 6), (5, 4), (3, 5)]


def k_space(image):
    """F z with both origins at n // 2, by the double sum; image: list of lists of numbers."""
    h, w = len(image), len(image[0])
    out = [[0j] * w for _ in range(h)]
    for u in range(h):
        for v in range(w):
            for r in range(h):
                for c in range(w):
                    phase = (u - h // 2) * (r - h // 2) / h + (v - w // 2) * (c - w // 2) / w
                    out[u][v] += image[r][c] * cmath.exp(-2j * math.pi * phase)
            out[u][v] /= math.sqrt(h * w)
    return np.array(out)


def sampled(h, w):
    """A mask (1, 1, H, W) with pairs of which both, one and none were sampled."""
    return seeded(1, 1, h, w, seed=9) > -0.2


@pytest.mark.parametrize("size", SIZES)
def test_fourier_is_the_centred_double_sum(size):
    x, mask = seeded(1, 4, *size), sampled(*size)
    y = ops.Fourier(mask)(x)
    assert y.shape == (1, 2, *size) and y.dtype == torch.complex128
    for coil in range(2):
        image = (x[0, 2 * coil] + 1j * x[0, 2 * coil + 1]).tolist()
        expected = k_space(image) * mask[0, 0].numpy()
        np.testing.assert_allclose(y[0, coil].numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
def test_real_fourier_is_the_double_sum_of_real_images(size):
    x, mask = seeded(1, 2, *size), sampled(*size)
    y = ops.RealFourier(mask)(x)
    for channel in range(2):
        expected = k_space(x[0, channel].tolist()) * mask[0, 0].numpy()
        np.testing.assert_allclose(y[0, channel].numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
def test_sense_is_the_double_sum_of_weighted_images(size):
    x, mask, maps = seeded(1, 2, *size), sampled(*size), ops.ring_maps(3, size)
    y = ops.Sense(maps, mask)(x)
    for coil in range(3):
        image = maps[0, coil] * (x[0, 0] + 1j * x[0, 1])
        expected = k_space(image.tolist()) * mask[0, 0].numpy()
        np.testing.assert_allclose(y[0, coil].numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
def test_a_pair_of_which_one_was_sampled_counts_half(size):
    """s^2 of real images, counted pair by pair in plain loops."""
    h, w = size
    mask = sampled(h, w)[0, 0]
    s = ops.RealFourier(mask[None, None]).s[0, 0]
    seen = set()
    for u in range(h):
        for v in range(w):
            f = (u - h // 2, v - w // 2)
            twin = next(
                (a, b)
                for a in range(h)
                for b in range(w)
                if (a - h // 2 + f[0]) % h == 0 and (b - w // 2 + f[1]) % w == 0
            )
            times = int(mask[u, v]) + int(mask[twin])
            assert float(s[u, v]) ** 2 == pytest.approx(times / 2)
            seen.add(times)
    assert seen == {0, 1, 2}


def test_the_twin_of_a_sample_is_no_news_about_a_real_image():
    """Two masks that know the same conjugate pairs have the same null space, another s."""
    one, both = torch.zeros(2, 1, 1, 5, 6).unbind()
    one[0, 0, 3, 4] = both[0, 0, 3, 4] = both[0, 0, 1, 2] = 1
    x = seeded(1, 1, 5, 6)
    a, b = ops.RealFourier(one), ops.RealFourier(both)
    torch.testing.assert_close(a.pinv(a(x)), b.pinv(b(x)), rtol=0, atol=1e-13)
    assert float(a.s.max()) == pytest.approx(math.sqrt(0.5)) and float(b.s.max()) == 1


def test_channels_are_pairs_in_the_order_that_is_documented():
    x = seeded(2, 6, 3, 4)
    z = ops.as_complex(x)
    assert z.shape == (2, 3, 3, 4)
    for k in range(3):
        assert torch.equal(z[:, k].real, x[:, 2 * k])
        assert torch.equal(z[:, k].imag, x[:, 2 * k + 1])
    assert torch.equal(ops.as_channels(z), x)
    assert torch.equal(ops.as_channels(z.conj())[:, 1::2], -x[:, 1::2])


def test_what_was_not_sampled_is_never_read():
    mask = sampled(4, 6)
    A = ops.Fourier(mask)
    y = A(seeded(1, 2, 4, 6))
    dirty = torch.where(mask, y, torch.full_like(y, complex("nan")))
    problem = Problem(dirty, A, GaussianNoise(0.1), (2, 4, 6))
    assert torch.equal(problem.y, y)
    assert torch.equal(A.adjoint(dirty), A.adjoint(y))


def test_noise_is_sigma_in_the_real_part_and_in_the_imaginary_part():
    """And white noise of k-space is white noise of the image, in both channels."""
    z = torch.zeros(1, 1, 100, 100, dtype=torch.complex128)
    n = GaussianNoise(0.3).sample(z, Rng.of(0))
    error = 5 * 0.3 / math.sqrt(2 * 10000)
    for part in (n.real, n.imag, *ops.Fourier(torch.ones(1, 1, 100, 100)).adjoint(n)[0]):
        assert abs(float(part.std()) - 0.3) < error


def test_noise_in_twin_samples_averages_out():
    """The posterior of a real image: a pair sampled twice is known twice as precisely."""
    mask = torch.zeros(1, 1, 5, 6)
    mask[0, 0, 3, 4] = 1
    twice = mask.clone()
    twice[0, 0, 1, 2] = 1
    prior = GaussianPrior(torch.zeros(1, 5, 6).double(), torch.tensor(1.0))
    for m, precision in ((mask, 0.5), (twice, 1.0)):
        A = ops.RealFourier(m)
        y = torch.zeros(1, 1, 5, 6, dtype=torch.complex128)
        law = prior.posterior(Problem(y, A, GaussianNoise(0.1), (1, 5, 6)))
        found = torch.linalg.eigvalsh(law.cov)[:2]
        torch.testing.assert_close(found, torch.full((2,), 1 / (1 + precision / 0.01)).double())


@pytest.mark.parametrize("kind", ["mri", "mri-real", "mri-multi-coil"])
def test_a_run_on_complex_data_is_saved_and_read(kind, tmp_path):
    from invdiff.tasks.table import example

    empty = example(kind)
    for dtype in (torch.float32, torch.float64):
        problem = empty.to("cpu", dtype)
        y = problem.noise.sample(problem.A(seeded(1, *problem.x_shape, dtype=dtype)), Rng.of(0))
        problem = Problem(y, problem.A, problem.noise, problem.x_shape)
        prior = Denoiser(lambda x, sigma: x / (1 + sigma**2))
        result = solve(problem, prior, solver_class("dps")().with_steps(2))
        result.save(tmp_path / str(dtype))
        again = Result.load(tmp_path / str(dtype)).problem()
        assert torch.equal(again.y, problem.y) and again.y.dtype == y.dtype
        x = seeded(1, *problem.x_shape, dtype=dtype)
        assert torch.equal(again.A(x), problem.A(x))


# ---- shapes that do not fit


@pytest.mark.parametrize(
    ("A", "x_shape"),
    [
        (ops.Fourier(torch.ones(1, 1, 4, 4)), (1, 4, 4)),
        (ops.Fourier(torch.ones(1, 1, 4, 4)), (2, 4, 5)),
        (ops.Fourier(torch.ones(1, 1, 4, 4)), (2, 3, 4, 4)),
        (ops.RealFourier(torch.ones(1, 1, 4, 4)), (1, 5, 4)),
        (ops.Sense(ops.ring_maps(2, (4, 4)), torch.ones(1, 1, 4, 4)), (4, 4, 4)),
        (ops.Sense(ops.ring_maps(2, (4, 5)), torch.ones(1, 1, 1, 1)), (2, 4, 4)),
    ],
)
def test_images_that_do_not_fit_are_refused(A, x_shape):
    with pytest.raises(InvdiffError, match=rf"{type(A).__name__} with a mask of"):
        A.y_shape(x_shape)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (torch.ones(4, 4), "has shape"),
        (torch.ones(1, 2, 4, 4), "all coils are sampled alike"),
        (torch.full((1, 1, 4, 4), 0.5), "holds only 1"),
        (torch.zeros(1, 1, 4, 4), "nothing at all"),
    ],
)
def test_masks_that_are_none_are_refused(mask, reason):
    for make in (ops.Fourier, ops.RealFourier):
        with pytest.raises(InvdiffError, match=reason):
            make(mask)


def test_real_sensitivities_are_refused():
    with pytest.raises(InvdiffError, match="sensitivities are complex"):
        ops.Sense(torch.ones(1, 3, 4, 4), torch.ones(1, 1, 4, 4))


# ---- coils


def test_normalised_maps_make_an_operator_of_norm_1():
    maps = ops.ring_maps(5, (6, 7))
    assert maps.shape == (1, 5, 6, 7)
    torch.testing.assert_close(maps.abs().square().sum(1), torch.ones(1, 6, 7).double())
    full, _ = matrix(ops.Sense(maps, torch.ones(1, 1, 6, 7)), (2, 6, 7))
    half, _ = matrix(ops.Sense(maps, sampled(6, 7)), (2, 6, 7))
    assert float(torch.linalg.matrix_norm(full, 2)) == pytest.approx(1)
    assert float(torch.linalg.matrix_norm(half, 2)) <= 1 + 1e-12
    maps[..., 2, 3] = 0
    assert torch.isfinite(torch.view_as_real(ops.normalised(maps))).all()


def test_coils_differ_and_are_smooth():
    """What makes parallel imaging work: maps are no multiples of each other; they vary slowly."""
    maps = ops.ring_maps(4, (32, 32))[0]
    gram = torch.einsum("jhw,khw->jk", maps, maps.conj())
    sizes = gram.diagonal().real.sqrt()
    overlap = (gram.abs() / (sizes[:, None] * sizes)).fill_diagonal_(0)
    assert float(overlap.max()) < 0.9
    assert float((maps[:, 1:] - maps[:, :-1]).abs().max()) < 0.1


def test_full_k_space_gives_the_image_back():
    x, maps = seeded(2, 2, 6, 8), ops.ring_maps(3, (6, 8))
    y = ops.Sense(maps, torch.ones(1, 1, 6, 8))(x)
    for scale in (1.0, 2.0):  # the MVUE divides by the maps' own strength once
        found = ops.mvue(y, scale * maps)
        torch.testing.assert_close(found, x, rtol=0, atol=1e-13)
    torch.testing.assert_close(ops.zero_filled(y), ops.coil_images(x, maps), rtol=0, atol=1e-13)
    together = ops.root_sum_of_squares(ops.zero_filled(y))
    torch.testing.assert_close(together, ops.root_sum_of_squares(x), rtol=0, atol=1e-13)


def test_the_mvue_is_least_squares_with_the_fewest_assumptions():
    """Maps that are not normalised: A^+ y times sqrt(sum |S_j|^2), on full k-space."""
    maps = torch.view_as_complex(seeded(1, 3, 4, 5, 2))
    A = ops.Sense(maps, torch.ones(1, 1, 4, 5))
    y = torch.view_as_complex(seeded(1, 3, 4, 5, 2, seed=1))
    strength = maps.abs().square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(ops.mvue(y, maps), A.pinv(y) * strength)


def test_the_scale_is_a_percentile_of_the_undersampled_image_itself():
    x, maps = seeded(2, 2, 10, 10), ops.ring_maps(3, (10, 10))
    y = ops.Sense(maps, sampled(10, 10))(x)
    scale = ops.mvue_scale(y, maps)
    assert scale.shape == (2, 1, 1, 1)
    for row in range(2):
        image = sum(maps[0, j].conj() * ops.ifft2c(y[row, j]) for j in range(3))
        expected = np.percentile(image.abs().numpy(), 99)
        assert float(scale[row]) == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(ops.mvue_scale(7 * y, maps), 7 * scale)
    full = ops.mvue_scale(ops.Sense(maps, torch.ones(1, 1, 10, 10))(x), maps)
    assert float((full / scale - 1).abs().min()) > 0.01


# ---- ESPIRiT


def disc(size, seed=0):
    """Smooth complex texture on a disc, (1, 2, H, W)."""
    rows, cols = (2 * (torch.arange(n).double() + 0.5) / n - 1 for n in size)
    inside = (rows[:, None] ** 2 + cols**2 < 0.8).double()
    k = ops.fft2c(torch.view_as_complex(seeded(1, 1, *size, 2, seed=seed)))
    distance = torch.hypot(
        torch.arange(size[0])[:, None] - size[0] // 2.0, torch.arange(size[1]) - size[1] // 2.0
    )
    return ops.as_channels(ops.ifft2c(k / (1 + distance)) + 2) * inside


def test_espirit_finds_the_maps_from_the_calibration_square_alone():
    pytest.importorskip("sigpy")
    size = (48, 40)
    maps, x = ops.ring_maps(4, size), disc(size)
    full = ops.Sense(maps, torch.ones(1, 1, *size))(x).to(torch.complex64)
    mask = ops.poisson_disc(size, 4, seed=1, center=16)
    found = ops.espirit(torch.where(mask, full, 0), width=16, crop=0)
    assert found.shape == maps.shape and found.dtype == torch.complex64
    inside = x.square().sum(1) > 0
    overlap = (found * maps.conj()).sum(1).abs()[inside]
    assert float(overlap.min()) > 0.98 and float(overlap.mean()) > 0.999
    wrong = found.roll(1, dims=1)  # the coils in another order
    assert float((wrong * maps.conj()).sum(1).abs()[inside].mean()) < 0.9
    # score-MRI's code estimates maps from the full k-space: here the rest makes no difference
    assert torch.equal(ops.espirit(full, width=16, crop=0), found)


def test_espirit_refuses_a_square_that_was_not_sampled():
    y = torch.ones(1, 2, 20, 20, dtype=torch.complex64)
    y[..., 13] = 0
    assert ops.calibration_width(y) == 6  # columns 7 to 12
    with pytest.raises(InvdiffError, match="24 x 24 .* sampled over 6 x 6"):
        ops.espirit(y, 24)
    y[..., 12] = 0
    with pytest.raises(InvdiffError, match="at least 6 x 6 .* found 4 x 4"):
        ops.espirit(y)


def test_espirit_finds_the_calibration_square_itself():
    pytest.importorskip("sigpy")
    size = (48, 40)
    full = ops.Sense(ops.ring_maps(4, size), torch.ones(1, 1, *size))(disc(size))
    y = torch.where(ops.equispaced(size, 3, center=10), full, 0).to(torch.complex64)
    found = ops.calibration_width(y)
    assert 10 <= found < 24
    assert torch.equal(ops.espirit(y, crop=0), ops.espirit(y, found, crop=0))
    assert torch.equal(
        ops.espirit(full.to(torch.complex64), crop=0), ops.espirit(full.to(torch.complex64), 24, 0)
    )


def test_the_calibration_region_is_a_rectangle():
    lines = ops.equispaced((20, 30), 4, center=7, adjusted=False)
    columns = ops.calibration_region(lines)[1]
    assert ops.calibration_region(lines)[0] == 20 and columns >= 7
    assert ops.calibration_region(lines.mT) == (columns, 20)
    mask = torch.zeros(2, 1, 20, 30)
    assert ops.calibration_region(mask) == (0, 0)
    mask[0, :, 6:14, 9:21] = 1
    mask[1, :, 4:16, 11:19] = 1
    assert ops.calibration_region(mask) == (8, 8)  # rows 6 to 13, columns 11 to 18
    assert ops.calibration_region(torch.ones(1, 1, 5, 9)) == (5, 9)


# ---- noise of several coils


def test_whitened_noise_has_sigma_1_in_each_real_part_and_no_correlation():
    """Sample covariances of n draws scatter by at most 2 / sqrt n; 5 deviations are allowed."""
    coils, n = 3, 20000
    mix = torch.view_as_complex(seeded(coils, coils, 2, seed=3))
    white = torch.view_as_complex(seeded(coils, n, 2, seed=4))
    noise = mix @ white
    law = noise_from_scan(noise).noise
    assert float((law.cov - mix @ mix.mH).abs().max()) < 5 / math.sqrt(n) * float(
        (mix @ mix.mH).abs().max()
    )
    found = law.whiten(noise[None, :, None])[0, :, 0]
    parts = torch.cat([found.real, found.imag])
    # exact, for C is that of these very samples: only real with imaginary parts may correlate
    both = found @ found.mH / n
    assert torch.allclose(both, 2 * torch.eye(coils, dtype=both.dtype), atol=1e-10)
    spread = parts @ parts.T / n
    assert float((spread - torch.eye(2 * coils)).abs().max()) < 5 * math.sqrt(2 / n)
    raw = torch.cat([noise.real, noise.imag])
    assert float((raw @ raw.T / n - torch.eye(2 * coils)).abs().max()) > 0.3  # the negative twin


def test_whitening_both_k_space_and_maps_keeps_the_model():
    size, coils = (6, 5), 3
    maps, mask = ops.ring_maps(coils, size), torch.ones(1, 1, *size)
    mix = torch.view_as_complex(seeded(coils, coils, 2, seed=3))
    law, x = CorrelatedGaussian(mix @ mix.mH), seeded(1, 2, *size)
    y = ops.Sense(maps, mask)(x)
    turned = ops.Sense(law.whiten(maps), mask)(x)
    np.testing.assert_allclose(law.whiten(y).numpy(), turned.numpy(), atol=1e-12)


def test_without_sigpy_the_error_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "sigpy.mri.app", None)
    with pytest.raises(InvdiffError, match=r"pip install 'invdiff\[mri\]'"):
        ops.espirit(torch.ones(1, 2, 20, 20, dtype=torch.complex64), width=8)


# ---- masks


def count(mask):
    return [int(m) for m in mask.flatten(1).sum(1)]


@pytest.mark.parametrize(
    ("accel", "true"), [(2, 1.86), (4, 3.23), (6, 4.31), (8, 6.19), (12, 8.35)]
)
def test_true_accelerations_of_jalal(accel, true):
    """384 lines, every accel-th line outside the block on top of the block."""
    mask = ops.equispaced((3, 384), accel, adjusted=False)
    assert round(ops.acceleration(mask)[0], 2) == true


@pytest.mark.parametrize(("asked", "columns"), [(10, 10), (15, 15), (30, 31), (60, 60)])
def test_columns_of_song(asked, columns):
    """240 lines, a block of round(240 asked / 1000), spaced for an acceleration of 240 / asked."""
    mask = ops.equispaced((3, 240), 240 / asked, center=round(0.24 * asked))
    assert count(mask) == [3 * columns]


def test_equispaced_lines_are_equally_far_apart():
    mask = ops.equispaced((1, 100), 5, center=0, adjusted=False)[0, 0, 0]
    assert mask.nonzero().flatten().tolist() == list(range(0, 100, 5))
    block = ops.equispaced((1, 100), 5, center=8)[0, 0, 0]
    assert block[46:54].all() and not block[54]
    outside = [c for c in block.nonzero().flatten().tolist() if not 46 <= c < 54]
    gaps = {b - a for a, b in zip(outside, outside[1:], strict=False) if b - a < 14}
    assert gaps <= {7, 8}  # 5 (100 - 8) / (100 - 40) = 7.67


SEEDED = {
    "random": (ops.random_lines, 32 // 4 * 40),
    "gaussian-lines": (ops.gaussian_lines, 32 // 4 * 40),
    "gaussian-points": (ops.gaussian_points, 40 * 32 // 4),
    "poisson": (ops.poisson_disc, 40 * 32 // 4),
}


@pytest.mark.parametrize(("make", "samples"), SEEDED.values(), ids=SEEDED)
def test_random_masks_keep_their_counts_and_seeds(make, samples):
    masks = make((40, 32), 4, seed=5, batch=3)
    assert masks.shape == (3, 1, 40, 32) and masks.dtype == torch.bool
    assert count(masks) == [samples] * 3 and ops.acceleration(masks) == [4.0] * 3
    assert torch.equal(make((40, 32), 4, seed=6)[0], masks[1])
    assert not torch.equal(masks[0], masks[1])
    middle = masks[:, 0, 20, 15:17]  # floor(8 % of 32) = 2 lines or a square of side 2
    assert middle.all() and not masks.all()
    with pytest.raises(InvdiffError, match="take a smaller block"):
        make((40, 32), 16, seed=0, center=30)


def middle_share(make, n=8, **options):
    """Share of the samples in the middle quarter of rows and columns (of columns for lines)."""
    masks = make((64, 64), 4, seed=0, center=0, batch=n, **options).double()
    columns = masks[..., 24:40] if make in (ops.random_lines, ops.gaussian_lines) else None
    return float((masks[..., 24:40, 24:40] if columns is None else columns).mean())


@pytest.mark.parametrize("make", [ops.gaussian_lines, ops.gaussian_points, ops.poisson_disc])
def test_masks_of_variable_density_are_denser_in_the_middle(make):
    """Uniform density is 1/4 everywhere; in 8 masks, 16 lines scatter around it by 0.038, and
    16 x 16 points by 0.010."""
    lines, points = (math.sqrt(0.25 * 0.75 / (n * 8)) for n in (16, 256))
    assert middle_share(make) > 0.25 + 4 * (lines if make is ops.gaussian_lines else points)
    assert abs(middle_share(ops.random_lines) - 0.25) < 4 * lines


def largest_slope(mask):
    """The largest b such that no two samples p, q are nearer than 1 + b min(rho_p, rho_q)."""
    p = mask[0, 0].nonzero().double()
    rho = torch.hypot(*(p.T - 32)) / 32
    gap = torch.cdist(p, p).fill_diagonal_(math.inf)
    return float(((gap - 1) / torch.minimum(rho[:, None], rho).clamp_min(1e-9)).min())


def test_poisson_discs_do_not_overlap():
    """Discs that fill 0.547 of the plane, as jammed random ones do, have a slope of about 1.8.

    Random points: some are neighbours, wherever they lie.
    """
    assert largest_slope(ops.poisson_disc((64, 64), 8, seed=0, center=0)) > 1
    assert largest_slope(ops.gaussian_points((64, 64), 8, seed=0, center=0, std=10.0)) < 1e-9


def test_masks_that_cannot_be_are_refused():
    with pytest.raises(InvdiffError, match="at least 1"):
        ops.random_lines((8, 8), 0.5, seed=0)
    with pytest.raises(InvdiffError, match="leaves nothing to space out"):
        ops.equispaced((8, 8), 4, center=2)
    with pytest.raises(InvdiffError, match="at most 8"):
        ops.equispaced((8, 8), 4, center=9)
