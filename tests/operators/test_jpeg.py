"""JPEG as a measurement: what Pillow gives by hand, tables from files, idempotence, cells."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import invdiff.operators as ops
from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.core.encode import decode, encode
from invdiff.operators.jpeg import _pixels, _planes, blocks, image
from invdiff.sampling.result import Result

PHOTO = Path(__file__).parents[2] / "examples" / "alpacas-small.png"
SIZES = [(16, 16), (17, 23)]
SAMPLINGS = ["4:4:4", "4:2:2", "4:2:0"]
QUALITIES = [1, 10, 50, 95]
MODES = {1: "L", 3: "RGB"}


def levels(channels: int, height: int, width: int) -> np.ndarray:
    """A crop of a photograph, (H, W) or (H, W, 3) uint8."""
    with Image.open(PHOTO) as image:
        return np.asarray(image.convert(MODES[channels]).crop((20, 30, 20 + width, 30 + height)))


def on_range(array: np.ndarray) -> Tensor:
    """8-bit pixels as one image of a batch on [-1, 1], float64."""
    pixels = array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)
    return torch.tensor(pixels.copy(), dtype=torch.float64)[None] / 127.5 - 1


def by_hand(array: np.ndarray, **how) -> tuple[np.ndarray, bytes]:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", **how)
    return np.asarray(Image.open(io.BytesIO(buffer.getvalue()))), buffer.getvalue()


def same_levels(y: Tensor, array: np.ndarray) -> None:
    assert np.array_equal((y[0] * 127.5 + 127.5).round().numpy(), on_levels(array))
    torch.testing.assert_close(y, on_range(array).to(y.dtype), rtol=0, atol=1e-6)


def on_levels(array: np.ndarray) -> np.ndarray:
    return array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)


# ---- the real codec


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("subsampling", SAMPLINGS)
@pytest.mark.parametrize("quality", QUALITIES)
def test_it_is_what_pillow_gives_by_hand(quality, subsampling, channels, size) -> None:
    array = levels(channels, *size)
    want, _ = by_hand(array, quality=quality, subsampling=subsampling)
    for dtype in (torch.float32, torch.float64):
        y = ops.JPEG(quality, subsampling)(on_range(array).to(dtype))
        assert y.dtype == dtype and tuple(y.shape) == (1, channels, *size)
        same_levels(y, want)


def test_the_samplings_differ_and_so_do_the_qualities() -> None:
    """Negative twin: the comparison above is not between constants."""
    x = on_range(levels(3, 17, 23))
    results = [ops.JPEG(q, s)(x) for q in QUALITIES for s in SAMPLINGS]  # type: ignore[arg-type]
    for i, a in enumerate(results):
        assert all(not torch.equal(a, b) for b in results[i + 1 :] if a is not b) or i < 3
    errors = [float((ops.JPEG(q)(x) - x).abs().mean()) for q in QUALITIES]
    assert errors == sorted(errors, reverse=True)


def test_values_are_rounded_and_clipped_as_documented() -> None:
    x = on_range(levels(3, 16, 16))
    A = ops.JPEG(50)
    assert torch.equal(A(x + 0.49 / 127.5), A(x)) and torch.equal(A(x - 0.49 / 127.5), A(x))
    assert torch.equal(A(3 * x), A((3 * x).clamp(-1, 1)))
    assert float(A(3 * x).abs().max()) <= 1


@pytest.mark.parametrize("shape", [(2, 16, 16), (3, 16), (3, 4, 16, 16), (3, 65536, 1), (3, 0, 4)])
def test_images_that_do_not_fit_are_one_sentence(shape) -> None:
    with pytest.raises(InvdiffError, match=r"JPEG takes images of shape \(1 or 3"):
        ops.JPEG(50).y_shape(shape)
    assert ops.JPEG(50).y_shape((3, 65535, 1)) == (3, 65535, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give one of the two"),
        ({"quality": 5, "tables": ((1,) * 64,)}, "give one of the two"),
        ({"quality": 0}, "whole number from 1 to 95, found 0"),
        ({"quality": 96}, "whole number from 1 to 95, found 96"),
        ({"quality": 7.5}, "whole number from 1 to 95"),
        ({"quality": 5, "subsampling": "4:3:1"}, "4:4:4, 4:2:2, .*, found 4:3:1"),
        ({"quality": 5, "subsampling": "3x1,2x1,1x1"}, "divide the largest"),
        ({"tables": ()}, "1 to 3 quantisation tables"),
        ({"tables": ((1,) * 63,)}, "1 to 3 quantisation tables"),
        ({"tables": ((0,) * 64,)}, "whole numbers from 1 to 32767"),
        ({"tables": ((40000,) * 64,)}, "whole numbers from 1 to 32767"),
    ],
    ids=str,
)
def test_bad_settings_are_one_sentence(given, said) -> None:
    with pytest.raises(InvdiffError, match=said):
        ops.JPEG(**given)


# ---- tables from a file

STEEP = tuple(3 + k % 8 + 2 * (k // 8) for k in range(64))
FLAT, COARSE = (20,) * 64, (60,) * 64
OTHERS = {
    "standard": {"quality": 37},
    "progressive": {"quality": 20, "progressive": True, "optimize": True},
    "one-table": {"qtables": [STEEP]},
    "two-tables": {"qtables": [STEEP, FLAT]},
    "three-tables": {"qtables": [STEEP, FLAT, COARSE]},
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("subsampling", SAMPLINGS)
@pytest.mark.parametrize("how", OTHERS.values(), ids=OTHERS.keys())
def test_the_operator_of_a_file_makes_the_file(how, subsampling, channels, size, tmp_path) -> None:
    """From the picture that was saved, it gives exactly what the file shows."""
    array = levels(channels, *size)
    if channels == 1 and "qtables" in how:
        how = {"qtables": how["qtables"][:1]}
    want, content = by_hand(array, subsampling=subsampling, **how)
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    A = ops.JPEG.from_file(path)
    same_levels(A(on_range(array)), want)
    if channels == 3:
        assert A.subsampling == subsampling


def test_one_wrong_entry_of_a_table_is_seen(tmp_path) -> None:
    """Negative twin: the table is read in the order in which it is applied."""
    array = levels(3, 17, 23)
    want, content = by_hand(array, qtables=[STEEP, FLAT])
    (tmp_path / "photo.jpg").write_bytes(content)
    A = ops.JPEG.from_file(tmp_path / "photo.jpg")
    assert A.tables == (STEEP, FLAT, FLAT)
    turned = tuple(STEEP[8 * (k % 8) + k // 8] for k in range(64))
    wrong = ops.JPEG(None, A.subsampling, (turned, FLAT, FLAT))
    assert not np.array_equal(wrong(on_range(array)).numpy(), on_range(want).numpy())


def test_a_quality_is_its_tables() -> None:
    x = on_range(levels(3, 17, 23))
    for quality in QUALITIES:
        A = ops.JPEG(quality)
        assert torch.equal(ops.JPEG(None, "4:2:0", A.steps())(x), A(x))


def test_tables_of_16_bits_are_read(tmp_path) -> None:
    """cjpeg makes them at low qualities; the quantisation of each byte order counts."""
    array, table = levels(1, 16, 16), tuple(256 + 3 * k for k in range(64))
    want, content = by_hand(array, qtables=[table])
    (tmp_path / "photo.jpg").write_bytes(content)
    A = ops.JPEG.from_file(tmp_path / "photo.jpg")
    assert A.tables == (table,)
    same_levels(A(on_range(array)), want)


def hostile(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    picture, rng = Image.fromarray(levels(3, 16, 16)), np.random.default_rng(0)
    files = {
        "text": (b"not a picture at all", "is not a JPEG file"),
        "empty": (b"", "is not a JPEG file"),
        "noise": (rng.bytes(4000), "is not a JPEG file"),
        "start": (b"\xff\xd8\xff", "is not a JPEG file"),
        "cut": (by_hand(np.asarray(picture))[1][:40], "is not a JPEG file"),
        "bad-table": (b"\xff\xd8\xff\xdb\x00\x05\x00abc" + rng.bytes(50), "is not a JPEG file"),
    }
    for name, mode, kind, how, said in (
        ("png", "RGB", "PNG", {}, "is not a JPEG file"),
        ("cmyk", "CMYK", "JPEG", {}, "stores its colours in another way"),
    ):
        buffer = io.BytesIO()
        picture.convert(mode).save(buffer, kind, **how)
        files[name] = (buffer.getvalue(), said)
    upright = by_hand(np.asarray(picture), subsampling="4:2:2")[1]
    at = upright.index(b"\xff\xc0") + 11  # the sampling factors of the first component
    odd = upright[:at] + b"\x31" + upright[at + 1 : at + 3] + b"\x21" + upright[at + 4 :]
    files["fractions"] = (odd, "sampling factors 3 x 1, 2 x 1, 1 x 1")
    found = {}
    for name, (content, said) in files.items():
        (tmp_path / name).write_bytes(content)
        found[name] = (tmp_path / name, said)
    found["missing"] = (tmp_path / "missing", "cannot be read")
    found["folder"] = (tmp_path, "cannot be read")
    return found


def test_a_file_that_is_no_ordinary_jpeg_is_one_sentence(tmp_path) -> None:
    for path, said in hostile(tmp_path).values():
        with pytest.raises(InvdiffError) as caught:
            ops.JPEG.from_file(path)
        text = str(caught.value)
        assert said in text and str(path) in text and "\n" not in text and text.endswith(".")


def test_it_is_written_with_a_result_and_read_again() -> None:
    tensors: dict[str, Tensor] = {}
    for A in (ops.JPEG(20, "4:2:2"), ops.JPEG(None, "4:4:4", (STEEP, FLAT)), ops.Quantize(7)):
        again = decode(encode(A, tensors, "A"), tensors)
        x = on_range(levels(3, 17, 23))
        assert type(again) is type(A) and torch.equal(again(x), A(x))
    assert not tensors and Result is not None


# ---- encoding what was decoded


@pytest.mark.parametrize(
    ("channels", "step"), [(1, 16), (1, 50), (3, 32), (3, 50)], ids=["l", "l50", "rgb", "rgb50"]
)
def test_with_coarse_tables_and_without_clipping_twice_is_once(channels: int, step: int) -> None:
    """A pixel is off by at most 1/2 from rounding the inverse transform; in colour by 1/2 more
    from rounding RGB and 1/2 from rounding YCbCr. A coefficient is a sum of 64 pixels with weights
    whose sizes add up to at most 8, so it moves by at most 4, or 12, which is less than half a
    step (with 1 to spare for the codec's integer transforms): it is quantised to itself."""
    assert step / 2 > 8 * 0.5 * (1 if channels == 1 else 3) + 1
    A = ops.JPEG(None, "4:4:4", ((step,) * 64,))
    y = A(0.12 * seeded(4, channels, 24, 16).clamp(-3, 3))
    assert float(y.abs().max()) < 1  # nothing was clipped
    assert len(y.unique()) > 20
    assert torch.equal(A(y), y)


@pytest.mark.parametrize("subsampling", SAMPLINGS)
@pytest.mark.parametrize("quality", [1, 5, 10, 20, 50])
def test_on_a_photograph_twice_is_nearly_once(quality: int, subsampling) -> None:
    """As documented: within 0.05 of 255 levels on average at qualities up to 50, 1 % of the error
    of the measurement itself. One pixel off the grid, it is not (negative twin)."""
    with Image.open(PHOTO) as image:
        x = on_range(np.asarray(image.convert("RGB")))
    A = ops.JPEG(quality, subsampling)
    y = A(x)
    change = float((A(y) - y).abs().mean()) * 127.5
    assert change < 0.05 and change < 0.01 * float((y - x).abs().mean()) * 127.5
    shifted = float((A(y[..., 1:, 1:]) - y[..., 1:, 1:]).abs().mean()) * 127.5
    assert shifted > 10 * change + 0.5


# ---- the cells of the quantised coefficients


def test_the_transform_is_the_cosine_transform() -> None:
    """Against the formula of the standard (ITU T.81, A.3.3), in plain loops, at 17 x 10."""
    plane = 50 * seeded(1, 17, 10)
    c = blocks(plane)
    assert c.shape == (1, 3, 2, 8, 8)
    filled = np.pad(plane[0].numpy(), ((0, 7), (0, 6)), mode="edge")
    for r, k in ((0, 0), (2, 1)):
        block = filled[8 * r : 8 * r + 8, 8 * k : 8 * k + 8]
        for u in range(8):
            for v in range(8):
                scale = (math.sqrt(0.5) if u == 0 else 1) * (math.sqrt(0.5) if v == 0 else 1) / 4
                total = sum(
                    block[i, j]
                    * math.cos((2 * i + 1) * u * math.pi / 16)
                    * math.cos((2 * j + 1) * v * math.pi / 16)
                    for i in range(8)
                    for j in range(8)
                )
                assert float(c[0, r, k, u, v]) == pytest.approx(scale * total, abs=1e-10)
    torch.testing.assert_close(image(c, 17, 10), plane, rtol=0, atol=1e-12)


def test_colours_are_those_of_the_codec() -> None:
    """Within the codec's rounding: Pillow's own YCbCr."""
    array = levels(3, 17, 23)
    with Image.fromarray(array) as image:
        want = np.asarray(image.convert("YCbCr")).astype(float).transpose(2, 0, 1) - 128
    planes = _planes(on_range(array))
    np.testing.assert_allclose(planes[0].numpy(), want, rtol=0, atol=1.01)
    torch.testing.assert_close(_pixels(planes), on_range(array), rtol=0, atol=1e-14)


def coarse(channels: int) -> tuple[ops.JPEG, Tensor, Tensor]:
    """An operator whose cells are found exactly, an image, and its measurement."""
    A = ops.JPEG(None, "4:4:4", ((40,) * 64,))
    x = 0.12 * seeded(3, channels, 16, 24).clamp(-3, 3)
    return A, x, A(x)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_projection_meets_every_cell_and_leaves_what_is_inside(channels: int) -> None:
    A, _, y = coarse(channels)
    other = 0.5 * seeded(3, channels, 16, 24, seed=1)
    p = A.project(other, y)
    for channel in range(channels):
        index = (blocks(_planes(y)[:, channel]) / 40).round()
        off = blocks(_planes(p)[:, channel]) / 40 - index
        assert float(off.abs().max()) <= 0.5 + 1e-12
        before = blocks(_planes(other)[:, channel]) / 40 - index
        inside = before.abs() <= 0.5
        assert 0.1 < float(inside.double().mean()) < 0.9
        torch.testing.assert_close(off[inside], before[inside], rtol=0, atol=1e-12)
    torch.testing.assert_close(A.project(p, y), p, rtol=0, atol=1e-13)
    torch.testing.assert_close(A.project(y, y), y, rtol=0, atol=1e-13)


def test_the_image_that_was_measured_is_in_its_own_cells() -> None:
    """But for the codec's rounding to 8 bits and its integer transforms: 1.5 of 255 levels."""
    A, x, y = coarse(1)
    assert float((A.project(x, y) - x).abs().max()) * 127.5 < 1.5
    assert float((A.project(x, y.flip(0)) - x).abs().max()) * 127.5 > 20  # negative twin


def test_what_lies_well_inside_the_cells_gives_the_same_file() -> None:
    """Half way from the projection to y, every coefficient is within a quarter of a step of y's:
    10 of 40, and rounding moves it by less than the other 10."""
    A, _, y = coarse(1)
    p = A.project(0.4 * seeded(3, 1, 16, 24, seed=1), y)
    half = (p + y) / 2
    assert float(half.abs().max()) < 1
    assert torch.equal(A(half), y)
    assert not torch.equal(A(0.4 * seeded(3, 1, 16, 24, seed=1)), y)


def test_subsampled_colours_are_left_alone() -> None:
    x, other = on_range(levels(3, 16, 16)), 0.3 * seeded(1, 3, 16, 16)
    A = ops.JPEG(10, "4:2:0")
    before, after = _planes(other), _planes(A.project(other, A(x)))
    torch.testing.assert_close(after[:, 1:], before[:, 1:], rtol=0, atol=1e-11)
    assert float((after[:, 0] - before[:, 0]).abs().max()) > 1


def test_any_size_can_be_projected() -> None:
    for channels in (1, 3):
        x = on_range(levels(channels, 17, 23))
        A = ops.JPEG(20, "4:4:4")
        p = A.project(0.3 * seeded(*x.shape), A(x))
        assert p.shape == x.shape and p.isfinite().all()
        nearer = float((p - x).norm() / (0.3 * seeded(*x.shape) - x).norm())
        assert nearer < 0.6


def test_samplings_by_their_factors() -> None:
    """Factors count by their ratio to the largest, of each plane on its own."""
    from invdiff.operators.jpeg_sampling import factors_of, sampling_of

    for factors, name in (
        (((2, 2), (2, 2), (2, 2)), "4:4:4"),
        (((1, 2), (1, 2), (1, 2)), "4:4:4"),
        (((2, 2), (1, 2), (1, 2)), "4:2:2"),
        (((1, 2), (1, 1), (1, 1)), "4:4:0"),
        (((4, 1), (1, 1), (1, 1)), "4:1:1"),
        (((4, 2), (1, 1), (1, 1)), "4:1:0"),
        (((2, 2), (2, 1), (1, 2)), "2x2,2x1,1x2"),
    ):
        assert sampling_of(factors) == name
    assert factors_of("2x2,2x1,1x2") == ((1, 1), (2, 1), (1, 2))


@pytest.mark.parametrize("subsampling", ["4:2:2", "4:2:0"])
def test_planes_apart_are_what_the_codec_makes(subsampling) -> None:
    """The codec by planes against Pillow's own files, where Pillow writes the sampling.

    Brightness is the same but for the rounding of colours; a colour difference whose means were
    rounded otherwise may lie in the next cell, which moves a block by q / 8 levels."""
    from invdiff.operators.jpeg import decode as decoded
    from invdiff.operators.jpeg import to_ycc
    from invdiff.operators.jpeg_sampling import by_planes, factors_of

    pixels = torch.from_numpy(levels(3, 48, 48).copy()).permute(2, 0, 1) // 2 + 64  # none clips
    A = ops.JPEG(80, subsampling)
    file = to_ycc(decoded(A.encode(pixels)))
    luma, *colours = A.steps()
    tables = [list(luma), list(colours[0]), list(colours[0])]
    planes = (to_ycc(pixels) + 0.5).floor().clamp(0, 255).to(torch.uint8)
    found = by_planes(planes, factors_of(subsampling), tables)
    error = (found.double() - file).abs()
    assert error[0].max() <= 1.5 and error[1:].mean() < tables[1][0] / 8


def test_files_of_red_green_and_blue(tmp_path) -> None:
    """Adobe transform 0: each colour is a plane; the operator repeats the file bit for bit."""
    array = levels(3, 24, 16)
    Image.fromarray(array).save(tmp_path / "a.jpg", quality=60, keep_rgb=True)
    A = ops.JPEG.from_file(tmp_path / "a.jpg")
    assert A.colours == "rgb" and A.subsampling == "4:4:4"
    with Image.open(tmp_path / "a.jpg") as image:
        same_levels(A(on_range(array)), np.array(image))
