"""What a user gets by default agrees with y: residual over noise, warnings, both outputs."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from invdiff import measured
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, Karras
from invdiff.files.pictures import read_photo, to_range
from invdiff.noise import (
    NOISELESS,
    DiagonalGaussian,
    GaussianNoise,
    Laplace,
    Poisson,
    StationaryGaussian,
)
from invdiff.operators import JPEG, Bayer, Bicubic, Identity, Inpaint, Operator
from invdiff.operators.blur import blur
from invdiff.operators.blur_kernels import gaussian_kernel, motion_kernel
from invdiff.operators.circular_blur import CircularBlur
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.priors.measure import measure
from invdiff.priors.photo import load_embedded
from invdiff.priors.spectrum import SHARES, ErrorSpectrum, beside, save
from invdiff.priors.spectrum import load as load_spectrum
from invdiff.problem import Problem
from invdiff.restoration.job import prepare
from invdiff.sampling.checks import EXCESS, MISFIT, RINGING, check, excess, misfit, said_once
from invdiff.sampling.growth import growth, ringing, usual_growth
from invdiff.sampling.result import Result
from invdiff.sampling.run import again, estimate, solve
from invdiff.solvers import solver_class
from invdiff.tasks import TASKS, RepairJPEG
from invdiff.tasks.auto import choose, estimator
from invdiff.tasks.values import NoiseLevel

SIDE = (32, 32)
ROUNDING = 2 / (255 * math.sqrt(12))
OPERATORS: dict[str, Operator] = {
    "denoise": Identity(),
    "deblur": blur(gaussian_kernel(1.5), SIDE, "reflect"),
    "super-resolution": Bicubic(4, SIDE),
    "inpaint": Inpaint.random(SIDE, 0.5, seed=1),
    "demosaic": Bayer("RGGB"),
}


@pytest.fixture(scope="module")
def prior() -> Prior:
    return load_prior("photo")


@pytest.fixture(scope="module")
def truth(prior: Prior) -> Tensor:
    """Two images that the prior finds likely: its own samples, well within its range."""
    blank = Problem(torch.zeros(1, 3, *SIDE), Identity(), GaussianNoise(1.0), (3, *SIDE))
    solver = solver_class("unconditional")(schedule=Karras(12, 20.0, 0.02))
    return solve(blank, prior, solver, 2, seed=4).samples[0].clamp(-0.9, 0.9)


@pytest.fixture(scope="module")
def photo() -> Tensor:
    """A real photograph in 8 bits on [-1, 1], (1, 3, 64, 64)."""
    file = Path(__file__).parents[1] / "examples" / "alpacas-small.png"
    return to_range(read_photo(file).pixels[..., 16:80, 16:80].reshape(1, 3, 64, 64), (-1, 1))


def posed(name: str, truth: Tensor, sigma: float) -> Problem:
    A = OPERATORS[name]
    y = GaussianNoise(sigma).sample(A(truth), Rng.of(range(len(truth))))
    return Problem(A.restrict(y), A, GaussianNoise(sigma), (3, *SIDE))


LEVELS = {"8 bits": ROUNDING, "5": 10 / 255, "25": 50 / 255}
MEASURED = [(task, "8 bits") for task in OPERATORS]
MEASURED += [(task, ("5", "25")[i % 2]) for i, task in enumerate(OPERATORS)]
"""Every task at the least noise, where a residual is most easily too large, and at one more."""


@pytest.mark.parametrize(("task", "level"), MEASURED)
def test_calibrated_samples_miss_y_by_its_noise(task, level, prior, truth):
    """As they must: residual / sigma in [0.9, 1.1], for all but chance.

    The residual of n numbers scatters by 1 / sqrt(2 n) about that of the law; with 4 rows of 192 to
    3072 numbers that is at most 0.026.
    """
    problem = posed(task, truth, LEVELS[level])
    solver = choose(TASKS[task], problem)[0]
    found = solve(problem, prior, solver, 2, seed=2).check(prior)["samples"].misfit
    numbers = 4 * int(problem.A.restrict(torch.ones_like(problem.y[:1])).count_nonzero())
    slack = 3 / math.sqrt(2 * numbers)
    assert found is not None
    assert 0.9 - slack < math.sqrt(sum(m * m for m in found) / len(found)) < 1.1 + slack


def test_a_path_that_ends_above_the_noise_is_seen(prior, truth):
    """The negative twin: the preset of before for the best mean."""
    problem = posed("inpaint", truth, ROUNDING)
    old = solver_class("ddrm")(eta_prop=1.0, schedule=Karras(20, 5.0, 0.02))
    found = solve(problem, prior, old, 1, seed=2).check(prior)["samples"]
    assert min(found.misfit or (0.0,)) > MISFIT and "misses the measurement" in found.warnings[0]


def test_kept_pixels_move_by_one_level_at_most(prior, truth):
    levels = ((truth + 1) * 127.5).round() / 127.5 - 1
    A = OPERATORS["inpaint"]
    problem = Problem(A(levels), A, GaussianNoise(ROUNDING), (3, *SIDE))
    x = solve(problem, prior, choose(TASKS["inpaint"], problem)[0], 2, seed=3).samples
    off = ((x - levels[:, None]) * 127.5).round().abs()
    assert float(off[A.mask.bool().expand_as(levels)[:, None].expand_as(off)].max()) <= 1


@pytest.mark.parametrize("task", ["demosaic", "deblur"])
def test_an_estimate_does_not_follow_the_noise(task, prior, photo):
    """With noise of 25/255; the negative twin ends its schedule at the noise level of y."""
    A = Bayer("RGGB") if task == "demosaic" else blur(gaussian_kernel(1.5), (64, 64), "reflect")
    y = GaussianNoise(50 / 255).sample(A(photo), Rng.of(1))
    problem = Problem(A.restrict(y), A, GaussianNoise(50 / 255), (3, 64, 64))
    solver = estimator(TASKS[task], problem)[0]
    twin = dataclasses.replace(
        solver, schedule=dataclasses.replace(solver.schedule, sigma_min=50 / 255)
    )
    error, worse = (
        float((estimate(problem, prior, s).estimate - photo).square().mean())
        for s in (solver, twin)
    )
    assert error < 0.95 * worse


def test_an_estimate_knows_the_spectrum_of_correlated_noise(prior, photo):
    """The negative twin supposes white noise of the same size, and leaves the low frequencies."""
    noise = StationaryGaussian((0.1, 0.2, 0.3, 0.4), ((0.3, 0.15, 0.05, 0.02),))
    y = noise.sample(photo, Rng.of(1))
    size, shape = float((y - photo).std()), (3, 64, 64)
    found = {}
    for name, law in (("hqs", noise), ("one-call", GaussianNoise(size))):
        problem = Problem(y, Identity(), law, shape)
        solver, _ = estimator(TASKS["denoise"], problem)
        assert solver.name == name
        found[name] = estimate(problem, prior, solver)
    errors = {n: float((r.estimate - photo).square().mean()) for n, r in found.items()}
    assert errors["hqs"] < 0.9 * errors["one-call"]
    assert 0.8 < found["hqs"].check(prior)["estimate"].misfit[0] < 1.2


@pytest.mark.parametrize("quality", [5, 20, 50, 75, 90])
def test_a_jpeg_estimate_is_nearer_than_the_file_at_any_quality(quality, prior, photo):
    A = JPEG(quality)
    problem = Problem(A(photo), A, NOISELESS, tuple(photo.shape[1:]))
    solver = estimator(TASKS["jpeg"], problem)[0]
    result = estimate(problem, prior, solver)
    error, before = (float((x - photo).square().mean()) for x in (result.estimate, problem.y))
    assert error < 0.95 * before
    assert result.check(prior)["estimate"].misfit == pytest.approx((0.0,), abs=1e-5)
    strong = dataclasses.replace(solver, schedule=VE(2, 0.4, 0.2))  # the level of quality 5 for all
    worse = float((estimate(problem, prior, strong).estimate - photo).square().mean())
    assert quality < 20 or worse > before


# ---- the check itself


def plain(noise, y: Tensor, A: Operator | None = None) -> Problem:
    return Problem(y, A or Identity(), noise, tuple(y.shape[1:]))


def test_the_misfit_of_the_truth_is_one():
    x = torch.zeros(1, 1, 60, 60)
    n = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    rms = float(n.square().mean().sqrt())
    assert float(misfit(plain(GaussianNoise(0.3), x + 0.3 * n), x)) == pytest.approx(rms)
    mask = Inpaint.box((60, 60), 0, 0, 30, 60)
    half = float(n[..., 30:, :].square().mean().sqrt())
    assert float(misfit(plain(GaussianNoise(0.3), 0.3 * n, mask), x)) == pytest.approx(half)
    sigmas = torch.full_like(x, 0.2)
    sigmas[..., :30, :] = 2.0
    assert float(misfit(plain(DiagonalGaussian(sigmas), sigmas * n), x)) == pytest.approx(rms)
    photons = Poisson(40.0)
    y = photons.sample(x, Rng.of(1))
    assert float(misfit(plain(photons, y), x)) == pytest.approx(1.0, abs=0.05)


def test_a_complex_measurement_counts_both_its_parts():
    from invdiff.operators.mri import Fourier

    A = Fourier(torch.ones(1, 1, 32, 32))
    x = torch.zeros(1, 2, 32, 32)
    y = GaussianNoise(0.1).sample(A(x), Rng.of(0))
    found = float(misfit(Problem(y, A, GaussianNoise(0.1), (2, 32, 32)), x))
    assert found == pytest.approx(1.0, abs=4 / math.sqrt(2 * 2048))


def test_what_is_out_of_cells_or_range_is_seen():
    A = JPEG(30, "4:4:4")
    x = torch.linspace(-0.8, 0.8, 32).expand(1, 3, 32, 32).clone()
    problem = Problem(A(x), A, NOISELESS, (3, 32, 32))
    inside = float(misfit(problem, problem.y))
    assert inside < 0.05 < float(misfit(problem, problem.y + 0.3))
    assert excess(torch.tensor([0.0, 1.5]), (-1.0, 1.0)) == pytest.approx(0.5 / math.sqrt(2))
    assert excess(torch.tensor([9.0]), (-math.inf, math.inf)) == 0.0
    steep = plain(GaussianNoise(0.1), x)
    assert growth(steep, 3 * x) == pytest.approx(3.0) and growth(problem, x) is None


def cloud(size: tuple[int, int]) -> Tensor:
    """(1, 3, *size), whose power falls as 1 / f^2; float64, on about [-1, 1]."""
    g = torch.Generator().manual_seed(0)
    down, across = (torch.fft.fftfreq(n, dtype=torch.float64) for n in size)
    square = down[:, None] ** 2 + across**2
    root = torch.where(square > 0, square.clamp_min(1e-9) ** -0.5, 0.0)
    waves = torch.fft.fft2(torch.randn(1, 3, *size, generator=g, dtype=torch.float64))
    x = torch.fft.ifft2(waves * root).real
    return x / x.abs().max()


@pytest.mark.parametrize("sigma", [0.0, 0.01])
def test_the_usual_growth_is_that_of_an_image_whose_power_falls_as_1_over_f2(sigma):
    size, noise = (96, 80), GaussianNoise(sigma)
    A, x = CircularBlur(gaussian_kernel(1.5).double(), size), cloud(size)
    problem = Problem(noise.sample(A(x), Rng.of(0)), A, noise, (3, *size))

    def steepness(t: Tensor) -> float:
        return float(t.diff(dim=-1).square().mean() + t.diff(dim=-2).square().mean())

    found = math.sqrt(steepness(x) / steepness(problem.y))
    assert usual_growth(problem) == pytest.approx(found, rel=0.05)
    assert usual_growth(Problem(problem.y, A, Laplace(0.1), (3, *size))) is None


def test_an_estimate_may_be_rougher_than_y_by_what_its_operator_takes_away():
    x, noise = cloud((96, 80)), GaussianNoise(0.002)
    A = CircularBlur(motion_kernel(15, 30).double(), (96, 80))
    problem = Problem(noise.sample(A(x), Rng.of(0)), A, noise, (3, 96, 80))
    for more, warned in ((0.0, False), (2.0, True)):
        rough = x + more * x.diff(dim=-1, prepend=x[..., -1:])
        found = check(problem, rough[:, None], (-1, 1), estimate=True)
        assert found.growth is not None and found.growth > 3
        assert any("times is usual" in w for w in found.warnings) is warned


@pytest.mark.parametrize("edge", ["reflect", "unknown", "circular"])
def test_the_waves_that_a_blur_takes_away_are_ringing(edge):
    """They are there after a division by a kernel that did not blur the picture."""
    size = (96, 80)
    x, noise = cloud(size).float(), GaussianNoise(0.0005)

    def posed(k: Tensor) -> Problem:
        A = blur(k, size, edge)
        return Problem(noise.sample(A(x), Rng.of(0)), A, noise, (3, *size))

    told, real = (motion_kernel(11, angle) for angle in (30, 60))
    y = noise.sample(CircularBlur(real, size)(x), Rng.of(0))
    right, wrong = (CircularBlur(k, size).ridge(y, 1e-5) for k in (real, told))
    problem = posed(told)
    assert ringing(problem, x) == pytest.approx(1, abs=0.1)
    assert ringing(posed(real), right) < 1 < RINGING < ringing(problem, wrong)
    two = problem.rows(torch.tensor([0, 0]))
    assert ringing(two, torch.cat([x, wrong])) == pytest.approx(ringing(problem, wrong))
    round_one = CircularBlur(gaussian_kernel(1.5), size)
    assert (ringing(Problem(x, round_one, noise, (3, *size)), x) or 0) < 1.5
    assert (
        ringing(Problem(x[..., :20, :20], Identity(), noise, (3, 20, 20)), x[..., :20, :20]) is None
    )
    assert ringing(Problem(x, Identity(), noise, (3, *size)), x) is None


def test_warnings_name_the_likely_cause():
    x = torch.zeros(1, 1, 1, 20, 20)
    n = torch.randn(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    fine = check(plain(GaussianNoise(0.1), 0.1 * n), x, (-1, 1))
    assert fine.warnings == () and json.dumps(fine.as_dict())
    far = check(plain(GaussianNoise(0.1), 0.3 * n), x, (-1, 1))
    assert "may be another" in far.warnings[0] and "times its noise" in far.warnings[0]
    wild = check(plain(GaussianNoise(9.0), n), x + 1 + 2 * EXCESS, (-1, 1))
    assert "leave the range" in wild.warnings[0] and len(wild.warnings) == 1
    y = 0.2 * n
    rough = check(
        plain(GaussianNoise(1.0), y), (4 * y)[:, None].clamp(-1, 1), (-1, 1), estimate=True
    )
    assert "as rough as the measurement" in rough.warnings[0]
    assert (
        check(plain(GaussianNoise(1.0), y), (4 * y)[:, None].clamp(-1, 1), (-1, 1)).warnings == ()
    )
    unknown = check(plain(Laplace(0.1), 0.1 * n), x, (-1, 1))
    assert unknown.misfit is None and unknown.warnings == ()


# ---- two outputs, saved and repeated


def test_what_has_one_cause_is_one_sentence():
    both = ["the estimate misses y: a kernel", "a sample misses y: a kernel", "no cause", "x: y: z"]
    assert said_once(both) == [
        "the estimate misses y and a sample misses y: a kernel", "no cause", "x: y: z",
    ]  # fmt: skip


def test_an_estimate_and_samples_are_saved_and_made_again(prior, truth, tmp_path):
    problem = posed("super-resolution", truth[:1], 0.02)
    best = estimator(TASKS["super-resolution"], problem)
    assert best is not None
    solver = choose(TASKS["super-resolution"], problem)[0].with_steps(3)
    first = solve(problem, prior, solver, 2, seed=1, estimator=best[0].with_steps(3))
    found = Result.load(first.save(tmp_path / "run"))
    assert found.estimate is not None and torch.equal(found.estimate, first.estimate)
    repeated = again(found, prior)
    assert torch.equal(repeated.samples, first.samples)
    assert torch.equal(repeated.estimate, first.estimate)
    assert set(first.check(prior)) == {"samples", "estimate"}
    assert found.config["want"] == "both" and found.config["estimate_nfe"] == 3


def test_a_run_is_not_repeated_with_another_spectrum(truth, tmp_path):
    prior = load_embedded("photo")
    problem = posed("inpaint", truth[:1], 0.02)
    solver = choose(TASKS["inpaint"], problem)[0].with_steps(2)
    result = solve(problem, prior, solver, 1)
    prior.spectrum = None
    with pytest.raises(InvdiffError, match="another error spectrum"):
        again(result, prior)


# ---- the spectrum


def test_every_prior_of_the_package_has_a_spectrum_of_its_weights():
    for name in ("photo", "brain", "brain-magnitude", "ct", "faces64", "fashion28", "multiscale"):
        prior = load_embedded(name)
        assert prior.spectrum is not None and prior.spectrum.prior == prior.fingerprint, name
    clips = load_embedded("moving-fashion")
    assert clips.spectrum is not None
    V = clips.spectrum.at(0.3, torch.zeros(1, 1, 8, 32, 32))
    assert V(torch.ones(1, 1, 8, 32, 32)).shape == (1, 1, 8, 32, 32)


def test_the_fallback_is_the_mean_error_of_photographs():
    """The constants are those of the prior `photo`, to their three digits."""
    spectrum = load_embedded("photo").spectrum
    assert spectrum is not None
    assert [float(f"{v:.3g}") for v in spectrum.share.tolist()] == list(SHARES)


def test_white_errors_are_measured_as_white():
    """A denoiser that returns half of the noise leaves a flat spectrum of a quarter everywhere."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(40, 3, 32, 32, generator=g)

    def half(y: Tensor, sigma: float) -> Tensor:
        return x_now[0] + 0.5 * (y - x_now[0])

    x_now = [x]
    found = measure(half, x, sigmas=(0.1, 0.2, *range(1, 13)), batch=40)
    # 40 images of 3 channels: the lowest bands hold one and three modes, the finest hundreds
    assert float((found.bands[..., 5:] - 0.25).abs().max()) < 0.03
    assert float((found.bands / 0.25).log().abs().max()) < math.log(2.5)
    V = found.at(0.1, x[:1], local=False)
    # a quarter of the mean square of the noise that was drawn, whose relative deviation is .004
    assert float(V.mean) == pytest.approx(0.25 * 0.01, rel=0.016)
    assert found.share.tolist() == pytest.approx([0.25] * len(found.share), rel=0.016)
    z = torch.randn(1, 3, 32, 32, generator=g)
    torch.testing.assert_close(V.root(V.root(z)), V(z))


