"""Turning pictures upright."""

import pytest
import torch
from PIL import Image, ImageOps

from invdiff.tasks.pictures import upright


@pytest.mark.parametrize("turn", range(1, 9))
def test_upright_is_pillows(turn: int) -> None:
    """For each of the eight EXIF orientations."""
    stored = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3)
    image = Image.fromarray(stored[0].numpy())
    image.getexif()[0x0112] = turn
    seen = ImageOps.exif_transpose(image)
    assert upright(stored, turn)[0].tolist() == [
        [seen.getpixel((x, y)) for x in range(seen.width)] for y in range(seen.height)
    ]
