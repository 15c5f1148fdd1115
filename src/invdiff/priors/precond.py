"""Any trained network as a prior: D = c_skip x + c_out F(c_in x, time), with x = x0 + sigma eps.

How a network was trained is stated here and nowhere else (Karras et al. 2022, arXiv 2206.00364,
section 5, extends to all of these); where sampling travels is in `core/schedules.py`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from invdiff.core import InvdiffError
from invdiff.core.alike import alike
from invdiff.priors.networked import Networked
from invdiff.priors.recompute import Checkpoint

Scalar = Callable[[float], float]
Match = Literal["interpolated", "nearest"]


@dataclass(frozen=True)
class Precond:
    """The four coefficients, each a function of sigma > 0, and the noise levels that were trained.

    c_noise: the time that F is given, in the unit in which F was trained.
    Those made here are functions of a module with their numbers bound, so that they pickle.
    """

    c_in: Scalar
    c_skip: Scalar
    c_out: Scalar
    c_noise: Scalar
    sigma_min: float = 0.0
    sigma_max: float = math.inf


def constant(sigma: float, value: float) -> float:
    """value, at any sigma."""
    return value


def times(sigma: float, of: Scalar, factor: float) -> float:
    """factor * of(sigma)."""
    return factor * of(sigma)


def _power(sigma: float, exponent: int, factor: float = 1.0) -> float:
    return factor * sigma**exponent


def _log(sigma: float, over: float = 1.0) -> float:
    return math.log(sigma) / over


def _preserving(sigma: float) -> float:
    """a of a variance-preserving level."""
    return 1 / math.hypot(1, sigma)


ZERO, ONE = partial(constant, value=0.0), partial(constant, value=1.0)
MINUS_SIGMA = partial(_power, exponent=1, factor=-1.0)


def predicts_x0(alpha_bars: Sequence[float] | np.ndarray, match: Match = "interpolated") -> Precond:
    """F(x_t, t) predicts x0, on a variance-preserving table of alpha_bars."""
    return _vp(alpha_bars, match, ZERO, ONE)


def predicts_eps(
    alpha_bars: Sequence[float] | np.ndarray, match: Match = "interpolated"
) -> Precond:
    """F(x_t, t) predicts the noise eps: DDPM (Ho et al. 2020, arXiv 2006.11239)."""
    return _vp(alpha_bars, match, ONE, MINUS_SIGMA)


def predicts_eps_sde(sub: bool = False, beta0: float = 0.1, beta1: float = 20.0) -> Precond:
    """F(x_t, t) predicts eps at a continuous t in (0, 1] (Song et al. 2021, arXiv 2011.13456).

    x_t = a x0 + s eps, ln a = -t^2 (beta1 - beta0) / 4 - t beta0 / 2; s^2 = 1 - a^2 on the VP SDE,
    s = 1 - a^2 on the sub-VP one (sub). Trained for t from 1e-5 to 1.
    """

    ends = _sde_sigma(1e-5, sub, beta0, beta1), _sde_sigma(1.0, sub, beta0, beta1)
    t = partial(_sde_time, sub=sub, beta0=beta0, beta1=beta1)
    return Precond(partial(_sde_a, sub=sub), ONE, MINUS_SIGMA, t, *ends)


def _sde_a(sigma: float, sub: bool) -> float:
    """a at sigma = s / a."""
    if sub:  # (1 - a^2) / a = sigma, written without cancellation
        return 2 / (sigma + math.sqrt(sigma**2 + 4))
    return _preserving(sigma)


def _sde_time(sigma: float, sub: bool, beta0: float, beta1: float) -> float:
    slope, log_a = beta1 - beta0, math.log(_sde_a(sigma, sub))
    return -4 * log_a / (beta0 + math.sqrt(beta0**2 - 4 * slope * log_a))


def _sde_sigma(t: float, sub: bool, beta0: float, beta1: float) -> float:
    log_a = -(t**2) * (beta1 - beta0) / 4 - t * beta0 / 2
    s2 = -math.expm1(2 * log_a)
    return (s2 if sub else math.sqrt(s2)) / math.exp(log_a)


def predicts_v(alpha_bars: Sequence[float] | np.ndarray, match: Match = "interpolated") -> Precond:
    """F(x_t, t) predicts v = a eps - s x0 (Salimans and Ho 2022, arXiv 2202.00512)."""
    return _vp(alpha_bars, match, _v_skip, _v_out)


def _v_skip(sigma: float) -> float:
    return 1 / (1 + sigma * sigma)


def _v_out(sigma: float) -> float:
    return -sigma / math.hypot(1, sigma)


def predicts_score(times_sigma: bool = False) -> Precond:
    """F(x, ln sigma) predicts the score of the variance-exploding x (Song 2021, 2011.13456).

    times_sigma: True when F is sigma times the score, as in NCSN++ before its last division.
    """
    return Precond(
        c_in=ONE,
        c_skip=ONE,
        c_out=partial(_power, exponent=1 if times_sigma else 2),
        c_noise=_log,
    )


def predicts_flow() -> Precond:
    """F(x_t, t) predicts eps - x0 at x_t = (1 - t) x0 + t eps (Liu 2022, arXiv 2209.03003)."""
    return Precond(_flow_a, _flow_a, _flow_out, _flow_time)


def _flow_a(sigma: float) -> float:
    return 1 / (1 + sigma)


def _flow_out(sigma: float) -> float:
    return -sigma / (1 + sigma)


def _flow_time(sigma: float) -> float:
    return sigma / (1 + sigma)


def predicts_edm(sigma_data: float = 0.5) -> Precond:
    """F of Karras et al. 2022 (arXiv 2206.00364), table 1; sigma_data: rms of the training set."""
    return Precond(
        c_in=partial(_edm_in, data=sigma_data),
        c_skip=partial(_edm_skip, data=sigma_data),
        c_out=partial(_edm_out, data=sigma_data),
        c_noise=partial(_log, over=4.0),
    )


def _edm_in(sigma: float, data: float) -> float:
    return 1 / math.hypot(sigma, data)


def _edm_skip(sigma: float, data: float) -> float:
    return (data / math.hypot(sigma, data)) ** 2


def _edm_out(sigma: float, data: float) -> float:
    return sigma * data / math.hypot(sigma, data)


TINY = 1e-4
"""An alpha_bar whose level, sigma = 100, is pure noise."""
PREDICTS = {"epsilon": predicts_eps, "v_prediction": predicts_v, "sample": predicts_x0}
"""The rows on a table of alpha_bars, by diffusers' names of what a network predicts."""