def test_errors_at_edges_are_measured_there():
    """Errors four times as strong where the image is busy: S tells it, and T L T does not."""
    x = torch.zeros(24, 1, 32, 32)
    x[..., 16:] = torch.randn(24, 1, 32, 16, generator=torch.Generator().manual_seed(0))
    weight = torch.full((1, 1, 32, 32), 0.2)
    weight[..., 16:] = 0.8

    def denoise(y: Tensor, sigma: float) -> Tensor:
        return x + weight * (y - x)

    found = measure(denoise, x, sigmas=tuple(0.05 * 2**i for i in range(14)), batch=24)
    V = found.at(0.1, x[:1])
    assert V.factors is not None
    calm, busy = V.factors[..., 2:14].mean(), V.factors[..., 18:30].mean()
    assert 8 < float(busy / calm) < 32  # 16, within a factor of two: S is smooth, V is not S alone


def test_a_spectrum_of_other_weights_is_refused(tmp_path):
    prior = load_embedded("fashion28")
    assert prior.spectrum is not None
    path = beside(tmp_path / "net.safetensors")
    assert path.name == "net.spectrum.json" and load_spectrum(path, "x") is None
    save(prior.spectrum, path)
    kept = load_spectrum(path, prior.fingerprint)
    assert isinstance(kept, ErrorSpectrum) and kept.fingerprint == prior.spectrum.fingerprint
    with pytest.raises(InvdiffError, match="measured on other weights"):
        load_spectrum(path, "0123")
    path.write_text("{}")
    with pytest.raises(InvdiffError, match="no error spectrum"):
        load_spectrum(path, prior.fingerprint)


