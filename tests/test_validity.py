"""What a file declares invalid never counts as measured, whatever the task of photographs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from invdiff import GaussianPrior, solve
from invdiff.core import InvdiffError
from invdiff.files.pictures import read_photo
from invdiff.noise import DiagonalGaussian, GaussianNoise
from invdiff.operators.inpaint import Inpaint
from invdiff.priors.base import Denoiser, Prior
from invdiff.problem import Problem
from invdiff.solvers.hqs import HQS
from invdiff.solvers.spectral_ancestral import SpectralAncestral
from invdiff.tasks import TASKS, task_class
from invdiff.tasks.auto import choose, estimator
from invdiff.tasks.base import Measured
from invdiff.tasks.photo import PhotoTask
from invdiff.tasks.validity import has_gaps, has_hole

SIZE = (20, 24)
RNG = np.random.default_rng(0)
COLOUR = np.repeat(np.repeat(RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8), 4, 0), 4, 1)
OPTIONS: dict[str, dict[str, Any]] = {
    "inpaint": {"mask": "box:3,9,5,5"},
    "super-resolution": {"scale": 2},
    "deblur": {"kernel": "gaussian:1"},
    "denoise": {"noise": "estimate"},
    "low-light": {"peak": 100.0},
}
PHOTO_TASKS = [name for name, cls in TASKS.items() if issubclass(cls, PhotoTask)]


def prior() -> Prior:
    """A prior that is asked for nothing but its shape and range."""
    return Denoiser(lambda x, sigma: x, (3, None, None), (-1.0, 1.0))


def saved(path: Path, alpha: np.ndarray, hidden: int, colours: np.ndarray = COLOUR) -> Path:
    """A picture whose hidden colours are of one level."""
    shown = colours.copy()
    shown[alpha == 0] = hidden
    Image.fromarray(np.dstack([shown, alpha])).save(path)
    return path


def read(task: str, path: Path, **more: Any) -> Measured:
    from invdiff import fields

    options = OPTIONS.get(task, {}) | more
    return fields.build(task_class(task), options, task).read(path, prior())


@pytest.fixture
def alpha() -> np.ndarray:
    found = np.full(SIZE, 255, np.uint8)
    found[:, 16:] = 0
    found[2, 2] = 0
    return found


@pytest.mark.parametrize("task", PHOTO_TASKS)
def test_hidden_colours_change_nothing(tmp_path: Path, task: str, alpha: np.ndarray) -> None:
    """Files that look alike pose the same problem: y, operator, noise and notes."""
    grey = np.repeat(COLOUR[..., :1], 3, 2)
    colours = grey if task in ("demosaic",) else COLOUR
    posed = [read(task, saved(tmp_path / f"{c}.png", alpha, c, colours)) for c in (0, 255)]
    y, A = posed[0].problem.y, posed[0].problem.A
    assert torch.equal(y, posed[1].problem.y)
    assert posed[0].noise == posed[1].noise and posed[0].notes == posed[1].notes
    measured = A.restrict(torch.ones_like(y))[0].amax(0)
    hidden = torch.from_numpy(alpha == 0)
    assert bool((measured[hidden] == 0).all())
    if task != "inpaint":
        assert bool((measured[~hidden] == 1).all())
    assert f"{int(hidden.sum())} transparent pixels do not count as measured" in posed[0].notes


def test_an_opaque_layer_changes_nothing(tmp_path: Path) -> None:
    """The negative twin: with alpha of 255, or of 128, everywhere all pixels are measured."""
    Image.fromarray(COLOUR).save(tmp_path / "plain.png")
    plain = read("deblur", tmp_path / "plain.png").problem
    for level in (255, 128):
        path = saved(tmp_path / "a.png", np.full(SIZE, level, np.uint8), 0)
        layered = read("deblur", path).problem
        assert torch.equal(layered.y, plain.y) and type(layered.A) is type(plain.A)
        assert type(layered.noise) is type(plain.noise)


def test_partly_transparent_pixels_count_less(tmp_path: Path) -> None:
    """Noise of sigma / alpha, relative to the most opaque pixel."""
    alpha = np.full(SIZE, 200, np.uint8)
    alpha[:, :5], alpha[:, 5:8] = 100, 0
    m = read("denoise", saved(tmp_path / "a.png", alpha, 9), noise="0.1")
    assert isinstance(m.problem.noise, DiagonalGaussian) and isinstance(m.problem.A, Inpaint)
    sigmas = m.problem.noise.sigmas[0, 0]
    assert sigmas[0, 12].item() == pytest.approx(0.2) and sigmas[0, 2].item() == pytest.approx(0.4)
    assert not m.problem.A.mask[0, 0, :, 5:8].any() and bool(m.problem.A.mask[0, 0, :, :5].all())
    assert "100 pixels count less, for they are partly transparent" in m.notes
    counts = read("low-light", tmp_path / "a.png").problem  # photons have no such law
    assert not counts.A.restrict(torch.ones_like(counts.y))[..., :8].any()


def test_the_result_is_the_posterior_of_what_was_seen(tmp_path: Path) -> None:
    """With a normal prior and a flat picture, hidden colours leave no trace at the rim."""
    alpha = np.full(SIZE, 255, np.uint8)
    alpha[:, 12:] = 0
    flat = np.full((*SIZE, 3), 200, np.uint8)
    law = GaussianPrior(torch.zeros(3, 40, 48), 1.0)
    found = []
    for hidden in (0, 255):
        path = saved(tmp_path / "a.png", alpha, hidden, flat)
        problem = task_class("super-resolution")(scale=2).read(path, law).problem  # type: ignore[call-arg]
        found.append(solve(problem, law, HQS(), samples=1).samples[0, 0])
    assert torch.equal(found[0], found[1])


def test_infinite_and_missing_numbers(tmp_path: Path) -> None:
    array = COLOUR.astype(np.float32) / 255
    array[3, 4], array[7, 8, 1] = np.nan, np.inf
    np.save(tmp_path / "a.npy", array)
    photo = read_photo(tmp_path / "a.npy")
    assert photo.valid is not None and int((~photo.valid).sum()) == 4
    m = read("deblur", tmp_path / "a.npy", boundary="reflect")
    known = m.problem.A.restrict(torch.ones_like(m.problem.y))[0]
    assert known[:, 3, 4].tolist() == [0, 0, 0] and known[:, 7, 8].tolist() == [1, 0, 1]
    assert int((known == 0).sum()) == 4 and bool(torch.isfinite(m.problem.y).all())


def test_what_cannot_be_told(tmp_path: Path, alpha: np.ndarray) -> None:
    path = saved(tmp_path / "a.png", alpha, 0)
    with pytest.raises(InvdiffError, match="give --noise with a level, or crop"):
        read("denoise", path, noise="correlated")
    with pytest.raises(InvdiffError, match="Every pixel of the picture is transparent"):
        read("denoise", saved(tmp_path / "b.png", 0 * alpha, 7))
    kept = np.zeros((*SIZE, 3), np.uint8)
    kept[alpha == 255] = 255
    Image.fromarray(kept).save(tmp_path / "m.png")
    with pytest.raises(InvdiffError, match="All pixels that the mask keeps are transparent"):
        read("inpaint", path, mask=str(tmp_path / "m.png"))


def test_solvers_of_pictures_with_holes(tmp_path: Path, alpha: np.ndarray) -> None:
    """Denoising starts at its measurement, which a picture with holes cannot be."""
    whole = read("denoise", saved(tmp_path / "a.png", 0 * alpha + 255, 0), noise="0.1").problem
    holed = read("denoise", saved(tmp_path / "b.png", alpha, 0), noise="0.1").problem
    task: Any = task_class("denoise")
    assert not has_gaps(whole) and has_gaps(holed) and has_hole(holed)
    cases = ((whole, "start", "one-call", 0.2), (holed, "drawn", "hqs", 5.0))
    for problem, data, best, top in cases:
        solver: Any = choose(task, problem)[0]
        assert solver.data == data and solver.schedule.sigma_max == pytest.approx(top)
        made = estimator(task, problem)
        assert made is not None and made[0].name == best


def hidden(kind: str) -> Inpaint:
    """A mask of 64 x 64."""
    if kind.startswith("random"):
        return Inpaint.random((64, 64), float(kind.split()[1]), seed=0)
    mask = torch.ones(1, 1, 64, 64)
    places = {"box": (slice(20, 40), slice(20, 40)), "half": (slice(0, 64), slice(32, 64)),
              "lines": (slice(0, 64, 12), slice(0, 64))}  # fmt: skip
    mask[..., *places[kind]] = 0
    return Inpaint(mask)


@pytest.mark.parametrize(
    ("kind", "modes"),
    [("box", True), ("half", True), ("lines", True), ("random 0.9", True), ("random 0.5", False),
     ("random 0.1", False)],
)  # fmt: skip
def test_pixels_that_lie_together_are_solved_in_cosine_modes(kind: str, modes: bool) -> None:
    """Scattered ones are not, also where they leave holes: there it takes more iterations. The
    estimate starts at a lower level for them."""
    A = hidden(kind)
    problem = Problem(A(torch.rand(1, 3, 64, 64)), A, GaussianNoise(0.02), (3, 64, 64))
    solver = choose(TASKS["inpaint"], problem)[0]
    assert isinstance(solver, SpectralAncestral)
    assert solver.preconditioner == ("modes" if modes else "none")
    made = estimator(TASKS["inpaint"], problem)
    assert made is not None and made[0].name == "hqs"
    assert made[0].levels[0].sigma == pytest.approx(1.0 if modes else 0.25)
