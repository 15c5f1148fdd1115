"""The tab that shows what was measured of solvers and of samples where the truth is known."""

from __future__ import annotations

from typing import Any

from invdiff import measured
from invdiff.app.site import QUIET
from invdiff.audit import records

NAME = "truth"
ABOUT = """### Are the samples right?
**Distance**: of every solver to posteriors that are known exactly (GMM-25), beside what exact
samples have; less is better. **Coverage**: in how many pixels the 90 % interval of samples held the
truth, on pictures that chose nothing; 0.90 is right. All figures are the committed records of the
audit."""
FIGURES = {
    "distance to the posterior (median over problems)": "distance",
    "wrong share of modes": "modes",
    "residual over that of exact samples": "residual",
}
TITLES = {
    "distance": "distance (median)",
    "modes": "wrong share of modes",
    "residual": "residual (1: exact samples)",
}
"""Of the axis, which is short."""
COLOURS = {
    "configured": "#2563eb", "exact samples": "#15803d", "paper": "#dc2626",
    "samples that ignore y": "#6b7280",
}  # fmt: skip
"""Of the kinds of rows."""
WIDTHS = [60, 260, 170, 110, 120, 110, 110, 90]
"""Of the columns of coverage, in pixels: no word of a header is broken."""


class TruthTab:
    """Two plots and their numbers; nothing is computed here."""

    def draw(self) -> None:
        """Everything in the tab."""
        import gradio as gr

        gr.Markdown(ABOUT)
        cells = records.cells()
        with gr.Row():
            self.cell = gr.Dropdown(
                [(label, key) for key, label in cells.items()], value=next(iter(cells), None),
                label="Problem", elem_id=f"{NAME}-cell",
            )  # fmt: skip
            self.figure = gr.Dropdown(
                list(FIGURES.items()), value="distance", label="Figure", elem_id=f"{NAME}-figure"
            )
        first = _audited(self.cell.value, "distance")
        self.plot = gr.ScatterPlot(
            first, x="steps", y="figure", color="kind", tooltip="all", height=360,
            x_title="steps", y_title=TITLES["distance"], elem_id=f"{NAME}-plot",
            color_map=COLOURS,
        )  # fmt: skip
        self.table = gr.Dataframe(
            first, interactive=False, label="the same as numbers", elem_id=f"{NAME}-table",
            max_height=320,
        )  # fmt: skip
        for part in (self.cell, self.figure):
            part.change(_both, [self.cell, self.figure], [self.plot, self.table], **QUIET)
        covered = _covered()
        gr.BarPlot(
            covered, x="row", y="coverage of 90 %", color="solver", tooltip="all", height=320,
            x_title="row of the numbers below", y_lim=[0, 1], sort=None,
            elem_id=f"{NAME}-coverage",
        )  # fmt: skip
        gr.Dataframe(
            covered, interactive=False, label="coverage as numbers", wrap=True,
            elem_id=f"{NAME}-coverage-table", max_height=360, elem_classes="iv-numbers",
            column_widths=WIDTHS,
        )  # fmt: skip


def _both(cell: str, figure: str) -> list[Any]:
    import gradio as gr

    found = _audited(cell, figure)
    return [gr.update(value=found, y_title=TITLES.get(figure, figure)), found]


def _audited(cell: str | None, figure: str) -> Any:
    """A row for each solver, as the audit's record has it."""
    import pandas as pd

    rows = records.rows(cell, figure) if cell and figure in FIGURES.values() else []
    return pd.DataFrame(rows, columns=["solver", "steps", "figure", "kind"])


def _covered() -> Any:
    """A row for each measurement whose coverage was measured."""
    import pandas as pd

    rows = [
        {
            "row": f"{i:02d}",  # names of measurements are too long for an axis
            "measurement": f"{r['task']}: {r['title']}, {r['side']} px"
            + ("" if r["default"] else f" ({r['solver']})"),
            "solver": r["solver"],
            "coverage of 90 %": r["coverage90"],
            "± standard error": r["coverage90_error"],
            "coverage of 50 %": r["coverage50"],
            "error / predicted": r["ratio"],
            "images": r["images"],
        }
        for i, r in enumerate(measured.record(), 1)
    ]
    return pd.DataFrame(rows)
