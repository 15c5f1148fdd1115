"""Around a `Radon` operator: from counts to line integrals, the rays that miss a metal part, and
filtered back-projection."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.operators.geometry import Geometry
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.radon import Radon

Filter = Literal["ramp", "hann"]


def line_integrals(counts: Tensor, white: Tensor | float, dark: Tensor | float = 0.0) -> Tensor:
    """-log((counts - dark) / (white - dark)): transmitted counts to line integrals of attenuation.

    white: counts without an object; dark: without a beam; both broadcast over counts. Transmission
    is floored at half a count, so that a ray that lost all its photons stays finite.
    """
    beam = torch.as_tensor(white - dark)
    if not bool((beam > 0).all()):
        raise InvdiffError(
            "The white field must exceed the dark field in every bin; cut off the bins that see "
            "no beam."
        )
    return -((counts - dark) / beam).maximum(0.5 / beam).log()


def transmit(z: Tensor, photons: float, rng: Rng) -> Tensor:
    """A noisy measurement of line integrals z (B, ...): Poisson counts, back by the logarithm.

    photons: expected count of a ray that meets nothing. The noise of the result is nearly normal
    with standard deviation exp(z / 2) / sqrt(photons), as long as photons exp(-z) >> 1; solvers
    that assume one Gaussian level take a typical value of that.
    """
    if not photons > 0:
        raise InvdiffError(f"A number of photons is above 0, found {photons}.")
    return line_integrals(rng.poisson(photons * (-z).exp(), "measurement"), photons)


def metal_trace(A: Radon, metal: Tensor) -> Inpaint:
    """The mask over sinograms of A that keeps the rays that miss the metal.

    metal: pixels of metal (B or 1, 1, H, W), bool or 0 and 1. `metal_trace(A, metal) @ A` measures
    everything but the trace. A ray is dropped as soon as one interpolated pixel on it is metal, so
    no edge of the trace is left in.
    """
    return Inpaint(A(metal.float()) == 0)


def fbp(
    y: Tensor,
    A: Radon | Geometry,
    filter: Filter = "ramp",
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Filtered back-projection of a sinogram (B, ..., angles, detectors): images (B, ..., H, W).

    The linear reconstruction that CT scanners use; the reference to compare with. filter: "ramp"
    (band-limited, Ramachandran and Lakshminarayanan 1971), or that times a Hann window, which is
    smoother. A: parallel rays over at least a half circle, or a fan over the full circle; views
    count by their distance to their neighbours, and an arc without views counts nothing, so that
    a limited angle gives the artefacts that it must. Not masked: fill in a metal trace first.
    Of a `Geometry` alone, size is the (H, W) of the images; of a `Radon` it is A's.
    """
    if isinstance(A, Geometry):
        if size is None:
            raise InvdiffError("A geometry does not tell the size of images; give size=(H, W).")
        A = Radon.of(dataclasses.replace(A, detectors=y.shape[-1]), size)
    elif size not in (None, A.size):
        raise InvdiffError(f"The operator is for images of {A.size}, but size is {size}.")
    if tuple(y.shape[-2:]) != A.y_shape((1, *A.size))[-2:]:
        raise InvdiffError(
            f"A sinogram of {len(A.angles)} views and {A.detectors} bins is expected, found shape "
            f"{tuple(y.shape)}."
        )
    weights = 1 / (1 + (A.spread * A.bins()) ** 2).sqrt()
    q = _filtered(y * weights.to(y), filter) / (A.pitch * A.pixel)
    theta = [math.radians(angle) for angle in A.angles]
    height, width = A.size
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    up = ((height - 1) / 2 - torch.arange(height, dtype=torch.float64))[:, None]
    image = y.new_zeros(*y.shape[:-2], height * width)
    for k, arc in enumerate(A.geometry.arcs().tolist()):
        magnify = 1 / (1 + (up * math.cos(theta[k]) - x * math.sin(theta[k])) * A.spread)
        s = (x * math.cos(theta[k]) + up * math.sin(theta[k])) * magnify
        where = (s / A.pitch + (A.detectors - 1) / 2 + A.shift).flatten()
        seen = (where >= 0) & (where <= A.detectors - 1)
        factor = (arc * magnify.flatten() ** 2 * seen).to(y)
        low = where.floor().clamp(0, max(A.detectors - 2, 0))
        share, low = (where - low).to(y), low.long().to(y.device)
        line = q[..., k, :]
        high = (low + 1).clamp_max(A.detectors - 1)
        image += factor * ((1 - share) * line[..., low] + share * line[..., high])
    return image.reshape(*y.shape[:-2], *A.size)


def _filtered(y: Tensor, filter: Filter) -> Tensor:
    """y convolved along its last axis with the band-limited ramp, for a spacing of 1."""
    if filter not in ("ramp", "hann"):
        raise InvdiffError(f"A filter is ramp or hann, found {filter!r}.")
    bins = y.shape[-1]
    n = 2 ** math.ceil(math.log2(max(64, 2 * bins)))
    taps = torch.zeros(n, dtype=torch.float64)
    odd = torch.arange(1, n // 2, 2)
    taps[0] = 0.25
    taps[odd] = taps[-odd] = -1 / (math.pi * odd.double()) ** 2
    response = torch.fft.rfft(taps).real
    if filter == "hann":
        response = response * (
            0.5 + 0.5 * torch.linspace(0, math.pi, n // 2 + 1, dtype=torch.float64).cos()
        )
    return torch.fft.irfft(torch.fft.rfft(y, n) * response.to(y), n)[..., :bins]
