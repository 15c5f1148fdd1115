"""A geometry is what a sinogram, an operator and a reconstruction share."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from invdiff import Geometry, Radon, fbp, sparse_view
from invdiff.core import InvdiffError
from invdiff.core.encode import decode, encode
from invdiff.scans import Sinogram

SIZE = (24, 20)
PARALLEL = Geometry(sparse_view(30), 40, 0.9, 1.5)
FAN = Geometry(sparse_view(40, 360), 44, 0.8, -0.7, 60.0)


def blob(size: tuple[int, int], pixel: float = 1.0) -> torch.Tensor:
    """A Gaussian of width 3 off the centre, on pixels of any side; (1, 1, H, W), float64."""
    rows, columns = ((torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * pixel for n in size)
    away = (columns[None, :] - 2) ** 2 + (rows[:, None] + 3) ** 2
    return torch.exp(-away / 18)[None, None]


@pytest.mark.parametrize("geometry", [PARALLEL, FAN])
def test_an_operator_and_its_geometry_are_there_and_back(geometry: Geometry) -> None:
    A = Radon.of(geometry, SIZE, pixel=0.5, cg_iterations=7, mode="rays")
    assert A.geometry == geometry and A.pixel == 0.5 and A.cg_iterations == 7
    plain = Radon(geometry.angles, SIZE, geometry.detectors, geometry.pitch, geometry.shift, 0.5,
                  geometry.source)  # fmt: skip
    torch.testing.assert_close(A(blob(SIZE)), plain(blob(SIZE)), rtol=0, atol=1e-13)
    assert Radon.of(Geometry((0.0,)), SIZE).geometry.detectors == math.ceil(math.hypot(*SIZE))


@pytest.mark.parametrize("geometry", [PARALLEL, FAN])
def test_another_unit_is_the_same_scan(geometry: Geometry) -> None:
    """Pixels of half the side: a smooth object has nearly the same line integrals.

    Linear interpolation of a Gaussian of width 3 errs by some (1/3)^2 / 12 = 0.9 percent at pixels
    of 1, and 4 times less at pixels of 1/2.
    """
    coarse = Radon.of(geometry, SIZE)(blob(SIZE))
    halved = (2 * SIZE[0], 2 * SIZE[1])
    fine = Radon.of(geometry.rescaled(2), halved, pixel=0.5)(blob(halved, 0.5))
    gap = (fine - coarse).abs().max() / coarse.max()
    assert gap < 0.015
    wrong = Radon.of(geometry, halved, pixel=0.5)(blob(halved, 0.5))
    assert (wrong - coarse).abs().max() / coarse.max() > 0.3
    torch.testing.assert_close(
        geometry.rescaled(2).rescaled(0.5).bins(), geometry.bins(), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("geometry", [PARALLEL, FAN])
def test_a_detector_that_covers_sees_all(geometry: Geometry) -> None:
    """In every view: the sum of a view of parallel rays is that of the image, and at the ends of a
    detector of a fan nothing is seen."""
    wide = geometry.covering(SIZE)
    ones = torch.ones(1, 1, *SIZE, dtype=torch.float64)
    more = dataclasses.replace(wide, detectors=wide.detectors + 8)
    seen = Radon.of(more, SIZE)(ones)[0, 0] > 1e-9
    assert not bool(seen[:, :4].any()) and not bool(seen[:, -4:].any())
    narrow = dataclasses.replace(wide, detectors=wide.detectors - 12)
    less = Radon.of(narrow, SIZE)(ones)[0, 0] > 1e-9
    assert bool((less[:, 0] | less[:, -1]).any())


def test_reconstruction_by_geometry() -> None:
    for geometry in (Geometry(sparse_view(90), 40), Geometry(sparse_view(180, 360), 44, source=60)):
        A, image = Radon.of(geometry, SIZE), blob(SIZE)
        y = A(image)
        found = fbp(y, geometry, size=SIZE)
        assert torch.equal(found, fbp(y, A))
        assert (found - image).abs().max() < 0.05
        assert torch.equal(fbp(y, Radon.of(geometry, SIZE), size=SIZE), found)
        turned = dataclasses.replace(geometry, angles=tuple(-a for a in geometry.angles))
        assert (fbp(y, turned, size=SIZE) - image).abs().max() > 0.3


def test_a_sinogram_has_one() -> None:
    z = torch.rand(40, 44)
    s = Sinogram(z, FAN.angles, None, torch.ones_like(z, dtype=torch.bool), source=60.0)
    assert s.geometry == Geometry(FAN.angles, 44, source=60.0)
    A = s.radon(SIZE, shift=0.5, pitch=2.0)
    assert A.geometry == Geometry(FAN.angles, 44, 2.0, 0.5, 120.0)
    chosen = torch.tensor([3, 1, 30])
    assert s.views(chosen).geometry == s.geometry.views(chosen)
    assert s.geometry.views([0]).angles == (0.0,)


def test_it_is_written_and_read() -> None:
    for geometry in (PARALLEL, FAN):
        assert decode(json.loads(json.dumps(encode(geometry, {}))), {}) == geometry
    assert repr(FAN) == (
        "Geometry(angles=(0.0, ..., 351.0: 40 in all), detectors=44, pitch=0.8, shift=-0.7, "
        "source=60.0)"
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Geometry(()), "at least one angle"),
        (lambda: Geometry((math.nan,)), "finite number"),
        (lambda: Geometry((0.0,), -1), "1 to 1000000 bins"),
        (lambda: Geometry((0.0,), 5, 0.0), "pitch above 0"),
        (lambda: Geometry((0.0,), source=-2.0), "distance above 0"),
        (lambda: Geometry("abc"), "tuple or a list"),  # type: ignore[arg-type]
        (lambda: FAN.covering((90, 90)), "too near an image whose corners reach 63.64"),
        (lambda: FAN.rescaled(0), "pitch above 0"),
        (lambda: Radon.of(FAN, (100, 100)), "inside an image"),
        (lambda: Radon.of((0.0,), SIZE), "must be a Geometry"),  # type: ignore[arg-type]
        (lambda: fbp(torch.zeros(1, 1, 30, 40), PARALLEL), "give size"),
        (lambda: fbp(torch.zeros(1, 1, 29, 40), PARALLEL, size=SIZE), "30 views and 40 bins"),
        (lambda: fbp(torch.zeros(1, 1, 30, 40), Radon.of(PARALLEL, SIZE), size=(3, 3)), "is for"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(make, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvdiffError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
