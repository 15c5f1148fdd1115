"""Images from a folder, from a tar archive or from an array file, split by the recipe's rule."""

from __future__ import annotations

import hashlib
import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from invdiff.core import InvdiffError
from invdiff.files.arrays import check_file
from invdiff.train.recipe import Recipe

SUFFIXES = {".webp", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
ARRAYS = {".npy", ".npz"}

Images = list[np.ndarray]


def read(path: Path, recipe: Recipe, left_out: list[str] | None = None) -> tuple[Images, Images]:
    """Training and validation images, (H, W, C) in the data's own units and type.

    path: a folder or a tar archive of image files, or an .npy or .npz file with an array of shape
    (N, H, W) or (N, H, W, C). Of identical images only the first is kept, and training comes first.
    left_out: takes why files that cannot be read are left out; without it they are refused. Raises
    InvdiffError when there are no usable images.
    """
    check_data(path)
    if path.suffix.lower() in ARRAYS:
        train, valid = _read_array(path, recipe)
    elif path.is_dir():
        train, valid = _decode(_inside(path), path, recipe, left_out)
    else:
        train, valid = _decode(_members(path), path, recipe, left_out)
    train, valid = _distinct(train, valid)
    side = recipe.patch * (2 if recipe.halves else 1)
    train = [im for im in train if min(im.shape[:2]) >= side]
    if not train and left_out is None:
        raise InvdiffError(
            f"{path} holds no training image of at least {side} pixels a side; "
            "give larger images, or more."
        )
    return train, valid


def check_data(path: Path, key: str | None = None) -> None:
    """Raise InvdiffError for what is no data, before any of it is read. key: as users gave it."""
    if key is not None and path.suffix.lower() != ".npz":
        raise InvdiffError(
            f"--key chooses an array of an .npz file, and {path} is none; leave it out."
        )
    if not path.is_dir():
        if not path.exists():
            raise InvdiffError(
                f"There is no {path}; give a folder of images, a tar archive of images or an "
                "array file with --data."
            )
        check_file(path)


def _distinct(*parts: Images) -> list[Images]:
    """Each part without the images that occur before, in it or in the parts before it."""
    seen = set[bytes]()

    def first(image: np.ndarray) -> bool:
        digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
        known = digest in seen
        seen.add(digest)
        return not known

    return [[im for im in part if first(im)] for part in parts]


def _inside(path: Path) -> dict[str, Path | io.BytesIO]:
    """The files of a folder by name; pipes and folders are none."""
    return {p.name: p for p in path.iterdir() if p.is_file()}


def _members(path: Path) -> dict[str, Path | io.BytesIO]:
    """The files of a tar archive by name."""
    try:
        with tarfile.open(path) as archive:
            files = [m for m in archive.getmembers() if m.isfile()]
            raw = {m.name: archive.extractfile(m).read() for m in files}  # type: ignore[union-attr]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InvdiffError(
            f"{path} cannot be read as a tar archive ({type(error).__name__}); give a folder of "
            "images, a tar archive of images or an array file with --data."
        ) from error
    return {name: io.BytesIO(data) for name, data in raw.items()}


def _decode(
    files: dict[str, Path | io.BytesIO],
    path: Path,
    recipe: Recipe,
    left_out: list[str] | None = None,
) -> tuple[Images, Images]:
    """Training and validation images of the image files among `files`, in the order of names."""
    short = {n: PurePosixPath(n).name for n in files}
    names = sorted(n for n in files if PurePosixPath(n).suffix.lower() in SUFFIXES)
    names = [n for n in names if not short[n].startswith(recipe.exclude or ("\0",))]

    def load(name: str) -> np.ndarray | None:
        try:
            with Image.open(files[name]) as image:
                pixels = np.array(image.convert(recipe.mode))
        except Exception as error:  # Pillow raises whatever a broken file makes it meet
            if left_out is not None:
                left_out.append(f"{path / name} cannot be read as an image ({error})")
                return None
            raise InvdiffError(
                f"{path / name} cannot be read as an image ({error}); remove it from the data."
            ) from error
        return pixels.reshape(*pixels.shape[:2], -1)

    with ThreadPoolExecutor() as pool:
        each = zip(names, pool.map(load, names), strict=True)
        images = {name: image for name, image in each if image is not None}
    return (
        [im for name, im in images.items() if not recipe.held_out(short[name])],
        [im for name, im in images.items() if recipe.held_out(short[name])],
    )


def _read_array(path: Path, recipe: Recipe) -> tuple[Images, Images]:
    """The images of an array, of which the last recipe.hold_out_last are validation."""
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            bare = isinstance(loaded, np.ndarray)
            found = {path.stem: loaded} if bare else dict(loaded)
    except FileNotFoundError:
        raise InvdiffError(f"There is no {path}; give an array file with --data.") from None
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise InvdiffError(
            f"{path} cannot be read as an array file ({error}); give an .npy or .npz file of "
            "numbers."
        ) from error
    key = next(iter(found), "") if bare or (len(found) == 1 and not recipe.key) else recipe.key
    if key not in found:
        raise InvdiffError(
            f"{path} holds no array {key!r}; it holds {', '.join(found) or 'nothing'}: "
            "choose one with --key."
        )
    array = found[key]
    channels = {"RGB": 3, "L": 1}[recipe.mode]
    shape = array.shape if array.ndim == 4 else (*array.shape, 1)
    if len(shape) != 4 or shape[-1] != channels or array.dtype.kind not in "uif":
        raise InvdiffError(
            f"{key} in {path} has shape {array.shape} and type {array.dtype}; images for "
            f"{recipe.name} are numbers of shape (N, H, W, {channels})"
            f"{' or (N, H, W)' if channels == 1 else ''}."
        )
    if not np.isfinite(array).all():
        raise InvdiffError(f"{key} in {path} holds values that are not finite; replace them.")
    images = list(array.reshape(shape))
    cut = max(len(images) - recipe.hold_out_last, 0)
    return images[:cut], images[cut:]
