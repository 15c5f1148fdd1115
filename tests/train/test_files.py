"""Images from folders, archives and arrays: which are read, how they are split, what is refused."""

import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import coordinates, save
from PIL import Image

from invdiff.core import InvdiffError
from invdiff.priors.photo_net import PhotoNetConfig
from invdiff.train.files import read
from invdiff.train.recipe import Recipe

RECIPE = Recipe(
    name="tiny",
    net=PhotoNetConfig(),
    attribution="Made by a test.",
    exclude=("skip-",),
    hold_out=("held-",),
    hold_out_one_in=2,
    patch=16,
)
ARRAY = replace(RECIPE, mode="L", key="train", hold_out_last=2, halves=0.0)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def archive(path: Path, *files: Path) -> Path:
    """A tar of files, inside a folder of its own."""
    with tarfile.open(path, "w") as tar:
        for file in files:
            tar.add(file, f"some/folder/{file.name}")
    return path


# What is read


@pytest.mark.parametrize("packed", [False, True])
def test_training_and_validation_are_disjoint(packed: bool, tmp_path: Path) -> None:
    """Every image is in one of the two, by the rule on its name; excluded ones are in neither."""
    names = [f"{prefix}-{i}.png" for prefix in ("held", "free", "skip") for i in range(8)]
    folder = tmp_path / "images"
    folder.mkdir()
    for i, name in enumerate(names):
        save(folder / name, coordinates(i, 32, 32))
    (folder / "notes.txt").write_text("not an image")
    path = archive(tmp_path / "all.tar", *folder.iterdir()) if packed else folder
    train, valid = ([names[im[0, 0, 2]] for im in images] for images in read(path, RECIPE))
    assert sorted(train + valid) == sorted(names[:16])
    assert valid == [n for n in sorted(names) if RECIPE.held_out(n)]
    assert 0 < len(valid) < 8, "the names must be divided for this test to mean anything"


def test_colours_are_those_of_the_recipe(tmp_path: Path) -> None:
    save(tmp_path / "grey.png", coordinates(0, 32, 40)[..., 1])
    save(tmp_path / "alpha.png", np.dstack([coordinates(0, 32, 40), np.full((32, 40), 255, "u1")]))
    alpha, grey = read(tmp_path, RECIPE)[0]
    np.testing.assert_array_equal(alpha, coordinates(0, 32, 40))
    np.testing.assert_array_equal(grey, np.dstack([coordinates(0, 32, 40)[..., 1]] * 3))
    alpha, grey = read(tmp_path, replace(RECIPE, mode="L"))[0]
    np.testing.assert_array_equal(grey, coordinates(0, 32, 40)[..., 1:2])
    assert alpha.shape == (32, 40, 1)


def test_the_last_images_of_an_array_are_held_out(tmp_path: Path) -> None:
    """With and without channels, alone in its file or under the recipe's name; units are kept."""
    hu = np.arange(5 * 16 * 20, dtype=np.int16).reshape(5, 16, 20) - 1000
    np.savez(tmp_path / "several.npz", train=hu, labels=np.arange(5))
    np.savez(tmp_path / "one.npz", anything=hu)
    np.save(tmp_path / "bare.npy", hu[..., None])
    for name in ("several.npz", "one.npz", "bare.npy"):
        train, valid = read(tmp_path / name, replace(ARRAY, key="train" * (name == "several.npz")))
        np.testing.assert_array_equal(train, hu[:3, ..., None])
        np.testing.assert_array_equal(valid, hu[3:, ..., None])
        assert train[0].dtype == np.int16
    assert len(read(tmp_path / "bare.npy", replace(ARRAY, hold_out_last=0))[0]) == 5


def test_of_identical_images_the_first_is_used(tmp_path: Path) -> None:
    """A copy of a training image is not validation: it would be known by heart."""
    images = np.stack([NOISE[:16, 16 * i : 16 * i + 16, 0] for i in range(3)])
    np.save(tmp_path / "a.npy", images[[0, 1, 1, 0, 2]])
    train, valid = read(tmp_path / "a.npy", ARRAY)
    np.testing.assert_array_equal(train, images[:2, ..., None])
    np.testing.assert_array_equal(valid, images[2:, ..., None])


# What is refused


def nothing(folder: Path) -> Path:
    return folder


def too_small(folder: Path) -> Path:
    save(folder / "small.png", coordinates(0, 31, 64))
    return folder


def all_held_out(folder: Path) -> Path:
    name = next(f"held-{i}.png" for i in range(99) if RECIPE.held_out(f"held-{i}.png"))
    save(folder / name, coordinates(0, 64, 64))
    return folder


def no_image(folder: Path) -> Path:
    (folder / "broken.png").write_text("no image")
    return folder


def truncated(folder: Path) -> Path:
    save(folder / "broken.png", NOISE)
    (folder / "broken.png").write_bytes((folder / "broken.png").read_bytes()[:4000])
    return folder


def damaged(folder: Path) -> Path:
    """The name of a chunk in the middle of the file is overwritten."""
    save(folder / "broken.png", coordinates(0, 64, 64))
    raw = (folder / "broken.png").read_bytes()
    (folder / "broken.png").write_bytes(raw.replace(b"IDAT", b"\0\0\0\0"))
    return folder


