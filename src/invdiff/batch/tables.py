"""Parquet files with a column of images: each row is an item.

The image is bytes of a file, or a struct of `bytes` and `path`, as the library datasets writes it.
Other such columns of the row lie beside it under the names ROW.COLUMN.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from invdiff.core import InvdiffError

TABLES = (".parquet",)
COMMON = ("image", "img", "picture", "photo", "jpg", "png")
"""Names of columns of images, where several could be."""
NUMPY = b"\x93NUMPY"


def rows(path: str, column: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, where) of every row; the name is its number.

    column: of the images; None for the only one, or one of a common name. Raises InvdiffError
    without pyarrow, and for a file without such a column.
    """
    with _opened(path) as file:
        known = _columns(file.schema_arrow)
        chosen = _chosen(path, known, column)
        count = file.metadata.num_rows
        near = [name for name in known if name != chosen]
    for row in range(count):
        yield f"{row:08}", {"row": row, "column": chosen, "near": near}


def unpacked(path: str, within: dict[str, Any], folder: Path) -> Path:
    """The image of a row, and those of its other columns, as files in a folder; its path.

    Raises InvdiffError where there is none.
    """
    row, column = within["row"], within["column"]
    with _opened(path) as file:
        first = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if row < first + count:
                table = file.read_row_group(group, columns=[column, *within["near"]])
                (told,) = table.slice(row - first, 1).to_pylist()
                break
            first += count
        else:
            raise InvdiffError(f"{path} is cut: it has no row {row}.")
    data, name = _image(path, row, column, told.get(column))
    ending = PurePosixPath(name).suffix or (".npy" if data[: len(NUMPY)] == NUMPY else ".png")
    target = folder / f"{row:08}{ending}"
    target.write_bytes(data)
    for other in within["near"]:
        with contextlib.suppress(InvdiffError):  # without the column, which its reader tells
            (folder / f"{row:08}.{other}").write_bytes(_image(path, row, other, told[other])[0])
    return target


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """An open file. Raises InvdiffError for whatever pyarrow raises."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InvdiffError(
            f"{path} is a parquet file, and pyarrow, which reads it, is not installed; "
            "pip install 'invdiff[cluster]'."
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        if not os.path.exists(path):
            raise InvdiffError(f"There is no file {path}.") from None
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise InvdiffError(f"{path} cannot be read as a parquet file ({reason}).") from None


def _columns(schema: Any) -> list[str]:
    """Columns whose values can be files."""
    import pyarrow as pa

    def of_bytes(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            inner = {field.name: field.type for field in kind}
            return "bytes" in inner and of_bytes(inner["bytes"])
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    return [field.name for field in schema if of_bytes(field.type)]


def _chosen(path: str, known: list[str], column: str | None) -> str:
    if column is None and len(known) > 1:
        known = [c for c in COMMON if c in known][:1] or known
    if column in known or (column is None and len(known) == 1):
        return column or known[0]
    what = "no column of images" if column is None and not known else f"the columns {known}"
    if column is not None:
        what = f"no column {column!r} of images" + (f", but {', '.join(known)}" if known else "")
    elif known:
        what = f"several columns of bytes ({', '.join(known)})"
    raise InvdiffError(
        f"{path} has {what}; give one with --column whose values are the bytes of image files."
    )


def _image(path: str, row: int, column: str, value: Any) -> tuple[bytes, str]:
    """The bytes of a value, and the name of the file that they were."""
    name = ""
    if isinstance(value, dict):
        name, value = str(value.get("path") or ""), value.get("bytes")
    if not isinstance(value, bytes) or not value:
        more = f", but names {name}, which is to be embedded" if name else ""
        raise InvdiffError(f"Row {row} of {path} holds no image in {column}{more}.")
    return value, name
