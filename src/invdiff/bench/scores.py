"""What samples of a bench are worth beside the truth."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.audit.coverage import interval_share
from invdiff.bench.frames import PHOTOS, RANGE, Framing
from invdiff.bench.perceptual import Network, lpips
from invdiff.core.rng import Rng
from invdiff.noise import NOISELESS
from invdiff.operators.hdr import HDR
from invdiff.operators.inpaint import Inpaint
from invdiff.problem import Problem
from invdiff.problem.metrics import align, psnr, ssim
from invdiff.sampling.checks import misfit


def views(
    problem: Problem, samples: Tensor, truth: Tensor, frame: Framing = PHOTOS
) -> tuple[Tensor, Tensor]:
    """What is seen of samples (1, K, C, H, W), (K, c, H, W), and of the truth, (1, c, H, W).

    They are clipped to [-1, 1], and what the operator cannot tell is undone by the truth.
    """
    each = [frame.shown(align(x.clamp(*RANGE), truth, problem.A)) for x in samples.unbind(1)]
    return torch.cat(each), frame.shown(truth)


def scores(
    problem: Problem,
    samples: Tensor,
    truth: Tensor,
    frame: Framing = PHOTOS,
    network: Network | None = None,
) -> dict[str, float | None]:
    """What samples (1, K, C, H, W) of one measurement are worth.

    psnr and ssim of one sample (their mean over samples) and of the mean of samples, of what is
    seen, clipped to [-1, 1], and what the operator cannot tell undone by the truth
    (`metrics.align`); misfit: rms of (y - A x) / sigma, None without noise; residual: rms of
    y - A x, None with noise; coverage: share of the pixels of `uncertain` within the 90 % interval
    of the samples, None for fewer than two; counted: how many these pixels are, of all. With a
    network, lpips of one sample and of the mean of samples.
    """
    seen_samples, seen = views(problem, samples, truth, frame)
    each = [x[None] for x in seen_samples]
    mean = seen_samples.mean(0, keepdim=True)
    noisy = problem.noise is not NOISELESS
    missed = [misfit(problem, x) if noisy else residual(problem, x) for x in samples.unbind(1)]
    rms = float(torch.stack(missed).square().mean().sqrt())
    counts = uncertain(problem).expand_as(seen)
    found: dict[str, float | None] = {
        "psnr": sum(float(psnr(x, seen, RANGE)) for x in each) / len(each),
        "psnr_mean": float(psnr(mean, seen, RANGE)),
        "ssim": sum(float(ssim(x, seen, RANGE)) for x in each) / len(each),
        "ssim_mean": float(ssim(mean, seen, RANGE)),
        "misfit": rms if noisy else None,
        "residual": None if noisy else rms,
        "coverage": covered(seen[counts], torch.stack([x[counts] for x in each])),
        "counted": float(counts.double().mean()),
    }
    if network is not None:
        *ones, of_mean = lpips(network, torch.cat([seen_samples, mean]), seen)
        found |= {"lpips": sum(ones) / len(ones), "lpips_mean": of_mean}
    return {
        k: float(f"{v:.6g}") if v is not None and math.isfinite(v) else None
        for k, v in found.items()
    }


def residual(problem: Problem, x: Tensor) -> Tensor:
    """rms of y - A x over the measured numbers of each row, (M,); x: (M, *x_shape)."""
    r = problem.A.restrict(problem.y - problem.A(x)).abs().flatten(1)
    seen = problem.A.restrict(torch.ones_like(problem.y)).abs().flatten(1)
    return (r.square().sum(1) / seen.sum(1)).sqrt()


def uncertain(problem: Problem) -> Tensor:
    """The pixels that y leaves uncertain, bool, a shape that fits all images of a problem.

    Of inpainting those that were not measured; of HDR those that y shows within two deviations of
    an end of its range, or beyond; of all other operators, which tell no pixel by itself, all. What
    counts follows from A and y alone, so that exact samples keep their share. The spread of the
    samples is no rule for it: a solver whose samples hardly differ would leave its errors out.
    """
    A = problem.A
    if isinstance(A, Inpaint):
        return ~A.mask.bool()
    if isinstance(A, HDR):
        return problem.y.abs() >= 1 - 2 * problem.sigma_y
    return torch.ones(1, 1, 1, 1, dtype=torch.bool)


def covered(truth: Tensor, samples: Tensor) -> float | None:
    """The share of truths (P,) within the 90 % interval of their samples (S, P); None for fewer
    than two samples, and without a truth.

    Equal numbers, as of black, are put in order at random, so that exact samples have their share
    of them too.
    """
    if len(samples) < 2 or truth.numel() == 0:
        return None
    values = torch.cat([truth[None], samples]).double()
    values = values + 1e-9 * Rng.of(0).uniform(values[None], "ties")[0]
    return float(interval_share(values[:1], values[None, 1:]))
