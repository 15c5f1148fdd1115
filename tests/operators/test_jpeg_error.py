"""The error that a JPEG's tables tell: against integrals of the law, and against real files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.integrate import quad
from scipy.ndimage import gaussian_filter

from invdiff.operators.jpeg import JPEG, blocks, decode
from invdiff.operators.jpeg_error import noise_from_tables, quantisation_error

EXAMPLE = Path(__file__).parents[2] / "examples" / "alpacas.webp"


def photograph(blur: float = 0.0) -> np.ndarray:
    """(128, 128, 3) uint8 from the middle of a photograph."""
    pixels = np.asarray(Image.open(EXAMPLE).convert("RGB")).astype(float)
    pixels = gaussian_filter(pixels, (blur, blur, 0)) if blur else pixels
    top, left = (side // 2 - 64 for side in pixels.shape[:2])
    return pixels[top : top + 128, left : left + 128].round().astype(np.uint8)


def test_the_error_is_an_integral_of_the_law_of_laplace() -> None:
    """Zeros: the integral of c^2 over (-q/2, q/2), by quadrature; others: q^2 / 12."""
    n, steps = 4000, torch.arange(1.0, 65.0).reshape(8, 8).double()
    zeros = torch.linspace(1, n - 1, 64).round().long().reshape(8, 8)
    decoded = torch.where(torch.arange(n)[:, None, None] < zeros, 0.0, steps)
    found = quantisation_error(decoded, steps)
    for q, count, error in zip(steps.flatten(), zeros.flatten(), found.flatten(), strict=True):
        p0, q = int(count) / n, float(q)
        b = -q / (2 * math.log(1 - p0))
        inner = 2 * quad(lambda c: c**2 * math.exp(-c / b) / (2 * b), 0, q / 2, epsabs=0)[0]  # noqa: B023
        assert float(error) == pytest.approx(inner + (1 - p0) * q**2 / 12, rel=1e-9)
        # the uniform law, which knows nothing of the zeros, says more
        assert float(error) < q**2 / 12


@pytest.mark.parametrize("sign", [0.0, 1.0])
def test_all_zeros_and_none(sign: float) -> None:
    """Shares of 0 and 1 stay within half a coefficient, so that nothing is infinite."""
    q = torch.full((8, 8), 10.0)
    error = quantisation_error(sign * q.expand(50, 8, 8), q)
    assert bool(error.isfinite().all())
    a = math.log(100)  # one of a hundred is taken to be no zero
    inner = (5 / a) ** 2 * (2 - (a**2 + 2 * a + 2) / 100)
    expected = 100 / 12 if sign else inner + 100 / 12 / 100
    assert float(error[0, 0]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("quality", [50, 85, 95])
@pytest.mark.parametrize("blur", [0.0, 2.0])
def test_it_is_of_the_order_of_the_true_error(
    tmp_path: Path, blur: float, quality: int, subsampling: str
) -> None:
    """Never below 0.95 of it, and up to 10 times as large where a smooth picture meets coarse
    tables: for zeros the law knows an upper bound only."""
    clean = photograph(blur)
    file = JPEG(quality, subsampling).encode(torch.from_numpy(clean).permute(2, 0, 1))  # type: ignore[arg-type]
    (tmp_path / "a.jpg").write_bytes(file)
    true = (decode(file).double() / 255 - torch.from_numpy(clean).permute(2, 0, 1) / 255).square()
    estimate = noise_from_tables(tmp_path / "a.jpg")
    assert estimate is not None
    assert 0.95 < estimate.sigma / math.sqrt(float(true.mean())) < 10


def test_known_levels(tmp_path: Path) -> None:
    """Blurred photographs at quality 85 with 4:2:0: 0.0229 and 0.0225 were measured on two."""
    Image.fromarray(photograph(2.0)).save(tmp_path / "a.jpg", quality=85)
    estimate = noise_from_tables(tmp_path / "a.jpg")
    assert estimate is not None and 0.0215 < estimate.sigma < 0.0240
    brightness = noise_from_tables(tmp_path / "a.jpg", luma=True)
    assert brightness is not None and brightness.sigma < estimate.sigma / 2


def test_grey_and_other_files(tmp_path: Path) -> None:
    """A grey file tells its brightness; what is no JPEG, or CMYK, tells nothing."""
    grey = Image.fromarray(photograph()).convert("L")
    grey.save(tmp_path / "g.jpg", quality=60)
    found = noise_from_tables(tmp_path / "g.jpg")
    with Image.open(tmp_path / "g.jpg") as image:
        table = torch.tensor(image.quantization[0]).reshape(8, 8)  # type: ignore[attr-defined]
        plane = torch.from_numpy(np.array(image)).float()[None] - 128
    expected = math.sqrt(float(quantisation_error(blocks(plane), table).mean())) / 255
    assert found is not None and found.sigma == pytest.approx(expected, rel=1e-6)
    grey.save(tmp_path / "g.png")
    grey.convert("CMYK").save(tmp_path / "c.jpg")
    assert noise_from_tables(tmp_path / "g.png") is None
    assert noise_from_tables(tmp_path / "c.jpg") is None


def test_odd_sizes_and_other_samplings(tmp_path: Path) -> None:
    """The border is repeated; a file of one block is enough."""
    for size, sampling in (((37, 21), 2), ((8, 8), 1), ((3, 5), 0), ((1, 1), 2)):
        cut = Image.fromarray(photograph()).crop((0, 0, *size))
        cut.save(tmp_path / "a.jpg", quality=80, subsampling=sampling)
        found = noise_from_tables(tmp_path / "a.jpg")
        # a step of at most 51 at quality 80: 51 / sqrt(12), times the gain of blue, 1.8
        assert found is not None and 0.005 < found.sigma < 0.1
