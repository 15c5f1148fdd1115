"""Reading what people have, and writing it again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invdiff.core import InvdiffError
from invdiff.files import raster
from invdiff.files.kernels import read_kernel
from invdiff.files.pictures import Photo, luma, read_mask, read_photo, save_picture
from invdiff.operators import gaussian_kernel, motion_kernel

COLOUR = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
GREY = COLOUR[..., 0].copy()
ORIENTATION = 0x0112


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def pixels(array: np.ndarray) -> torch.Tensor:
    """(C, H, W) on [0, 1] of an 8-bit array."""
    return torch.from_numpy(np.atleast_3d(array).transpose(2, 0, 1) / np.float32(255))


def test_colour_png(tmp_path: Path) -> None:
    photo = read_photo(saved(tmp_path / "a.png", Image.fromarray(COLOUR)))
    assert torch.equal(photo.pixels, pixels(COLOUR)) and photo.alpha is None
    assert photo.about == "PNG, 4 x 6, colour" and photo.size == (6, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """The picture is as a viewer shows it, for all eight tags (checked by hand-turned arrays)."""
    seen = {
        1: GREY,
        2: GREY[:, ::-1],
        3: GREY[::-1, ::-1],
        4: GREY[::-1],
        5: GREY.T,
        6: np.rot90(GREY, -1),
        7: np.rot90(GREY, 2).T,
        8: np.rot90(GREY, 1),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    photo = read_photo(saved(tmp_path / "a.png", Image.fromarray(GREY), exif=exif))
    assert torch.equal(photo.pixels, pixels(seen.copy()))
    assert ("turned upright" in photo.about) == (orientation != 1)


def test_jpeg_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = saved(tmp_path / "a.jpg", Image.fromarray(COLOUR), exif=exif, quality=95)
    photo = read_photo(path)
    with Image.open(path) as image:
        assert torch.equal(photo.pixels, pixels(np.rot90(np.asarray(image), -1).copy()))
    assert photo.about == "JPEG, 6 x 4, colour, turned upright"


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits(tmp_path: Path, suffix: str) -> None:
    array = (np.arange(24, dtype=np.uint16).reshape(6, 4) * 2849).astype(np.uint16)
    photo = read_photo(saved(tmp_path / f"a.{suffix}", Image.fromarray(array)))
    assert torch.equal(photo.pixels[0], torch.from_numpy((array / 65535).astype(np.float32)))
    assert photo.grey and "16-bit grey" in photo.about


def test_alpha_is_kept(tmp_path: Path) -> None:
    alpha = np.arange(24, dtype=np.uint8).reshape(6, 4) * 10
    rgba = np.dstack([COLOUR, alpha])
    photo = read_photo(saved(tmp_path / "a.png", Image.fromarray(rgba, "RGBA")))
    seen = torch.from_numpy(alpha > 0)
    assert torch.equal(photo.pixels[:, seen], pixels(COLOUR)[:, seen])
    assert photo.alpha is not None and np.array_equal(photo.alpha.numpy(), alpha)
    la = np.dstack([GREY, alpha])
    photo = read_photo(saved(tmp_path / "b.png", Image.fromarray(la, "LA")))
    assert photo.grey and torch.equal(photo.pixels[:, seen], pixels(GREY)[:, seen])
    assert photo.alpha is not None and np.array_equal(photo.alpha.numpy(), alpha)


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    plain = read_photo(saved(tmp_path / "a.png", image))
    expected = torch.tensor([[[1, 0], [0, 0]], [[0, 1], [0, 1]], [[0, 0], [1, 0]]]).float()
    assert torch.equal(plain.pixels, expected) and plain.alpha is None
    keyed = read_photo(saved(tmp_path / "b.png", image, transparency=1))
    assert torch.equal(keyed.pixels[:, :, 0], expected[:, :, 0])
    assert keyed.alpha is not None and keyed.alpha.tolist() == [[255, 0], [255, 0]]


def test_keyed_colour(tmp_path: Path) -> None:
    """tRNS of a true-colour PNG: one colour is transparent."""
    path = saved(tmp_path / "a.png", Image.fromarray(COLOUR), transparency=tuple(COLOUR[0, 0]))
    alpha = read_photo(path).alpha
    assert alpha is not None and alpha[0, 0] == 0 and alpha.sum() == 255 * 23


def test_black_and_white(tmp_path: Path) -> None:
    bits = GREY > 127
    photo = read_photo(saved(tmp_path / "a.png", Image.fromarray(bits)))
    assert photo.grey and torch.equal(photo.pixels[0], torch.from_numpy(bits).float())


def test_cmyk(tmp_path: Path) -> None:
    image = Image.new("CMYK", (4, 6), (255, 0, 0, 0))
    photo = read_photo(saved(tmp_path / "a.tif", image))
    assert photo.pixels.shape == (3, 6, 4)
    assert torch.equal(photo.pixels[:, 0, 0], torch.tensor([0.0, 1.0, 1.0]))


def test_equal_channels_are_grey(tmp_path: Path) -> None:
    photo = read_photo(saved(tmp_path / "a.png", Image.fromarray(GREY).convert("RGB")))
    assert photo.grey and torch.equal(photo.pixels, pixels(GREY)) and "(grey)" in photo.about


def test_float_tiff(tmp_path: Path) -> None:
    array = GREY.astype(np.float32) / 255
    photo = read_photo(saved(tmp_path / "a.tif", Image.fromarray(array)))
    assert torch.equal(photo.pixels, pixels(GREY))


def test_first_of_several_pictures(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 6), v) for v in (255, 0)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    photo = read_photo(tmp_path / "a.tif")
    assert photo.pixels.min() == 1 and "first of 2 pictures" in photo.about


def test_profile_is_kept(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(COLOUR), icc_profile=b"profile")
    photo = read_photo(path)
    save_picture(tmp_path / "b.png", photo.pixels, icc=photo.icc)
    with Image.open(tmp_path / "b.png") as image:
        assert image.info["icc_profile"] == b"profile"


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8, np.uint16])
def test_arrays(tmp_path: Path, dtype: type) -> None:
    scale = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    bits = (COLOUR > 127).astype(np.uint8)
    np.save(tmp_path / "a.npy", bits.astype(dtype) * dtype(scale))
    assert torch.equal(read_photo(tmp_path / "a.npy").pixels, pixels(bits * 255))


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((3, 4, 5)), "shape"),
        (np.zeros((0, 4)), "empty"),
        (np.full((4, 4), 200.0), "far from"),
        (np.zeros((4, 4), complex), "numbers"),
        (np.array(["a"]), "numbers"),
        (np.array([None]), "numbers"),
    ],
)
def test_bad_arrays(tmp_path: Path, array: np.ndarray, sentence: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InvdiffError, match=sentence):
        read_photo(tmp_path / "a.npy")


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(InvdiffError, match="no file"):
        read_photo(tmp_path / "a.png")
    with pytest.raises(InvdiffError, match="folder"):
        read_photo(tmp_path)
    (tmp_path / "a.png").write_text("words")
    with pytest.raises(InvdiffError, match="not an image"):
        read_photo(tmp_path / "a.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = saved(tmp_path / "b.png", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InvdiffError, match="broken"):
        read_photo(path)
    (tmp_path / "c.npy").write_text("words")
    with pytest.raises(InvdiffError, match="numpy"):
        read_photo(tmp_path / "c.npy")
    integers = np.full((4, 4), 70000, np.int32)
    with pytest.raises(InvdiffError, match="32-bit"):
        read_photo(saved(tmp_path / "d.tif", Image.fromarray(integers)))


@pytest.mark.parametrize("side", [10_001, 20_000])
def test_decompression_bombs(tmp_path: Path, side: int) -> None:
    """A kilobyte of PNG that says that it holds 100 or 400 megapixels, one bit each."""
    path = saved(tmp_path / "a.png", Image.new("1", (side, side)))
    with pytest.raises(InvdiffError, match="100 megapixels"):
        read_photo(path)


def test_large_arrays_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "MAX_PIXELS", 10)
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    with pytest.raises(InvdiffError, match="megapixels"):
        read_photo(tmp_path / "a.npy")


def test_pictures_come_back(tmp_path: Path) -> None:
    for array in (GREY, COLOUR):
        save_picture(tmp_path / "a.png", pixels(array))
        assert torch.equal(read_photo(tmp_path / "a.png").pixels, pixels(array))
    save_picture(tmp_path / "a.png", pixels(GREY) * 4 - 1)  # out of range, and rounded
    expected = (pixels(GREY) * 4 - 1).clamp(0, 1)
    assert (read_photo(tmp_path / "a.png").pixels - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_alpha_is_resized(tmp_path: Path) -> None:
    alpha = torch.full((3, 2), 77, dtype=torch.uint8)
    for array in (GREY, COLOUR):
        save_picture(tmp_path / "a.png", pixels(array), alpha)
        photo = read_photo(tmp_path / "a.png")
        assert photo.alpha is not None and bool((photo.alpha == 77).all())
        assert torch.equal(photo.pixels, pixels(array))


def test_luma() -> None:
    white = torch.ones(3, 2, 2)
    assert torch.allclose(luma(white), torch.ones(1, 2, 2))
    assert torch.equal(luma(white[:1]), white[:1])
    assert Photo(white[:1]).grey


def test_mask_convention(tmp_path: Path) -> None:
    """All that is not black is to be restored; the result tells what is known."""
    array = np.zeros((6, 4), np.uint8)
    array[1:3] = 255
    array[0, 0] = 127
    known = read_mask(saved(tmp_path / "m.png", Image.fromarray(array)), (6, 4))
    assert known.shape == (1, 1, 6, 4) and known.dtype == torch.bool
    assert torch.equal(known[0, 0], torch.from_numpy(array == 0))


def test_mask_alpha(tmp_path: Path) -> None:
    """What is transparent says nothing; of paint of one colour its opacity counts."""
    array = np.zeros((6, 4), np.uint8)
    array[1:3] = 255
    opaque = np.full_like(array, 255)
    opaque[2:4] = 0  # of the painted rows one, and one of those that are not
    both = np.dstack([array, opaque])
    known = read_mask(saved(tmp_path / "a.png", Image.fromarray(both, "LA")), (6, 4))
    assert known[0, 0].all(1).tolist() == [True, False, True, True, True, True]
    layer = np.dstack([np.full_like(array, 30)] * 3 + [array])
    known = read_mask(saved(tmp_path / "b.png", Image.fromarray(layer, "RGBA")), (6, 4))
    assert torch.equal(known[0, 0], torch.from_numpy(array == 0))


def test_bad_masks(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("L", (4, 6), 0))
    with pytest.raises(InvdiffError, match="4 x 6 pixels, but the photo has 6 x 4"):
        read_mask(path, (4, 6))
    with pytest.raises(InvdiffError, match="empty"):
        read_mask(path, (6, 4))
    path = saved(tmp_path / "b.png", Image.new("L", (4, 6), 255))
    with pytest.raises(InvdiffError, match="white everywhere"):
        read_mask(path, (6, 4))


def test_kernel_words() -> None:
    assert torch.allclose(read_kernel("gaussian:1.5", (40, 40)), gaussian_kernel(1.5))
    assert torch.allclose(read_kernel("motion:7,30", (40, 40)), motion_kernel(7, 30))


def test_kernel_files(tmp_path: Path) -> None:
    """From .npy, text and a picture; scaled to sum 1."""
    numbers = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]])
    expected = torch.from_numpy(numbers / 8)
    np.save(tmp_path / "k.npy", numbers)
    np.savetxt(tmp_path / "k.txt", numbers)
    np.savetxt(tmp_path / "k.csv", numbers, delimiter=",")
    Image.fromarray((numbers * 40).astype(np.uint8)).save(tmp_path / "k.png")
    for name in ("k.npy", "k.txt", "k.csv", "k.png"):
        kernel = read_kernel(str(tmp_path / name), (9, 9))
        assert kernel.dtype == torch.float64 and torch.allclose(kernel, expected, atol=1e-7), name


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("gaussian:", "takes numbers, gaussian:SIGMA"),
        ("gaussian:1,2", "takes numbers, gaussian:SIGMA"),
        ("gaussian:abc", "takes numbers"),
        ("gaussian:-1", "above 0"),
        ("gaussian:nan", "takes numbers"),
        ("gaussian:1e9", "larger than the image"),
        ("gaussian:3", "larger than the image"),
        ("motion:5", "takes numbers, motion:LENGTH,DEGREES"),
        ("motion:30,0", "larger than the image"),
        ("nothing", "not a kernel"),
        ("TEXT.txt", "rows of numbers"),
        ("TEXT.png", "not a kernel"),
        ("RAGGED.csv", "rows of numbers"),
        ("BYTES.txt", "rows of numbers"),
        ("ZERO.npy", "sum to 0"),
        ("NAN.npy", "NaN"),
        ("LINE.npy", "2 axes"),
        ("BIG.npy", "larger than the image"),
        ("BLACK.png", "sum to 0"),
    ],
)
def test_bad_kernels(tmp_path: Path, spec: str, sentence: str) -> None:
    (tmp_path / "TEXT.txt").write_text("a kernel\n")
    (tmp_path / "TEXT.png").write_text("a kernel\n")
    (tmp_path / "RAGGED.csv").write_text("1,2\n3\n")
    (tmp_path / "BYTES.txt").write_bytes(b"\xff\xfe\x00")
    Image.new("L", (3, 3)).save(tmp_path / "BLACK.png")
    arrays = {"ZERO": np.zeros((3, 3)), "NAN": np.full((3, 3), np.nan), "LINE": np.ones(3)}
    for name, array in (arrays | {"BIG": np.ones((3, 21))}).items():
        np.save(tmp_path / f"{name}.npy", array)
    path = tmp_path / spec
    with pytest.raises(InvdiffError, match=sentence):
        read_kernel(str(path) if path.exists() else spec, (20, 20))
