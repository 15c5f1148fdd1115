"""The posterior of an ancestral chain by particles, without a solver and without a gradient.

A chain of K levels with the denoiser D: x ~ N(0, s_0^2), then x' ~ N(D + (s'/s)^2 (x - D), v), v =
s'^2 (1 - (s'/s)^2), and at last an image ~ N(D, s_K^2). Its law is a prior that is exactly defined,
and so is its posterior given y = A x0 + noise. Particles follow the chain, guided by the covariance
C_k of x0 - D that the chain itself shows at each level, a matrix that is the same for all x:
psi_k(x) = N(y; A D, S_k), S_k = sigma_y^2 + A C_k A^T. With J = C_k' / s'^2 for the Jacobian of D
at the next level, the product of the chain's normal kernel and the next psi is normal too: mean
m + G (y - A D), covariance v - v G A J, G = v J A^T (S_k' + v A J J A^T)^-1. Particles are drawn
from it, and weighed by psi' q / (psi q~), so that it costs variance alone that C is a guess
(Wu et al. 2023, arXiv 2306.17775, have a multiple of the identity for C). The last psi is the
likelihood itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.sampling.importance import effective_size, log_evidence, systematic

Denoise = Callable[[Tensor, float], Tensor]
Pull = Callable[[Tensor, float], tuple[Tensor, Callable[[Tensor], Tensor]]]


@dataclass(frozen=True)
class Chain:
    """denoise: E[x0 | x0 + s eps] of rows (N, size) at a level s. levels: s_0 > s_1 > ... > 0.
    pull: D and w -> (dD / dx)^T w, for particles that are guided by gradients."""

    denoise: Denoise
    levels: tuple[float, ...]
    size: int
    pull: Pull | None = None

    def move(self, k: int) -> tuple[float, float]:
        """(s'/s)^2 and v of the step from level k; of the last, which draws the image: 0, s^2."""
        s = self.levels[k]
        if k + 1 == len(self.levels):
            return 0.0, s**2
        kept = (self.levels[k + 1] / s) ** 2
        return kept, self.levels[k + 1] ** 2 * (1 - kept)

    def draw(self, count: int, g: torch.Generator) -> tuple[Tensor, list[Tensor]]:
        """Images of the chain's law, (count, size), and D at every level."""
        x, seen = self.levels[0] * torch.randn(count, self.size, generator=g), []
        for k, s in enumerate(self.levels):
            d = self.denoise(x, s)
            seen.append(d)
            kept, v = self.move(k)
            x = d + kept * (x - d) + math.sqrt(v) * torch.randn(x.shape, generator=g)
        return x, seen


def covariances(x0: Tensor, seen: Sequence[Tensor]) -> list[Tensor]:
    """C_k of x0 - D at every level, from draws of the chain: float64, (size, size)."""
    errors = (x0 - d for d in seen)
    return [e.double().T @ e.double() / len(x0) for e in errors]


@dataclass(frozen=True)
class Guide:
    """What a step to the next level is guided by. All float32.

    precision: S^-1 of the level itself, and log_det of S. gain: G. root, log_root: L with L L^T the
    covariance of the proposal, and log det L.
    """

    precision: Tensor
    log_det: float
    gain: Tensor
    root: Tensor
    log_root: float


def guides(
    chain: Chain, C: Sequence[Tensor], A: Tensor, sigma_y: float, inflation: float = 1.0
) -> list[Guide]:
    """One for each level, and a last one for the image, whose psi is the likelihood.

    C: of every level, by `covariances`. A: (m, size). inflation: of C, where x0 has tails.
    """
    A, n = A.double(), chain.size
    noise = sigma_y**2 * torch.eye(len(A), dtype=torch.float64)
    eye, nothing = torch.eye(n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
    wide = [inflation * c.double() for c in C[:-1]] + [chain.levels[-1] ** 2 * eye, nothing]
    found = []
    for k, own in enumerate(wide):
        S = noise + A @ own @ A.T
        gain, root = 0 * A.T, eye
        if k < len(chain.levels):
            last = k + 1 == len(chain.levels)
            _, v = chain.move(k)
            AJ = A if last else A @ wide[k + 1] / chain.levels[k + 1] ** 2
            gain = v * torch.linalg.solve(noise + A @ wide[k + 1] @ A.T + v * AJ @ AJ.T, AJ).T
            Q = v * (eye - gain @ AJ)
            root = torch.linalg.cholesky((Q + Q.T) / 2)
        log_det, log_root = float(torch.logdet(S)), float(root.diagonal().log().sum())
        found.append(
            Guide(torch.linalg.inv(S).float(), log_det, gain.float(), root.float(), log_root)
        )
    return found


@dataclass(frozen=True)
class Cloud:
    """Weighted draws of a posterior. x: (N, size). log_w: (N,), float64, since the last resampling.

    log_evidence: estimate of log p(y). roots: how many of the first particles are
    left; 0 where they were not counted.
    """

    x: Tensor
    log_w: Tensor
    log_evidence: float
    roots: int

    def equal(self, g: torch.Generator) -> Tensor:
        """As many draws of equal weight, (N, size), in random order."""
        index = systematic(self.log_w, torch.rand((), generator=g))
        return self.x[index[torch.randperm(len(index), generator=g)]]


def cloud(
    chain: Chain,
    guide: Sequence[Guide],
    A: Tensor,
    y: Tensor,
    count: int,
    g: torch.Generator,
    gradient: bool = False,
) -> Cloud:
    """Particles given y (m,), resampled where less than half of them count. A: float32.

    gradient: the proposal of Wu et al. in place of the normal product: D + s^2 J^T A^T S^-1 (y - A
    D) takes the place of D, J = dD / dx by `Chain.pull`, and the variance is v.
    """

    def at(x: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The mean of the chain's next step, log psi, and what guidance adds to the mean."""
        by, last = guide[k], k + 1 == len(guide)
        if last:
            d, pull = x, None
        elif gradient and chain.pull and k + 2 < len(guide):
            d, pull = chain.pull(x, chain.levels[k])
        else:
            d, pull = chain.denoise(x, chain.levels[k]), None
        r = y - d @ A.T
        w = r @ by.precision
        kept = 0.0 if last else chain.move(k)[0]
        lift = r @ by.gain.T
        if pull:
            lift = (1 - kept) * chain.levels[k] ** 2 * pull(w @ A)
        log_psi = (w * r).double().sum(1) + by.log_det + len(y) * math.log(2 * math.pi)
        return d + kept * (x - d), -0.5 * log_psi, lift

    x = chain.levels[0] * torch.randn(count, chain.size, generator=g)
    m, log_w, lift = at(x, 0)
    old, evidence, root = log_w.clone(), 0.0, torch.arange(count)
    for k, by in enumerate(guide[:-1]):
        if float(effective_size(log_w)) < count / 2:
            evidence += float(log_evidence(log_w))
            index = systematic(log_w, torch.rand((), generator=g))
            m, lift, old, root = m[index], lift[index], old[index], root[index]
            log_w = torch.zeros_like(log_w)
        v, z = chain.move(k)[1], torch.randn(x.shape, generator=g)
        free = gradient and k + 2 < len(guide)  # of variance v
        e = lift + (math.sqrt(v) * z if free else z @ by.root.T)
        gained = 0.5 * (z.double().square().sum(1) - e.double().square().sum(1) / v)
        if not free:
            gained += by.log_root - 0.5 * chain.size * math.log(v)
        x = m + e
        m, new, lift = at(x, k + 1)
        log_w, old = log_w + gained + new - old, new
    evidence += float(log_evidence(log_w))
    return Cloud(x, log_w, evidence, len(set(root.tolist())))
