"""The part of a tab that shows a restoration: estimate, samples, uncertainty, and one pixel."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from invdiff.app import shown, words
from invdiff.app.shown import Showing
from invdiff.app.site import QUIET, Site
from invdiff.app.visits import Visit
from invdiff.core import InvdiffError
from invdiff.restoration.restored import Restoration

BINS = 12
"""Of a histogram, at most."""
COLOURS = {"red": "#dc2626", "green": "#15803d", "blue": "#2563eb", "value": "#2563eb"}
"""Of the bars of channels."""
DENSE = (".png", ".safetensors")
"""Endings of files that a zip makes no smaller, but takes its time for."""


class Results:
    """Components that show a restoration, and what fills them."""

    def __init__(self, site: Site, tab: str) -> None:
        self.site, self.tab = site, tab

    def draw(self, said: Any) -> None:
        """The components. said: where failures are told."""
        import gradio as gr

        tab, self.said = self.tab, said
        png = {"format": "png", "interactive": False, "buttons": ["download", "fullscreen"]}
        with gr.Column(visible=False, elem_id=f"{tab}-results") as self.group:
            self.verdict = gr.HTML(elem_id=f"{tab}-verdict", padding=True)
            self.slider = gr.ImageSlider(
                label="before and after", elem_id=f"{tab}-slider", slider_position=50, **png
            )
            self.main = gr.Image(
                label="estimate", elem_id=f"{tab}-estimate", alt_text="the estimate",
                elem_classes="iv-pixels", height=380, **png,
            )  # fmt: skip
            self.std = gr.Image(
                label="uncertainty, with its scale", elem_id=f"{tab}-uncertainty",
                alt_text="standard deviation of the samples, with a scale", height=380, **png,
            )  # fmt: skip
            self._draw_showing()
            self.gallery = gr.Gallery(
                label="samples: each may be true", elem_id=f"{tab}-samples", format="png",
                columns=4, object_fit="contain", interactive=False,
                buttons=["download", "fullscreen"], elem_classes="iv-pixels", height=260,
            )  # fmt: skip
            self._draw_pixel()
            self._connect_showing()
            self.zip = gr.DownloadButton("Download everything (zip)", elem_id=f"{tab}-zip")

    def _draw_showing(self) -> None:
        import gradio as gr

        tab = self.tab
        with gr.Row(visible=False) as self.showing:
            self.part = gr.Radio(
                ["magnitude", "phase"], value="magnitude", label="complex values as",
                elem_id=f"{tab}-part",
            )  # fmt: skip
            self.level = gr.Slider(0, 1, 0.5, label="window level", elem_id=f"{tab}-level")
            self.width = gr.Slider(0, 1, 1, label="window width", elem_id=f"{tab}-width")

    def _connect_showing(self) -> None:
        outputs = [self.main, self.gallery, self.slider, self.said]
        for part in (self.part, self.level, self.width):
            event = part.change if part is self.part else part.release
            event(
                self.site.event(self._shown, self.said), [self.part, self.level, self.width],
                outputs, trigger_mode="always_last", **QUIET,
            )  # fmt: skip

    def _draw_pixel(self) -> None:
        import gradio as gr

        tab = self.tab
        with gr.Accordion("One pixel: what the samples say of it", open=True):
            gr.Markdown("Click the estimate, or give a column and a row.")
            with gr.Row():
                self.x = gr.Number(0, label="column", precision=0, elem_id=f"{tab}-x")
                self.y = gr.Number(0, label="row", precision=0, elem_id=f"{tab}-y")
                look = gr.Button("Show this pixel", elem_id=f"{tab}-look")
            self.pixel = gr.HTML(elem_id=f"{tab}-pixel", padding=True)
            self.plot = gr.BarPlot(
                x="value", y="samples", color="channel", height=220, visible=False,
                x_title="value", y_title="samples", elem_id=f"{tab}-histogram", sort=None,
                color_map=COLOURS, buttons=["fullscreen"],
            )  # fmt: skip
        outputs = [self.pixel, self.plot, self.x, self.y]
        look.click(self.site.event(self._pixel, self.pixel), [self.x, self.y], outputs, **QUIET)
        self.main.select(self.site.event(self._clicked, self.pixel), None, outputs, **QUIET)

    @property
    def outputs(self) -> list[Any]:
        """Everything that `filled` changes."""
        return [
            self.group, self.verdict, self.slider, self.main, self.std, self.gallery, self.zip,
            self.showing, self.part, self.level, self.width, self.pixel, self.plot,
        ]  # fmt: skip

    def filled(self, visit: Visit, out: Path) -> dict[Any, Any]:
        """The components for the restoration in a folder."""
        import gradio as gr

        done = Restoration.load(out)
        visit.kept[f"{self.tab}.done"] = done, out
        visit.shown = done
        std = out / "uncertainty.png"
        found = self._pictures(visit, Showing()) | {
            self.group: gr.update(visible=True),
            self.verdict: words.verdict(done),
            self.std: gr.update(value=std if std.is_file() else None, visible=std.is_file()),
            self.zip: str(zipped(out)),
            self.pixel: "",
            self.plot: gr.update(visible=False),
        }
        return found | self._controls(done)

    def _controls(self, done: Restoration) -> dict[Any, Any]:
        import gradio as gr

        window, complex_ = shown.window(done), shown.is_complex(done)
        level, width, units = window or (0.5, 1.0, "")
        limits = {"minimum": level - 2 * width, "maximum": level + 2 * width}
        return {
            self.showing: gr.update(visible=complex_ or bool(window)),
            self.part: gr.update(visible=complex_, value="magnitude"),
            self.level: gr.update(
                visible=bool(window), value=level, label=f"window level ({units})",
                step=width / 200, **limits,
            ),
            self.width: gr.update(
                visible=bool(window), value=width, label=f"window width ({units})",
                minimum=width / 200, maximum=2 * width, step=width / 200,
            ),
        }  # fmt: skip

    def _pictures(self, visit: Visit, how: Showing) -> dict[Any, Any]:
        import gradio as gr

        done, out = visit.kept[f"{self.tab}.done"]
        files = shown.answers(done, out, how)
        first = files[0] if done.want != "samples" else files[-1]
        rest = files[1:] if done.want != "samples" else files
        before, title = shown.before(done, out.parent / f"{out.name}-before.png")
        return {
            self.main: gr.update(value=first[0], label=first[1]),
            self.gallery: gr.update(
                value=[(str(f), caption) for f, caption in rest], visible=bool(rest)
            ),
            self.slider: gr.update(
                value=(str(before), str(first[0])), label=f"{title}, and {first[1]}"
            ),
        }

    def _shown(self, visit: Visit, part: str, level: float, width: float) -> dict[Any, Any]:
        """The same pictures in another window, or another part of complex values."""
        done, _ = self._done(visit)
        usual, how = shown.window(done), Showing(part)
        if usual is not None and (level, width) != usual[:2]:
            how = Showing(part, level, width)
        return self._pictures(visit, how)

    def _done(self, visit: Visit) -> tuple[Restoration, Path]:
        found: tuple[Restoration, Path] | None = visit.kept.get(f"{self.tab}.done")
        if found is None:
            raise InvdiffError("Nothing has been restored yet.")
        return found

    def _clicked(self, visit: Visit, click: Any) -> dict[Any, Any]:
        return self._pixel(visit, *click) | {self.x: click[0], self.y: click[1]}

    def _pixel(self, visit: Visit, x: float, y: float) -> dict[Any, Any]:
        """What the samples, and the estimate, say of one pixel."""
        import gradio as gr
        import pandas as pd

        done, _ = self._done(visit)
        text, rows = of_pixel(done, int(x or 0), int(y or 0))
        return {
            self.pixel: words.lines(text),
            self.plot: gr.update(value=pd.DataFrame(rows), visible=bool(rows)),
        }


def of_pixel(
    done: Restoration, x: int, y: int
) -> tuple[list[tuple[str, str]], list[dict[str, Any]]]:
    """((label, text) lines, rows of a histogram) of a pixel; of complex images its magnitude."""
    height, width = done.view.size(tuple(done.result.samples.shape[2:]))
    if not (0 <= x < width and 0 <= y < height):
        raise InvdiffError(f"There is no pixel ({x}, {y}) in an image of {width} x {height}.")
    lines = [("pixel", f"column {x}, row {y}")]
    units = f" {done.view.scale.units}".rstrip()

    def numbers(array: np.ndarray) -> np.ndarray:
        return np.atleast_1d(np.abs(array) if np.iscomplexobj(array) else array)

    def told(values: np.ndarray) -> str:
        return ", ".join(f"{v:.4g}" for v in values) + units

    if done.want != "samples":
        lines.append(("estimate", told(numbers(done.view.seen(done.estimate)[y, x]))))
    if done.want == "estimate":
        return lines, []
    values = np.stack([numbers(done.view.seen(s)[y, x]) for s in done.samples])  # (K, channels)
    lines.append(("samples", "; ".join(told(v) for v in values[:8])))
    if len(values) > 1:
        mean, std = values.mean(0), values.std(0, ddof=1)
        parts = [f"{m:.4g} ± {s:.2g}" for m, s in zip(mean, std, strict=True)]
        lines.append(("mean ± deviation", ", ".join(parts) + units))
    return lines, list(_bars(values))


def _bars(values: np.ndarray) -> Iterator[dict[str, Any]]:
    """Rows of a histogram of values (K, channels), in bins that all channels share."""
    names = ["red", "green", "blue"] if values.shape[1] == 3 else ["value"]
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1e-6, min(BINS, 2 + len(values)) + 1)
    for c, name in enumerate(names):
        counts, _ = np.histogram(values[:, c], edges)
        for count, start, stop in zip(counts, edges, edges[1:], strict=False):
            middle = f"{(start + stop) / 2:.4g}"
            yield {"value": middle, "samples": int(count), "channel": name}


def zipped(out: Path) -> Path:
    """Everything in a folder of results as one zip beside it."""
    name = out.name.rpartition("-")[0] or out.name
    place = out.parent / f"{out.name}.zip.d"
    place.mkdir(exist_ok=True)
    found = place / f"{name}.zip"
    with zipfile.ZipFile(found, "w") as archive:
        for file in sorted(p for p in out.rglob("*") if p.is_file()):
            small = file.suffix not in DENSE
            how = zipfile.ZIP_DEFLATED if small else zipfile.ZIP_STORED
            archive.write(file, file.relative_to(out), how)
    return found
