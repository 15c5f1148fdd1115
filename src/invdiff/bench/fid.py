"""FID of a bench: features of every image are kept beside bench.jsonl, and compared on the page."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.bench.perceptual import Network
from invdiff.core.durable import write_bytes

FOLDER = "features"
"""Beside bench.jsonl."""


@dataclass(frozen=True)
class Distance:
    """FID of a case, prior and solver. images: truths that count. samples: of them. size: numbers
    of features; fewer images than that leave covariances without full rank."""

    value: float
    images: int
    samples: int
    size: int


def keep(folder: Path, item: str, network: Network, truth: Tensor, samples: Tensor) -> str:
    """Write the features of a truth (1, C, H, W) and its samples (K, C, H, W), images on [-1, 1].

    The name of the file within the folder of features, which is whole or not there.
    """
    found = network(torch.cat([truth, samples])).numpy()
    name = f"{sha256(item.encode()).hexdigest()[:16]}.npz"
    (folder / FOLDER).mkdir(exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, truth=found[:1], samples=found[1:])
    write_bytes(folder / FOLDER / name, buffer.getvalue())
    return name


def distances(
    folder: Path, found: Iterable[dict[str, Any]]
) -> dict[tuple[str, str, str], Distance | None]:
    """FID by (case, prior, solver) of the lines of a bench, between truths and single samples.

    None where a file of features is missing or damaged, and for one image, which has no covariance.
    """
    names: dict[tuple[str, str, str], list[str]] = {}
    for one in found:
        if "features" in one:
            key = one["case"], one["prior"], one["solver"]
            names.setdefault(key, []).append(one["features"])
    return {key: _distance(folder, files) for key, files in names.items()}


def _distance(folder: Path, files: Sequence[str]) -> Distance | None:
    truths, samples = [], []
    for name in files:
        try:
            with open(folder / FOLDER / Path(name).name, "rb") as file, np.load(file) as kept:
                truths.append(kept["truth"])
                samples.append(kept["samples"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
    if len(truths) < 2 or len({a.shape[1:] for a in (*truths, *samples)}) > 1:
        return None
    one, other = (np.concatenate(part).astype(float) for part in (truths, samples))
    return Distance(frechet(one, other), len(one), len(other), one.shape[1])


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)) of the moments of features (n, F) and (n', F).

    Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium", arXiv 1706.08500; covariances divide by n - 1. With S = R^T R and S' = R'^T R'
    the eigenvalues of S S' are the squared singular values of R R'^T, so that tr (S S')^(1/2) is
    their sum: no root of a matrix that may not have one.
    """
    roots = [_root(features) for features in (one, other)]
    cross = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    moved = np.square(one.mean(0) - other.mean(0)).sum()
    return float(moved + sum(np.square(R).sum() for R in roots) - 2 * cross)


def _root(features: np.ndarray) -> np.ndarray:
    """R with R^T R the covariance, of at most F rows."""
    R: np.ndarray = (features - features.mean(0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(R, mode="r")) if len(R) > R.shape[1] else R
