"""Patches are pieces of the photographs, the right ones, and a function of (seed, step)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.photo_net import PhotoNetConfig
from invdiff.train.data import PatchSampler, centre_crops, read_folder
from invdiff.train.recipes import Recipe

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


def coordinates(index: int, h: int, w: int) -> np.ndarray:
    """An image whose pixels say where they are: (row, column, number of the image)."""
    rows, cols = np.mgrid[:h, :w]
    return np.dstack([rows, cols, np.full((h, w), index)]).astype(np.uint8)


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


# Folders


def save(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(path)


def test_training_and_validation_are_disjoint(tmp_path: Path) -> None:
    """Every image is in one of the two, by the rule on its name; excluded ones are in neither."""
    names = [f"{prefix}-{i}.png" for prefix in ("held", "free", "skip") for i in range(8)]
    for i, name in enumerate(names):
        save(tmp_path / name, coordinates(i, 32, 32))
    (tmp_path / "notes.txt").write_text("not an image")
    train, valid = ([names[im[0, 0, 2]] for im in images]
                    for images in read_folder(tmp_path, RECIPE))  # fmt: skip
    assert sorted(train + valid) == sorted(names[:16])
    assert valid == [n for n in sorted(names) if RECIPE.held_out(n)]
    assert 0 < len(valid) < 8, "the names must be divided for this test to mean anything"


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    save(tmp_path / "grey.png", coordinates(0, 32, 40)[..., 1])
    save(tmp_path / "alpha.png", np.dstack([coordinates(0, 32, 40), np.full((32, 40), 255, "u1")]))
    alpha, grey = read_folder(tmp_path, RECIPE)[0]
    np.testing.assert_array_equal(alpha, coordinates(0, 32, 40))
    np.testing.assert_array_equal(grey, np.dstack([coordinates(0, 32, 40)[..., 1]] * 3))


def nothing(folder: Path) -> None:
    pass


def too_small(folder: Path) -> None:
    save(folder / "small.png", coordinates(0, 31, 64))


def all_held_out(folder: Path) -> None:
    save(folder / next(f"held-{i}.png" for i in range(99) if RECIPE.held_out(f"held-{i}.png")),
         coordinates(0, 64, 64))  # fmt: skip


def no_image(folder: Path) -> None:
    (folder / "broken.png").write_text("no image")


def truncated(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    save(folder / "broken.png", noise)
    (folder / "broken.png").write_bytes((folder / "broken.png").read_bytes()[:4000])


def damaged(folder: Path) -> None:
    """The name of a chunk in the middle of the file is overwritten."""
    save(folder / "broken.png", coordinates(0, 64, 64))
    raw = (folder / "broken.png").read_bytes()
    (folder / "broken.png").write_bytes(raw.replace(b"IDAT", b"\0\0\0\0"))


def a_file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("no folder")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (a_file, "is not a folder of images"),
        (nothing, "holds no training image of at least 32 pixels a side"),
        (too_small, "holds no training image of at least 32 pixels a side"),
        (all_held_out, "holds no training image of at least 32 pixels a side"),
        (no_image, r"broken\.png cannot be read as an image"),
        (truncated, r"broken\.png cannot be read as an image"),
        (damaged, r"broken\.png cannot be read as an image"),
    ],
)
def test_an_unusable_folder_is_one_sentence(
    make: Callable[[Path], None], sentence: str, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    make(folder)
    with pytest.raises(InvdiffError, match=sentence) as caught:
        read_folder(folder, RECIPE)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_centre_crops() -> None:
    crops = centre_crops([coordinates(0, 40, 57), coordinates(1, 19, 90)], 20)
    assert crops is not None
    np.testing.assert_array_equal(as_bytes(crops), coordinates(0, 40, 57)[None, 10:30, 18:38])
    assert centre_crops([coordinates(0, 19, 90)], 20) is None and centre_crops([], 20) is None
