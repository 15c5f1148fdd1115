"""bench.md: the tables of a bench, from its lines alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from invdiff.audit import lines
from invdiff.audit.coverage import interval_expected
from invdiff.bench.suites import SUITES
from invdiff.core.durable import write_text
from invdiff.sampling.checks import MISFIT

PAGE = f"{lines.BENCH}.md"
COLUMNS = {
    "psnr": "PSNR of one, dB",
    "psnr_mean": "of the mean, dB",
    "ssim": "SSIM of one",
    "ssim_mean": "of the mean",
    "misfit": "misfit",
    "coverage": "coverage of 90 %",
}
"""Values, and what their columns are called."""


def write(folder: Path) -> list[Path]:
    """Write bench.md beside bench.jsonl; the files that are there then."""
    how, found = lines.read(folder / f"{lines.BENCH}.jsonl")
    write_text(folder / PAGE, page(how, found))
    return [folder / f"{lines.BENCH}.jsonl", folder / PAGE]


def page(how: dict[str, Any], found: Sequence[dict[str, Any]]) -> str:
    """The page: a table for each measurement and prior."""
    suite, count = SUITES[how["suite"]], how["samples"]
    text = [
        f"# Bench: the suite {how['suite']}",
        "",
        suite.about,
        *_kernels(how),
        "",
        f"{_count(len(how['images']), 'image')} of {how['side']} x {how['side']} pixels, "
        f"{_count(count, 'sample')} of each measurement, seed {how['seed']}, at most "
        f"{_count(how['steps'], 'step')}. ± is half of the 95 % interval of the mean over images "
        "(Student's t). PSNR and SSIM: of single samples, and of the mean of all, which has more "
        "of both and is no sample. Misfit: rms of (y - A x) / sigma, 1 for exact samples; **above "
        f"{MISFIT:g}** they miss y; without noise, rms of y - A x itself. Coverage: share of the "
        "pixels that y leaves uncertain within the central interval of the samples, beside that of "
        "exact ones; it needs two samples. "
        "What a measurement cannot tell (sign and turn of phase retrieval) is undone by the truth. "
        "LPIPS and FID are not computed: weights absent.",
    ]
    for case in dict.fromkeys((one["case"], one["prior"]) for one in found):
        own = [one for one in found if (one["case"], one["prior"]) == case]
        text += ["", f"## {case[0]}, prior {case[1]}", *_counted(own), "", *table(own, count)]
        text += _failures(own)
    return "\n".join(text) + "\n"


def table(found: Sequence[dict[str, Any]], samples: int) -> list[str]:
    """Rows of one measurement: the solvers, best mean PSNR of one sample first."""
    heads = ["solver", "steps", "evaluations of one", "images", *COLUMNS.values(), "seconds"]
    if samples > 1:
        exact = f"{COLUMNS['coverage']} (exact {interval_expected(0.9, samples):.2f})"
        heads[heads.index(COLUMNS["coverage"])] = exact
    rows = []
    for solver in dict.fromkeys(one["solver"] for one in found):
        own = [one for one in found if one["solver"] == solver and "values" in one]
        if own:
            scores = [one["values"]["psnr"] or math.inf for one in own]
            rows.append((-statistics.mean(scores), _cells(solver, own)))
    ordered = [row for _, row in sorted(rows, key=lambda pair: pair[0])]
    return [_row(heads), _row(["---"] * len(heads)), *map(_row, ordered)] if ordered else []


def _cells(solver: str, own: Sequence[dict[str, Any]]) -> list[str]:
    """The row of a solver."""
    cells = {key: interval([one["values"][key] for one in own]) for key in COLUMNS}
    if statistics.mean(one["values"]["misfit"] or 0.0 for one in own) > MISFIT:
        cells["misfit"] = f"**{cells['misfit']}**"
    left = [v for one in own if (v := one["values"]["residual"]) is not None]
    if left:
        cells["misfit"] = f"rms {statistics.mean(left):.2g}"
    seconds = statistics.mean(one["seconds"] for one in own)
    steps = " to ".join(str(n) for n in sorted({one["steps"] for one in own}))
    spent = statistics.mean(one["evaluations"] for one in own)
    counts = [f"`{solver}`", steps, f"{spent:.0f}", str(len(own))]
    return [*counts, *cells.values(), f"{seconds:.1f}"]


def interval(values: Sequence[float | None]) -> str:
    """Mean and half of its 95 % interval, by Student's t; "-" where a value is missing."""
    from scipy.stats import t

    known = [v for v in values if v is not None]
    if len(known) < len(values) or not known:
        return "-"
    mean, n = statistics.mean(known), len(known)
    if n == 1:
        return f"{mean:.3g}" if abs(mean) < 1 else f"{mean:.2f}"
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(known) / math.sqrt(n)
    return f"{mean:.2f} ± {half:.2f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _counted(found: Sequence[dict[str, Any]]) -> list[str]:
    """Which share of the pixels counts for coverage, where it is not all."""
    shares = [one["values"]["counted"] for one in found if "values" in one]
    if not shares or min(shares) == 1:
        return []
    return ["", f"Coverage counts {100 * statistics.mean(shares):.0f} % of the pixels."]


def _kernels(how: dict[str, Any]) -> list[str]:
    """Which kernels of its own a bench has."""
    if "kernels" not in how:
        return []
    return ["", f"Motion blur has the kernels of --kernels: {', '.join(how['kernels'])}."]


def _failures(found: Sequence[dict[str, Any]]) -> list[str]:
    said = dict.fromkeys((one["solver"], one["error"]) for one in found if "error" in one)
    return [""] * bool(said) + [f"- `{solver}`: {error}" for solver, error in said]
