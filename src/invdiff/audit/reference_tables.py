"""Tables of the parts reference and growth of an audit, in Markdown."""

from __future__ import annotations

from typing import Any

from invdiff.audit import claims
from invdiff.audit import reference as ruler
from invdiff.audit.cells import by_row, mean_and_error, table
from invdiff.audit.growth import CELL, HELD, PARTICLES, PROBLEMS
from invdiff.audit.lines import Line
from invdiff.audit.reference import GROWN


def _beside(v: dict[str, Any], null: dict[str, list[float]]) -> list[str]:
    """Every figure, with what 99 % of exact sets stay below."""
    return [f"{v[k]:.2f} ({null[k][1]:.2f})" for k in ruler.FIGURES]


def reference(found: list[Line]) -> list[str]:
    """The part reference."""
    lines = [one for each in by_row(found, "reference").values() for one in each]
    rows, prior = [], {}
    for line in lines:
        v, case = line["values"], line["item"].split("/")[-1]
        within = all(abs(v[k]) <= v["null"][k][1] for k in ruler.FIGURES)
        rows.append((case, v["w1"], [case, f"`{line['row']}`", str(v["nfe"]), str(v["vjps"]),
                     *_beside(v, v["null"]), "yes" if within else "no"]))  # fmt: skip
        median = {k: v["null"][k][0] for k in ruler.FIGURES}
        prior[case, "exact"], prior[case, "prior"] = median, v["prior"]
    for (case, name), v in prior.items():
        told = [f"{v[k]:.2f}" for k in ruler.FIGURES]
        rows.append((case, v["w1"], [case, f"`{name}`", "", "", *told, ""]))
    head = ["measurement", "solver", "NFE", "VJP", "mean", "log sd", "W1", "W1 of directions",
            "as exact samples"]  # fmt: skip
    rows.sort(key=lambda row: row[:2])
    told = [_sure(case, one) for case, one in ruler.record()["cases"].items()]
    return [REFERENCE, *told, *table(head, [row for *_, row in rows])]


def _sure(case: str, one: dict[str, Any]) -> str:
    """What the record of a reference says of itself, a paragraph."""
    own, other, agree = *(one["convergence"][k] for k in ("twisted", "check")), one["agreement"]
    spread = [mean_and_error(m["log_evidences"])[1] * len(m["log_evidences"]) ** 0.5
              for m in (own, other)]  # fmt: skip
    return SURE.format(
        case=case, sigma=ruler.CASES[case].sigma, sd=one["sd_over_prior"], own=own,
        other=other, agree=agree, spread=spread, check=one["check"],
        pixels=one["pixels"], r=own["r_hat"],
    )  # fmt: skip


def growth(found: list[Line]) -> list[str]:
    """The part growth."""
    rows = []
    for name, each in by_row(found, "growth").items():
        for line in each:
            v, case = line["values"], line["item"].split("/")[-1]
            for k, (median, high) in v["null"].items():
                told = ", ".join(f"{n}: {v[str(n)][k]:.2f}" for n in PARTICLES[case])
                rows.append([case, f"`{name}`", k.replace("_", " "), told, f"{median:.2f}",
                             f"{high:.2f}", "yes" if claims.approaches(v) else "no"])  # fmt: skip
    rows.sort(key=lambda row: (row[0], row[1]))
    head = ["where", "solver", "figure", "particles: value", "exact samples", "at most",
            "approaches"]  # fmt: skip
    return [GROWTH, *table(head, rows)]


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
{check}: {other[log_evidence]:.1f}, by {spread[1]:.1f}; standard error {other[error]:.2f}. The
two differ by {agree[mean]:.2f} deviations in the mean (rms over pixels, {agree[expected]:.2f} is
expected of the standard errors), {agree[largest]:.2f} at most, and by {agree[log_sd]:.2f} in log
sd.
"""
GROWTH = f"""## Do particles approach, on several modes and on a learned prior?

{GROWN} samples in clouds of so many particles. `mixture`: {PROBLEMS} problems with d, dy =
{CELL[0]},{CELL[1]}, means of distance and modes as above. `x4`: the figures of the learned
posterior, by the steps of the reference, so that the same law is aimed at. One particle is a guided
chain that is not weighed. "exact samples": the median and what they reach at most: 19 sets of
{GROWN}, and 99 % of sets of {HELD} for the learned posterior, since particles of a cloud depend on
each other. There clouds have 16 at most: {GROWN} samples of one cloud of {GROWN} stem from few of
its first particles, and scatter more (`ddsmc`: mean 0.27, W1 0.27). "approaches": every figure
falls to at most {claims.FALL:g} of what it is with one particle, or is what exact samples show, and
at least one falls. "no" is no proof that they never arrive: docs/particles.md has larger clouds.
"""
