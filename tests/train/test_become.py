"""Random phases and moving clips: what is kept, what is drawn, and from which seed."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from invdiff.train.become import BECOME, CANVAS, FRAMES, moving_clips, random_phase

SIDE = 48


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def greys(n: int, side: int = SIDE) -> Tensor:
    """Images (n, 1, side, side) of independent pixels, uniform on [-1, 1]."""
    return 2 * torch.rand(n, 1, side, side, generator=generator(9)) - 1


@pytest.mark.parametrize("name", BECOME)
def test_a_seed_is_a_result(name: str) -> None:
    x = greys(6, 28)
    found = [BECOME[name](x, generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2]) == (name == "")


# Complex images


def test_magnitudes_are_kept() -> None:
    """cos and sin in float32: a relative error of a few times 6e-8."""
    x = greys(5)
    found = random_phase(x, generator())
    assert found.shape == (5, 2, SIDE, SIDE)
    magnitude = found.double().square().sum(1).sqrt()
    torch.testing.assert_close(magnitude, (x[:, 0].double() + 1) / 2, rtol=1e-6, atol=1e-7)


def test_the_phase_is_a_cubic() -> None:
    """Its fourth differences vanish along rows and columns; its first ones do not."""
    found = random_phase(torch.ones(20, 1, SIDE, SIDE), generator()).double().numpy()
    phase = np.unwrap(np.unwrap(np.arctan2(found[:, 1], found[:, 0]), axis=1), axis=2)
    for axis in (1, 2):
        assert np.abs(np.diff(phase, 4, axis=axis)).max() < 16 * 1e-6 * np.abs(phase).max()
        assert np.abs(np.diff(phase, 1, axis=axis)).max(axis=(1, 2)).min() > 1e-4


def test_the_constant_phase_is_uniform() -> None:
    """The mean resultant of n uniform angles has a mean square of 1 / n; 16 of these."""
    n = 400
    centre = random_phase(torch.ones(n, 1, 3, 3), generator())[:, :, 1, 1]
    assert float(centre.mean(0).square().sum()) < 16 / n


# Clips


def centres(clips: Tensor) -> Tensor:
    """Centre of mass (row, column) of every frame's light, (n, T, 2)."""
    light = clips.double() + 1
    at = torch.arange(CANVAS, dtype=torch.float64)
    total = light.sum((2, 3))
    return (
        torch.stack([(light.sum(3) * at).sum(2), (light.sum(2) * at).sum(2)], dim=2)
        / total[..., None]
    )


def squares(n: int) -> Tensor:
    """n white squares of 8 x 8 in the middle of black images of 28 x 28."""
    x = torch.full((n, 1, 28, 28), -1.0)
    x[..., 10:18, 10:18] = 1
    return x


def test_clips_are_in_range_and_keep_their_light() -> None:
    """One 8 x 8 square at half size is 16 pixels of white, wherever it is; two are up to 32."""
    clips = moving_clips(squares(80), generator())
    assert clips.shape == (40, FRAMES, CANVAS, CANVAS)
    assert float(clips.min()) == -1 and float(clips.max()) <= 1
    light = (clips + 1).sum((2, 3)) / 2
    single = ((light - 16).abs() < 1e-3).all(1)
    assert 40 * 0.5 - 4 * 10**0.5 < int(single.sum()) < 40 * 0.5 + 4 * 10**0.5
    assert bool((light > 16 - 1e-3).all()) and bool((light < 32 + 1e-3).all())


def test_items_move_straight_and_are_reflected() -> None:
    """A speed's components keep their size from frame to frame, except where it is reflected."""
    clips = moving_clips(squares(400), generator(3))
    single = (((clips + 1).sum((2, 3)) / 2 - 16).abs() < 1e-3).all(1)
    at = centres(clips[single])
    step = at.diff(dim=1)
    turned = (step.diff(dim=1).abs() > 1e-4).any(1)
    straight = step[~turned.any(1)]
    assert len(straight) > 20
    assert float((straight - straight[:, :1]).abs().max()) < 1e-4
    assert float(step.norm(dim=2).max()) < 2.5 + 1e-4
    bounced = step[turned.any(1)]
    assert len(bounced) > 5
    before, after = bounced[:, 0].abs(), bounced[:, -1].abs()
    same = (before - after).abs() < 1e-4
    assert float(same.double().mean()) > 0.6, "but for bounces within the first or the last step"


def test_half_a_pixel_is_linear_interpolation() -> None:
    """The frame of a moved item is the mean of the whole-pixel ones around it, by its fractions."""
    from invdiff.train.become import _place

    item = torch.rand(1, 1, 5, 6, generator=generator())
    found = _place(item, torch.tensor([[[3.25, 7.5]]]))[0, 0]
    expected = torch.zeros(CANVAS, CANVAS)
    for row, p in ((3, 0.75), (4, 0.25)):
        for col, q in ((7, 0.5), (8, 0.5)):
            expected[row : row + 5, col : col + 6] += p * q * item[0, 0]
    torch.testing.assert_close(found, expected)
    assert math.isclose(float(found.sum()), float(item.sum()), rel_tol=1e-6)
