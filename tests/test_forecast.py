"""Time and memory before the first step: counted, measured, and refused with advice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import sentence
from invdiff import fields, restore
from invdiff.cli import main
from invdiff.core import InvdiffError, memory
from invdiff.priors.photo import PhotoPrior
from invdiff.restoration import forecast as module
from invdiff.restoration.forecast import Forecast, check_memory, forecast
from invdiff.restoration.job import Job, prepare
from invdiff.restoration.perform import perform
from invdiff.tasks import task_class


def job(folder: Path, solver: str = "auto", samples: int = 2, steps: int = 4) -> Job:
    np.save(folder / "a.npy", np.random.default_rng(0).random((16, 16, 3)))
    task = fields.build(task_class("denoise"), {"noise": 0.1}, "denoise")
    return prepare(
        task, folder / "a.npy", solver=solver, samples=samples, batch=1,
        configure=lambda s: s.with_steps(steps),
    )  # fmt: skip


@pytest.mark.parametrize("solver", ["auto", "ddrm", "diffpir", "dps"])
def test_evaluations_are_counted_and_pixels_stay(solver: str, tmp_path: Path) -> None:
    """Exactly, where a step costs the same for any image; the run is the same to the bit."""
    work = job(tmp_path, solver)
    before = perform(work, quiet=True)
    found = forecast(work)
    after = perform(work, quiet=True)
    assert torch.equal(before.result.samples, after.result.samples)
    assert torch.equal(before.result.estimate, after.result.estimate)
    spent = after.result.config["estimate_nfe"] + 2 * after.result.nfe
    assert found.evaluations == spent
    assert found.seconds >= found.evaluations * found.evaluation > 0


def test_seconds_and_memory_are_those_that_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an evaluation that takes half a second; scaled by the pixels of a larger picture."""
    monkeypatch.setattr(module, "_measured", lambda *_: (0.5, 3e6))
    work = job(tmp_path)
    found = forecast(work)
    assert found.evaluations * 0.5 <= found.seconds <= found.evaluations * 0.5 + 5
    assert found.row == 3e6 + module.STATES * 4 * 768
    monkeypatch.setattr(module, "LARGEST", 8)
    quarter = forecast(work)
    assert quarter.evaluation == 2.0 and quarter.row == 4 * 3e6 + module.STATES * 4 * 768
    monkeypatch.setattr(PhotoPrior, "tile", 4, raising=False)
    assert str(found).startswith(f"about {found.seconds:.0f} s and 0.0031 GB of memory")


@pytest.mark.parametrize(
    ("fixed", "free", "coupled", "advice"),
    [
        (0.0, 25e9, False, "give --batch 2."),
        (30e9, 25e9, False, "give fewer --samples."),
        (0.0, 5e9, False, "give a picture, or tiles of it, of 0.71 times its sides, or less."),
        (0.0, 25e9, True, "give fewer --samples, which this solver draws together."),
    ],
)
def test_too_little_memory_is_refused_with_advice(
    fixed: float, free: float, coupled: bool, advice: str
) -> None:
    needed = Forecast(1, 1, 1, fixed, 10e9, 4)
    sentence(lambda: check_memory(needed, free, coupled), advice, f"{free / 1e9:.2g} GB are free")
    check_memory(needed, 80e9, coupled)


def test_the_command_tells_or_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.random.default_rng(0).random((16, 16, 3)))
    args = ["restore", "denoise", "a.npy", "--noise", "0.1", "--steps", "2", "--samples", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "available", lambda device: 1000.0)
        assert main([*args, "--quiet"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and "GB of memory, and" in err
        assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]
        with pytest.raises(InvdiffError, match="GB of memory, and .*give"):
            restore("denoise", "a.npy", noise=0.1, steps=2, samples=2)
        restore("denoise", "a.npy", noise=0.1, steps=2, samples=2, progress=False)  # not measured
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert "forecast about " in out and "GB of memory: " in out
    assert "<00:00" in err and "2/2" in err  # the bar, with the time that is left


def test_the_limit_of_a_group_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "Path", lambda name: tmp_path)
    device = torch.device("cpu")
    whole = memory.available(device)
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert memory.available(device) == 2000.0 < whole
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available(device) > 2000.0
