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
from invdiff.core import InvdiffError, Level
from invdiff.core.alike import alike
from invdiff.priors import precision
from invdiff.priors.load import load_prior
from invdiff.priors.photo import PhotoPrior, load_weights, save_weights
from invdiff.priors.precision import AskedPrecision
from invdiff.priors.spectrum import SIGMAS, beside, isotropic, save, smooth
from invdiff.train.recipes import RECIPES
from invdiff.train.spectrum import allowed_from


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
    assert prior.blocks_from in SIGMAS and prior.blocks_from == precision.blocks_from(name)
    assert prior.blocks_from <= prior.bfloat16_from


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


def test_blocks_are_bfloat16_below_that_level_and_the_rest_float32() -> None:
    """At levels where all of the network in bfloat16 adds to the error, and blocks alone do not."""
    plain, low, blocks = (
        load_prior("photo", precision=p) for p in ("float32", "bfloat16", "blocks")
    )
    x = pictures(2)
    least, first = precision.bfloat16_from("photo"), precision.blocks_from("photo")
    assert least is not None and first is not None
    assert torch.equal(blocks.denoise(x, least), low.denoise(x, least))
    for sigma in (0.005, 0.02, 0.05):
        assert first <= sigma < least
        assert abs(10 * math.log10(error(blocks, x, sigma) / error(plain, x, sigma))) < 0.02  # type: ignore[arg-type]
        z = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        exact, *found = (p.denoise(x + sigma * z, sigma) for p in (plain, low, blocks))
        whole, inner = (float((f - exact).norm()) for f in found)
        assert 0 < inner < 2 / 3 * whole
    assert torch.equal(blocks.denoise(x, 0.99 * first), plain.denoise(x, 0.99 * first))


@pytest.mark.skipif(not precision.multiplies("cpu"), reason="auto takes blocks where AMX is")
@pytest.mark.parametrize("size", [(8, 8), (8, 16), (16, 16), (40, 24), (33, 77)])
def test_a_row_alone_is_the_same_in_blocks_too(size: tuple[int, int]) -> None:
    prior = load_prior("photo", precision="blocks")
    x = torch.randn(5, 3, *size, generator=torch.Generator().manual_seed(0))
    whole = prior.denoise(x, 0.05)
    for count in (1, 2, 3):
        with alike(count, x.device):
            assert torch.equal(prior.denoise(x[:count].contiguous(), 0.05), whole[:count])


def test_gradients_pass_through_blocks() -> None:
    """As of the network in float32, to the digits of bfloat16; and the same when computed again."""
    x, v = pictures(1), torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    found = list[torch.Tensor]()
    for kind, again in (("float32", False), ("blocks", False), ("blocks", True)):
        prior = load_prior("photo", precision=kind, checkpoint=again)  # type: ignore[arg-type]
        found.append(prior.x0_vjp(x, Level(1.0, 0.05))[1](v))
    assert float((found[1] - found[0]).norm() / found[0].norm()) < 0.02
    assert torch.equal(found[1], found[2])


def test_it_begins_where_the_loss_is_small() -> None:
    prior = PhotoPrior(network())
    x = pictures(4)
    for kind in ("bfloat16", "blocks"):
        least = allowed_from(prior, x, kind)  # type: ignore[arg-type]
        assert prior.precision == "float32" and prior.spectrum is None
        assert least is None or least in SIGMAS
    coarse = PhotoPrior(network())
    coarse._denoise = lambda x, *_: x * (2.0 if coarse.precision == "bfloat16" else 0.5)  # type: ignore
    assert allowed_from(coarse, x, "bfloat16") is None


def test_auto_is_low_where_the_device_and_the_prior_allow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "own.safetensors"
    save_weights(network(), weights, {"recipe": {"name": "own"}})
    for fast, kind in ((True, "blocks"), (False, "float32")):
        monkeypatch.setattr(precision, "multiplies", lambda device, fast=fast: fast)
        assert precision.settled("auto", "photo", "cpu") == kind
        assert precision.settled("auto", str(weights), "cpu") == "float32"  # not measured
        assert precision.settled("auto", "hf:some/name", "cpu") == "float32"
        assert precision.settled("bfloat16", "photo", "cpu") == "bfloat16"
        assert load_prior("photo", precision="auto").precision == kind  # type: ignore[attr-defined]
    for kind in ("mixed", "blocks"):
        with pytest.raises(InvdiffError, match="was not measured"):
            load_prior(weights, precision=kind)  # type: ignore[arg-type]
    found = replace(isotropic(), prior=load_weights(weights).fingerprint, bfloat16_from=0.2)
    save(found, beside(weights))
    assert load_prior(weights, precision="mixed").precision == "mixed"  # type: ignore[attr-defined]
    assert precision.bfloat16_from(str(weights)) == 0.2
    monkeypatch.setattr(precision, "multiplies", lambda device: True)
    assert precision.settled("auto", str(weights), "cpu") == "mixed"  # blocks were not measured
    with pytest.raises(InvdiffError, match="was not measured"):
        load_prior(weights, precision="blocks")
    assert found.fingerprint == replace(found, bfloat16_from=None).fingerprint
    beside(weights).write_text("[]")
    assert precision.bfloat16_from(str(weights)) is None


@pytest.mark.parametrize("kind", ["mixed", "blocks"])
def test_a_run_keeps_its_precision(kind: AskedPrecision, tmp_path: Path) -> None:
    photo = Path(__file__).parents[2] / "examples" / "alpacas-small.png"
    done = invdiff.restore(
        "denoise", photo, noise=0.1, samples=1, steps=2, precision=kind, progress=False
    )
    done.save(tmp_path / "one")
    assert json.loads((tmp_path / "one/run.json").read_text())["precision"] == kind
    assert (
        main(["restore", "--from", f"{tmp_path}/one", "--quiet", "--out", f"{tmp_path}/two"]) == 0
    )
    for name in ("estimate.png", "overview.png"):
        files = [tmp_path / run / name for run in ("one", "two")]
        assert files[0].read_bytes() == files[1].read_bytes()
