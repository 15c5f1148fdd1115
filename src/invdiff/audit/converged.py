"""What shows that clouds of particles converged, and the record that is made of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from invdiff.audit.reference import FEW, GROWN, MANY, Law, figures, law_of, matrix, null
from invdiff.audit.twisted import Cloud

DIGITS = 4


def shares(clouds: Sequence[Cloud]) -> Tensor:
    """The weight of every cloud by its evidence, (clouds,), float64; they sum to 1."""
    return torch.softmax(torch.tensor([c.log_evidence for c in clouds], dtype=torch.float64), 0)


def pooled(clouds: Sequence[Cloud]) -> tuple[Tensor, Tensor]:
    """All draws (N, n) of clouds of equal weight inside, and their weights (N,), which sum to 1."""
    weight = [w.expand(len(c.x)) / len(c.x) for c, w in zip(clouds, shares(clouds), strict=True)]
    return torch.cat([c.x for c in clouds]).double(), torch.cat(weight)


def split_r_hat(x: Tensor) -> Tensor:
    """Split R-hat of runs x (runs, draws, n), (n,): Gelman et al. 2013, Bayesian Data Analysis,
    section 11.4; 1 where all halves of runs show the same law."""
    half = x.shape[1] // 2
    halves = torch.cat([x[:, :half], x[:, half : 2 * half]])
    within, between = halves.var(1).mean(0), halves.mean(1).var(0)
    return ((half - 1) / half + between / within).sqrt()


def standard_error(clouds: Sequence[Cloud]) -> Tensor:
    """Of the pooled means of all pixels, by how the means of clouds scatter, (n,)."""
    w = shares(clouds)[:, None]
    means = torch.stack([c.x.double().mean(0) for c in clouds])
    off = means - (w * means).sum(0)
    return ((w * off).square().sum(0) / (1 - w.square().sum())).sqrt()


def convergence(clouds: Sequence[Cloud], law: Law) -> dict[str, Any]:
    """Of one method. r_hat: median and largest over pixels, and largest over the axes. error: rms
    of the standard errors over the deviations. log_evidence: of every cloud, and of all."""
    x, on = torch.stack([c.x.double() for c in clouds]), law.counted
    pixels, axes = split_r_hat(x[:, :, on]), split_r_hat(x @ law.axes.T)
    each = torch.tensor([c.log_evidence for c in clouds], dtype=torch.float64)
    pool = float(torch.logsumexp(each, 0)) - math.log(len(each))
    error = float((standard_error(clouds)[on] / law.sd[on]).square().mean().sqrt())
    r_hat = [float(pixels.median()), float(pixels.max()), float(axes.max())]
    return {"clouds": len(clouds), "particles": len(clouds[0].x), "r_hat": _short(r_hat),
            "error": round(error, DIGITS), "log_evidence": round(pool, 3),
            "log_evidences": _short(each.tolist()), "roots": [c.roots for c in clouds],
            }  # fmt: skip


def agreement(a: Law, b: Law, error: float) -> dict[str, float]:
    """Of two methods. mean: rms difference of pixels' means over a's deviation; largest: of any
    pixel; expected: what their standard errors make likely. log_sd: rms log of the deviations'
    ratio."""
    on = a.counted
    off = (b.mean - a.mean)[on] / a.sd[on]
    ratio = (b.sd[on] / a.sd[on]).log()
    found = {"mean": off.square().mean().sqrt(), "largest": off.abs().max(),
             "log_sd": ratio.square().mean().sqrt()}  # fmt: skip
    told = {k: round(float(v), DIGITS) for k, v in found.items()}
    return told | {"expected": round(error, DIGITS)}


def summary(
    case: str, own: Sequence[Cloud], other: Sequence[Cloud], truth: Tensor, y: Tensor, prior: Tensor
) -> dict[str, Any]:
    """The record of a case. own: clouds of the reference; other: of the method that checks it, from
    which exact samples are taken. truth: (n,). prior: draws (N, n)."""
    x, weight = pooled(own)
    law = rounded(law_of(x, weight))
    theirs, their_weight = pooled(other)
    told = {name: convergence(c, law) for name, c in (("twisted", own), ("check", other))}
    expected = (told["twisted"]["error"] ** 2 + told["check"]["error"] ** 2) ** 0.5
    on, equal = law.counted, torch.full((len(prior),), 1 / len(prior), dtype=torch.float64)
    before = law_of(prior, equal)
    axis = (x @ law.axes.T - law.axes_mean) / law.axes_sd
    return {
        "y": _short(y.flatten()[matrix(case)[1]].tolist()),
        "truth": _short(truth.tolist()),
        "pixels": int(on.sum()),
        "sd_over_prior": round(float((law.sd / before.sd)[on].median()), 3),
        "kurtosis": _short((weight @ axis**4).tolist()),
        "convergence": told,
        "agreement": agreement(law, law_of(theirs, their_weight), expected),
        "null": {str(s): null(theirs, their_weight, law, s) for s in (FEW, MANY, GROWN)},
        "prior": {str(s): figures(prior[:s], law) for s in (FEW, MANY, GROWN)},
        "law": {k: _short(v.tolist()) for k, v in vars(law).items()},
    }


def rounded(law: Law) -> Law:
    """As it is kept: all that is compared with it is compared with what is read again."""
    found = {f.name: getattr(law, f.name) for f in dataclasses.fields(law)}
    return Law(**{k: torch.tensor(_short(v.tolist()), dtype=v.dtype) for k, v in found.items()})


def _short(values: list[Any]) -> list[Any]:
    return [_short(v) if isinstance(v, list) else round(v, DIGITS) for v in values]
