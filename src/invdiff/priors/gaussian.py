"""Priors whose every quantity is known: normal laws and their mixtures, and exact posteriors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.priors.base import Prior
from invdiff.priors.covariances import canonical, eigen
from invdiff.priors.posterior import condition
from invdiff.problem import Problem


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
        w = torch.as_tensor(weights, dtype=torch.float64).cpu()
        if w.ndim != 1 or len(w) != len(means) or bool((w < 0).any()) or not float(w.sum()) > 0:
            raise InvdiffError(
                f"A mixture of {len(means)} means needs as many weights, each at least 0 and not "
                f"all 0; found {w.tolist()}."
            )
        self.x_shape = self.shape = tuple(means.shape[1:])
        self.value_range = value_range
        self.weights = w / w.sum()
        self.means = means.detach().cpu()
        self._m = self.means.double().flatten(1)
        given = covs if isinstance(covs, Tensor) else torch.tensor(covs, dtype=torch.float64)
        self._covs = canonical(given.detach().cpu().double(), means)
        precision = torch.finfo(given.dtype if given.is_floating_point() else torch.float64).eps
        self._eigenvalues, self._basis = eigen(self._covs, precision)
        self._centre = self._m.mean(0)
        self._centred = self._m - self._centre  # in the eigenbasis, where all share one
        if self._basis is not None and len(self._basis) == 1:
            self._centred = self._centred @ self._basis[0]
        self._moved: dict[tuple[str, torch.device], Tensor] = {}

    @property
    def mean(self) -> Tensor:
        """E[x0], shape x_shape, float64."""
        return (self.weights @ self._m).reshape(self.x_shape)

    @property
    def covs(self) -> Tensor:
        """Covariance of every component, (K, n, n), float64."""
        return self._dense.expand(len(self.weights), -1, -1)

    @property
    def _dense(self) -> Tensor:
        return self._covs if self._covs.ndim == 3 else torch.diag_embed(self._covs)

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
        if len(self._eigenvalues) == 1:
            return self._denoise_shared(x, variance)
        z = self._coordinates(x)
        responsibility = torch.softmax(self._log_components(z, variance), dim=1)
        e = self._on(x, "_eigenvalues")
        z = responsibility[..., None] * (e / (e + variance)) * z
        if self._basis is not None:
            z = torch.einsum("bkj,kij->bki", z, self._on(x, "_basis"))
        x0 = responsibility @ self._on(x, "_m") + z.sum(1)
        return x0.reshape(x.shape).to(x.dtype)

    def _denoise_shared(self, x: Tensor, variance: float) -> Tensor:
        """The same for one covariance of all components, by matrix products: no (B, K, n) tensor.

        In its eigenbasis, about the mean of the means, the exponents are linear in z: what is
        quadratic in z is common to all components.
        """
        self._check_shape(x)
        centre, means = self._on(x, "_centre"), self._on(x, "_centred")
        e = self._on(x, "_eigenvalues")[0]
        precision = 1 / (e + variance)
        basis = None if self._basis is None else self._on(x, "_basis")[0]
        z = x.double().flatten(1) - centre
        z = z if basis is None else z @ basis
        quadratic = 0.5 * (means.square() @ precision)
        logits = self._on(x, "weights").log() - quadratic + (z * precision) @ means.mT
        mean = torch.softmax(logits, dim=1) @ means
        x0 = mean + e * precision * (z - mean)
        x0 = centre + (x0 if basis is None else x0 @ basis.mT)
        return x0.reshape(x.shape).to(x.dtype)

    def log_prob(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """log density of x0 + sigma eps at x (B, *x_shape), shape (B,), float64.

        Raises InvdiffError where there is no density: sigma = 0 and a singular covariance.
        """
        variance = sigma * sigma
        if variance == 0 and bool((self._eigenvalues <= 0).any()):
            raise InvdiffError("A singular covariance has no density; ask for a sigma above 0.")
        log_p = self._log_components(self._coordinates(x), variance)
        return torch.logsumexp(log_p, dim=1) - 0.5 * self._m.shape[1] * math.log(2 * math.pi)

    def sample(self, n: int, rng: Rng | int) -> Tensor:
        """n exact samples, (n, *x_shape), on the CPU.

        rng: an Rng of n seeds, where sample i depends on seed i only; or one seed for all n.
        """
        rows = (1, n) if isinstance(rng, int) else (n,)
        keyed = Rng.of(rng) if isinstance(rng, int) else rng
        u = keyed.uniform(self._m.new_empty(rows), "component").reshape(n)
        z = keyed.normal(self._m.new_empty(*rows, self._m.shape[1]), "sample").reshape(n, -1)
        k = torch.searchsorted(self.weights.cumsum(0), u, right=True)
        k = k.clamp_max(int(self.weights.nonzero()[-1]))
        shared = len(self._eigenvalues) == 1
        scale = self._eigenvalues.sqrt()
        if self._basis is None:
            z = scale[0 if shared else k] * z
        else:  # the symmetric root of the covariance: unlike its basis it is unique
            for c, basis in enumerate(self._basis):
                own = slice(None) if shared else k == c
                z[own] = ((z[own] @ basis) * scale[c]) @ basis.mT
        return (self._m[k] + z).reshape(n, *self.x_shape).to(self.means.dtype)

    def posterior(self, problem: Problem) -> Self:
        """The exact law of x0 given y, itself a mixture of this class.

        problem: one measurement (batch 1) by a linear (or affine) operator with Gaussian noise.
        With sigma = 0 the law lives on {x: A x = y}, through a pseudo-inverse.
        Dense algebra: meant for up to about 1000 pixels.
        Raises InvdiffError for other problems, and for a noiseless y that cannot occur.
        """
        weights, means, covs = condition(self.weights, self._m, self._dense, problem)
        return self._like(weights, means.reshape(-1, *self.x_shape), covs)

    def _like(self, weights: Tensor, means: Tensor, covs: Tensor) -> Self:
        return type(self)(weights, means, covs, self.value_range)

    @property
    def fingerprint(self) -> str:
        """Hash of weights, means and covariances."""
        digest = hashlib.sha256(repr((self.x_shape, self._covs.shape)).encode())
        for part in (self.weights, self._m, self._covs):
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _coordinates(self, x: Tensor) -> Tensor:
        """x minus every mean, in every component's eigenbasis, (B, K, n), float64."""
        self._check_shape(x)
        r = x.double().flatten(1)[:, None] - self._on(x, "_m")
        if self._basis is None:
            return r
        return torch.einsum("bki,kij->bkj", r, self._on(x, "_basis").expand(r.shape[1], -1, -1))

    def _check_shape(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != self.x_shape:
            raise InvdiffError(
                f"The prior {self.name} is a law of images {self.x_shape}, but was given "
                f"{tuple(x.shape[1:])}."
            )

    def _log_components(self, z: Tensor, variance: float) -> Tensor:
        """log w_k + log N(z_k; 0, eigenvalues_k + variance) without (2 pi)^(n/2), (B, K)."""
        total = self._on(z, "_eigenvalues") + variance
        log_w = self._on(z, "weights").log()
        return log_w - 0.5 * ((z.square() / total).sum(2) + total.log().sum(1))

    def _on(self, like: Tensor, name: str) -> Tensor:
        """The tensor attribute `name` on the device of like, kept there."""
        key = (name, like.device)
        if key not in self._moved:
            self._moved[key] = getattr(self, name).to(like.device)
        return self._moved[key]


class GaussianPrior(GaussianMixture):
    """N(mean, cov) over images; the noise model of a measurement is `invdiff.GaussianNoise`.

    mean: x_shape. cov: a variance (number), variances of the pixels (x_shape), or dense (n, n).
    """

    name = "gaussian"

    def __init__(
        self,
        mean: Tensor,
        cov: Tensor | float,
        value_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        shared = cov[None] if isinstance(cov, Tensor) else cov
        super().__init__([1.0], mean[None], shared, value_range)

    @property
    def cov(self) -> Tensor:
        """Covariance, (n, n), float64."""
        return self.covs[0]

    def _like(self, weights: Tensor, means: Tensor, covs: Tensor) -> Self:
        return type(self)(means[0], covs[0], self.value_range)
