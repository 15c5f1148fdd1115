"""From counts to line integrals: flat field, bins that saw no beam, outliers, photon noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.tomography import line_integrals

DEAD = 0.05
"""A bin whose beam is below this share of the median beam counts as dead."""
OUTLIER = 8.0
"""A count that exceeds those of the neighbouring views by so many deviations is a zinger."""
SEARCHED = 2
"""Bins to both sides in the neighbouring views that a zinger has to exceed."""


@dataclass(frozen=True, eq=False)
class Corrected:
    """Line integrals (views, bins), their variance, which are to be trusted, and what was done."""

    integrals: Tensor
    variance: Tensor | None
    trusted: Tensor
    facts: tuple[str, ...]


def corrected(
    counts: Tensor, white: Tensor, dark: Tensor | None, zingers: bool, name: str
) -> Corrected:
    """-log((counts - dark) / (white - dark)) with the means of the fields, and 1 / photons.

    counts (views, bins), white and dark (repeats, bins). Dead bins and zingers are replaced by a
    straight line between their neighbours in the view, and not trusted. The noise of the mean white
    field is the same in all views, so it draws rings and is no part of the variance.
    """
    beam = white.mean(0) - (0 if dark is None else dark.mean(0))
    offset = torch.zeros_like(beam) if dark is None else dark.mean(0)
    typical = float(beam.median())
    dead = beam < DEAD * typical
    if typical <= 0 or bool(dead.all()):
        raise InvdiffError(f"The white field of {name} does not exceed its dark field.")
    facts = [f"flat field of {len(white)} white and {0 if dark is None else len(dark)} dark fields"]
    facts += [f"{int(dead.sum())} dead bins filled in"] * bool(dead.any())
    bad = dead.expand_as(counts).clone()
    signal = counts - offset
    if zingers:
        share = torch.where(dead, 0.0, signal / torch.where(dead, 1.0, beam))
        found = _zingers(share) & ~bad
        bad |= found
        facts.append(f"{int(found.sum())} zingers filled in")
    starved = (signal <= 0) & ~bad
    lost = f"{int(starved.sum())} rays without photons, taken as half a count"
    facts += [lost] * bool(starved.any())
    z = line_integrals(counts, torch.where(dead, offset + typical, white.mean(0)), offset)
    gain, told = _gain(white, beam, dead)
    variance = gain / signal.clamp_min(0.5)
    facts.append(told)
    return Corrected(_bridged(z, bad).float(), variance.float(), ~bad, tuple(facts))


def _zingers(share: Tensor) -> Tensor:
    """Bright outliers of the transmission: above all that the views before and after show nearby.

    share: (views, bins). By OUTLIER deviations above the 5 nearest bins of both neighbouring views;
    a deviation is that from the median of 3 x 5, robust, and grows as the root of the transmission.
    """
    if share.shape[0] < 3 or share.shape[1] <= 2 * SEARCHED:
        return torch.zeros_like(share, dtype=torch.bool)
    around = F.pad(share[None, None], (SEARCHED, SEARCHED, 1, 1), mode="reflect")[0, 0]
    windows = around.unfold(0, 3, 1).unfold(1, 2 * SEARCHED + 1, 1)
    middle = windows.flatten(2).median(-1).values
    root = middle.clamp_min(1e-3).sqrt()
    scale = 1.4826 * float(((share - middle) / root).abs().median())
    nearby = windows[..., ::2, :].flatten(2).amax(-1)
    return (share - nearby > OUTLIER * scale * root) & (scale > 0)


def _gain(white: Tensor, beam: Tensor, dead: Tensor) -> tuple[float, str]:
    """Counts per photon from the scatter of the white fields: variance / mean, 1 where unknown.

    The brightness of the whole beam drifts between fields, which is no photon noise: each field is
    divided by its own level first.
    """
    if len(white) < 4:
        return 1.0, "photon noise: a count is taken for a photon (too few white fields to tell)"
    offset = white.mean(0) - beam
    light = (white - offset)[:, ~dead]
    level = light.mean(1, keepdim=True) / light.mean()
    scatter = (light / level).var(0) / light.mean(0)
    gain = float(scatter.median())
    if not gain > 0:
        return 1.0, "photon noise: a count is taken for a photon (white fields without scatter)"
    return gain, f"photon noise: {gain:.3g} counts per photon, from the scatter of the white fields"


def _bridged(z: Tensor, bad: Tensor) -> Tensor:
    """z (views, bins) with the bad entries on a line between their good neighbours in the view."""
    if not bool(bad.any()):
        return z
    out, bins = z.clone(), torch.arange(z.shape[1])
    for view in bad.any(1).nonzero().flatten().tolist():
        good = (~bad[view]).nonzero().flatten()
        if not len(good):
            out[view] = 0
            continue
        right = torch.searchsorted(good, bins).clamp(max=len(good) - 1)
        a, b = good[(right - 1).clamp_min(0)], good[right]
        span = (b - a).clamp_min(1)
        share = ((bins - a) / span).clamp(0, 1)
        line = (1 - share) * z[view, a] + share * z[view, b]
        out[view] = torch.where(bad[view], line, z[view])
    return out
