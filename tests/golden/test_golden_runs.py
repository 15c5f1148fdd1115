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
PICTURES = ("estimate", "mean", "best", "sample-1", "sample-2")


def test_every_task_has_a_run():
    assert {path.name for path in RUNS} == set(TASKS)


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: path.name)
def test_a_run_is_repeated_to_the_same_pixels(folder, tmp_path):
    """Convolutions of other processors round otherwise: by a grey level at most."""
    out = tmp_path / "again"
    assert main(["restore", "--from", str(folder), "--quiet", "--out", str(out)]) == 0
    for name in PICTURES:
        file = f"{name}.png"
        if (folder / file).exists():
            with Image.open(folder / file) as before, Image.open(out / file) as after:
                assert before.size == after.size and before.mode == after.mode
                gap = np.asarray(before).astype(int) - np.asarray(after)
            assert np.abs(gap).max() <= 1


def test_another_seed_is_seen():
    """The negative twin."""
    result = Result.load(RUNS[0])
    prior = load_prior(result.config["prior_spec"])
    same = again(result, prior).samples
    assert float((same - result.samples).abs().max()) < 1e-3
    result.config["seed"] += 1
    assert not torch.allclose(again(result, prior).samples, result.samples, atol=0.05)
