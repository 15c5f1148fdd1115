"""The tables of an audit, in Markdown: every figure beside what exact samples give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from invdiff.audit import claims, controls, learned, levy, reference
from invdiff.audit.counts import binomial_band
from invdiff.audit.coverage import expected, interval_expected, mean_p
from invdiff.audit.lines import Line
from invdiff.audit.parts import SIZE
from invdiff.audit.ranks import shape, uniform_p
from invdiff.audit.stein import BLIND
from invdiff.audit.transfer import DRAWS, SNR
from invdiff.audit.verdict import LEVEL, flagged, joined, p_values


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and its standard error by the spread of the values."""
    v = torch.tensor(list(values), dtype=torch.float64)
    return float(v.mean()), float(v.std() / math.sqrt(len(v))) if len(v) > 1 else 0.0


def by_row(found: list[Line], part: str) -> dict[str, list[Line]]:
    """The lines of a part that hold values, by row; those of batches alone left out."""
    rows: dict[str, list[Line]] = {}
    for line in found:
        if line["part"] == part and line["values"] is not None and "moved" not in line["values"]:
            rows.setdefault(line["row"], []).append(line)
    return rows


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head),
            *(f"| {' | '.join(row)} |" for row in rows), ""]  # fmt: skip


def pm(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard error, as printed."""
    mean, error = mean_and_error(values)
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def page(how: dict[str, Any], found: list[Line], plots: Sequence[str] = ()) -> str:
    """audit.md."""
    counts: dict[str, int] = {}
    for line in found:
        counts[line["part"]] = counts.get(line["part"], 0) + 1
    told = ", ".join(f"{part} {count}" for part, count in counts.items())
    flag = " --quick" if how["quick"] else ""
    parts = [HEAD.format(version=how["invdiff"], level=LEVEL, told=told, flag=flag, **how)]
    made = {"controls": _controls, "gaussian": _gaussian, "mixture": _mixture, "levy": _levy,
            "learned": _learned, "reference": _reference, "budget": _budget,
            "growth": _growth}  # fmt: skip
    for part, maker in made.items():
        if by_row(found, part):
            parts.append("\n".join(maker(found)))
            parts += [f"![{n}]({n})\n" for n in plots if part in n]
    wrong = [f"`{line['item']}`: {line['error']}" for line in found if line.get("error")]
    if wrong:
        parts.append("\n".join(["## Not measured", "", *(f"- {text}" for text in wrong), ""]))
    return "\n".join(parts).rstrip() + "\n"


def _controls(found: list[Line]) -> list[str]:
    rows = []
    for name, (line,) in by_row(found, "controls").items():
        control = controls.CONTROLS[name]
        p = p_values(line["values"], controls.SIZE)
        bad, count = flagged(p), len(line["values"]["inside"])
        missed = [n for n in control.seen_by if n not in bad]
        passes = [n for n in control.blind if n not in bad]
        rows.append([name, ", ".join(bad) or "nothing", ", ".join(missed) or "none",
                     ", ".join(passes), f"{min(p.values()):.2g}"])  # fmt: skip
    batch = [
        [line["row"], f"{line['values']['moved']:.1e}"]
        for line in found
        if line["part"] == "controls" and line["values"] and "moved" in line["values"]
    ]
    moved = [row for row in batch if float(row[1]) > 1e-3]
    head = ["sampler", "flagged by", "missed by", "known to be blind", "least p-value"]
    told = f"Of the solvers {len(batch) - len(moved)} move by round-off." if batch else ""
    return [CONTROLS.format(count=count), *table(head, rows), BATCH, told, "",
            *(table(["moves with its batch", "by, in deviations"], moved) if moved else []),
            ]  # fmt: skip


def _gaussian(found: list[Line]) -> list[str]:
    rows = []
    for name, (line,) in by_row(found, "gaussian").items():
        v = line["values"]
        kind = "closed form" if v["closed"] else f"{DRAWS} samples"
        told = [f"{e:.2f}" if v["closed"] else f"{e:.2f} ({n:.2f})"
                for e, n in zip(v["error"], v.get("null_99", v["error"]), strict=True)]  # fmt: skip
        ratio = [f"{x / e:.2f}" if e else f"{x:.2g}" for x, e in
                 zip(v["variance"], v["exact_variance"], strict=True)]  # fmt: skip
        rows.append((max(v["error"]), [f"`{name}`", str(line["steps"]), kind + (
            ", no noise" if v["noiseless"] else ""), *told, " ".join(ratio)]))  # fmt: skip
    head = ["solver", "steps", "how", *(f"{s:g}" for s in SNR), "variance / exact"]
    return [GAUSSIAN, *table(head, [row for _, row in sorted(rows, key=lambda r: r[0])])]


def _mixture(found: list[Line]) -> list[str]:
    lines = by_row(found, "mixture")
    cells = list(
        dict.fromkeys(line["item"].split("/")[-1] for each in lines.values() for line in each)
    )
    rows = []
    for name, each in lines.items():
        own = {line["item"].split("/")[-1]: line["values"] for line in each}
        every = joined(list(own.values()))
        p = p_values(every, SIZE)
        distances = [pm(own[c]["distance"]) if c in own else "" for c in cells]
        ratio = sorted(r / e for r, e in zip(every.get("residual", []),
                       every.get("residual_exact", []), strict=True) if e)  # fmt: skip
        rows.append((mean_and_error(every["distance"])[0], [
            f"`{name}`", str(each[0].get("steps", "")), pm(every["distance"]), *distances,
            pm(every["modes"]), f"{ratio[len(ratio) // 2]:.2f}" if ratio else "",
            pm(every["width"]) if "width" in every else "",
            f"{mean_and_error(every['ess'])[0]:.2f}", ", ".join(flagged(p)) or "nothing",
        ]))  # fmt: skip
    head = ["solver", "steps", "all", *(f"d, dy = {c}" for c in cells), "modes", "residual",
            "width", "ess", "flagged by"]  # fmt: skip
    return [MIXTURE, *table(head, [row for _, row in sorted(rows, key=lambda r: r[0])])]


def _levy(found: list[Line]) -> list[str]:
    rows = []
    for line in (one for each in by_row(found, "levy").values() for one in each):
        v, (law, operator) = line["values"], line["item"].split("/")[-1].split(",")
        mean, error = mean_and_error(v["gap"])
        p = p_values({k: x for k, x in v.items() if k.startswith("rank_") or k == "inside"},
                     levy.SAMPLES)  # fmt: skip
        count = len(v["gap"])
        low, high = binomial_band(count, expected(0.9, levy.SAMPLES))
        share = f"{sum(v['inside']) / count:.2f} ({low:.2f} to {high:.2f})" if "inside" in v else ""
        over = f"{mean - levy.FLOOR:.2f}" if p else ""
        rows.append([law, operator, f"`{line['row']}`", f"{mean:.2f} ± {error:.2f}", over, share,
                     (", ".join(flagged(p)) or "nothing") if p else ""])  # fmt: skip
    rows.sort(key=lambda r: (r[0], r[1], float(r[3].split()[0])))
    head = [
        "law",
        "operator",
        "solver",
        "gap, dB",
        "above the floor",
        "coverage of 90 %",
        "flagged by",
    ]
    return [LEVY.format(floor=levy.FLOOR, samples=levy.SAMPLES), *table(head, rows)]


def _learned(found: list[Line]) -> list[str]:
    rows, S = [], learned.SAMPLES
    for line in (one for each in by_row(found, "learned").values() for one in each):
        v, case = line["values"], line["item"].split("/")[-1]
        p = {
            k.replace("_", " "): uniform_p(torch.tensor(v[k]), S)
            for k in v
            if k.startswith("rank_")
        }
        if len(v["covered"]) > 1:
            p["coverage"] = mean_p(torch.tensor(v["covered"]), interval_expected(0.9, S))
        words = {k: shape(torch.tensor(v[f"rank_{k}"]), S) for k in ("mean", "detail")}
        told = "; ".join(f"{k}: {w}" for k, w in words.items() if w)
        rows.append([case, f"`{line['row']}`", str(v["nfe"]), str(v["vjps"]),
                     pm(v["covered"]) if v["covered"] else "no spread", pm(v["residual"]),
                     ", ".join(flagged(p)) or "nothing", told])  # fmt: skip
    head = [
        "measurement",
        "solver",
        "NFE",
        "VJP",
        "coverage",
        "residual",
        "flagged by",
        "ranks say",
    ]
    return [LEARNED.format(expected=interval_expected(0.9, S), samples=S), *table(head, rows)]


def _beside(v: dict[str, Any], null: dict[str, list[float]]) -> list[str]:
    """Every figure, with what 99 % of exact sets stay below."""
    return [f"{v[k]:.2f} ({null[k][1]:.2f})" for k in reference.FIGURES]


def _reference(found: list[Line]) -> list[str]:
    lines = [one for each in by_row(found, "reference").values() for one in each]
    rows, prior = [], {}
    for line in lines:
        v, case = line["values"], line["item"].split("/")[-1]
        within = all(abs(v[k]) <= v["null"][k][1] for k in reference.FIGURES)
        rows.append((case, v["w1"], [case, f"`{line['row']}`", str(v["nfe"]), str(v["vjps"]),
                     *_beside(v, v["null"]), "yes" if within else "no"]))  # fmt: skip
        median = {k: v["null"][k][0] for k in reference.FIGURES}
        prior[case, "exact"], prior[case, "prior"] = median, v["prior"]
    for (case, name), v in prior.items():
        told = [f"{v[k]:.2f}" for k in reference.FIGURES]
        rows.append((case, v["w1"], [case, f"`{name}`", "", "", *told, ""]))
    head = ["measurement", "solver", "NFE", "VJP", "mean", "log sd", "W1", "W1 of directions",
            "as exact samples"]  # fmt: skip
    rows.sort(key=lambda row: row[:2])
    told = [_sure(case, one) for case, one in reference.record()["cases"].items()]
    return [REFERENCE, *told, *table(head, [row for *_, row in rows])]


def _sure(case: str, one: dict[str, Any]) -> str:
    """What the record of a reference says of itself, a paragraph."""
    own, other, agree = *(one["convergence"][k] for k in ("twisted", "solver")), one["agreement"]
    spread = [mean_and_error(m["log_evidences"])[1] * len(m["log_evidences"]) ** 0.5
              for m in (own, other)]  # fmt: skip
    return SURE.format(
        case=case, sigma=reference.CASES[case].sigma, sd=one["sd_over_prior"], own=own,
        other=other, agree=agree, spread=spread, solver=one["solver"].split("(")[0].lower(),
        pixels=one["pixels"], r=own["r_hat"],
    )  # fmt: skip


def _growth(found: list[Line]) -> list[str]:
    rows = []
    for name, each in by_row(found, "growth").items():
        for line in each:
            v = line["values"]
            for count in (str(n) for n in reference.PARTICLES):
                rows.append([line["item"].split("/")[-1], f"`{name}`", count,
                             *_beside(v[count], v["null"])])  # fmt: skip
    head = ["measurement", "solver", "particles", "mean", "log sd", "W1", "W1 of directions"]
    return [GROWTH, *table(head, rows)]


def _budget(found: list[Line]) -> list[str]:
    rows = []
    for name, (line,) in by_row(found, "budget").items():
        v = line["values"]
        worst = [f"{max(v[k]):.3f}" for k in ("0.25", "1")]
        rows.append([f"`{name}`", line["claim"], *worst, f"{max(v['null_99']):.3f}",
                     "yes" if claims.falls(v) else "no"])  # fmt: skip
    head = ["solver", "claims", "a quarter", "its budget", "exact samples (99 %)", "falls"]
    return [BUDGET, *table(head, rows)]


HEAD = """# Audit: how far samples are from posteriors that are known

Made by `invdiff audit{flag} --out FOLDER --resume`, invdiff {version}: {problems} problems of each
size of the mixture, at most {steps} steps, {truths} truths. Solvers have the defaults of their
classes, and were not tuned for these problems; names with a comma are
`invdiff.audit.distance.CONFIGURED`. After ± is the standard error over problems.
`exact` are exact samples, `prior` samples that ignore y.

"flagged by": measurements that exact samples would not show, all of a row together with a chance of
{level:g} of any false alarm (Holm). "nothing" means that these problems did not tell the solver
from an exact one; it is no proof that it is.

Items measured: {told}.
The same command with `--resume` measures what is missing. Cutting the steps of a solver changes it:
those that take small steps may diverge. `spectral-ancestral` and `hqs` take a prior's error
spectrum: that of photographs stands in, which fits neither the scale nor the modes of these laws.
"""
CONTROLS = """## Negative controls

Samplers that are wrong in a known way, {count} problems of the mixture with d = 8 and 2
measurements. An audit that passes them is worth nothing; exact samples have to pass. "missed by":
measurements that should have seen it.
"""
BATCH = """A sample must not depend on those beside it: how far it moves with its batch. `batch
norm`, a solver that divides by the norm over the whole batch, is the control."""
GAUSSIAN = """## Each singular value of a normal law

x ~ N(0, I), y = s x + noise. Wasserstein-2 distance to the posterior of each mode, over its
standard deviation, by signal to noise s / sigma: mean and width together. A closed form has no
sampling error; else in brackets what 99 % of exact samples stay below. Last: the variance, in the
same order.
"""
MIXTURE = f"""## A mixture of 25 normal laws

GMM-25 of Cardoso et al. 2024 (arXiv 2308.07983), in coordinates that hold all of it. Sliced
Wasserstein-2 distance of {SIZE} samples to as many exact ones; the row `exact` is the floor. modes:
total variation of the shares of the modes. residual: |y - A x|^2 over that of exact samples,
median. width: square distance to the nearest mode, 1 for exact samples. Flags compare each cloud
with 19 exact ones, and rank the truth among the samples. The Stein discrepancy is {BLIND}.
"""
LEVY = """## Levy processes

Signals of length 64 (arXiv 2509.12821). gap: squared error of the mean of {samples} samples over
that of the posterior's mean (a Gibbs sampler), in dB; exact samples have {floor:.3f} dB of it. In
brackets the band of the coverage of exact samples, 95 %. `linear` is the best linear estimate.
Solvers have the exact denoiser, of the normal law.
"""
LEARNED = """## A learned prior, on truths that it drew

`fashion28`, with the presets of the tasks; {samples} samples of each truth. Central intervals of
90 % hold {expected:.3f} of the pixels for exact samples; ± is over images. residual: 1 for exact
samples.
"""
BUDGET = """## Do asymptotic solvers approach?

The largest error of the table of singular values, by simulation, as the budget grows: of particles,
where there are some, else of steps. `falls`: it is at most 0.6 of what it is at a quarter of the
budget, or within what exact samples show. Particles of a cloud depend on each other: they are held
against a quarter as many exact samples. One mode: it says nothing of how modes join.
"""
REFERENCE = """## A posterior on a learned prior that is known

One truth of `fashion28` for each of two measurements; the solvers have the presets of the tasks at
these noise levels. The posterior is that of a chain of 50 ancestral steps, by a long run of
particles (`python benchmarks/reference.py`, src/invdiff/audit/reference.json). mean: rms error of
the mean of a pixel; log sd: mean log of the deviation over that of the posterior; W1: mean
Wasserstein-1 distance of the laws of pixels, and of the twelve directions in which the posterior
varies most; all in deviations of the posterior. In brackets what 99 % of as many exact samples stay
below: draws of the second method, so that it holds what the two disagree by. A solver's schedule is
not the chain's: that the chain has other steps is a part of its figures.
"""
SURE = """`{case}`, noise {sigma:g} on [-1, 1]: the posterior's deviation is {sd:.2f} of the prior's
(median of {pixels} pixels that vary). {own[clouds]} clouds of {own[particles]} particles without
gradients: split R-hat over halves of clouds {r[0]:.2f} for the median pixel, {r[1]:.2f} at most,
{r[2]:.2f} at most for the directions; standard error of the mean {own[error]:.2f} deviations; log
p(y) {own[log_evidence]:.1f}, scattered by {spread[0]:.1f} over clouds. {other[clouds]} clouds of
`{solver}`: {other[log_evidence]:.1f}, by {spread[1]:.1f}; standard error {other[error]:.2f}. The
two differ by {agree[mean]:.2f} deviations in the mean (rms over pixels, {agree[expected]:.2f} is
expected of the standard errors), {agree[largest]:.2f} at most, and by {agree[log_sd]:.2f} in log
sd.
"""
GROWTH = """## Particles on a learned prior

The same figures for 256 samples in clouds of so many particles, by the steps of the reference: the
same law is then aimed at. One particle is a guided chain that is not weighed. In brackets as above.
"""
