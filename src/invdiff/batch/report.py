"""A page that shows a batch, the worst first: one file, which needs no network."""

from __future__ import annotations

import base64
import heapq
import html
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from invdiff.batch.packed import read
from invdiff.batch.place import Place, lines, unwritable
from invdiff.core.durable import write_text

SHOWN, FAILURES = 200, 500
"""Items, and failures, that are shown at most."""
SIDE = 128
"""Pixels of the longer side of a picture."""
PICTURES = ("estimate", "mean", "best", "sample-1")
STYLE = """body{font:14px sans-serif;margin:2em;color:#222}figure{display:inline-block;margin:0 8px
16px 0;vertical-align:top;width:276px}figcaption{overflow-wrap:anywhere}img{max-width:132px;
image-rendering:pixelated;margin-right:4px}td{padding:2px 12px 2px 0;vertical-align:top;
overflow-wrap:anywhere}.warning{color:#a40000}"""


def all_lines(place: Place) -> Iterator[dict[str, Any]]:
    """What became of every item of finished shards."""
    for shard in range(place.told()["shards"]):
        yield from lines(place.manifest(shard))


def misfit_of(line: Mapping[str, Any]) -> float:
    """The largest misfit of an item, in units of its noise; 0 where none is known."""
    found = [m for some in line.get("misfit", {}).values() for m in some or () if m is not None]
    return max(found, default=0.0)


def write_report(place: Place) -> Path:
    """Write the page, from the manifest; where it is."""
    failed, counts, total = list[dict[str, Any]](), Counter[str](), 0

    def restored() -> Iterator[tuple[float, str, dict[str, Any]]]:
        nonlocal total
        for line in all_lines(place):
            total += 1
            if "error" in line:
                counts["failed"] += 1
                failed.extend([line] * (len(failed) < FAILURES))
            else:
                counts["with warnings"] += bool(line["warnings"])
                yield misfit_of(line), line["id"], line

    worst = heapq.nlargest(SHOWN, restored(), key=lambda found: found[:2])
    recipe = place.told()["recipe"]
    title = f"{recipe['task']}: {total} items"
    said = "; ".join(f"{n} {what}" for what, n in sorted(counts.items()) if n)
    body = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(said)}</p>"]
    if failed:
        rows = (f"<tr><td>{_text(f['id'])}<td>{_text(f['error'])}" for f in failed)
        body += ["<h2>Failed</h2>", "<table>", *rows, "</table>"]
    more = f", the first {SHOWN} of {total - counts['failed']}" if total > SHOWN else ""
    body += [f"<h2>Worst misfit first{more}</h2>"]
    body += [_figure(place, line, misfit) for misfit, _, line in worst]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    try:
        write_text(place.report, "\n".join(["<!doctype html>", head, *body]) + "\n")
    except OSError as error:
        raise unwritable(place.out, error) from error
    return place.report


def _text(text: str) -> str:
    """Text for the page; names that are no UTF-8 are shown with ?."""
    return html.escape(text.encode("utf-8", "replace").decode())


def _figure(place: Place, line: dict[str, Any], misfit: float) -> str:
    found = [n for n in PICTURES if f"{n}.png" in line["files"]][:2]
    pictures = "".join(_picture(_file(place, line, f"{name}.png"), name) for name in found)
    told = [f"misfit {misfit:.3g}"] if misfit else []
    told += [f"{name} {v} dB" for name, v in sorted(line.get("psnr", {}).items())]
    for name, worst in sorted(line.get("psnr_worst", {}).items()):
        told += [f"{name} of {k} {n}: {worst['psnr']} dB" for k, n in worst.items() if k != "psnr"]
    warnings = "".join(f'<br><span class="warning">{_text(w)}</span>' for w in line["warnings"])
    words = f"{_text(line['id'])}<br>{_text(', '.join(told))}{warnings}"
    return f"<figure>{pictures}<figcaption>{words}</figcaption></figure>"


def _file(place: Place, line: dict[str, Any], name: str) -> bytes:
    """A file of the results of an item, wherever it lies; nothing where it is not there."""
    if "at" in line:
        return read(place, line, name) or b""
    try:
        return (place.items / line["id"] / name).read_bytes()
    except OSError:
        return b""


def _picture(data: bytes, name: str) -> str:
    """A small picture within the page; nothing where there is none."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            small = image.convert("RGB" if image.mode not in ("L", "RGB") else image.mode)
            small.thumbnail((SIDE, SIDE))
            file = io.BytesIO()
            small.save(file, "PNG")
    except (OSError, ValueError):
        return ""
    text = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{name}" src="data:image/png;base64,{text}">'
