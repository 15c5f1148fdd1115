"""Pictures whose pixels say where they are."""

from pathlib import Path

import numpy as np
from PIL import Image


def coordinates(index: int, h: int, w: int) -> np.ndarray:
    """An image whose pixels say where they are: (row, column, number of the image)."""
    rows, cols = np.mgrid[:h, :w]
    return np.dstack([rows, cols, np.full((h, w), index)]).astype(np.uint8)


def save(path: Path, image: np.ndarray) -> None:
    """As a file of the path's suffix."""
    Image.fromarray(image).save(path)
