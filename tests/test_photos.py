"""From photographs to problems: ranges, noise levels, grey pictures, boundaries."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invdiff.tasks as tasks
from invdiff import fields
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.files.kernels import read_kernel
from invdiff.files.pictures import luma, save_picture, to_range
from invdiff.noise import GaussianNoise
from invdiff.operators import Grayscale, Inpaint, blur, gaussian_kernel
from invdiff.operators.boundaries import margins
from invdiff.priors.base import Denoiser, Prior
from invdiff.problem import Problem
from invdiff.tasks import TASKS, Measured
from invdiff.tasks.auto import choose, estimator
from invdiff.tasks.inpaint import has_hole
from invdiff.tasks.photo_noise import ROUNDING, estimate_sigma
from invdiff.tasks.pictures import PhotoView, beyond, shown, without_margin


def prior(channels: int = 3, value_range: tuple[float, float] = (-1.0, 1.0)) -> Prior:
    """A prior that is asked for nothing but its shape and range."""
    return Denoiser(lambda x, sigma: x, (channels, None, None), value_range)


def picture(channels: int = 3, h: int = 20, w: int = 24) -> Tensor:
    """Smooth pixels on [0, 1], different in every channel."""
    y, x = torch.linspace(0, 3, h)[:, None], torch.linspace(0, 2, w)[None]
    return torch.stack(
        [0.5 + 0.4 * torch.sin(x + c) * torch.cos(y * (c + 1)) for c in range(channels)]
    )


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs are files of the working folder."""
    monkeypatch.chdir(tmp_path)


def make(
    pixels: Tensor,
    task: str = "denoise",
    options: Mapping[str, Any] | None = None,
    noise: float | str | None = 0.1,
    of: Prior | None = None,
    **kind: Any,
) -> Measured:
    """The problem of a file with those numbers, (C, H, W)."""
    np.save("photo.npy", pixels.permute(1, 2, 0).squeeze(2).numpy())
    given = {**(options or {}), **({} if noise is None else {"noise": noise})}
    asked = fields.build(tasks.task_class(task), given, task)
    return asked.read(Path("photo.npy"), prior(**kind) if of is None else of)


def view(d: Measured) -> PhotoView:
    assert isinstance(d.view, PhotoView)
    return d.view


def level(d: Measured) -> float:
    """The noise that is told, on [0, 1]."""
    return float(d.noise.split()[0])


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0)])
def test_ranges(value_range: tuple[float, float]) -> None:
    """y is in the prior's range, sigma on its scale, and `shown` goes back."""
    pixels = picture()
    d = make(pixels, value_range=value_range)
    low, high = value_range
    assert torch.allclose(d.problem.y[0], low + (high - low) * pixels)
    assert d.problem.sigma_y == pytest.approx(0.1 * (high - low)) and level(d) == 0.1
    assert torch.allclose(shown(d.problem.y[0], False, value_range), pixels)


def test_sizes() -> None:
    d = make(picture(3, 10, 12), "super-resolution", {"scale": 3})
    assert d.problem.x_shape == (3, 30, 36) and d.problem.y.shape == (1, 3, 10, 12)


def test_grey_photo_of_a_colour_prior() -> None:
    """Three equal channels with sqrt(3) sigma have the likelihood of one channel with sigma."""
    d = make(picture(1))
    assert view(d).grey and d.problem.y.shape[1] == 3
    x = to_range(picture(1, 20, 24), (-1.0, 1.0))[None] + 0.05 * torch.sin(torch.arange(24.0))
    twice = [x, x + 0.02]
    full, single = d.problem.noise, GaussianNoise(0.2)
    three = [full.log_prob(d.problem.y, t.expand(-1, 3, -1, -1)) for t in twice]
    one = [single.log_prob(d.problem.y[:, :1], t) for t in twice]
    assert torch.allclose(three[0] - three[1], one[0] - one[1], rtol=1e-4)
    assert shown(d.problem.y, view(d).grey, (-1, 1)).shape == (1, 1, 20, 24)


def test_colour_photo_of_a_grey_prior() -> None:
    d = make(picture(), channels=1)
    assert torch.allclose(d.problem.y[0], 2 * luma(picture()) - 1) and "luma" in d.notes[0]


