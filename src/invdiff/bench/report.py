"""bench.md: the tables of a bench, from its lines alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from invdiff.audit.coverage import interval_expected
from invdiff.bench.fid import Distance, distances
from invdiff.bench.kept import FILE, read
from invdiff.bench.suites import SUITES
from invdiff.core.durable import write_text
from invdiff.sampling.checks import MISFIT

PAGE = Path(FILE).with_suffix(".md").name
COLUMNS = {
    "psnr": "PSNR of one, dB",
    "psnr_mean": "of the mean, dB",
    "ssim": "SSIM of one",
    "ssim_mean": "of the mean",
    "misfit": "misfit",
    "coverage": "coverage of 90 %",
}
"""Values, and what their columns are called."""
PERCEIVED = {"lpips": "LPIPS of one", "lpips_mean": "of the mean"}
"""Those where there are weights for LPIPS."""
Distances = dict[tuple[str, str, str], Distance | None]
"""FID by (case, prior, solver)."""


def write(folder: Path) -> list[Path]:
    """Write bench.md beside bench.jsonl; the files that are there then."""
    how, found = read(folder)
    write_text(folder / PAGE, page(how, found, distances(folder, found)))
    return [folder / FILE, folder / PAGE]


def page(
    how: dict[str, Any], found: Sequence[dict[str, Any]], fids: Distances | None = None
) -> str:
    """The page: a table for each measurement and prior."""
    suite, count, fids = SUITES[how["suite"]], how["samples"], fids or {}
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
        f"{_perceived(how)}",
        *_biased(fids),
        *_libraries(found),
    ]
    for case in dict.fromkeys((one["case"], one["prior"]) for one in found):
        own = [one for one in found if (one["case"], one["prior"]) == case]
        text += [
            "",
            f"## {case[0]}, prior {case[1]}",
            *_counted(own),
            "",
            *table(own, count, how, fids),
        ]
        text += _failures(own)
    return "\n".join(text) + "\n"


def table(
    found: Sequence[dict[str, Any]], samples: int, how: dict[str, Any], fids: Distances
) -> list[str]:
    """Rows of one measurement: the solvers, best mean PSNR of one sample first."""
    columns = COLUMNS | (PERCEIVED if "lpips" in how else {})
    if samples > 1:
        exact = f"{COLUMNS['coverage']} (exact {interval_expected(0.9, samples):.2f})"
        columns["coverage"] = exact
    heads = ["solver", "steps", "evaluations of one", "images", *columns.values()]
    heads += ["FID (images)"] * ("fid" in how) + ["seconds"]
    rows = []
    for solver in dict.fromkeys(one["solver"] for one in found):
        own = [one for one in found if one["solver"] == solver and "values" in one]
        if own:
            scores = [one["values"]["psnr"] or math.inf for one in own]
            cells = _cells(solver, own, columns)
            if "fid" in how:
                at = fids.get((own[0]["case"], own[0]["prior"], solver))
                cells.insert(-1, f"{at.value:.1f} ({at.images})" if at else "-")
            rows.append((-statistics.mean(scores), cells))
    ordered = [row for _, row in sorted(rows, key=lambda pair: pair[0])]
    return [_row(heads), _row(["---"] * len(heads)), *map(_row, ordered)] if ordered else []


def _cells(solver: str, own: Sequence[dict[str, Any]], columns: dict[str, str]) -> list[str]:
    """The row of a solver."""
    cells = {key: interval([one["values"][key] for one in own]) for key in columns}
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


def _perceived(how: dict[str, Any]) -> str:
    """What LPIPS and FID are, or why they are not there."""
    absent = [name for key, name in (("lpips", "LPIPS"), ("fid", "FID")) if key not in how]
    text = []
    if "lpips" in how:
        text.append("LPIPS: squared distance of features to the truth (less is better).")
    if "fid" in how:
        text.append(
            "FID: distance of the features of all single samples to those of all truths (less is "
            "better), beside the number of images; one image has none."
        )
    if absent:
        are = "are" if len(absent) > 1 else "is"
        text.append(f"{' and '.join(absent)} {are} not computed: weights absent.")
    return " ".join(text)


def _biased(fids: Distances) -> list[str]:
    """What FID of few images is worth."""
    few = [at for at in fids.values() if at and at.images <= at.size]
    if not few:
        return []
    least = min(at.images for at in few)
    return [
        "",
        f"**FID here is of {_count(least, 'image')}, too few for its {few[0].size} features**: "
        f"covariances of {few[0].size} images or fewer have no full rank, and FID is too high, of "
        "exact samples too. It compares solvers on the same images, and with no other table.",
    ]


def _libraries(found: Sequence[dict[str, Any]]) -> list[str]:
    """Which samplers are other libraries', and of which version."""
    known: dict[str, set[str]] = {}
    for one in found:
        if "library" in one:
            known.setdefault(one["library"], set()).add(f"`{one['solver']}`")
    told = [f"of {name}: {', '.join(sorted(names))}" for name, names in sorted(known.items())]
    return ["", f"Samplers of other libraries, {'; '.join(told)}."] if told else []


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
