"""A network runs in bfloat16 where that was measured to change next to nothing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_photo import network

import invdiff
from invdiff.cli import main
from invdiff.core import InvdiffError
from invdiff.priors import precision
from invdiff.priors.load import load_prior
from invdiff.priors.photo import PhotoPrior, load_weights, save_weights
from invdiff.priors.spectrum import SIGMAS, beside, isotropic, save, smooth
from invdiff.train.recipes import RECIPES
from invdiff.train.spectrum import bfloat16_from


def pictures(count: int) -> torch.Tensor:
    """Smooth images (count, 3, 32, 32) on [-1, 1]."""
    z = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return smooth(3 * z, 1.0).clamp(-1, 1)


def error(prior: PhotoPrior, x: torch.Tensor, sigma: float) -> float:
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return float((prior.denoise(x + sigma * z, sigma) - x).square().mean())


@pytest.mark.parametrize("name", RECIPES)
def test_where_bfloat16_begins_is_known_of_every_embedded_prior(name: str) -> None:
    prior = load_prior(name)
    assert isinstance(prior, PhotoPrior) and prior.bfloat16_from in SIGMAS
    assert prior.bfloat16_from == precision.bfloat16_from(name)


def test_mixed_is_bfloat16_where_it_does_not_tell_and_float32_elsewhere() -> None:
    plain, low, mixed = (load_prior("photo", precision=p) for p in ("float32", "bfloat16", "mixed"))
    x = pictures(2)
    least = precision.bfloat16_from("photo")
    assert least is not None
    for sigma in (least, 1.0):
        assert torch.equal(mixed.denoise(x, sigma), low.denoise(x, sigma))
        assert not torch.equal(mixed.denoise(x, sigma), plain.denoise(x, sigma))
        gap = 10 * math.log10(error(low, x, sigma) / error(plain, x, sigma))  # type: ignore[arg-type]
        assert abs(gap) < 0.05
    below = least * 0.99
    assert torch.equal(mixed.denoise(x, below), plain.denoise(x, below))


def test_it_begins_where_the_loss_is_small() -> None:
    prior = PhotoPrior(network())
    x = pictures(4)
    least = bfloat16_from(prior, x)
    assert prior.precision == "float32"
    assert least is None or least in SIGMAS
    coarse = PhotoPrior(network())
    coarse._denoise = lambda x, *_: x * (2.0 if coarse.precision == "bfloat16" else 0.5)  # type: ignore
    assert bfloat16_from(coarse, x) is None


def test_auto_is_mixed_where_the_device_and_the_prior_allow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "own.safetensors"
    save_weights(network(), weights, {"recipe": {"name": "own"}})
    for fast, kind in ((True, "mixed"), (False, "float32")):
        monkeypatch.setattr(precision, "multiplies", lambda device, fast=fast: fast)
        assert precision.settled("auto", "photo", "cpu") == kind
        assert precision.settled("auto", str(weights), "cpu") == "float32"  # not measured
        assert precision.settled("auto", "hf:some/name", "cpu") == "float32"
        assert precision.settled("bfloat16", "photo", "cpu") == "bfloat16"
        assert load_prior("photo", precision="auto").precision == kind  # type: ignore[attr-defined]
    with pytest.raises(InvdiffError, match="was not measured"):
        load_prior(weights, precision="mixed")
    found = replace(isotropic(), prior=load_weights(weights).fingerprint, bfloat16_from=0.2)
    save(found, beside(weights))
    assert load_prior(weights, precision="mixed").precision == "mixed"  # type: ignore[attr-defined]
    assert precision.bfloat16_from(str(weights)) == 0.2
    assert found.fingerprint == replace(found, bfloat16_from=None).fingerprint
    beside(weights).write_text("[]")
    assert precision.bfloat16_from(str(weights)) is None


def test_a_run_keeps_its_precision(tmp_path: Path) -> None:
    photo = Path(__file__).parents[2] / "examples" / "alpacas-small.png"
    done = invdiff.restore(
        "denoise", photo, noise=0.1, samples=1, steps=2, precision="mixed", progress=False
    )
    done.save(tmp_path / "one")
    assert json.loads((tmp_path / "one/run.json").read_text())["precision"] == "mixed"
    assert (
        main(["restore", "--from", f"{tmp_path}/one", "--quiet", "--out", f"{tmp_path}/two"]) == 0
    )
    for name in ("estimate.png", "overview.png"):
        files = [tmp_path / run / name for run in ("one", "two")]
        assert files[0].read_bytes() == files[1].read_bytes()
