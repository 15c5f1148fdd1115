"""Every published network whose numbers are frozen: the same names, the same options, the same x0.

Tolerances are those of the index: 1e-4 of the largest value, where round-off of the same function
in float32 is some 1e-6, and a wrong time, order or range shows as 1e-2 to 1e2.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import golden
import numpy as np
import pytest
import torch
from golden import CASES
from helpers import sentence

from invdiff import load_prior
from invdiff.priors.published import files, load, network
from invdiff.priors.published.base import Options

REFUSED = {"cm-cd-narrow"}
WITH_OUTPUTS = [name for name, case in CASES.items() if case["outputs"] and name not in REFUSED]
SHAPES = [name for name, case in CASES.items() if not case["outputs"]]


def distance(prior: object, name: str) -> float:
    """Largest difference from the official x0, relative to the largest value, over all levels."""
    z, worst = golden.arrays(name), 0.0
    for sigma, want in zip(z["sigma"], torch.from_numpy(z["x0"]), strict=True):
        x = z["image"].astype(np.float64) + sigma * z["noise"].astype(np.float64)
        found = prior.denoise(torch.from_numpy(x.astype(np.float32)), float(sigma))
        worst = max(worst, float((found - want).abs().max() / want.abs().max()))
    return worst


@pytest.mark.parametrize("name", WITH_OUTPUTS)
def test_outputs(name: str, tmp_path: Path) -> None:
    prior = load_prior(golden.written(name, tmp_path), check=False, **golden.options(name))
    assert distance(prior, name) < CASES[name]["tolerance"]
    case = CASES[name]["prior"]
    if "value_range" in case:
        assert prior.value_range == tuple(case["value_range"])
