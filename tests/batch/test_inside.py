"""Files that hold several items: pages of a TIFF, rows of a parquet file, archives that are cut."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from invdiff.batch import inside
from invdiff.batch.items import BatchItem, ItemSource, beside
from invdiff.batch.place import Place, lines
from invdiff.batch.plan import planned
from invdiff.batch.recipe import BatchRecipe
from invdiff.core import InvdiffError
from invdiff.files.pictures import read_photo


def pixels(seed: int, kind: Any = np.uint8, shape: tuple[int, ...] = (8, 10, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(kind).max, shape, dtype=kind)


def items(path: Path, *patterns: str, **more: Any) -> dict[str, BatchItem]:
    found = ItemSource((str(path),), patterns, pages=True, **more).items()
    return {item.id: item for item in found}


def read(item: BatchItem, folder: Path) -> Any:
    """The picture of an item, as tasks read it."""
    folder.mkdir(exist_ok=True)
    return read_photo(inside.unpacked(item.path, item.within, folder))


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_a_page_has_its_bits_and_tags(order: Any, big: bool, tmp_path: Path) -> None:
    """Of 16 bits, in strips and tiles; what is marked as reduced is no item."""
    tifffile = pytest.importorskip("tifffile")
    pages = [pixels(i, np.uint16, (32, 48)) for i in range(3)]
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=order, bigtiff=big) as file:
        file.write(pages[0], photometric="minisblack", metadata=None)
        file.write(pages[0][:4, :4], photometric="minisblack", subfiletype=1, metadata=None)
        file.write(pages[1], photometric="minisblack", tile=(16, 16), metadata=None)
        file.write(pages[2], photometric="miniswhite", rowsperstrip=5, metadata=None)
    found = items(tmp_path)
    assert list(found) == ["a.tif/page-000", "a.tif/page-002", "a.tif/page-003"]
    expected = [pages[0], pages[1], 65535 - pages[2]]
    for k, (item, values) in enumerate(zip(found.values(), expected, strict=True)):
        photo = read(item, tmp_path / f"{k}")
        assert photo.depth == 16 and "of 3" not in photo.about
        np.testing.assert_allclose(photo.pixels[0].numpy(), values / 65535, atol=1e-6)


def test_pages_in_colour_with_a_profile(tmp_path: Path) -> None:
    images = [Image.fromarray(pixels(i)) for i in range(2)]
    images[0].save(
        tmp_path / "a.tif", save_all=True, append_images=images[1:], compression="tiff_lzw",
        icc_profile=b"a profile",
    )  # fmt: skip
    images[0].save(tmp_path / "one.tif")
    found = items(tmp_path)
    assert list(found) == ["a.tif/page-000", "a.tif/page-001", "one.tif"]
    photo = read(found["a.tif/page-001"], tmp_path / "p")
    np.testing.assert_allclose(photo.pixels.permute(1, 2, 0).numpy(), pixels(1) / 255, atol=1e-6)
    assert beside("{stem}-{page}-mask.png", found["a.tif/page-001"]) == str(
        tmp_path / "a-001-mask.png"
    )
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[:20])  # is told by its reader
    assert "a.tif" in items(tmp_path)
    with pytest.raises(InvdiffError, match="is a broken TIFF"):
        read(found["a.tif/page-001"], tmp_path / "q")
    (tmp_path / "a.tif").unlink()
    with pytest.raises(InvdiffError, match="cannot be read"):
        read(found["a.tif/page-001"], tmp_path / "q")


def test_rows_of_a_parquet_file(tmp_path: Path) -> None:
    """Bytes, or structs as the library datasets has them; other columns lie beside."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": png(pixels(i)), "path": f"{i}.png"} for i in range(3)]
    images += [{"bytes": None, "path": "far.png"}]  # type: ignore[dict-item]
    table = {"image": images, "label": [0, 1, 2, 3], "mask": [b"mask"] * 4}
    parquet.write_table(pa.table(table), tmp_path / "a.parquet", row_group_size=2)
    found = items(tmp_path, "{stem}.mask")
    assert list(found) == [f"a.parquet/{i:08}" for i in range(4)]
    item = found["a.parquet/00000002"]
    photo = read(item, tmp_path / "p")
    np.testing.assert_allclose(photo.pixels.permute(1, 2, 0).numpy(), pixels(2) / 255, atol=1e-6)
    assert (tmp_path / "p/00000002.mask").read_bytes() == b"mask"
    assert beside("{stem}.mask", item) == "a.parquet/00000002.mask"
    with pytest.raises(InvdiffError, match=r"Row 3 of .* names far\.png, which is to be embedded"):
        read(found["a.parquet/00000003"], tmp_path / "p")
    with pytest.raises(InvdiffError, match="no column 'label' of images, but image, mask"):
        items(tmp_path / "a.parquet", column="label")
    assert items(tmp_path, column="mask")["a.parquet/00000000"].within["column"] == "mask"
    parquet.write_table(pa.table({"x": [b"1"], "y": [b"2"]}), tmp_path / "b.parquet")
    with pytest.raises(InvdiffError, match=r"several columns of bytes \(x, y\); give one"):
        items(tmp_path / "b.parquet")
    parquet.write_table(pa.table({"x": [1]}), tmp_path / "c.parquet")
    with pytest.raises(InvdiffError, match="has no column of images"):
        items(tmp_path / "c.parquet")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(InvdiffError, match=r"pip install 'invdiff\[cluster\]'"):
        items(tmp_path / "a.parquet")


