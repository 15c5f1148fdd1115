"""Covariances of the components of a mixture: the forms in which they are given."""

from __future__ import annotations

import torch
from torch import Tensor

from invdiff.core import InvdiffError


def canonical(covs: Tensor, means: Tensor) -> Tensor:
    """Variances (K or 1, n) or covariances (K or 1, n, n), whichever way they were given."""
    k, n = len(means), means[0].numel()
    if covs.ndim == 0 or covs.shape == (k,):
        return covs.reshape(-1, 1).expand(-1, n)
    if covs.shape[1:] == means.shape[1:] and len(covs) in (1, k):
        return covs.flatten(1)
    if covs.shape[1:] == (n, n) and len(covs) in (1, k):
        return covs
    raise InvdiffError(
        f"{k} components of {n} pixels need a variance, variances of shape ({k},) or ({k}, *image "
        f"shape), or covariances ({k}, {n}, {n}); found {tuple(covs.shape)}."
    )


def eigen(covs: Tensor, precision: float) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues (K or 1, n), and eigenvectors (K or 1, n, n) or None where they are the pixels.

    precision: relative round-off of covs. Dense eigenvalues within n precision max of zero are 0.
    """
    eigenvalues, basis = covs, None
    if covs.ndim == 3:
        eigenvalues, basis = torch.linalg.eigh(covs)
        floor = covs.shape[-1] * precision * eigenvalues.abs().amax(1)
        if bool(((covs - covs.mT).abs().amax((1, 2)) > floor).any()):
            raise InvdiffError("A covariance is symmetric, but this one is not.")
        eigenvalues = torch.where(eigenvalues.abs() <= floor[:, None], 0.0, eigenvalues)
    if not bool((eigenvalues >= 0).all()) or not bool(torch.isfinite(eigenvalues).all()):
        raise InvdiffError("Variances are finite and at least 0, but some of these are not.")
    return eigenvalues, basis
