"""Super-resolution and JPEG repair of one file at once, as people have from messengers."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from invdiff.core.option import option
from invdiff.core.schedules import VE, Karras
from invdiff.files.pictures import check_pixels, read_photo, save_picture, words
from invdiff.noise import DiagonalGaussian, GaussianNoise
from invdiff.operators.algebra import Linear, Operator
from invdiff.operators.downsample import Bicubic
from invdiff.operators.jpeg import JPEG
from invdiff.operators.jpeg_cells import LEVELS, Plane, planes
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.problem.toys import unmeasured
from invdiff.sampling.solver import Solver
from invdiff.solvers.hqs import HQS
from invdiff.solvers.spectral_ancestral import SpectralAncestral
from invdiff.tasks.base import Choice, Made, Measured, Preset, Simulation, Task
from invdiff.tasks.jpeg import decoded, levels
from invdiff.tasks.pictures import PhotoView, clean_pixels, picture_view, upright
from invdiff.tasks.presets import DRAWS, EVERY_PHOTO, INFLATION, SPLITS
from invdiff.tasks.values import Size


@dataclass(frozen=True, eq=False)
class SmallCoefficients(Linear):
    """The block coefficients that a JPEG encoder would quantise, of an image made smaller.

    x (B, C, scale H, scale W) on [-1, 1] -> (B, N): those of brightness and of the colour
    differences of Bicubic(scale) of x, in units of 127.5 grey levels, less those of x = 0.
    jpeg: tells planes and subsampling. size: (scale H, scale W).
    """

    scale: int
    size: Size
    channels: int
    jpeg: JPEG

    def __call__(self, x: Tensor) -> Tensor:
        small = Bicubic(self.scale, self.size)(x)
        parts = [
            (p.coefficients(small) - p.coefficients(0 * small)).flatten(1)
            for p in self.planes(small)
        ]
        return torch.cat(parts, 1) / LEVELS

    def planes(self, small: Tensor) -> list[Plane]:
        """Brightness and colour differences of a small image; their cells mean nothing."""
        return self._once("planes", small, lambda: planes(self.jpeg, torch.zeros_like(small[:1])))

    def adjoint(self, y: Tensor) -> Tensor:
        x = torch.zeros(len(y), self.channels, *self.size, dtype=y.dtype, device=y.device)
        return Operator.vjp(self, x, y)


def _sampler() -> Solver:
    """Errors differ by hundreds between coefficients: its data steps go on for longer. Its start
    and the weight of `hqs` were found by trials on four crops that are not reported."""
    return SpectralAncestral(inflation=INFLATION, tol=0.002, schedule=Karras(14, 1.0, 0.01))


@dataclass(frozen=True, eq=False)
class DecodedView(PhotoView):
    """Pictures, beside the decoded file, which is `measured`."""

    def measurement(self, problem: Problem) -> list[tuple[str, Tensor]]:
        assert self.measured is not None
        return [("input", upright(self.measured, self.turn))]


@dataclass(frozen=True, kw_only=True)
class MakeSmallJPEG(Simulation):
    """Make a photograph smaller and compress it."""

    scale: int = option("by which sides are divided, a whole number of 2 or more", min=2)
    quality: int = option("of the JPEG, 1 to 95", min=1, max=95)
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = option("of its colours", "4:2:0")

    def make(self, file: Path, out: Path, seed: int) -> Made:
        """measurement.jpg, by the real codec after the antialiased reduction, and truth.png."""
        photo = read_photo(file)
        truth, notes = clean_pixels(photo, self.scale)
        size = (int(truth.shape[1]), int(truth.shape[2]))
        small = Bicubic(self.scale, size)(truth[None])[0]
        A = JPEG(self.quality, self.subsampling)
        compressed = A.encode(levels(small))

        def write(folder: Path) -> None:
            (folder / "measurement.jpg").write_bytes(compressed)
            save_picture(folder / "truth.png", truth)

        told = f"{words((small.shape[1], small.shape[2]))} pixels, quality {self.quality}, "
        told += f"{len(compressed)} bytes"
        task = EnlargeJPEG(scale=self.scale)
        return Made(task, photo.about, told, "measurement.jpg", write, tuple(notes))


@dataclass(frozen=True, kw_only=True)
class EnlargeJPEG(Task):
    """Enlarge a small JPEG file and remove its artifacts at once.

    A coefficient that the file stores is that of the small image, with the error of its
    quantisation: of deviation q / sqrt(12), and where it was rounded to 0 that of the law of
    Laplace (`rounded_away`).
    """

    name: ClassVar[str] = "enlarge-jpeg"
    example: ClassVar[str] = "small.jpg --scale 2"
    auto: ClassVar[Choice] = Choice("spectral-ancestral", DRAWS)
    best: ClassVar[Choice | None] = Choice("hqs", SPLITS)
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("spectral-ancestral", lambda p: _sampler(), source="enlarge-jpeg.md"),
        Preset("hqs", lambda p: HQS(lam=0.05, schedule=VE(8, 0.4, 0.02)), source="enlarge-jpeg.md"),
        *EVERY_PHOTO,
    )

    scale: int = option("enlargement factor, a whole number of 2 or more", min=2)

    def read(self, file: Path, prior: Prior) -> Measured:
        """The problem of enlarging a JPEG file, in the pixels as they are stored."""
        d = decoded(file, prior)
        channels, height, width = d.y.shape[1:]
        size = (self.scale * height, self.scale * width)
        check_pixels(size, "The restored picture")
        A = SmallCoefficients(self.scale, size, channels, d.jpeg)
        y, sigmas = stored(planes(d.jpeg, d.y), d.y)
        problem = Problem(y, A, DiagonalGaussian(sigmas), (channels, *size))
        one = d.grey or channels == 1
        shown = (d.y[0, : 1 if one else 3] + 1) / 2
        view = picture_view(d.photo, problem, prior.image_range, one, d.turn, of=DecodedView)
        view = dataclasses.replace(view, measured=shown)
        level = float(sigmas.square().mean().sqrt()) / 2
        noise = f"{level:.4f} where black is 0 and white is 1: the quantisation that the file tells"
        return Measured(problem, view, d.about, noise)

    @classmethod
    def simulation(cls) -> type[Simulation]:
        return MakeSmallJPEG

    @classmethod
    def toy(cls, sigma: float = 0.05, size: Size = (16, 16)) -> Problem:
        A = SmallCoefficients(2, size, 3, JPEG(50, "4:4:4"))
        return unmeasured(A, GaussianNoise(sigma), (3, *size))


def stored(known: list[Plane], small: Tensor) -> tuple[Tensor, Tensor]:
    """The coefficients that a file stores, less those of x = 0, and the deviations of their errors:
    both (1, N), in units of 127.5 grey levels."""
    values, sigmas = [], []
    for plane in known:
        lost = plane.steps.square() / 12
        zeros = torch.minimum(rounded_away(plane.index, plane.steps), lost)
        sigmas.append(torch.where(plane.index == 0, zeros, lost).sqrt().flatten(1))
        dark = plane.coefficients(0 * small).double()
        values.append((plane.index * plane.steps - dark).flatten(1))
    return torch.cat(values, 1).to(small) / LEVELS, torch.cat(sigmas, 1).to(small) / LEVELS


def rounded_away(index: Tensor, steps: Tensor) -> Tensor:
    """Mean square of a coefficient that was rounded to 0, for each of index (..., 8, 8).

    steps: q, (8, 8). Coefficients follow the law of Laplace, of scale b = c / f, f being the
    frequency, as spectra of photographs fall, and c is that of a block: flat ones have small
    coefficients, and a file tells which they are. The law of c is the one of the largest likelihood
    on a grid (30 rounds of expectation and maximisation); each block has c by its own coefficients.
    """
    k = torch.arange(8, dtype=torch.float64)
    f = torch.hypot(k[:, None], k[None, :])
    f[0, 0] = math.inf  # the mean of a block tells nothing of its detail
    size = index.abs().reshape(-1, 8, 8).double()
    found = []
    for c in torch.logspace(-1, 3.5, 46, dtype=torch.float64):
        a = (steps.double() * f / (2 * c)).clamp(1e-6, 300)
        shown = -2 * a * size + a + torch.log(-torch.expm1(-2 * a)) - math.log(2)
        likelihood = torch.where(size == 0, torch.log(-torch.expm1(-a)), shown)
        likelihood[:, 0, 0] = 0
        b = steps.double() / (2 * a)
        third = torch.special.gammainc(torch.full_like(a, 3.0), a)
        zeros = 2 * b.square() * third / -torch.expm1(-a)
        found.append((likelihood.sum((-2, -1)), zeros))
    joint = torch.stack([one for one, _ in found], 1)
    joint = (joint - joint.amax(1, keepdim=True)).exp()
    weight = torch.full((joint.shape[1],), 1 / joint.shape[1], dtype=torch.float64)
    for _ in range(30):
        own = joint * weight
        own = own / own.sum(1, keepdim=True)
        weight = own.mean(0)
    mean = torch.einsum("nc,cij->nij", own, torch.stack([zeros for _, zeros in found]))
    return mean.reshape(index.shape).clamp_min(1 / 12)  # pixels were rounded before