def test_colorize_takes_grey_and_colour() -> None:
    d = make(picture(), "colorize")
    assert isinstance(d.problem.A, Grayscale) and not view(d).grey and d.notes
    again = make(luma(picture()), "colorize")
    assert torch.equal(d.problem.y, again.problem.y) and not again.notes
    # the truth explains the measurement
    assert d.problem.residual(to_range(picture(), (-1, 1))[None]).abs().max() < 1e-6


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("boundary", ["zero", "reflect", "circular"])
def test_beyond_the_edge_is_black(boundary: str, value_range: tuple[float, float]) -> None:
    """A photo blurred on [0, 1] is explained by its truth, whatever the prior's range."""
    pixels, kernel = picture(), gaussian_kernel(1.2)
    A = blur(kernel, (20, 24), boundary)
    options = {"kernel": kernel, "boundary": boundary}
    d = make(A(pixels[None])[0], "deblur", options, value_range=value_range)
    truth = to_range(pixels, value_range)[None]
    assert d.problem.residual(truth).abs().max() < 1e-5
    offset = beyond(A, d.problem.x_shape, value_range)
    assert (offset.abs().max() > 0.1) == (boundary == "zero" and value_range[0] != 0)


def test_default_noise_is_rounding() -> None:
    d = make((picture() * 255).round() / 255, "super-resolution", {"scale": 2}, None)
    assert (
        d.problem.sigma_y == pytest.approx(2 * ROUNDING)
        and ROUNDING == pytest.approx(0.00113, abs=1e-5)
        and "rounding" in d.noise
    )
    x = picture(3, 200, 200)
    rounded = (x * 255).round() / 255
    assert float((rounded - x).std()) == pytest.approx(ROUNDING, rel=0.02)


@pytest.mark.parametrize("sigma", [0.01, 0.1])
@pytest.mark.parametrize("channels", [1, 3])
def test_noise_is_estimated(sigma: float, channels: int) -> None:
    """Within 5 standard errors of the median's: 1.17 sigma / sqrt(n), and a trace of texture."""
    clean = picture(channels, 128, 160)[None]
    noisy = GaussianNoise(sigma).sample(clean, Rng.of(3))[0]
    n = channels * 64 * 80
    tolerance = 5 * 1.17 * sigma / math.sqrt(n) + 0.01 * sigma
    assert estimate_sigma(noisy) == pytest.approx(sigma, abs=tolerance)
    d = make(noisy, noise="estimate")
    assert "estimated" in d.noise
    found = d.problem.sigma_y / 2 / math.sqrt(3 / channels)  # a grey one is repeated
    assert found == pytest.approx(sigma, abs=tolerance)


def test_noise_is_estimated_on_known_pixels() -> None:
    noisy = GaussianNoise(0.05).sample(picture(3, 64, 64)[None], Rng.of(3))[0]
    known = torch.ones(64, 64, dtype=torch.bool)
    known[10:40, 5:60] = False
    junk = 10 * torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    spoilt = torch.where(known, noisy, junk)
    assert estimate_sigma(spoilt, known) == pytest.approx(0.05, rel=0.1)
    assert estimate_sigma(spoilt) > 0.08
    with pytest.raises(InvdiffError, match="too few"):
        estimate_sigma(noisy, torch.zeros(64, 64, dtype=torch.bool))
    with pytest.raises(InvdiffError, match="too few"):
        estimate_sigma(picture(3, 1, 5))


def test_nothing_is_estimated_below_rounding() -> None:
    d = make(picture(1, 64, 64) * 0, noise="estimate")
    assert d.problem.sigma_y == pytest.approx(2 * math.sqrt(3) * ROUNDING)


@pytest.mark.parametrize(
    ("task", "options", "sentence"),
    [
        ("inpaint", {}, "needs --mask"),
        ("super-resolution", {}, "needs --scale"),
        ("super-resolution", {"scale": 0}, "at least 2, found 0"),
        ("super-resolution", {"scale": 1}, "at least 2"),
        ("super-resolution", {"scale": 2.5}, "a whole number"),
        ("super-resolution", {"scale": 21}, "larger than the image"),
        ("super-resolution", {"scale": 2, "downsampling": "bicubc"}, "did you mean bicubic"),
        ("super-resolution", {"scale": 2, "kernel": "gaussian:1"}, "does not belong"),
        ("deblur", {}, "needs --kernel"),
        (
            "deblur",
            {"kernel": "gaussian:1", "boundary": "periodic"},
            "found periodic",
        ),
        ("denoise", {"mask": "m.png"}, "does not belong"),
        ("denois", {}, "did you mean denoise"),
    ],
)
def test_bad_options(task: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvdiffError, match=sentence):
        make(picture(), task, options)


def test_the_result_may_not_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invdiff.files.raster.MAX_PIXELS", 1000)
    with pytest.raises(InvdiffError, match="megapixels"):
        make(picture(), "super-resolution", {"scale": 4})