def _vp(
    alpha_bars: Sequence[float] | np.ndarray, match: Match, c_skip: Scalar, c_out: Scalar
) -> Precond:
    """The variance-preserving rows share c_in and t(sigma).

    alpha_bars: table in (0, 1), strictly falling. A last value of 0 (no signal left) is dropped,
    since its sigma is infinite; so is a tiny one that does not fall, which was put in place of a 0.
    The time is the table's index: the `nearest` in log sigma, or `interpolated` linearly in log
    sigma; beyond the table's ends it is the index at the end.
    """
    bars = np.asarray(alpha_bars, np.float64)
    if len(bars) > 1 and (bars[-1] == 0 or bars[-2] <= bars[-1] < TINY):
        bars = bars[:-1]
    if not (len(bars) and bars[0] < 1 and bars[-1] > 0 and (np.diff(bars) < 0).all()):
        raise InvdiffError(
            "A table of alpha_bars falls strictly, between 1 and 0; this one does not."
        )
    log_sigmas = 0.5 * (np.log1p(-bars) - np.log(bars))
    t = partial(_nearest if match == "nearest" else _interpolated, log_sigmas=log_sigmas)
    ends = [float(s) for s in np.exp(log_sigmas[[0, -1]])]
    return Precond(_preserving, c_skip, c_out, t, *ends)


