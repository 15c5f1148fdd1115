"""Every published network whose numbers are frozen: the same names, the same options, the same x0.

Tolerances are those of the index: 1e-4 of the largest value, where round-off of the same function
in float32 is some 1e-6, and a wrong time, order or range shows as 1e-2 to 1e2.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import golden
from golden import CASES
from helpers import sentence
from invdiff import load_prior
from invdiff.priors.hub import import_diffusers

import_diffusers()  # takes longer than the tests of time allow
REFUSED = {"cm-cd-narrow"}
WITH_OUTPUTS = [name for name, case in CASES.items() if case["outputs"] and name not in REFUSED]
SHAPES = [name for name, case in CASES.items() if not case["outputs"]]
EMPTY = {CASES[name]["family"]: name for name in SHAPES}.values()
"""One of each family, whose file without numbers is refused."""


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


@pytest.mark.parametrize("name", SHAPES)
def test_layouts(name: str, tmp_path: Path) -> None:
    """Names and shapes alone, without a number: the network is built, and nothing is allocated."""
    torch.save(golden.shapes(name), tmp_path / "file.pt")
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    case, options = CASES[name], golden.options(name)
    if {"label_emb.weight", "model.map_label.weight"} & golden.layout(name).keys():
        options["label"] = 0
    prior = load_prior(tmp_path / "file.pt", "meta", **options)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert time.monotonic() - start < 10 and grown < 300
    assert prior.shape == (3, golden.side(name), golden.side(name))
    made = sum(p.numel() for p in prior.net.parameters())
    null = case["config"].get("model_type") == "DhariwalUNet" and prior.net.net.class_embedding
    assert made == golden.parameters(name) + (null.embedding_dim if null else 0)
    if name in EMPTY:
        sentence(lambda: load_prior(tmp_path / "file.pt", **options), "without numbers")


def test_a_distilled_network_is_refused(tmp_path: Path) -> None:
    """A consistency function has the names and shapes of the EDM network: its file's name tells."""
    path = golden.written("cm-cd-narrow", tmp_path)
    sentence(lambda: load_prior(path, check=False, label=5), "cm-cd-narrow.pt", "distilled", "EDM")
    for name in ("cd_imagenet64_l2.pt", "ct_cat256.pt"):
        other = path.rename(tmp_path / name)
        sentence(lambda: load_prior(other, check=False, label=5), name, "consistency")  # noqa: B023
        path = other
    edm = path.rename(tmp_path / "edm_imagenet64_ema.pt")
    prior = load_prior(edm, check=False, label=5)
    assert distance(prior, "cm-edm-narrow") < 1e-4 < distance(prior, "cm-cd-narrow")


def test_every_case_is_run() -> None:
    assert {*WITH_OUTPUTS, *SHAPES, *REFUSED} == set(CASES)
    assert {path.stem for path in golden.FOLDER.glob("*.npz")} == set(CASES)