def test_nan_does_not_count_as_measured(tmp_path: Any) -> None:
    """A pixel of NaN is masked, whatever the task; with the same noise as without it."""
    pixels = picture()
    whole = make(pixels, noise="estimate").problem
    pixels[:, 3, 3] = torch.nan
    d = make(pixels, noise="estimate")
    known = d.problem.A.restrict(torch.ones_like(d.problem.y))
    assert not known[0, :, 3, 3].any() and int((known == 0).sum()) == 3
    assert d.problem.y[0, :, 3, 3].tolist() == [0, 0, 0]
    assert d.problem.noise.sigma == pytest.approx(whole.noise.sigma, rel=0.05)
    assert "1 pixels hold NaN or infinities and do not count as measured" in d.notes
    mask = torch.zeros(1, 20, 24)
    mask[:, 2:5, 2:5] = 1
    save_picture(tmp_path / "m.png", mask)
    d = make(pixels, "inpaint", {"mask": str(tmp_path / "m.png")})
    assert bool(torch.isfinite(d.problem.y).all())
    with pytest.raises(InvdiffError, match="NaN"):
        make(torch.full_like(pixels, torch.nan))


def test_auto_knows_every_task() -> None:
    for name, task in TASKS.items():
        solver, reason = choose(task, task.toy())
        assert solver.num_steps > 0, name
        assert (solver.name, reason) == (task.auto.solver, task.auto.reason)


def test_a_hole_takes_a_longer_path_than_scattered_pixels() -> None:
    box, scattered = Inpaint.box((32, 32), 8, 8, 12, 12), Inpaint.random((32, 32), 0.5, seed=0)
    paths = []
    for A in (box, scattered):
        p = Problem(torch.zeros(1, 3, 32, 32), A, GaussianNoise(0.002), (3, 32, 32))
        assert has_hole(p) == (A is box)
        paths.append(choose(TASKS["inpaint"], p)[0].schedule)
    assert paths[0].sigma_max > paths[1].sigma_max and paths[0].steps > paths[1].steps


def test_every_estimator_draws_no_noise_and_can() -> None:
    for task in TASKS.values():
        found = estimator(task, task.toy())
        assert (found is None) == (task.best is None)
        if found is not None and task.best is not None:
            assert found[0].estimates and found[0].name == task.best.solver


@pytest.mark.parametrize("boundary", ["unknown", "valid"])
@pytest.mark.parametrize("kernel", ["gaussian:1.2", "motion:7,30"])
def test_a_blurred_cut_out_is_explained_by_the_larger_picture(kernel: str, boundary: str) -> None:
    """By default nothing is supposed beyond the edge: the residual of the truth is round-off."""
    taps = read_kernel(kernel, (40, 44))
    large = picture(3, 40, 44)
    (above, below), (left, right) = margins(taps, boundary)
    blurred = blur(taps, (40, 44), "zero")(large[None])[0]
    cut = blurred[:, above : 40 - below, left : 44 - right]
    told = {} if boundary == "unknown" else {"boundary": boundary}
    d = make(cut, "deblur", {"kernel": kernel, **told})
    assert view(d).margin == (above, below, left, right) and d.problem.x_shape == (3, 40, 44)
    assert d.problem.residual(to_range(large, (-1, 1))[None]).abs().max() < 1e-5
    assert torch.equal(
        without_margin(large, view(d).margin), large[:, above : 40 - below, left:-right]
    )
    # a reflected edge does not explain it
    again = make(cut, "deblur", {"kernel": kernel, "boundary": "reflect"})
    inner = to_range(without_margin(large, view(d).margin), (-1, 1))[None]
    assert view(again).margin == (0, 0, 0, 0) and again.problem.residual(inner).abs().max() > 0.01


def test_a_prior_of_one_size_has_no_room_for_a_margin() -> None:
    """It restores its own size with a reflected edge, and says so; a smaller cut-out fits."""
    kernel = {"kernel": "gaussian:1"}
    fixed = Denoiser(lambda x, sigma: x, (3, 20, 24))
    d = make(picture(), "deblur", kernel, 0.01, fixed)
    assert d.problem.x_shape == (3, 20, 24) and view(d).margin == (0, 0, 0, 0)
    assert "the edge is reflected" in d.notes[0]
    assert d.problem.y.shape == (1, 3, 20, 24)
    inner = make(picture()[:, 4:-4, 4:-4], "deblur", kernel, 0.01, fixed)
    assert inner.problem.x_shape == (3, 20, 24) and view(inner).margin == (4, 4, 4, 4)
    assert not inner.notes
