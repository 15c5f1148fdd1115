"""The held-out loss, the log that is read again, and the pictures beside the card."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from invdiff.priors.base import Denoiser
from invdiff.priors.photo import PhotoPrior
from invdiff.priors.photo_net import PhotoNet, PhotoNetConfig
from invdiff.train.drawings import draw_curve, draw_samples, read_log, sheet, visible
from invdiff.train.recipe import Recipe
from invdiff.train.validation import held_out_loss, interval, levels, measure, some_of

D = 0.6
RECIPE = Recipe(
    name="tiny",
    net=PhotoNetConfig(
        widths=(8, 8), blocks=(1, 1), up_blocks=(1,), embedding=16, sigma_data=D, channels=3
    ),
    attribution="Made by a test.",
)


def test_levels_stand_for_the_law_of_the_recipe() -> None:
    """Weights sum to 1; many of them have the law's mean of ln sigma, few lie within its range."""
    r = replace(RECIPE, tail=0.25, p_mean=-1.0, p_std=1.1, sigma_min=0.002, sigma_max=160.0)
    assert sum(w for _, w in levels(r)) == pytest.approx(1)
    assert all(0.002 <= sigma <= 160 for sigma, _ in levels(r))
    mean = 0.75 * -1.0 + 0.25 * (math.log(0.002) + math.log(160)) / 2
    assert sum(w * math.log(s) for s, w in levels(r, 400, 400)) == pytest.approx(mean, abs=1e-6)


def test_the_held_out_loss_of_an_untrained_network() -> None:
    """F = 0 leaves E target^2, which the EDM coefficients make 1 for data of square sigma_data^2.

    The square of u s + v z with u^2 + v^2 = 1 has a variance of at most 2.
    """
    prior = PhotoPrior(PhotoNet(RECIPE.net))
    x = D * torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).sign()
    loss = held_out_loss(prior, x, RECIPE)
    assert abs(loss - 1) < 4 * math.sqrt(2 / x.numel())
    assert held_out_loss(prior, x, RECIPE) == loss
    assert held_out_loss(prior, 2 * x, RECIPE) > 1.2


def test_the_psnr_of_the_log_is_that_of_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A denoiser that leaves x as it is has the error sigma: PSNR = 20 log10(2 / sigma)."""
    prior = PhotoPrior(PhotoNet(RECIPE.net))
    monkeypatch.setattr(prior, "denoise", lambda x, sigma: x)
    x = torch.zeros(16, 3, 32, 32)
    for sigma, value in measure(prior, x, RECIPE)["psnr"].items():
        # the mean square of n normals has a relative deviation of sqrt(2 / n)
        width = 4 * 10 / math.log(10) * math.sqrt(2 / x.numel()) + 1e-3
        assert abs(value - 20 * math.log10(2 / float(sigma))) < width


@pytest.mark.parametrize(("count", "side", "kept"), [(12, 256, 2), (200, 28, 64), (3, 900, 1)])
def test_few_held_out_images_are_measured_in_between(count: int, side: int, kept: int) -> None:
    x = torch.empty(1, 1, 1, 1).expand(count, 3, side, side)
    assert len(some_of(x)) == kept


def test_a_training_is_measured_twenty_times() -> None:
    assert [interval(n) for n in (3, 20, 6000)] == [1, 1, 300]


def test_a_log_with_a_torn_line_and_repeated_steps(tmp_path: Path) -> None:
    lines = ['{"step": 2, "loss": 1}', '{"step": 4, "lo', '{"step": 3, "loss": 5}', "7",
             '{"step": 2, "loss": 4}', ""]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    rows = read_log(tmp_path / "log.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [(2, 4), (3, 5)]


def pixels(path: Path) -> np.ndarray:
    """A picture as an array (H, W, 3)."""
    return np.array(Image.open(path).convert("RGB")).astype(int)


def test_the_curve_shows_what_the_log_holds(tmp_path: Path) -> None:
    """Without held-out images there is one panel; other values give another picture."""
    rows = [{"step": s, "loss": 1 / s} for s in (1, 2, 3)]
    draw_curve(rows, tmp_path / "alone.png")
    held = [row | {"held_out_loss": 2 / row["step"], "psnr": {"0.1": 20 + row["step"]}}
            for row in rows]  # fmt: skip
    draw_curve(held, tmp_path / "held.png")
    other = [json.loads(json.dumps(row)) for row in held]
    other[1]["held_out_loss"] = 9
    draw_curve(other, tmp_path / "other.png")
    alone, first, second = (pixels(tmp_path / f"{n}.png") for n in ("alone", "held", "other"))
    assert first.shape[1] > 1.5 * alone.shape[1]
    half = first.shape[1] // 2
    assert (first[:, :half] != second[:, :half]).any()
    assert {p.name for p in tmp_path.iterdir()} == {"alone.png", "held.png", "other.png"}


def test_a_sheet_keeps_every_image_in_its_place() -> None:
    """Two rows, the second shorter: grey values, white between, complex images as magnitudes."""
    x = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 1, 4, 4)
    found = sheet([x[:3], x[3:]])
    assert found.shape == (1, 16, 24)
    for k, (row, column) in enumerate(((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))):
        cell = found[0, 8 * row + 2 : 8 * row + 6, 8 * column + 2 : 8 * column + 6]
        assert torch.allclose(cell, torch.tensor(k / 4))
    assert bool((found[0, 8:, 16:] == 1).all())
    parts = torch.tensor([0.3, -0.4])[None, :, None, None].expand(1, 2, 4, 4)
    assert torch.allclose(visible(parts), torch.tensor(0.5))


def test_the_samples_are_those_of_the_prior(tmp_path: Path) -> None:
    """A prior that knows one image only draws it, in every place of the sheet."""
    image = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return image.expand_as(x)

    draw_samples(Denoiser(denoise), (1, 8, 8), tmp_path / "samples.png")
    found = pixels(tmp_path / "samples.png")[..., 0]
    assert found.shape == (24, 72)
    expected = ((image[0, 0] + 1) / 2 * 255).round().int().numpy()
    for row in range(2):
        for column in range(6):
            cell = found[12 * row + 2 : 12 * row + 10, 12 * column + 2 : 12 * column + 10]
            assert abs(cell - expected).max() <= 1
