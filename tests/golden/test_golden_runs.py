"""Runs that earlier versions wrote are read, and repeated to the same pixels: tests/golden/runs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invdiff.cli import main
from invdiff.priors.load import load_prior
from invdiff.sampling.result import Result
from invdiff.sampling.run import again
from invdiff.tasks import TASKS

RUNS = sorted(path for path in (Path(__file__).parent / "runs").iterdir() if path.is_dir())
PICTURES = ("mean", "best", "sample-1", "sample-2")


def test_every_task_has_a_run():
    assert {path.name for path in RUNS} == set(TASKS)


def moved(before, after, name):
    """Largest and mean gap of a picture in two folders, in grey levels; 0 where neither has it."""
    files = [folder / f"{name}.png" for folder in (before, after)]
    if not files[0].exists():
        return 0, 0.0
    with Image.open(files[0]) as one, Image.open(files[1]) as other:
        assert one.size == other.size and one.mode == other.mode
        gap = np.abs(np.asarray(one).astype(int) - np.asarray(other))
        return int(gap.max()), float(gap.mean())


def moved_by_rounding(folder):
    """What a rounding of another kind may move the samples by, largest and mean, in grey levels.

    The denoiser changes by 1e-5, ten times what two processors differ by in one evaluation, and
    conjugate gradients stop an iteration sooner or later. In three steps some of them are left
    unfinished, and multiply what is changed. The mean is that of the first change alone.
    """
    result = Result.load(folder)
    prior = load_prior(result.config["prior_spec"])
    plain = again(result, prior).samples
    denoise, g = prior.denoise, torch.Generator().manual_seed(0)

    def rounded(x, *rest, **more):
        found = denoise(x, *rest, **more)
        return found + 1e-5 * found.abs().max() * torch.randn(found.shape, generator=g)

    prior.denoise = rounded
    stops = result.config["solver"]["fields"].get("tol", 1.0)
    gaps = []
    for factor in (0.7, 1.0, 1.4):
        if "tol" in result.config["solver"]["fields"]:
            result.config["solver"]["fields"]["tol"] = factor * stops
        gaps.append((again(result, prior).samples - plain).abs())
    level = 255 / (prior.value_range[1] - prior.value_range[0])
    return level * max(float(gap.max()) for gap in gaps), level * float(gaps[1].mean())


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: path.name)
def test_a_run_is_repeated_to_the_same_pixels(folder, tmp_path):
    """To a grey level; on a processor that rounds otherwise, to what rounding does to the run."""
    out = tmp_path / "again"
    assert main(["restore", "--from", str(folder), "--quiet", "--out", str(out)]) == 0
    assert moved(folder, out, "estimate")[0] <= 1
    largest, mean = (
        max(gap) for gap in zip(*(moved(folder, out, n) for n in PICTURES), strict=True)
    )
    if largest > 1:
        most, usual = moved_by_rounding(folder)
        assert largest <= 2 * most and mean <= max(1.0, 2 * usual)


def test_another_seed_is_seen():
    """The negative twin."""
    result = Result.load(next(path for path in RUNS if path.name == "denoise"))
    prior = load_prior(result.config["prior_spec"])
    same = again(result, prior).samples
    assert float((same - result.samples).abs().max()) < 1e-3
    result.config["seed"] += 1
    assert not torch.allclose(again(result, prior).samples, result.samples, atol=0.05)
