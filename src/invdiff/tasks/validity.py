"""What a photograph's file declares invalid, as a part of the measurement: never as data.

Pixels of alpha 0, NaN and infinities were not measured: `Inpaint` after the task's operator. What
is partly transparent was measured with as much more noise as it is less seen.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.pictures import Photo
from invdiff.noise import DiagonalGaussian, GaussianNoise, Noise
from invdiff.operators.algebra import Identity, Operator
from invdiff.operators.algebra.compose import Composed, ComposedLinear, ComposedPseudoInvertible
from invdiff.operators.inpaint import Inpaint
from invdiff.problem import Problem

REACH = 4
"""Pixels from the nearest measured one beyond which an unknown one lies in a hole."""


def seen(problem: Problem) -> Tensor:
    """Which entries of y were measured, of the first measurement: (1, 1, ...) bool, any channel."""
    known = problem.A.restrict(torch.ones_like(problem.y[:1])).real.abs().amax(1, keepdim=True)
    return known > 0


def has_gaps(problem: Problem) -> bool:
    """Whether some pixels of a photograph were not measured in any channel."""
    return not bool(seen(problem).all())


def has_hole(problem: Problem) -> bool:
    """Whether there are pixels that are far from all that were measured."""
    known = seen(problem).float().flatten(0, -3)[:, None]  # frames of a clip one by one
    near = F.max_pool2d(known, 2 * REACH + 1, 1, REACH)
    return bool((near == 0).any())


def known_around(problem: Problem) -> float:
    """Share of known pixels in the 3 x 3 around a known one, on average: near 1 where they lie
    together, whatever the holes between them; near their share of all where they are scattered."""
    known = seen(problem).float().flatten(0, -3)[:, None]
    around = F.avg_pool2d(known, 3, 1, 1, count_include_pad=False)
    return float((around * known).sum() / known.sum())


def valid_pixels(photo: Photo, channels: int) -> Tensor | None:
    """The valid pixels of a measurement of so many channels, (1, 1 or C, H, W); None for all."""
    if photo.valid is None:
        return None
    valid = photo.valid
    if len(valid) > 1 and (channels == 1 or bool((valid == valid[:1]).all())):
        valid = valid.all(0, keepdim=True)
    return valid[None]


def masked(A: Operator, valid: Tensor | None) -> Operator:
    """A, of which the valid pixels (1, 1 or C, H, W) alone were measured."""
    if valid is None or bool(valid.all()):
        return A
    if isinstance(A, Inpaint):
        both = A.mask.bool() & valid
        if not bool(both.any()):
            raise InvdiffError(
                "All pixels that the mask keeps are transparent or no numbers, so that nothing is "
                "known; keep more."
            )
        return Inpaint(both)
    mask = Inpaint(valid)
    return mask if isinstance(A, Identity) else mask @ A


def unmasked(A: Operator) -> Operator:
    """The operator of a task, without the mask of what is invalid."""
    if isinstance(A, Composed | ComposedLinear | ComposedPseudoInvertible):
        return A.inner if isinstance(A.outer, Inpaint) else A
    return A


def weighed(noise: Noise, photo: Photo) -> tuple[Noise, Tensor | None]:
    """The noise of partly transparent pixels, and which count (1, 1, H, W) where it cannot differ.

    White noise of deviation sigma becomes one of sigma / alpha, alpha relative to the most opaque
    pixel. Where noise has another law, what is not as opaque as that does not count.
    """
    share = photo.opacity
    if share is None or bool(((share == 0) | (share == 1)).all()):
        return noise, None
    if type(noise) is GaussianNoise and noise.sigma > 0:
        sigmas = noise.sigma / share.clamp_min(1e-4)
        level = float(noise.sigma)
        return DiagonalGaussian(sigmas[None, None].float(), level=level), None
    return noise, (share == 1)[None, None]


def words_of(photo: Photo) -> list[str]:
    """What does not count, in words."""
    if photo.valid is None and photo.opacity is None:
        return []
    said = []
    hidden = 0 if photo.alpha is None else int((photo.alpha.to(torch.int32) == 0).sum())
    share = photo.opacity
    if hidden:
        said.append(f"{hidden} transparent pixels do not count as measured")
    if share is not None and (partly := int(((share > 0) & (share < 1)).sum())):
        said.append(f"{partly} pixels count less, for they are partly transparent")
    if photo.valid is not None:
        visible = True if photo.alpha is None else photo.alpha.to(torch.int32) != 0
        if missing := int((~photo.valid.all(0) & visible).sum()):
            said.append(f"{missing} pixels hold NaN or infinities and do not count as measured")
    return said
