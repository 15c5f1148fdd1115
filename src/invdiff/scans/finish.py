"""k-space that was read: checked, masked, and told in facts that hold for every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.coils import calibration_region
from invdiff.operators.sampling import acceleration
from invdiff.scans.asked import Origin
from invdiff.scans.kspace import KSpace


def finished(
    path: Path,
    data: np.ndarray,
    mask: Tensor | None,
    facts: tuple[str, ...],
    origin: Origin | None = None,
) -> KSpace:
    """Checked and masked k-space (coils, H, W). origin: corner moves the zero frequency, of the
    mask too, to the middle."""
    k = torch.from_numpy(np.array(data, np.complex64, order="C"))
    size = int(k.shape[-2]), int(k.shape[-1])
    soft = 0
    if mask is None:
        found, how = (k != 0).any(0), "mask inferred: what is 0 in all coils was not sampled"
    else:
        found, soft = sampled(mask, size, path)
        how = "mask given"
    if origin == "corner":
        k, found = (torch.fft.fftshift(t, dim=(-2, -1)) for t in (k, found))
        facts = (*facts, "zero frequency moved from the corner to the middle")
    bad = int((~torch.isfinite(torch.view_as_real(k))).any(-1)[:, found].sum())
    if bad:
        raise InvdiffError(
            f"{path} holds {bad} samples that are NaN or infinite; mark them as not sampled."
        )
    if not bool((found & (k != 0).any(0)).any()):
        raise InvdiffError(f"{path} holds no sample that is not 0.")
    outside = int(((k != 0).any(0) & ~found).sum())
    k = torch.where(found, k, 0)
    rows, columns = calibration_region(found[None, None])
    told = [
        *facts,
        f"{len(k)} coil{'s' * (len(k) > 1)}, {size[0]} x {size[1]} samples",
        how,
        f"true acceleration {acceleration(found[None, None])[0]:.2f}",
        f"calibration region {rows} x {columns}, found from the mask",
    ]
    told += [f"{soft} samples whose mask is between 0 and 1 do not count as measured"] * (soft > 0)
    told += [f"{outside} samples outside the mask were dropped"] * (outside > 0)
    return KSpace(k, found, tuple(told))


def sampled(mask: Tensor, size: tuple[int, int], path: Path) -> tuple[Tensor, int]:
    """A mask (H, W), (W,) or either with leading ones, as (H, W) bool, and how many samples have a
    value between 0 and 1: they were not measured for certain, and do not count."""
    m = mask.reshape([n for k, n in enumerate(mask.shape) if n > 1 or k >= mask.ndim - 2])
    if tuple(m.shape) not in (size, size[1:], (1, size[1]), (size[0], 1)):
        raise InvdiffError(
            f"The mask of {path} has shape {tuple(mask.shape)}, but k-space has {size[0]} rows and "
            f"{size[1]} columns; a mask is (H, W), or (W,) for whole columns."
        )
    m = m.expand(size)
    top = 255 if bool(((m == 0) | (m == 255)).all()) else 1  # of pictures
    fits = bool(((m >= 0) & (m <= top)).all())
    if not fits or not bool((m == top).any()):
        raise InvdiffError(
            f"The mask of {path} holds only 1 (sampled) and 0, and not all 0; values between them "
            "are taken as not sampled, where there are samples of 1 too."
        )
    return (m == top).clone(), int(((m > 0) & (m < top)).sum())