def _nearest(sigma: float, log_sigmas: np.ndarray) -> float:
    return float(np.abs(log_sigmas - math.log(sigma)).argmin())


def _interpolated(sigma: float, log_sigmas: np.ndarray) -> float:
    return float(np.interp(math.log(sigma), log_sigmas, np.arange(len(log_sigmas))))


class NetworkPrior(Networked):
    """A trained network F(x, time) -> (B, C or 2C, ...) as a prior.

    net: called with c_in x, shape (B, C, ...), and time, shape (B,), on the device and in the
    floating type of its own parameters. Of 2C output channels the first C are used: the others
    are a learned variance. The network is set to eval() and its parameters are frozen, in place.
    learned_variance: whether there are 2C, the last of them v of `Prior.denoise_v`, for solvers
    that are asked for the learned variance; they refuse a prior that was made without.
    precond: which row of the table the network was trained for.
    shape, value_range, name: as in Prior; checkpoint: as in `Networked`.
    Raises InvdiffError when the output does not have the shape of the input.
    """

    def __init__(
        self,
        net: Callable[[Tensor, Tensor], Tensor],
        precond: Precond,
        shape: tuple[int | None, ...] | None = None,
        value_range: tuple[float, float] = (-1.0, 1.0),
        name: str = "network",
        learned_variance: bool = False,
        checkpoint: Checkpoint = "auto",
    ) -> None:
        if isinstance(net, nn.Module):
            net.eval().requires_grad_(False)
        self.net, self.precond = net, precond
        self.shape, self.value_range, self.name = shape, value_range, name
        self.sigma_min, self.sigma_max = precond.sigma_min, precond.sigma_max
        self.learned_variance = learned_variance
        self._hash = ""
        self.set_checkpoint(checkpoint)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return x if sigma == 0 else self._evaluated(x, sigma)[0]

    def denoise_v(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        x0, v = self._evaluated(x, sigma)
        if v.shape != x.shape:
            raise InvdiffError(
                f"The network {self.name} returned no learned variance beside its "
                f"{x.shape[1]} channels; take the lower bound instead (variance lower)."
            )
        return x0, v

    def _evaluated(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The clean estimate, and the channels that were output beside it, if any."""
        p, channels = self.precond, x.shape[1]
        inside = (p.c_in(sigma) * x).to(self._dtype(x))
        exact = torch.float64 if inside.dtype == torch.float64 else torch.float32
        time = torch.full((len(x),), p.c_noise(sigma), dtype=exact, device=x.device)
        with alike(len(x), x.device, linear=True):
            out = self.evaluated(inside, time)
        rest = out[:, channels:]
        if out.shape[1] == 2 * channels:
            out = out[:, :channels]
        if out.shape != x.shape:
            raise InvdiffError(
                f"The network {self.name} turned {tuple(x.shape)} into {tuple(out.shape)}; "
                "a denoiser returns the shape that it is given."
            )
        return p.c_skip(sigma) * x + p.c_out(sigma) * out.to(x.dtype), rest.to(x.dtype)

    def _dtype(self, x: Tensor) -> torch.dtype:
        if isinstance(self.net, nn.Module):
            for parameter in self.net.parameters():
                if parameter.is_floating_point():
                    return parameter.dtype
        return x.dtype

    @property
    def fingerprint(self) -> str:
        """Hash of the network's weights; empty for a plain function."""
        if not self._hash and isinstance(self.net, nn.Module):
            digest = hashlib.sha256()
            for key, value in sorted(self.net.state_dict().items()):
                digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
            self._hash = digest.hexdigest()[:16]
        return self._hash

    def to(self, device: torch.device | str) -> NetworkPrior:
        """Move the network, in place, and return this prior."""
        if isinstance(self.net, nn.Module):
            self.net.to(device)
        return self