def test_an_archive_that_is_broken_is_an_item_that_fails(tmp_path: Path) -> None:
    """Among others it is one item, whose sentence is known; when it was mended it is none."""
    root = tmp_path / "in"
    root.mkdir()
    (root / "a.png").touch()
    (root / "b.tar").write_bytes(b"no tar" * 200)
    found = items(root)
    assert list(found) == ["a.png", "b.tar"]
    with pytest.raises(InvdiffError, match="b.tar cannot be read as a tar file"):
        read(found["b.tar"], tmp_path / "p")
    with pytest.raises(InvdiffError, match="cannot be read as a tar file"):
        items(root / "b.tar")
    place, recipe = Place(tmp_path / "o"), BatchRecipe("denoise", {"noise": "0.1"})
    source = ItemSource((str(root),))
    planned(place, source, recipe, size=10)
    (root / "b.tar").write_bytes(bytes(10240))  # an empty one
    assert planned(place, source, recipe)["items"] == 1
    assert [told["id"] for told in lines(place.plan(0))] == ["a.png"]


def test_each_series_of_a_folder_is_an_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one series the folder is the item, as of all where one is asked for by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scans"))
    from test_images import hu_image, write_slice

    for folder, series in (("one", ("1.2.3",)), ("two", ("1.2.3", "1.2.4"))):
        (tmp_path / folder / "below").mkdir(parents=True)
        for number, uid in enumerate(series):
            for z in range(2):
                to = tmp_path / folder / ("below" if number else "") / f"{number}{z}.dcm"
                write_slice(to, hu_image(z, (16, 16)), z, SeriesInstanceUID=uid)
    both = items(tmp_path, folders=True, series=True)
    assert sorted(both) == ["one", "two/series-1.2.3", "two/series-1.2.4"]
    assert sorted(items(tmp_path, folders=True)) == ["one", "two"]
    item = both["two/series-1.2.4"]
    recipe = BatchRecipe("low-dose-ct", {"noise": "40"}, steps=1, samples=1)
    prior, path = recipe.loaded_prior(), Path(item.path)
    assert recipe.job(item, path, prior).problem.batch == 2
    with pytest.raises(InvdiffError, match="holds 2 series"):
        recipe.job(BatchItem("two", item.path), path, prior)

    def broken(path: Path) -> list[str]:
        raise ValueError("a broken header")

    monkeypatch.setattr("invdiff.batch.items.series_in", broken)  # its reader tells
    assert sorted(items(tmp_path, folders=True, series=True)) == ["one", "two"]
