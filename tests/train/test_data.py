"""Patches are pieces of the photographs, the right ones, and a function of (seed, step)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import coordinates
from torch import Tensor

from invdiff.priors.photo_net import PhotoNetConfig
from invdiff.train.data import PatchSampler, _half, centre_crops, to_x
from invdiff.train.recipe import Recipe

SIDE = 16
RECIPE = Recipe(
    name="tiny",
    net=PhotoNetConfig(),
    attribution="Made by a test.",
    exclude=("skip-",),
    hold_out=("held-",),
    hold_out_one_in=2,
    patch=SIDE,
    batch=10,
)
FULL, HALF = replace(RECIPE, halves=0.0), replace(RECIPE, halves=1.0)


def as_bytes(x: Tensor) -> np.ndarray:
    """Patches (n, 3, h, w) on [-1, 1] as (n, h, w, 3) on 0..255; they must be whole numbers."""
    values = (x.double() + 1) * 127.5
    assert (values - values.round()).abs().max() < 1e-4
    return values.round().permute(0, 2, 3, 1).numpy().astype(np.uint8)


def orientations(x: np.ndarray) -> list[np.ndarray]:
    """The eight images of a square (side, side, 3) under flips and transposition."""
    turned = [np.rot90(x, k) for k in range(4)]
    return turned + [t.transpose(1, 0, 2) for t in turned]


IMAGES = [coordinates(0, 40, 57), coordinates(1, 32, 33), coordinates(2, 90, 64)]
SHRUNK = [
    np.floor(im[: h // 2 * 2, : w // 2 * 2].reshape(h // 2, 2, w // 2, 2, 3).mean((1, 3)) + 0.5)
    for im in IMAGES
    for h, w in [im.shape[:2]]
]


def place(patch: np.ndarray, images: list[np.ndarray]) -> tuple[int, int, int, int]:
    """(image, top, left, orientation) of a patch; an assertion that it is a piece of an image."""
    image = images[patch[0, 0, 2]]
    top = int(np.argmax(image[:, 0, 0] == patch[..., 0].min()))
    left = int(np.argmax(image[0, :, 1] == patch[..., 1].min()))
    piece = image[top : top + SIDE, left : left + SIDE]
    assert piece.shape == (SIDE, SIDE, 3)
    found = [k for k, turned in enumerate(orientations(piece)) if np.array_equal(turned, patch)]
    assert len(found) == 1, "no piece of its image"
    return int(patch[0, 0, 2]), top, left, found[0]


@pytest.mark.parametrize(("recipe", "sources"), [(FULL, IMAGES), (HALF, SHRUNK)])
def test_patches_are_pieces_of_the_images(recipe: Recipe, sources: list[np.ndarray]) -> None:
    """Up to flips and transposition; all eight of these occur, and every place does."""
    sampler, seen = PatchSampler(IMAGES, recipe, "cpu"), list[tuple[int, int, int, int]]()
    for step in range(200):
        x = sampler(step)
        assert x.shape == (10, 3, SIDE, SIDE) and x.dtype == torch.float32
        seen += [place(patch, sources) for patch in as_bytes(x)]
    assert {s[3] for s in seen} == set(range(8))
    for i in range(3):
        h, w = sources[i].shape[:2]
        tops, lefts = {s[1] for s in seen if s[0] == i}, {s[2] for s in seen if s[0] == i}
        assert max(tops) <= h - SIDE and max(lefts) <= w - SIDE
        if recipe is FULL and i == 1:  # 17 tops and 18 lefts, about 230 draws
            assert {0, h - SIDE} <= tops and {0, w - SIDE} <= lefts


def test_images_at_half_size_are_block_means() -> None:
    """An image of twice the patch's side, or one more, gives a single patch: all of its means."""
    noise = np.random.default_rng(0).integers(0, 256, (33, 32, 3), dtype=np.uint8)
    expected = noise[:32].astype(float).reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3))
    expected = np.floor(expected + 0.5)
    for patch in as_bytes(PatchSampler([noise], HALF, "cpu")(0)):
        assert any(np.array_equal(patch, turned) for turned in orientations(expected))


