"""Plots of an audit: distances beside their floor, and what solvers do to each singular value."""

from __future__ import annotations

import math
from pathlib import Path

from invdiff.audit import cost
from invdiff.audit.cells import by_row, mean_and_error
from invdiff.audit.lines import Line
from invdiff.audit.transfer import SNR
from invdiff.audit.verdict import joined
from invdiff.files.figures import new_figure
from invdiff.restoration.race import PULL

NAMES = ("audit-mixture.png", "audit-gaussian.png", "audit-cost.png")
"""Of the files."""


def draw(folder: Path, found: list[Line]) -> list[Path]:
    """Write what there are lines for; the files."""
    made = []
    for name, kind in zip(NAMES, (_mixture, _gaussian, _cost), strict=True):
        if kind(folder / name, found):
            made.append(folder / name)
    return made


def _mixture(path: Path, found: list[Line]) -> bool:
    """Mean distance of every row with its error, least first; the floor is a line."""
    rows = {
        n: joined([one["values"] for one in each]) for n, each in by_row(found, "mixture").items()
    }
    some = {n: mean_and_error(v["distance"]) for n, v in rows.items() if "distance" in v}
    if len(some) < 2:
        return False
    names = sorted(some, key=lambda n: some[n][0])
    figure = new_figure(7, 1 + 0.2 * len(names))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    values, errors = zip(*(some[n] for n in names), strict=True)
    axes.errorbar(values, range(len(names)), xerr=errors, fmt="o", ms=3, lw=1)
    if "exact" in some:
        axes.axvline(some["exact"][0], color="grey", lw=0.8, label="exact samples")
        axes.legend(fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("sliced Wasserstein-2 to the posterior, mean over problems", fontsize=8)
    axes.invert_yaxis()
    figure.savefig(path)
    return True


def _cost(path: Path, found: list[Line]) -> bool:
    """Mean distance on the mixture over the price of a sample; named where none that costs no more
    is nearer."""
    far = {n: joined([o["values"] for o in each]) for n, each in by_row(found, "mixture").items()}
    paid = {n: cost.price(each[0]["values"]) for n, each in by_row(found, "cost").items()}
    names = [n for n in paid if n in far and "distance" in far[n] and paid[n]]
    if len(names) < 2:
        return False
    figure = new_figure(7, 5)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    least = math.inf
    for n in sorted(names, key=lambda n: (paid[n], mean_and_error(far[n]["distance"]))):
        mean, error = mean_and_error(far[n]["distance"])
        axes.errorbar(paid[n], mean, yerr=error, fmt="o", ms=3, lw=1, color="C0")
        if mean < least:
            axes.annotate(n, (paid[n], mean), (4, 3), textcoords="offset points", fontsize=7)
        least = min(least, mean)
    if "exact" in far:
        floor = mean_and_error(far["exact"]["distance"])[0]
        axes.axhline(floor, color="grey", lw=0.8, label="exact samples")
        axes.legend(fontsize=7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(f"evaluations of the prior for a sample, a gradient as {PULL}", fontsize=8)
    axes.set_ylabel("sliced Wasserstein-2 to the posterior", fontsize=8)
    figure.savefig(path)
    return True


def _gaussian(path: Path, found: list[Line]) -> bool:
    """Error of the law of each singular value, in deviations of the posterior."""
    rows = {n: each[0]["values"] for n, each in by_row(found, "gaussian").items()}
    if not rows:
        return False
    names = sorted(rows, key=lambda n: max(rows[n]["error"]))
    figure = new_figure(7, 1 + 0.2 * len(names))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    errors = [rows[n]["error"] + [math.nan] * (len(SNR) - len(rows[n]["error"])) for n in names]
    shown = axes.imshow(errors, aspect="auto", cmap="viridis", vmin=0, vmax=1)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xticks(range(len(SNR)), [f"{v:g}" for v in SNR], fontsize=7)
    axes.set_xlabel("signal to noise of the singular value", fontsize=8)
    figure.colorbar(shown, ax=axes, extend="max").set_label(
        "Wasserstein-2, in deviations of the posterior", fontsize=8
    )
    figure.savefig(path)
    return True