def truncated_in_a_tar(folder: Path) -> Path:
    return archive(folder / "some.tar", truncated(folder) / "broken.png")


def empty_tar(folder: Path) -> Path:
    return archive(folder / "empty.tar")


def missing(folder: Path) -> Path:
    return folder / "missing.tar"


def no_tar(folder: Path) -> Path:
    (folder / "broken.tar").write_text("no archive")
    return folder / "broken.tar"


def half_a_tar(folder: Path) -> Path:
    path = archive(folder / "half.tar", too_small(folder) / "small.png")
    path.write_bytes(path.read_bytes()[:700])
    return path


def missing_array(folder: Path) -> Path:
    return folder / "missing.npz"


def no_array(folder: Path) -> Path:
    (folder / "broken.npz").write_text("no array")
    return folder / "broken.npz"


def half_an_array(folder: Path) -> Path:
    np.savez_compressed(folder / "half.npz", train=NOISE)
    (folder / "half.npz").write_bytes((folder / "half.npz").read_bytes()[:3000])
    return folder / "half.npz"


def objects(folder: Path) -> Path:
    np.save(folder / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    return folder / "objects.npy"


def an_empty_npz(folder: Path) -> Path:
    np.savez(folder / "empty.npz")
    return folder / "empty.npz"


def another_key(folder: Path) -> Path:
    np.savez(folder / "a.npz", images=NOISE, labels=NOISE)
    return folder / "a.npz"


def labels(folder: Path) -> Path:
    np.save(folder / "labels.npy", np.arange(9))
    return folder / "labels.npy"


def words(folder: Path) -> Path:
    np.save(folder / "words.npy", np.full((2, 16, 16, 3), "a"))
    return folder / "words.npy"


def grey(folder: Path) -> Path:
    np.save(folder / "grey.npy", np.zeros((2, 16, 16)))
    return folder / "grey.npy"


def not_finite(folder: Path) -> Path:
    np.save(folder / "a.npy", np.full((2, 64, 64, 3), np.nan))
    return folder / "a.npy"


def no_images(folder: Path) -> Path:
    np.save(folder / "none.npy", np.zeros((0, 16, 16, 3)))
    return folder / "none.npy"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (nothing, "holds no training image of at least 32 pixels a side"),
        (too_small, "holds no training image of at least 32 pixels a side"),
        (all_held_out, "holds no training image of at least 32 pixels a side"),
        (no_image, r"broken\.png cannot be read as an image"),
        (truncated, r"broken\.png cannot be read as an image"),
        (damaged, r"broken\.png cannot be read as an image"),
        (truncated_in_a_tar, r"some\.tar.some.folder.broken\.png cannot be read as an image"),
        (empty_tar, r"empty\.tar holds no training image"),
        (missing, r"There is no \S*missing\.tar; give"),
        (no_tar, r"broken\.tar cannot be read as a tar archive"),
        (half_a_tar, r"half\.tar cannot be read as a tar archive"),
        (missing_array, r"There is no \S*missing\.npz; give"),
        (no_array, r"broken\.npz cannot be read as an array file"),
        (half_an_array, r"half\.npz cannot be read as an array file"),
        (objects, r"objects\.npy cannot be read as an array file"),
        (an_empty_npz, r"empty\.npz holds no array '\w*'; it holds nothing"),
        (another_key, r"a\.npz holds no array ''; it holds images, labels: choose one with --key"),
        (labels, r"labels in \S*labels\.npy has shape \(9,\) and type int64; images for tiny are"),
        (words, r"words in \S*words\.npy has shape \(2, 16, 16, 3\) and type <U1; images for"),
        (grey, r"has shape \(2, 16, 16\) and type float64; .* of shape \(N, H, W, 3\)\.$"),
        (not_finite, r"a in \S*a\.npy holds values that are not finite"),
        (no_images, r"none\.npy holds no training image"),
    ],
)
def test_unusable_data_is_one_sentence(
    make: Callable[[Path], Path], sentence: str, tmp_path: Path
) -> None:
    path = make(tmp_path)
    with pytest.raises(InvdiffError, match=sentence) as caught:
        read(path, RECIPE)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_a_wrong_key_is_not_guessed(tmp_path: Path) -> None:
    """Not even where the file has one array only."""
    np.savez(tmp_path / "a.npz", images=NOISE[None, ..., 0])
    with pytest.raises(InvdiffError, match="holds no array 'train'; it holds images: choose one"):
        read(tmp_path / "a.npz", ARRAY)


def test_equal_names_in_two_folders_of_an_archive(tmp_path: Path) -> None:
    """Both are read."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i in range(2):
            save(tmp_path / "a.png", coordinates(i, 32, 32))
            tar.add(tmp_path / "a.png", f"{i}/a.png")
    assert [im[0, 0, 2] for im in read(tmp_path / "a.tar", RECIPE)[0]] == [0, 1]


def test_an_image_in_memory_is_the_image(tmp_path: Path) -> None:
    """An archive gives the pixels that Pillow decodes from the same bytes."""
    save(tmp_path / "a.webp", NOISE)
    [image], _ = read(archive(tmp_path / "a.tar", tmp_path / "a.webp"), RECIPE)
    raw = io.BytesIO((tmp_path / "a.webp").read_bytes())
    np.testing.assert_array_equal(image, np.array(Image.open(raw)))
