"""What people's photographs hold: depth, scale, metadata, several pictures in one file."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from invdiff.core import InvdiffError
from invdiff.files.advice import how_to_convert
from invdiff.files.arrays import Told
from invdiff.files.metadata import Metadata
from invdiff.files.pictures import filled, read_photo, save_picture
from invdiff.files.write import png16

RNG = np.random.default_rng(0)
C16 = RNG.integers(0, 65536, (6, 9, 3), dtype=np.uint16)
G16, A16 = C16[..., 0].copy(), RNG.integers(1, 65536, (6, 9), dtype=np.uint16)
F32 = RNG.random((6, 9, 3)).astype(np.float32)
ASK = Told(flag="--range")


def seen(path: Path, told: Told = ASK) -> np.ndarray:
    """(H, W, C) as it is read."""
    return read_photo(path, told).pixels.permute(1, 2, 0).numpy()


def same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == np.atleast_3d(expected).shape
    np.testing.assert_allclose(found, np.atleast_3d(expected), atol=2e-7)


def tiff(path: Path, array: np.ndarray, **options: object) -> Path:
    tifffile.imwrite(path, array, **options)
    return path


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits_out_and_in(tmp_path: Path, channels: int) -> None:
    """All 65536 levels, and alpha of 16 bits, come back: Pillow alone cuts colours to 8 bits."""
    colours = G16[..., None] if channels < 3 else C16
    array = np.dstack([colours, A16]) if channels in (2, 4) else colours
    (tmp_path / "a.png").write_bytes(png16(array))
    photo = read_photo(tmp_path / "a.png")
    same(photo.pixels.permute(1, 2, 0).numpy(), colours / 65535)
    assert photo.depth == 16 and "16-bit" in photo.about
    assert (photo.alpha is not None) == (channels in (2, 4))
    if photo.alpha is not None:
        assert np.array_equal(photo.alpha.numpy(), A16)
    save_picture(tmp_path / "b.png", photo.pixels, photo.alpha, depth=16)
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_png_of_16_bits_by_another_codec(tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    array = np.dstack([C16, A16])
    assert np.array_equal(imagecodecs.png_decode(png16(array)), array)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(C16))
    same(seen(tmp_path / "a.png"), C16 / 65535)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"byteorder": ">"}], ids=str)
def test_tiff_of_16_bits(tmp_path: Path, options: dict[str, object]) -> None:
    path = tmp_path / "a.tif"
    same(seen(tiff(path, C16, photometric="rgb", **options)), C16 / 65535)
    same(seen(tiff(path, G16, photometric="minisblack", **options)), G16 / 65535)
    same(seen(tiff(path, 65535 - G16, photometric="miniswhite", **options)), G16 / 65535)


def test_tiff_of_other_layouts(tmp_path: Path) -> None:
    path, alpha = tmp_path / "a.tif", (A16 / 65535)[..., None]
    planar = {"photometric": "rgb", "planarconfig": "separate"}
    same(seen(tiff(path, C16.transpose(2, 0, 1).copy(), **planar)), C16 / 65535)
    straight = np.dstack([C16, A16])
    tiff(path, straight, photometric="rgb", extrasamples=["unassalpha"])
    same(seen(path), C16 / 65535)
    assert np.array_equal(read_photo(path).alpha, A16)  # type: ignore[arg-type]
    tiff(path, np.dstack([F32 * alpha.astype(np.float32), (A16 / 65535).astype(np.float32)]),
         photometric="rgb", extrasamples=["assocalpha"])  # fmt: skip
    np.testing.assert_allclose(seen(path), F32, atol=1e-5)  # associated: divided by it


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_tiff_of_floats(tmp_path: Path, kind: type) -> None:
    path, array = tmp_path / "a.tif", F32.astype(kind)
    same(seen(tiff(path, array, photometric="rgb")), array)
    same(seen(tiff(path, array[..., 0], photometric="minisblack")), array[..., 0])
    same(seen(tiff(path, array[..., 0], photometric="miniswhite")), 1 - array[..., 0].astype(float))
    assert read_photo(path).depth == 32


def test_range_of_a_tiff_by_its_tags(tmp_path: Path) -> None:
    """SMinSampleValue and SMaxSampleValue say which numbers are black and white."""
    path, tags = tmp_path / "a.tif", [(340, "H", 1, 0, True), (341, "H", 1, 4095, True)]
    same(seen(tiff(path, G16 // 16, photometric="minisblack", extratags=tags)), G16 // 16 / 4095)
    tags = [(340, "f", 1, -50.0, True), (341, "f", 1, 150.0, True)]
    tiff(path, 200 * F32[..., 0] - 50, photometric="minisblack", extratags=tags)
    np.testing.assert_allclose(seen(path)[..., 0], F32[..., 0], atol=1e-6)
    same(seen(tiff(path, G16.astype(np.uint32) * 65537, photometric="minisblack")), G16 / 65535)


@pytest.mark.parametrize(
    ("array", "answers"),
    [
        (2 * F32 - 1, "--range -1,1 or --range 0,1"),
        (255 * F32, "--range 0,255"),
        (8 * F32, "--range 0,255"),
        (255.0 * F32[..., 0].astype(np.float64), "--range 0,255"),
        (4095 * F32, "--range 0,4095"),
        ((G16 >> 8).astype(np.int64), "--range 0,255 or --range 0,65535"),
        ((G16.astype(int) - 32768).astype(np.int16), "--range 0,32767 or --range -32768,32767"),
    ],
)
def test_a_scale_that_is_open_is_asked_for(tmp_path: Path, array: np.ndarray, answers: str) -> None:
    path = tmp_path / "a.npy"
    np.save(path, array)
    with pytest.raises(InvdiffError, match="nothing tells whether") as error:
        read_photo(path, ASK)
    assert answers in str(error.value)
    told = (float(array.min()), float(array.max()))
    low = seen(path, Told(told))
    assert low.min() == 0 and low.max() == 1
    same(low, (array - told[0]) / (told[1] - told[0]))


def test_a_scale_that_noise_explains_is_not_asked_for(tmp_path: Path) -> None:
    noisy = F32 + 0.3 * RNG.normal(size=F32.shape).astype(np.float32)
    np.save(tmp_path / "a.npy", noisy)
    same(seen(tmp_path / "a.npy", Told(spread=0.3, flag="--range")), noisy)
    np.save(tmp_path / "b.npy", F32)
    same(seen(tmp_path / "b.npy"), F32)


def keyed_png(depth: int, colour: int, width: int, row: bytes, key: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + crc

    head = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", head), (b"tRNS", key), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    ("depth", "colour", "row", "key", "transparent"),
    [
        (16, 0, bytes([1, 2, 3, 4]), bytes([3, 4]), [False, True]),
        (16, 2, bytes([1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 7]), bytes(range(1, 7)), [True, False]),
        (8, 0, bytes([5, 9]), bytes([0, 9]), [False, True]),
        (4, 0, bytes([0x3F]), bytes([0, 3]), [True, False]),
        (2, 0, bytes([0b01100000]), bytes([0, 2]), [False, True]),
        (1, 0, bytes([0x40]), bytes([0, 1]), [False, True]),
    ],
)  # fmt: skip
def test_keys_of_transparency_of_every_depth(
    tmp_path: Path, depth: int, colour: int, row: bytes, key: bytes, transparent: list[bool]
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(keyed_png(depth, colour, 2, row, key))
    photo = read_photo(path)
    assert photo.alpha is not None and photo.valid is not None
    assert (photo.alpha.to(torch.int32)[0] == 0).tolist() == transparent
    assert (~photo.valid.all(0)[0]).tolist() == transparent


def test_the_full_picture_of_a_file_is_taken(tmp_path: Path) -> None:
    path, full = tmp_path / "a.tif", np.full((6, 8), 77, np.uint8)
    small = np.zeros((3, 4), np.uint8)
    with tifffile.TiffWriter(path) as file:  # a thumbnail first
        file.write(small, subfiletype=1)
        file.write(full)
    same(seen(path), full / 255)
    assert "picture 2 of 2: those before it are marked as reduced" in read_photo(path).about
    with tifffile.TiffWriter(path) as file:  # the full picture within a thumbnail, as in raw files
        file.write(small, subfiletype=1, subifds=1)
        file.write(full, subfiletype=0)
    same(seen(path), full / 255)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:  # a pyramid
        file.write(G16, subifds=1)
        file.write(G16[::2, ::2], subfiletype=1)
    same(seen(tmp_path / "a.ome.tif"), G16 / 65535)
    assert "1 smaller ones within it passed over" in read_photo(tmp_path / "a.ome.tif").about
    icon = Image.new("RGBA", (64, 64), (9, 8, 7, 255))
    icon.save(tmp_path / "a.ico", sizes=[(16, 16), (64, 64)])
    assert read_photo(tmp_path / "a.ico").size == (64, 64)
    assert "largest of 2 pictures" in read_photo(tmp_path / "a.ico").about


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once(tmp_path: Path, orientation: int) -> None:
    """Pillow turns TIFF by itself, tifffile does not: all ways give what a PNG gives."""
    image = Image.fromarray((C16 >> 8).astype(np.uint8))
    image.save(tmp_path / "a.png", exif=exif_of(orientation))
    image.save(tmp_path / "a.tif", exif=exif_of(orientation))
    same(seen(tmp_path / "a.tif"), seen(tmp_path / "a.png"))
    deep, tags = (C16 >> 8) * 257, [(274, "H", 1, orientation, True)]
    for array in (deep, (deep / 65535).astype(np.float32)):
        tiff(tmp_path / "b.tif", array, photometric="rgb", extratags=tags)
        same(seen(tmp_path / "b.tif"), seen(tmp_path / "a.png"))


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    return exif


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
def test_metadata_is_kept_and_orientation_done_once(tmp_path: Path, ending: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray((C16 >> 8).astype(np.uint8))
    image.save(tmp_path / f"a.{ending}", exif=exif_of(6), icc_profile=profile)
    photo = read_photo(tmp_path / f"a.{ending}")
    assert photo.size == (9, 6) and "turned upright" in photo.about
    for depth in (8, 16):
        path = tmp_path / f"{depth}.png"
        save_picture(path, photo.pixels, photo.alpha, photo.icc, depth, photo.metadata)
        with Image.open(path) as written:
            assert written.size == (6, 9)
            assert written.getexif().get(0x010F) == "Maker"
            assert written.getexif().get(0x0112, 1) == 1
            assert written.info["icc_profile"] == profile
        assert torch.equal(read_photo(path).pixels * 255, (photo.pixels * 255).round())


def test_texts_are_kept(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", "a cat, steps: 20")
    info.add_itxt("Title", "Größe 東")
    Image.new("RGB", (4, 3), (1, 2, 3)).save(tmp_path / "a.png", pnginfo=info)
    texts = read_photo(tmp_path / "a.png").metadata.text
    assert texts == {"parameters": "a cat, steps: 20", "Title": "Größe 東"}
    for depth in (8, 16):
        kept = Metadata(None, texts)
        save_picture(tmp_path / "b.png", torch.zeros(3, 3, 4), None, None, depth, kept)
        with Image.open(tmp_path / "b.png") as image:
            assert dict(image.text) == texts  # type: ignore[attr-defined]


def test_an_orientation_that_means_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3), (1, 2, 3)).save(tmp_path / "a.jpg", exif=exif_of(9))
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.size == (3, 4) and "EXIF orientation 9 means nothing" in photo.about
    assert "turned" not in photo.about


def test_profiles_of_other_colours_are_not_copied(tmp_path: Path) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = Image.fromarray((C16 >> 8).astype(np.uint8))
    profile = ImageCms.ImageCmsProfile(lab).tobytes()
    converted = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    assert converted is not None
    converted.save(tmp_path / "a.tif", icc_profile=profile)
    photo = read_photo(tmp_path / "a.tif")
    assert photo.icc is None and photo.pixels.shape[0] == 3
    Image.new("CMYK", (4, 3), (9, 8, 7, 6)).save(tmp_path / "b.tif", icc_profile=b"of inks")
    photo = read_photo(tmp_path / "b.tif")
    assert photo.icc is None and "the profile of its inks cannot be used" in photo.about


def test_holes_are_filled_from_what_is_around_them() -> None:
    pixels = torch.zeros(1, 8, 8)
    pixels[:, :, 4:] = 1
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    valid[:, 2:6, 1:3] = False
    pixels[~valid] = torch.nan
    found = filled(pixels, valid)
    assert torch.equal(found[valid], pixels[valid])
    assert bool((found[:, :, :4] == 0).all())
    assert bool(filled(pixels, torch.zeros_like(valid)).isnan().all())


@pytest.mark.parametrize(
    ("name", "content", "clause"),
    [
        ("a.svg", b"<svg></svg>", "inkscape"),
        ("a.pdf", b"%PDF-1.4 ", "pdfimages"),
        ("a.jxl", b"\xff\x0a123", "djxl"),
        ("a.png", b"\x00\x00\x00\x0cJXL \r\n", "djxl"),  # by its content, whatever its name
        ("a.exr", b"\x76\x2f\x31\x01", "tone-map"),
        ("a.hdr", b"#?RADIANCE\n", "tone-map"),
        ("a.mp4", b"\0\0\0\x18ftypisom", "ffmpeg"),
        ("a.png", b"<!DOCTYPE html><html>", "page of the web"),
        ("a.jpg", b"\x93NUMPY\1\0", "ending .npy"),
        ("a.xcf", b"gimp xcf v011", "GIMP"),
        ("a.xyz", b"words", "save it as PNG or JPEG"),
    ],
)
def test_what_is_no_picture_says_how_to_convert(
    tmp_path: Path, name: str, content: bytes, clause: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvdiffError, match="not an image that can be read") as error:
        read_photo(tmp_path / name)
    assert clause in str(error.value) and clause in how_to_convert(tmp_path / name)


def test_heic_and_raw_are_read_or_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "a.nef").write_bytes(b"II*\0\x08\0\0\0")
    for module in ("rawpy", "pillow_heif"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    for name in ("a.heic", "a.nef"):
        with pytest.raises(InvdiffError, match=r"pip install 'invdiff\[photo\]' reads it"):
            read_photo(tmp_path / name)


def test_heic(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None], 48, 0)
    Image.fromarray(np.dstack([ramp, ramp[:, ::-1], ramp])).save(tmp_path / "a.heic", quality=95)
    found = seen(tmp_path / "a.heic")
    assert found.shape == (48, 64, 3) and np.abs(found[..., 0] - ramp / 255).mean() < 0.02


def test_mutated_headers_are_read_or_one_sentence(tmp_path: Path) -> None:
    """A short form of a trial by hand, with 500 of each format."""
    image = Image.fromarray((C16 >> 8).astype(np.uint8))
    files = {}
    for kind in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "ICO", "PPM"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        files[kind.lower()] = buffer.getvalue()
    files["png"] = png16(C16)
    for name, array in (("tif", C16), ("tiff", F32)):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, photometric="rgb")
        files[name] = buffer.getvalue()
    for name, save in (("npy", np.save), ("npz", np.savez)):
        buffer = io.BytesIO()
        save(buffer, F32)
        files[name] = buffer.getvalue()
    rng, read = np.random.default_rng(1), 0
    for ending, content in files.items():
        for k in range(20):
            wrong = bytearray(content)
            for _ in range(1 + k % 4):
                wrong[rng.integers(min(len(wrong), 256))] = rng.integers(256)
            path = tmp_path / f"a.{ending}"
            path.write_bytes(bytes(wrong[: None if k % 5 else rng.integers(len(wrong))]))
            try:
                photo = read_photo(path)
            except InvdiffError as error:
                assert "\n" not in str(error) and str(error).endswith(".")
            else:
                read += 1
                assert photo.pixels.ndim == 3 and photo.pixels.dtype == torch.float32
    assert read > 20  # mutations that hurt nothing are read
