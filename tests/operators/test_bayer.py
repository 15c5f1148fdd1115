"""Colour filter arrays against their definition in loops."""

from __future__ import annotations

import pytest
import torch

from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.operators import Bayer


@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1), (1, 2)])
def test_mosaic_in_loops(pattern, size):
    x = seeded(2, 3, *size)
    y = Bayer(pattern)(x)
    assert y.shape == (2, 1, *size) == (2, *Bayer(pattern).y_shape((3, *size)))
    for i in range(size[0]):
        for j in range(size[1]):
            channel = "RGB".index(pattern[2 * (i % 2) + j % 2])
            assert torch.equal(y[:, 0, i, j], x[:, channel, i, j])


def test_the_adjoint_puts_each_value_back_and_nothing_else():
    x = seeded(2, 3, 5, 4)
    back = Bayer().pinv(Bayer()(x))
    seen = back != 0
    assert torch.equal(back[seen], x[seen])
    assert torch.equal(seen.sum(1), torch.ones(2, 5, 4, dtype=torch.long))
    # of 20 pixels: even rows 3 x 2 red and 3 x 2 green, odd rows 2 x 2 green and 2 x 2 blue
    assert seen[0].flatten(1).sum(1).tolist() == [6, 10, 4]


def test_a_video_is_measured_frame_by_frame():
    x = seeded(2, 3, 4, 5, 4)
    y = Bayer("GRBG")(x)
    assert y.shape == (2, 1, 4, 5, 4)
    for t in range(4):
        assert torch.equal(y[:, :, t], Bayer("GRBG")(x[:, :, t]))


def test_errors_are_sentences():
    for pattern in ("RGBG", "rggb", ""):
        with pytest.raises(InvdiffError, match="one of RGGB, BGGR, GRBG, GBRG"):
            Bayer(pattern)
    for shape in ((1, 4, 4), (3, 4), (3, 1, 2, 4, 4)):
        with pytest.raises(InvdiffError, match="3, height, width"):
            Bayer().y_shape(shape)
