"""Distances between images (per image), to a measurement, and between clouds of samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.operators.algebra import Operator
from invdiff.operators.algebra.compose import Composed
from invdiff.operators.closures import ClosurePhases
from invdiff.operators.phase import CodedDiffraction, PhaseRetrieval, resolve_ambiguity
from invdiff.problem import Problem


def psnr(x: Tensor, ref: Tensor, value_range: tuple[float, float]) -> Tensor:
    """10 log10(range^2 / mean squared error) in dB of every image, shape (B,).

    x, ref: (B, ...), same shape. value_range: (low, high) of clean images, as a prior states it.
    Identical images give infinity.
    """
    _same(x, ref)
    mse = (x - ref).double().square().flatten(1).mean(1)
    return 20 * math.log10(value_range[1] - value_range[0]) - 10 * mse.log10()


def ssim(x: Tensor, ref: Tensor, value_range: tuple[float, float]) -> Tensor:
    """Structural similarity of every image (Wang et al. 2004, IEEE TIP 13), shape (B,), float64.

    x, ref: (B, C, H, W), H and W at least 11. value_range: (low, high) of clean images.
    The published setting: Gaussian window with sigma 1.5 and 11 taps, K1 = 0.01, K2 = 0.03,
    averaged over pixels (without a border of 5) and channels.
    Needs scikit-image: `pip install invdiff[bench]`.
    """
    _same(x, ref)
    if x.ndim != 4 or min(x.shape[2:]) < 11:
        raise InvdiffError(
            f"SSIM needs (B, C, H, W) of at least 11 pixels, found {tuple(x.shape)}."
        )
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise InvdiffError("SSIM needs scikit-image: pip install invdiff[bench]") from error
    return torch.tensor(
        [
            structural_similarity(
                a,
                b,
                data_range=value_range[1] - value_range[0],
                channel_axis=0,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for a, b in zip(
                x.detach().cpu().double().numpy(), ref.cpu().double().numpy(), strict=True
            )
        ],
        dtype=torch.float64,
    )


def residuals(samples: Tensor, problem: Problem) -> Tensor:
    """|y - A(x)| of every sample, shape (M, K).

    samples: (M, K, *problem.x_shape), K samples of each of the problem's M measurements, as
    `Result.samples`. Raises InvdiffError for another shape.
    """
    count, shape = problem.batch, tuple(problem.x_shape)
    if samples.ndim != len(shape) + 2 or samples.shape[0] != count or samples.shape[2:] != shape:
        raise InvdiffError(
            f"Samples of {count} measurements have shape ({count}, K, "
            f"{', '.join(map(str, shape))}), found {tuple(samples.shape)}."
        )
    columns = []
    for k in range(samples.shape[1]):
        r = problem.residual(samples[:, k].to(problem.y.device))
        columns.append(r.flatten(1).norm(dim=1))
    return torch.stack(columns, dim=1)


def best_by_residual(samples: Tensor, problem: Problem) -> Tensor:
    """Of each measurement, the sample that explains it best, shape (M, *problem.x_shape).

    For problems in which some runs fail, such as phase retrieval: the choice does not see the
    truth. What it returns is no sample of the posterior. samples: as for `residuals`.
    """
    best = residuals(samples, problem).argmin(1).to(samples.device)
    return samples[torch.arange(len(samples), device=samples.device), best]


def align(x: Tensor, reference: Tensor, A: Operator, shift: int = 0) -> Tensor:
    """x with what A cannot tell set as in the reference, before scoring: it looks at the truth.

    x, reference: (B, C, H, W). Undone channel by channel, as `resolve_ambiguity` does:
    PhaseRetrieval: the sign (not with unit_range), the turn by 180 degrees, and the shift.
    CodedDiffraction: the sign. ClosurePhases of visibilities: the shift. Other operators: nothing.
    shift: allow circular shifts by up to so many pixels along each axis; a padded magnitude
    permits them only as far as the border of an image is empty (0, or -1 with unit_range).
    """
    if isinstance(A, PhaseRetrieval):
        return resolve_ambiguity(x, reference, sign=not A.unit_range, shift=shift)
    if isinstance(A, CodedDiffraction):
        return resolve_ambiguity(x, reference, turn=False)
    if isinstance(A, Composed) and isinstance(A.outer, ClosurePhases):
        return resolve_ambiguity(x, reference, sign=False, turn=False, shift=shift)
    return x


def sliced_wasserstein(a: Tensor, b: Tensor, slices: int = 1000, seed: int = 0) -> float:
    """Mean over random unit directions of the 1-D Wasserstein-1 distance of two clouds.

    a, b: samples (N, ...), same shape. slices: how many directions, drawn from `seed`.
    """
    like = torch.empty(1, slices, math.prod(a.shape[1:]), dtype=torch.float64, device=a.device)
    theta = Rng.of(seed, portable=True).normal(like, "slices")[0]
    return projected_wasserstein(a, b, theta / theta.norm(dim=1, keepdim=True))


def projected_wasserstein(a: Tensor, b: Tensor, directions: Tensor, order: int = 1) -> float:
    """Mean over the rows of directions (slices, n) of W1 between the clouds projected on them.

    order 2: the root of the mean of squared W2. a, b: samples (N, ...) of n numbers each, same
    shape. Computed in float64, 256 slices at a time.
    """
    _same(a, b)
    a, b = a.double().flatten(1), b.double().flatten(1)
    total = 0.0
    for part in torch.split(directions.double(), 256):
        sorted_a, sorted_b = ((cloud @ part.mT).sort(dim=0).values for cloud in (a, b))
        total += float((sorted_a - sorted_b).abs().pow(order).mean(0).sum())
    return float((total / len(directions)) ** (1 / order))


def _same(x: Tensor, ref: Tensor) -> None:
    if x.shape != ref.shape:
        raise InvdiffError(
            f"Only equal shapes compare, found {tuple(x.shape)} and {tuple(ref.shape)}."
        )
