"""What the numbers of a sinogram are: counts, transmission or line integrals, by plausibility."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from invdiff.core import InvdiffError

Kind = Literal["counts", "transmission", "percent", "integrals"]
MOST_INTEGRAL = 20.0
"""exp(-20) of the photons: nothing that a detector sees."""
MOST_TRANSMISSION = 1.5
"""A ray that meets nothing transmits 1; noise and a drifting beam add little."""
NOT_FLAT = "the white field is of another scale, or the data are corrected already"


def decided(
    path: Path, data: np.ndarray, white: np.ndarray | None, plain: bool, kind: Kind | None
) -> tuple[Kind, str]:
    """What the numbers (views, bins) are, and how that was told.

    plain: whether they are of a format that says nothing of its numbers, so that real ones without
    a white field are line integrals. Raises InvdiffError, with both readings, where that is open.
    """
    if kind == "counts" and white is None:
        raise InvdiffError(f"{path} holds no white field, without which counts say nothing.")
    high = float(np.quantile(data, 0.99)) if data.size and np.isfinite(data).all() else 0.0
    if kind in ("transmission", "percent"):
        most = MOST_TRANSMISSION * (100 if kind == "percent" else 1)
        if high > most:
            other = "--kind percent" if kind == "transmission" and high <= 150 else "white fields"
            raise InvdiffError(
                f"The numbers of {path} reach {high:.4g}, but what is called {kind} is "
                f"{'100' if kind == 'percent' else '1'} where nothing attenuates; if they are "
                f"{'percent, give' if other.startswith('--') else 'counts, give their'} {other}."
            )
    if kind is not None:
        return kind, f"taken as {kind}, as asked"
    if white is not None:
        return "counts", "counts, for there are white fields"
    if plain and data.dtype.kind == "f":
        _check_integrals(path, data, high)
        return "integrals", "taken as line integrals, for there is no white field"
    raise InvdiffError(
        f"{path} holds no white field, and does not say what its numbers are; give "
        "its --kind, integrals, transmission or percent."
    )


def _check_integrals(path: Path, data: np.ndarray, high: float) -> None:
    """Raise InvdiffError where numbers are more likely no line integrals."""
    if high > MOST_INTEGRAL:
        raise InvdiffError(
            f"The numbers of {path} reach {high:.4g}: line integrals above {MOST_INTEGRAL:g} let "
            "nothing pass. If they are integrals of a picture, not of attenuation, give --kind "
            "integrals; if they are percent of transmission, --kind percent; if counts, a file "
            "with white fields."
        )
    bins = data.shape[1]
    if bins < 8 or data.min() <= 0 or high > MOST_TRANSMISSION:
        return
    rim = max(1, bins // 20)
    outer = float(np.median(np.concatenate([data[:, :rim], data[:, -rim:]], 1)))
    inner = float(np.median(data[:, bins // 3 : bins - bins // 3]))
    if 0.8 < outer < 1.25 and inner < 0.9 * outer:
        raise InvdiffError(
            f"The numbers of {path} are {outer:.3g} at the ends of the detector and {inner:.3g} in "
            "its middle, as transmission is, where line integrals would be 0 beside the object; "
            "give --kind transmission, or --kind integrals if they are that."
        )


def check_counts(path: Path, share: np.ndarray) -> None:
    """Raise InvdiffError where (counts - dark) / (white - dark) is no transmission.

    share: (views, bins), NaN in bins without a beam.
    """
    usual = float(np.nanmedian(share)) if np.isfinite(share).any() else 1.0
    if usual > MOST_TRANSMISSION:
        raise InvdiffError(
            f"The counts of {path} are {usual:.3g} times its white field, but an object only "
            f"attenuates: {NOT_FLAT}; give --kind transmission or --kind integrals if they are."
        )
    if 0 < usual < np.exp(-MOST_INTEGRAL / 2) and float(np.nanmax(share)) < 0.01:
        raise InvdiffError(
            f"No ray of {path} has more than {float(np.nanmax(share)):.2g} of its white field: "
            f"{NOT_FLAT}; give --kind transmission or --kind integrals if they are."
        )
