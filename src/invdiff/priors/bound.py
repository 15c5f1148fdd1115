"""A lower bound of log p(x) of a prior, at the cost of one evaluation: denoising score matching.

For x_sigma = x + sigma eps, D the denoiser, and SNR = 1 / sigma^2,

    log p(x) >= b(x) = E log N(x; D(x_{s0}), s0^2) - KL(N(x, s1^2) || N(0, s1^2 + data_std^2))
                       - int_{s0}^{s1} E |D(x_sigma) - x|^2 / sigma^2  dln sigma

with s0 = sigma_min and s1 = sigma_max. In the form of a score, x_t = a x + s eps, the integrand is
(g^2 / 2) E |score - grad log p(x_t | x)|^2 dt, because g^2 dt = 2 s^2 dln(s / a) in any frame: the
bound knows no frame, and importance sampling of t by g^2 / s^2 is uniform sampling of ln sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.priors.base import Prior
from invdiff.priors.likelihood import Window


def denoising_error(prior: Prior, x: Tensor, sigma: float, eps: Tensor) -> tuple[Tensor, Tensor]:
    """f = |D(x + sigma eps) - x|^2 / sigma^2 of every sample, (B,), and its gradient in x.

    One evaluation of the prior and one vector-Jacobian product.
    """
    x0, pull = prior.x0_vjp(x + sigma * eps, Level(1.0, sigma), once=True)
    r = (x0 - x) / sigma
    return r.flatten(1).square().sum(1), (pull(r) - r) * (2 / sigma)


@dataclass(frozen=True)
class Bound:
    """b(x), the evidence lower bound of a diffusion model, by one noise level at a time.

    Song, Durkan, Murray, Ermon 2021 (arXiv 2101.09258); Kingma et al. 2021 (arXiv 2107.00630); as
    an image prior: Feng and Bouman 2024 (arXiv 2309.01949). The reconstruction term at sigma_min
    is 1/2 E f(sigma_min), f as above, so it is sampled along with the integral: sigma is sigma_min
    with probability 1/2 / Z, else ln sigma has the density (sigma / sigma_min)^-tilt / Z, and the
    weight of f is Z (sigma / sigma_min)^tilt. tilt = 0 is uniform, as in the paper. Small noise has
    the steepest gradients: tilt = 1 halves their scatter. In the value, f is replaced by
    f - c (|eps|^2 - n), which has the same mean and scatters less, with c = 1 / (1 + sigma^2)^2 as
    if data were N(0, I).
    """

    window: Window = field(default_factory=Window)
    tilt: float = 0.0

    @property
    def mass(self) -> float:
        """Z: 1/2 and the integral of (sigma / sigma_min)^-tilt over ln sigma."""
        span, tilt = self.window.span, self.tilt
        return 0.5 + (-math.expm1(-tilt * span) / tilt if tilt else span)

    def sigma(self, quantile: float) -> float:
        """The noise level at a quantile in [0, 1) of the importance density."""
        t = max(quantile * self.mass - 0.5, 0.0)
        t = -math.log1p(-self.tilt * t) / self.tilt if self.tilt else t
        return self.window.sigma_min * math.exp(t)

    def estimate(
        self, prior: Prior, x: Tensor, quantile: float, eps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """An unbiased estimate of b(x), (B,), and of its gradient, from one noise level.

        quantile: uniform on [0, 1). eps: white noise of the shape of x.
        """
        w, n, sigma = self.window, x[0].numel(), self.sigma(quantile)
        f, slope = denoising_error(prior, x, sigma, eps)
        f = f - (eps.flatten(1).square().sum(1) - n) / (1 + sigma * sigma) ** 2
        size = x.flatten(1).square().sum(1)
        kl = 0.5 * (n * math.log(w.top_variance / w.sigma_max**2) - n + size / w.top_variance)
        kl = kl + 0.5 * n * w.sigma_max**2 / w.top_variance
        weight = self.mass * (sigma / w.sigma_min) ** self.tilt
        value = -kl - 0.5 * n * math.log(2 * math.pi * w.sigma_min**2) - weight * f
        return value, -x / w.top_variance - weight * slope

    def elbo(self, prior: Prior, x: Tensor, rng: Rng, times: int = 1) -> tuple[Tensor, Tensor]:
        """b(x), (B,), and its gradient, by `times` noise levels that are spread evenly.

        rng: one seed for each sample; the prior is called `times` times for each sample, because
        every sample has noise levels of its own.
        """
        own = replace(self, window=self.window.of(prior))
        start = rng.uniform(x.new_empty(len(x), 1), "time").flatten().tolist()
        eps = [rng.normal(x, f"eps/{j}") for j in range(times)]
        values, slopes = [], []
        for i, first in enumerate(start):
            row = slice(i, i + 1)
            found = [
                own.estimate(prior, x[row], (first + j / times) % 1.0, eps[j][row])
                for j in range(times)
            ]
            values.append(torch.stack([v for v, _ in found]).mean(0))
            slopes.append(torch.stack([g for _, g in found]).mean(0))
        return torch.cat(values), torch.cat(slopes)