def test_what_was_measured_is_told():
    solver = choose(TASKS["jpeg"], TASKS["jpeg"].toy())[0]
    assert "held the truth in" in measured.words("jpeg", "photo", solver)
    assert "not measured" in measured.words("jpeg", "faces64", solver)
    assert measured.words("denoise", "photo", solver_class("one-call")()) == ""


def test_a_preset_that_misses_y_says_so_before_it_runs(tmp_path):
    task, ddrm = TASKS["inpaint"], solver_class("ddrm")()
    said = measured.disagreement("inpaint", "photo", ddrm, 10 / 255)
    assert re.search(r"by 1\.\d+ times its noise .* with noise of 5/255", said)
    assert measured.disagreement("inpaint", "photo", ddrm, 50 / 255) == ""
    assert measured.disagreement("inpaint", "faces64", ddrm, 10 / 255) == ""
    calibrated = choose(task, task.toy())[0]
    assert measured.disagreement("inpaint", "photo", calibrated, 10 / 255) == ""

    picture = tmp_path / "grey.png"
    Image.new("RGB", (16, 16), "grey").save(picture)
    for sigma, speaks in ((0.001, True), (0.1, False)):
        told = prepare(TASKS["denoise"](noise=NoiseLevel.of(sigma)), picture, solver="pigdm").lines
        assert any("measured with rounding to 8 bits" in text for _, text in told) == speaks


def test_an_answer_that_leaves_the_cells_of_a_jpeg_is_warned_of(tmp_path):
    """Another picture is; the estimate, and the file as it is decoded, are not."""
    photo = Path(__file__).parents[1] / "examples" / "alpacas-small.png"
    with Image.open(photo) as image:
        image.convert("RGB").crop((16, 16, 64, 64)).save(tmp_path / "a.jpg", quality=40)
    problem = RepairJPEG().read(tmp_path / "a.jpg", load_prior("photo")).problem
    turned = problem.y.flip(-1)
    said = check(problem, turned[:, None], (-1.0, 1.0)).warnings
    assert len(said) == 1 and "outside of what the file allows" in said[0]
    assert check(problem, problem.y[:, None], (-1.0, 1.0)).warnings == ()