def test_the_share_of_patches_at_half_size() -> None:
    recipe = replace(RECIPE, halves=0.35, batch=20)
    for i, patch in enumerate(as_bytes(PatchSampler(IMAGES, recipe, "cpu")(0))):
        place(patch, IMAGES if i < 13 else SHRUNK)


def test_images_are_chosen_by_their_area() -> None:
    """A binomial count, within four standard deviations."""
    sampler = PatchSampler(IMAGES, replace(FULL, batch=2000), "cpu")
    chosen = as_bytes(sampler(0))[:, 0, 0, 2]
    areas = np.array([im.shape[0] * im.shape[1] for im in IMAGES])
    for i, p in enumerate(areas / areas.sum()):
        assert abs((chosen == i).mean() - p) < 4 * (p * (1 - p) / 2000) ** 0.5


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    a, b = PatchSampler(IMAGES, RECIPE, "cpu"), PatchSampler(IMAGES, RECIPE, "cpu")
    forth = [a(step) for step in range(4)]
    torch.manual_seed(5)
    back = [b(step) for step in (3, 2, 1, 0)][::-1]
    assert all(torch.equal(x, y) for x, y in zip(forth, back, strict=True))
    assert not torch.equal(forth[0], forth[1])
    other = PatchSampler(IMAGES, replace(RECIPE, seed=1), "cpu")
    assert not torch.equal(other(0), forth[0])


def test_symmetries() -> None:
    """A patch is left, mirrored, or turned in all eight ways."""
    seen = {}
    for kind in ("all", "mirror", "none"):
        sampler = PatchSampler(IMAGES, replace(FULL, symmetries=kind), "cpu")
        found = [place(patch, IMAGES)[3] for step in range(20) for patch in as_bytes(sampler(step))]
        seen[kind] = len(set(found))
    assert seen == {"all": 8, "mirror": 2, "none": 1}


def test_a_batch_has_one_scale() -> None:
    """Block means by 1, 2 or 4 of the same patches; each occurs."""
    recipe = replace(FULL, scales=(1, 2, 4))
    sampler, plain = PatchSampler(IMAGES, recipe, "cpu"), PatchSampler(IMAGES, FULL, "cpu")
    seen = set()
    for step in range(30):
        x, whole = sampler(step), plain(step)
        scale = SIDE // x.shape[-1]
        blocks = whole.reshape(10, 3, SIDE // scale, scale, SIDE // scale, scale)
        torch.testing.assert_close(x, blocks.mean((3, 5)))
        seen.add(scale)
    assert seen == {1, 2, 4}


def test_physical_units() -> None:
    """The window becomes [-1, 1], and what lies beyond it is clipped."""
    hu = torch.tensor([-3000, -1000, 0, 1000, 3000], dtype=torch.int16).reshape(1, 1, 5, 1)
    found = to_x(hu, (-1000, 1000))
    assert found.flatten().tolist() == [-1, -1, 0, 1, 1] and found.shape == (1, 1, 1, 5)


def test_negative_and_real_values_are_halved_exactly() -> None:
    """Integers to the nearest mean, ties upwards; other numbers to the mean."""
    image = np.array([[-7, 2], [3, 4]])[..., None]
    assert _half(image.astype(np.int16)).item() == 1  # the mean is 0.5
    assert _half(image.astype(np.float32)).item() == 0.5


def test_centre_crops() -> None:
    recipe = replace(RECIPE, validation=20)
    images = [coordinates(0, 19, 90), coordinates(1, 40, 57), coordinates(2, 20, 20)]
    crops = centre_crops(images, recipe, 12)
    assert crops is not None and len(crops) == 2
    np.testing.assert_array_equal(as_bytes(crops[:1])[0], images[1][10:30, 18:38])
    assert len(centre_crops(images, recipe, 1)) == 1
    assert centre_crops(images[:1], recipe, 12) is None and centre_crops([], recipe, 12) is None
