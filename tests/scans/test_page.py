"""docs/mri-and-ct.md: its samples run, and give what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from invdiff import operators as ops
from invdiff.core import cache as kept
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "mri-and-ct.md").read_text(encoding="utf-8")
SAMPLES = [part.split("```")[0] for part in PAGE.split("```python\n")[1:]]


def run(index: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The names that a sample defines."""
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    exec(compile(SAMPLES[index], "mri-and-ct.md", "exec"), names)
    return names


def test_the_sample_of_k_space(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sigpy")
    names = run(0, monkeypatch)
    assert "true acceleration 8.04" in capsys.readouterr().out
    problem, image = names["problem"], names["image"]
    residual = torch.view_as_real(problem.residual(image))[problem.y != 0]  # type: ignore[attr-defined]
    share = float(residual.square().mean()) / problem.sigma_y**2  # type: ignore[attr-defined]
    assert f"{share:.1f}" == "0.8" and "leaves 0.8 of its square" in PAGE
    A = problem.A  # type: ignore[attr-defined]
    n = A.restrict(GaussianNoise(1.0).sample(torch.zeros_like(problem.y), Rng.of(0)))  # type: ignore[attr-defined]
    left = torch.view_as_real(n - A(A.solve(A.adjoint(n), 0.02)))[n != 0].square().mean()
    assert f"{float(left):.1f}" == "0.5" and "of white noise it leaves 0.5" in PAGE


def test_the_sample_of_a_trajectory(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("finufft")
    A = run(1, monkeypatch)["A"]
    assert A(torch.ones(1, 2, 64, 64)).shape == (1, 4, 40 * 128)  # type: ignore[operator]


def test_the_sample_of_ct(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = run(2, monkeypatch)
    assert "181 views of 160 bins" in capsys.readouterr().out
    A, few, image = names["A"], names["few"], names["image"]
    assert A(image).shape == few.y.shape  # type: ignore[operator, attr-defined]
    assert -6.2 < names["shift"] < -5.6  # type: ignore[operator]


def test_sizes_that_fit() -> None:
    stated = re.findall(r"(\d+)(?: views)? of\s(\d+) x \2", PAGE.split("### Size")[1])
    assert len(stated) == 3
    for views, side in stated:
        assert ops.largest_side(int(views)) == int(side)
    assert kept.LIMIT == 4e9 and kept.WORTH == 4e6 and "4 GB at most" in PAGE
