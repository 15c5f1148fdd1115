"""The figures: they hold the pictures at the right place, and say what they show."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invdiff.files.figures import overview, uncertainty_picture


def colours(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("shape", [(3, 20, 24), (1, 300, 40), (3, 30, 500), (1, 1, 1)])
def test_uncertainty(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """The picture has a dark half and a bright half, and a scale beside it."""
    std = torch.full(shape, 0.01)
    std[..., shape[2] // 2 :] = 0.2
    uncertainty_picture(std, 4, tmp_path / "u.png")
    image = colours(tmp_path / "u.png")
    assert 200 < image.shape[1] < 2000 and 200 < image.shape[0] < 2000
    bright = (image.sum(2) > 550) & (image.sum(2) < 765) & (image[..., 2] < 200)
    assert bright.mean() > 0.01  # inferno's bright yellow; white paper is left out


def test_channels_are_joined(tmp_path: Path) -> None:
    """Root mean square: (3, 0, 0) looks like sqrt(3) in all channels."""
    std = torch.zeros(3, 8, 8)
    std[0] = torch.linspace(0.1, 0.3, 64).reshape(8, 8)
    uncertainty_picture(std, 2, tmp_path / "a.png")
    uncertainty_picture(std[:1] / 3**0.5, 2, tmp_path / "b.png")
    assert np.abs(colours(tmp_path / "a.png") - colours(tmp_path / "b.png")).mean() < 0.1


@pytest.mark.parametrize("count", [1, 3, 6])
def test_overview(tmp_path: Path, count: int) -> None:
    """Every panel is there: each has its own pure colour."""
    shades = torch.linspace(0.2, 0.9, count)
    panels = [(f"panel {i}", torch.full((1, 20, 24), float(v))) for i, v in enumerate(shades)]
    colour = torch.zeros(3, 40, 48)
    colour[1] = 1
    panels.append(("green", colour))
    overview(panels, torch.full((3, 40, 48), 0.1) if count > 1 else None, tmp_path / "o.png", "all")
    image = colours(tmp_path / "o.png")
    assert image.shape[1] > 600
    for shade in shades:
        level = round(float(shade) * 255)
        assert (np.abs(image - level).max(2) <= 1).mean() > 0.01
    assert (np.abs(image - [0, 255, 0]).max(2) == 0).mean() > 0.01


def test_large_pictures_are_shrunk(tmp_path: Path) -> None:
    uncertainty_picture(torch.rand(1, 1500, 2500), 4, tmp_path / "u.png")
    assert max(colours(tmp_path / "u.png").shape) < 1600
