"""Priors whose every quantity is known: normal laws and their mixtures, and exact posteriors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from invdiff.core import InvdiffError, Problem
from invdiff.noise import Gaussian as GaussianNoise
from invdiff.operators.base import Affine, Linear, Operator
from invdiff.priors.base import Prior
from invdiff.rng import Rng


class GaussianMixture(Prior):
    """sum_k w_k N(mean_k, cov_k) over images of one shape, with n pixels in all.

    weights: K numbers >= 0, not all 0; they are divided by their sum.
    means: (K, *x_shape). Samples have its dtype; the mathematics is always float64.
    covs: one of
      a number, the variance of every pixel of every component;
      (K,), a variance for each component;
      (K, *x_shape), a variance for each pixel;
      (K, n, n), dense and positive semidefinite. A first axis of 1 is shared by all components.
    value_range: the range that pictures of samples are drawn in; nothing is ever clipped.
    Raises InvdiffError when shapes disagree or a covariance is not symmetric and >= 0.
    """

    name = "gaussian-mixture"

    def __init__(
        self,
        weights: Tensor | Sequence[float],
        means: Tensor,
        covs: Tensor | float,
        value_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        w = torch.as_tensor(weights, dtype=torch.float64)
        if w.ndim != 1 or len(w) != len(means) or bool((w < 0).any()) or not float(w.sum()) > 0:
            raise InvdiffError(
                f"A mixture of {len(means)} means needs as many weights, each at least 0 and not "
                f"all 0; found {w.tolist()}."
            )
        self.x_shape = self.shape = tuple(means.shape[1:])
        self.value_range = value_range
        self.weights = w / w.sum()
        self.means = means
        self._m = means.double().flatten(1)
        self._eigenvalues, self._basis = _eigen(torch.as_tensor(covs).double(), self._m, means)

    @property
    def mean(self) -> Tensor:
        """E[x0], shape x_shape, float64."""
        return (self.weights @ self._m).reshape(self.x_shape)

    @property
    def covs(self) -> Tensor:
        """Covariance of every component, (K, n, n), float64."""
        basis = torch.eye(self._m.shape[1]).double() if self._basis is None else self._basis
        dense = (basis * self._eigenvalues[:, None, :]) @ basis.mT
        return dense.expand(len(self.weights), -1, -1)

    @property
    def cov(self) -> Tensor:
        """Cov[x0], (n, n), float64: within components, and between their means."""
        r = self._m - self.weights @ self._m
        return torch.einsum("k,kij->ij", self.weights, self.covs) + (self.weights * r.mT) @ r

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x0 + sigma eps = x], exact and differentiable; x is (B, *x_shape)."""
        variance = sigma * sigma
        if variance == 0:
            return x
        z = self._coordinates(x)
        responsibility = torch.softmax(self._log_components(z, variance), dim=1)
        e = self._on(x, self._eigenvalues)
        shift = self._rotated(responsibility[..., None] * (e / (e + variance) * z))
        x0 = responsibility @ self._on(x, self._m) + shift.sum(1)
        return x0.reshape(x.shape).to(x.dtype)

    def log_prob(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """log density of x0 + sigma eps at x (B, *x_shape), shape (B,), float64.

        Raises InvdiffError where there is no density: sigma = 0 and a singular covariance.
        """
        if sigma == 0 and bool((self._eigenvalues <= 0).any()):
            raise InvdiffError("A singular covariance has no density; ask for a sigma above 0.")
        log_p = self._log_components(self._coordinates(x), sigma * sigma)
        return torch.logsumexp(log_p, dim=1) - 0.5 * self._m.shape[1] * math.log(2 * math.pi)

    def sample(self, n: int, rng: Rng | int) -> Tensor:
        """n exact samples, (n, *x_shape), on the CPU.

        rng: an Rng of n seeds, where sample i depends on seed i only; or one seed, which is
        faster, and where more samples continue the same sequence.
        """
        if isinstance(rng, int):
            like = self._m.new_empty(1, n, self._m.shape[1])
            u = Rng.of(rng).uniform(like[..., 0], "component")[0]
            z = Rng.of(rng).normal(like, "sample")[0]
        else:
            like = self._m.new_empty(n, self._m.shape[1])
            u, z = rng.uniform(like[:, 0], "component"), rng.normal(like, "sample")
        k = torch.searchsorted(self.weights.cumsum(0), u, right=True)
        k = k.clamp_max(int(self.weights.nonzero()[-1]))
        shared = len(self._eigenvalues) == 1
        z = self._eigenvalues.sqrt()[0 if shared else k] * z
        x = torch.empty_like(z)
        for c in k.unique().tolist():
            basis = None if self._basis is None else self._basis[0 if shared else c]
            x[k == c] = self._m[c] + (z[k == c] if basis is None else z[k == c] @ basis.mT)
        return x.reshape(n, *self.x_shape).to(self.means.dtype)

    def posterior(self, problem: Problem) -> Self:
        """The exact law of x0 given y, itself a mixture of this class.

        problem: one measurement (batch 1) by a linear (or affine) operator with Gaussian noise.
        With sigma = 0 the law lives on {x: A x = y}, through a pseudo-inverse.
        Dense algebra: meant for up to about 1000 pixels.
        Raises InvdiffError for other problems, and for a noiseless y that cannot occur.
        """
        weights, means, covs = condition(self, problem)
        return self._like(weights, means.reshape(-1, *self.x_shape), covs)

    def _like(self, weights: Tensor, means: Tensor, covs: Tensor) -> Self:
        return type(self)(weights, means, covs, self.value_range)

    @property
    def fingerprint(self) -> str:
        """Hash of weights, means and covariances."""
        parts = (self.weights, self._m, self._eigenvalues, self._basis)
        digest = hashlib.sha256(repr(self.x_shape).encode())
        for part in parts:
            digest.update(b"" if part is None else part.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _coordinates(self, x: Tensor) -> Tensor:
        """x minus every mean, in every component's eigenbasis, (B, K, n), float64."""
        if tuple(x.shape[1:]) != self.x_shape:
            raise InvdiffError(
                f"The prior {self.name} is a law of images {self.x_shape}, found "
                f"{tuple(x.shape[1:])}."
            )
        r = x.double().flatten(1)[:, None] - self._on(x, self._m)
        if self._basis is None:
            return r
        return torch.einsum("bki,kij->bkj", r, self._on(x, self._basis).expand(r.shape[1], -1, -1))

    def _rotated(self, z: Tensor) -> Tensor:
        """Back from every component's eigenbasis, (B, K, n)."""
        if self._basis is None:
            return z
        return torch.einsum("bkj,kij->bki", z, self._on(z, self._basis).expand(z.shape[1], -1, -1))

    def _log_components(self, z: Tensor, variance: float) -> Tensor:
        """log w_k + log N(z_k; 0, eigenvalues_k + variance) without (2 pi)^(n/2), (B, K)."""
        total = self._on(z, self._eigenvalues) + variance
        log_w = self._on(z, self.weights).log()
        return log_w - 0.5 * ((z.square() / total).sum(2) + total.log().sum(1))

    @staticmethod
    def _on(like: Tensor, value: Tensor) -> Tensor:
        return value.to(like.device)


class Gaussian(GaussianMixture):
    """N(mean, cov) over images; the noise model of a measurement is `invdiff.noise.Gaussian`.

    mean: x_shape. cov: a variance (number), variances of the pixels (x_shape), or dense (n, n).
    """

    name = "gaussian"

    def __init__(
        self,
        mean: Tensor,
        cov: Tensor | float,
        value_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        super().__init__([1.0], mean[None], torch.as_tensor(cov)[None], value_range)

    @property
    def cov(self) -> Tensor:
        """Covariance, (n, n), float64."""
        return self.covs[0]

    def _like(self, weights: Tensor, means: Tensor, covs: Tensor) -> Self:
        return type(self)(means[0], covs[0], self.value_range)


def _eigen(covs: Tensor, m: Tensor, means: Tensor) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues (K or 1, n) and eigenvectors (K or 1, n, n), None where they are the pixels."""
    k, n = m.shape
    if covs.ndim == 0 or covs.shape == (k,):
        eigenvalues, basis = covs.reshape(-1, 1).expand(-1, n), None
    elif covs.shape[1:] == means.shape[1:] and len(covs) in (1, k):
        eigenvalues, basis = covs.flatten(1), None
    elif covs.shape[1:] == (n, n) and len(covs) in (1, k):
        if not torch.allclose(covs, covs.mT):
            raise InvdiffError("A covariance is symmetric; this one is not.")
        eigenvalues, basis = torch.linalg.eigh(covs)
        floor = -n * torch.finfo(covs.dtype).eps * eigenvalues.abs().amax(1, keepdim=True)
        eigenvalues = torch.where((eigenvalues < 0) & (eigenvalues >= floor), 0.0, eigenvalues)
    else:
        raise InvdiffError(
            f"{k} components of {n} pixels need variances (1), ({k},), ({k}, *image shape) or "
            f"covariances ({k}, {n}, {n}); found {tuple(covs.shape)}."
        )
    if not bool((eigenvalues >= 0).all()) or not bool(torch.isfinite(eigenvalues).all()):
        raise InvdiffError("A covariance has no negative or infinite variances; this one has.")
    return eigenvalues, basis


def matrix(A: Operator, x_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A(x) = M x + b as (M, b), shapes (m, n) and (m,), float64; complex parts side by side."""
    if not isinstance(A, Linear | Affine):
        raise InvdiffError(
            f"An exact posterior needs a linear operator, and {type(A).__name__} is not; "
            "use samples instead."
        )
    n = math.prod(x_shape)
    eye = torch.eye(n, dtype=torch.float64).reshape(n, *x_shape)
    columns = torch.cat([torch.zeros_like(eye[:1]), eye])
    rows = real(A.to("cpu", torch.float64)(columns))
    return (rows[1:] - rows[0]).mT.contiguous(), rows[0]


def real(y: Tensor) -> Tensor:
    """Measurements (B, ...) as real vectors (B, m), float64."""
    return (torch.view_as_real(y.resolve_conj()) if y.is_complex() else y).double().flatten(1)


def condition(prior: GaussianMixture, problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (K,), means (K, n) and covariances (K or 1, n, n) of x0 given y, float64."""
    if problem.batch != 1 or not isinstance(problem.noise, GaussianNoise):
        raise InvdiffError(
            "An exact posterior needs one measurement with Gaussian noise, found "
            f"{problem.batch} with {type(problem.noise).__name__}."
        )
    M, b = matrix(problem.A, problem.x_shape)
    y, variance = real(problem.y.cpu()) - b, problem.noise.sigma**2
    m = prior.means.cpu().double().flatten(1)
    S = prior.covs if len(prior._eigenvalues) > 1 else prior.covs[:1]
    MS = M @ S
    e, U = torch.linalg.eigh(MS @ M.mT + variance * torch.eye(len(M)).double())
    seen = e > len(M) * torch.finfo(torch.float64).eps * e.amax(1, keepdim=True)
    inverse = torch.where(seen, 1 / torch.where(seen, e, 1.0), 0.0)
    r = torch.einsum("kmj,km->kj", U.expand(len(m), -1, -1), y - m @ M.mT)
    log_w = prior.weights.log() - 0.5 * (
        (r.square() * inverse).sum(1) + torch.where(seen, e, 1.0).log().sum(1)
    )
    if variance == 0:
        log_w = torch.where(_possible(r, seen, problem.y, m @ M.mT), log_w, -math.inf)
    if not bool((log_w > -math.inf).any()):
        raise InvdiffError("This noiseless measurement is impossible under the prior and A.")
    gain = MS.mT @ (U * inverse[:, None, :]) @ U.mT
    means = m + torch.einsum("kij,kj->ki", gain.expand(len(m), -1, -1), y - m @ M.mT)
    rest = torch.eye(M.shape[1]).double() - gain @ M
    covs = rest @ S @ rest.mT + variance * gain @ gain.mT
    return torch.softmax(log_w, 0), means, (covs + covs.mT) / 2


def _possible(r: Tensor, seen: Tensor, y: Tensor, predicted: Tensor) -> Tensor:
    """Which components can have made y without noise, (K,): no residual where none is allowed."""
    if bool((seen.sum(1) != seen.sum(1)[0]).any()):
        raise InvdiffError(
            "Components of different rank cannot be compared without noise; give a sigma above 0."
        )
    eps = torch.finfo(y.real.dtype if y.is_complex() else y.dtype).eps
    scale = real(y.cpu()).norm() + predicted.norm(dim=1)
    unexplained = torch.where(seen, 0.0, r).norm(dim=1)
    return unexplained <= r.shape[1] * eps * scale
