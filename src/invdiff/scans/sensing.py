"""Files of compressed sensing: numbers with the description of how they were measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError, nearest
from invdiff.files.pictures import read_array, words
from invdiff.operators.algebra import Linear
from invdiff.operators.dct import DCTSubsampling
from invdiff.operators.mri import RealFourier
from invdiff.operators.sensing import BlockSensing, WalshHadamard
from invdiff.operators.single_pixel import SinglePixel
from invdiff.scans.files import Npz

LAYOUTS = {
    "hadamard": "(channels, numbers)",
    "single-pixel": "(channels, 2, numbers)",
    "gaussian": "(channels, numbers, rows of blocks, columns of blocks)",
    "dct": "(channels, height, width)",
    "fourier": "(channels, height, width), complex",
}
"""Kinds of compressed sensing, and the axes of their numbers; one channel may go without its axis.

hadamard: `WalshHadamard`. single-pixel: `SinglePixel` of it. gaussian: `BlockSensing`. dct:
`DCTSubsampling`. fourier: `RealFourier`, the zero frequency at (H // 2, W // 2)."""
BLOCK, LARGEST = 32, 64
"""Side of a block unless told, and the largest, whose matrix has 4096 x 4096 numbers."""
BELONGS = {
    "order": ("hadamard", "single-pixel"),
    "block": ("gaussian",),
    "mask": ("dct", "fourier"),
}
"""The kinds that an option is of; it means nothing to others."""
FIELDS = ("kind", "size", "seed", "order", "block", "mask", "noise", "ratio", "channels")
"""What an .npz may tell beside `y`."""


@dataclass(frozen=True, eq=False)
class Sensed:
    """A measurement of a picture on [0, 1]: numbers y (channels, ...), of `operator`.

    size: (H, W). noise: standard deviation of each number, None where unknown. seed, order, block
    and mask (H, W): what the operator was made of. about, facts: what was found, in words.
    """

    kind: str
    operator: Linear
    size: tuple[int, int]
    count: int
    seed: int
    order: str
    block: int
    mask: Tensor | None
    y: Tensor
    noise: float | None = None
    about: str = ""
    facts: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        kind: str,
        size: tuple[int, int],
        keep: int,
        seed: int = 0,
        order: str = "sequency",
        block: int = BLOCK,
        mask: Tensor | None = None,
    ) -> Sensed:
        """A kind of measurement that keeps so many numbers of a picture, or of each block; of
        coefficients (dct, fourier) those of the mask. Raises InvdiffError for what does not fit."""
        check_kind(kind)
        if kind == "gaussian":
            A: Linear = BlockSensing(keep, size, block, seed)
            count = keep * (size[0] // block) * (size[1] // block)
        elif mask is not None:
            known = mask[None, None]
            A = DCTSubsampling(known) if kind == "dct" else RealFourier(known)
            count = int(mask.sum())
        else:
            base = WalshHadamard(keep, size, seed, order)  # type: ignore[arg-type]
            A, count = SinglePixel(base) if kind == "single-pixel" else base, keep
        return cls(kind, A, size, count, seed, order, block, mask, torch.empty(0))

    @property
    def ratio(self) -> float:
        """Measured coefficients for each pixel."""
        return self.count / (self.size[0] * self.size[1])

    def arrays(self) -> dict[str, Any]:
        """What `read_sensed` reads, by its names in an .npz file."""
        found: dict[str, Any] = {"y": self.y.numpy(), "kind": self.kind, "size": self.size}
        found |= {"ratio": self.ratio, "channels": len(self.y), "noise": self.noise}
        if self.mask is not None:
            return found | {"mask": self.mask.numpy(), "seed": self.seed}
        if self.kind == "gaussian":
            return found | {"seed": self.seed, "block": self.block}
        return found | {"seed": self.seed, "order": self.order}


def check_kind(kind: str) -> None:
    """Raise InvdiffError, with the nearest names, when there is no such kind."""
    if kind not in LAYOUTS:
        raise nearest(kind, LAYOUTS, "kind of compressed sensing")


def check_belongs(kind: str, given: Iterable[str]) -> None:
    """Raise InvdiffError for an option that means nothing to the kind."""
    for name in given:
        if kind not in BELONGS.get(name, (kind,)):
            raise InvdiffError(
                f"--{name} does not belong to {kind}, but to {' and '.join(BELONGS[name])}; "
                "leave it out."
            )


def read_sensed(path: str | Path, given: Mapping[str, Any] | None = None) -> Sensed:
    """The numbers in an .npz (array `y`) or .npy file, with their description.

    given: kind, size (H, W), seed, order, block and mask (an array (H, W) of 0 and 1), each where
    the file does not tell. Raises InvdiffError where one is missing or contradicts the file, and
    where the numbers do not fit.
    """
    path, given = str(path), dict(given or {})
    file = Path(path)
    told: dict[str, Any] = {}
    if file.suffix.lower() == ".npz":
        npz = Npz(file)
        array = npz["y"]
        told = {name: _field(npz, name) for name in FIELDS if name in npz.names}
    elif file.suffix.lower() == ".npy":
        array = np.asarray(read_array(file))
    else:
        raise InvdiffError(
            f"{path} has none of the endings of compressed sensing, .npz or .npy; `invdiff degrade "
            "compressed-sensing` shows such a file."
        )
    told = _merged(path, told, given)
    if "kind" not in told:
        raise InvdiffError(f"{path} does not tell its kind; give --kind, of {', '.join(LAYOUTS)}.")
    kind = told["kind"]
    check_kind(kind)
    check_belongs(kind, given)
    y = _numbers(path, array, kind)
    s = _operator(path, kind, y, told)
    want = s.operator.y_shape((len(y), *s.size))
    if tuple(y.shape) != tuple(want):
        raise InvdiffError(
            f"{path} holds numbers of shape {tuple(y.shape)}, but {kind} of {words(s.size)} pixels "
            f"gives {tuple(want)}."
        )
    _check_said(path, s, len(y), told)
    facts = [f"{s.count} numbers of {kind}, ratio {s.ratio:.3g}"]
    if s.mask is None and kind != "gaussian":
        facts += [f"patterns in {s.order} order" + f", seed {s.seed}" * (s.order == "random")]
    elif kind == "gaussian":
        facts += [f"blocks of {s.block} x {s.block}, seed {s.seed}"]
    about = f"compressed sensing, {words(s.size)} pixels, {len(y)} channel{'s' * (len(y) > 1)}"
    values = {"y": y, "noise": told.get("noise"), "about": about, "facts": tuple(facts)}
    return Sensed(**{**vars(s), **values})


def _field(npz: Npz, name: str) -> Any:
    """One entry of the description, as it is used."""
    if name in ("kind", "order"):
        return npz.text(name)
    array = npz[name]
    if name == "mask":
        return _mask(array, f"mask in {npz.path}")
    values = array.flatten().tolist()
    want = 2 if name == "size" else 1
    real = array.dtype.kind in "buif" and len(values) == want and all(np.isfinite(values))
    if not real or (name not in ("noise", "ratio") and any(v != int(v) for v in values)):
        raise InvdiffError(f"{name} in {npz.path} is not what it should be, found {values[:3]}.")
    if name in ("noise", "ratio"):
        return float(values[0])
    return (int(values[0]), int(values[1])) if name == "size" else int(values[0])


def _mask(array: np.ndarray, what: str) -> Tensor:
    """(H, W) bool of an array of 0 and 1."""
    if array.ndim != 2 or array.dtype.kind == "c" or not np.isin(array, (0, 1)).all():
        raise InvdiffError(
            f"The {what} has shape {array.shape}; a mask is (height, width) of 1, where a "
            "coefficient was measured, and 0."
        )
    return torch.from_numpy(np.array(array, bool))


def _merged(path: str, told: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What the file and the options tell together. Raises InvdiffError where they differ."""
    if "mask" in given:
        given["mask"] = _mask(np.asarray(given["mask"]), "mask")
    for name, value in given.items():
        if name not in told:
            continue
        same = torch.equal(told[name], value) if name == "mask" else told[name] == value
        if not same:
            flag = "pattern-seed" if name == "seed" else name
            shown = "another one" if name == "mask" else told[name]
            shown = words(told[name]) if name == "size" else shown
            raise InvdiffError(f"{path} tells its {name}, {shown}; leave --{flag} out.")
    return told | given


def _numbers(path: str, array: np.ndarray, kind: str) -> Tensor:
    """The numbers with their channels, float32 or complex64."""
    axes = {"hadamard": 2, "single-pixel": 3, "gaussian": 4, "dct": 3, "fourier": 3}[kind]
    if array.ndim == axes - 1:
        array = array[None]
    is_complex = array.dtype.kind == "c"
    if array.ndim != axes or is_complex != (kind == "fourier") or 0 in array.shape:
        raise InvdiffError(
            f"{path} holds {array.dtype} of shape {array.shape}; numbers of {kind} are "
            f"{LAYOUTS[kind]}."
        )
    if not np.isfinite(array).all():
        raise InvdiffError(f"{path} holds NaN or infinite values; replace them.")
    return torch.from_numpy(np.array(array, np.complex64 if is_complex else np.float32))


def _operator(path: str, kind: str, y: Tensor, told: Mapping[str, Any]) -> Sensed:
    """The measurement that the description tells of."""
    block, order = told.get("block", BLOCK), told.get("order", "sequency")
    if not 1 <= block <= LARGEST:
        raise InvdiffError(f"The side of a block is from 1 to {LARGEST} pixels, found {block}.")
    drawn = kind == "gaussian" or (kind in ("hadamard", "single-pixel") and order == "random")
    if drawn and "seed" not in told:
        raise InvdiffError(
            f"{path} does not tell the seed of its random patterns; give --pattern-seed."
        )
    mask = None
    if kind in ("dct", "fourier"):
        size = (int(y.shape[-2]), int(y.shape[-1]))
        mask = told.get("mask", (y != 0).any(0))
        if tuple(mask.shape) != size:
            raise InvdiffError(
                f"The mask is for {words(tuple(mask.shape))} coefficients, but {path} holds "
                f"{words(size)}."
            )
        if not bool(mask.any()):
            raise InvdiffError(f"All coefficients in {path} are 0; nothing was measured.")
    elif kind == "gaussian":
        size = (int(y.shape[-2]) * block, int(y.shape[-1]) * block)
    elif "size" in told:
        size = told["size"]
    else:
        raise InvdiffError(f"{path} does not tell the size of its picture; give --size.")
    keep = int(y.shape[1 if kind == "gaussian" else -1])
    return Sensed.of(kind, size, keep, told.get("seed", 0), order, block, mask)


def _check_said(path: str, s: Sensed, channels: int, told: Mapping[str, Any]) -> None:
    """Raise InvdiffError where the description does not fit the numbers."""
    if told.get("size", s.size) != s.size:
        raise InvdiffError(
            f"The picture is said to have {words(told['size'])} pixels, but the numbers in {path} "
            f"are of {words(s.size)}."
        )
    if told.get("channels", channels) != channels:
        raise InvdiffError(
            f"{path} is said to have {told['channels']} channels, but holds {channels}."
        )
    if abs(told.get("ratio", s.ratio) - s.ratio) > 1e-3:
        raise InvdiffError(
            f"{path} is said to measure {told['ratio']:g} of the coefficients, but holds "
            f"{s.ratio:g} of them; it is not whole."
        )
