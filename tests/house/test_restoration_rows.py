"""The tables of restoration: complex images, images of any recipe, and what is refused."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from invdiff.core import InvdiffError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def restoration(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """benchmarks/restoration.py as a module."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module("restoration")
    sys.modules.pop("restoration", None)


def test_complex_images_are_scored_by_their_magnitude(restoration: ModuleType) -> None:
    """A turn of the phase costs nothing; the error of a magnitude is on [0, 1]."""
    g = torch.Generator().manual_seed(0)
    magnitude, phase = torch.rand(2, 16, 16, generator=g), torch.rand(2, 16, 16, generator=g)
    x = torch.stack([magnitude * phase.cos(), magnitude * phase.sin()], 1)
    turned = torch.stack([-x[:, 1], x[:, 0]], 1)
    assert restoration.quality(turned, x) > 100
    assert restoration.score(turned, x)[1] == pytest.approx(1)
    ten = torch.stack([magnitude.mul(0.0) + 0.5, magnitude * 0], 1)
    assert restoration.quality(ten + torch.tensor([0.1, 0])[:, None, None], ten) == pytest.approx(
        20, abs=1e-3
    )


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_noise_levels_are_on_the_scale_that_is_scored(
    restoration: ModuleType, channels: int
) -> None:
    """0.1 of a real or imaginary part on [0, 1]; twice that where images are on [-1, 1]."""
    truth = torch.zeros(4, channels, 64, 64)
    row = next(r for r in restoration.class_rows(truth) if r.task == "denoise")
    y = restoration.case(row, truth).problem.y
    expected = 0.1 if channels == 2 else 0.2
    assert float(y.std()) == pytest.approx(expected, rel=4 / (2 * y.numel()) ** 0.5)


@pytest.mark.parametrize(("side", "blur"), [(64, "1.0"), (65, "2.0"), (256, "2.0")])
def test_small_images_are_blurred_less(restoration: ModuleType, side: int, blur: str) -> None:
    titles = [r.title for r in restoration.class_rows(torch.zeros(1, 3, side, side))]
    assert any(f"Gaussian {blur}, " in title for title in titles)
    grey = restoration.class_rows(torch.zeros(1, 1, 32, 32))[0]
    assert "block mean" in grey.title and "block mean" not in titles[0]
    y = restoration.case(grey, torch.ones(1, 1, 32, 32)).problem
    x = torch.arange(32.0 * 32).reshape(1, 1, 32, 32)
    assert float(y.A(x)[0, 0, 0, 0]) == pytest.approx(float(x[0, 0, :4, :4].mean()))


def test_the_images_are_those_of_the_rule(restoration: ModuleType, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1010, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", train=pixels)
    found = restoration.held_out("fashion28", tmp_path / "images.npz", 12)
    expected = torch.from_numpy(pixels[10:22, None].astype(np.float32)) / 127.5 - 1
    torch.testing.assert_close(found, expected)
    with pytest.raises(InvdiffError, match="moving-fashion is a prior of clips"):
        restoration.held_out("moving-fashion", tmp_path / "images.npz", 12)


def test_another_prior_needs_its_data(
    restoration: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["restoration.py", "--prior", "brain"])
    assert restoration.main() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--data" in error


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_classical_answers_restore_every_kind_of_image(
    restoration: ModuleType, channels: int
) -> None:
    """Each has the shape of the images and is closer to smooth ones than a grey picture is."""
    v, u = torch.linspace(0, 3, 32)[:, None], torch.linspace(0, 2, 32)
    truth = torch.stack([0.5 * torch.sin(u + v + k) for k in range(channels)])[None]
    truth = truth.expand(2, -1, -1, -1).contiguous()
    for row in restoration.class_rows(truth):
        answer = row.baseline(restoration.case(row, truth))
        assert answer.shape == truth.shape, row.title
        assert float((answer - truth).norm()) < 0.5 * float(truth.norm()), row.title
