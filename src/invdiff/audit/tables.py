"""The tables of an audit, in Markdown: every figure beside what exact samples give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from invdiff.audit import bipsda, claims, controls, cost, learned, levy, reference_tables
from invdiff.audit.cells import by_row, lacking, mean_and_error, pm, table, titled
from invdiff.audit.counts import binomial_band
from invdiff.audit.coverage import expected, interval_expected, mean_p
from invdiff.audit.lines import Line
from invdiff.audit.parts import PARTS, QUICK_PARTS, SIZE
from invdiff.audit.ranks import shape, uniform_p
from invdiff.audit.stein import BLIND
from invdiff.audit.transfer import DRAWS, SNR
from invdiff.audit.verdict import LEVEL, flagged, joined, of_cells, p_values
from invdiff.restoration.race import PULL


def page(how: dict[str, Any], found: list[Line], plots: Sequence[str] = ()) -> str:
    """audit.md."""
    counts: dict[str, int] = {}
    for line in found:
        counts[line["part"]] = counts.get(line["part"], 0) + 1
    told = ", ".join(f"{part} {count}" for part, count in counts.items())
    flag = " --quick" if how["quick"] else ""
    left_out = flag and not set(counts) <= set(QUICK_PARTS)
    only = f" --only {','.join(p for p in PARTS if p in counts)}" if left_out else ""
    parts = [
        HEAD.format(version=how["invdiff"], level=LEVEL, told=told, flag=flag, only=only, **how)
    ]
    made = {"controls": _controls, "gaussian": _gaussian, "mixture": _mixture, "levy": _levy,
            "bipsda": _bipsda, "learned": _learned, "reference": reference_tables.reference,
            "cost": _cost, "budget": _budget, "growth": reference_tables.growth}  # fmt: skip
    for part, maker in made.items():
        if by_row(found, part):
            parts.append("\n".join(maker(found)))
            parts += [f"![{n}]({n})\n" for n in plots if part in n]
    wrong = [f"`{line['item']}`: {line['error']}" for line in found if line.get("error")]
    if wrong:
        parts.append("\n".join(["## Not measured", "", *(f"- {text}" for text in wrong), ""]))
    without = lacking(found)
    if without:
        parts.append("\n".join([LACKING, *(f"- {text}" for text in without), ""]))
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
        checked = f" ({v['apart']:.1f})" if "apart" in v else ""
        kind = f"closed form{checked}" if v["closed"] else f"{DRAWS} samples"
        told = [f"{e:.2f}" if v["closed"] else f"{e:.2f} ({n:.2f})"
                for e, n in zip(v["error"], v.get("null_99", v["error"]), strict=True)]  # fmt: skip
        ratio = [f"{x / e:.2f}" if e else f"{x:.2g}" for x, e in
                 zip(v["variance"], v["exact_variance"], strict=True)]  # fmt: skip
        told += ["-"] * (len(SNR) - len(told))
        rows.append((max(v["error"]), [titled(name), str(line["steps"]), kind + (
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
        p = of_cells(list(own.values()), SIZE)
        distances = [pm(own[c]["distance"]) if c in own else "" for c in cells]
        ratio = sorted(r / e for r, e in zip(every.get("residual", []),
                       every.get("residual_exact", []), strict=True) if e)  # fmt: skip
        rows.append((mean_and_error(every["distance"])[0], [
            titled(name), str(each[0].get("steps", "")), pm(every["distance"]), *distances,
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
        name = line["row"].removesuffix(levy.NETWORK)
        network = name != line["row"]
        mean, error = mean_and_error(v["gap"])
        p = p_values({k: x for k, x in v.items() if k.startswith("rank_") or k == "inside"},
                     levy.SAMPLES)  # fmt: skip
        count = len(v["gap"])
        low, high = binomial_band(count, expected(0.9, levy.SAMPLES))
        share = f"{sum(v['inside']) / count:.2f} ({low:.2f} to {high:.2f})" if "inside" in v else ""
        over = f"{mean - levy.FLOOR:.2f}" if p else ""
        known = levy.PUBLISHED.get((name, operator), {}).get(law)
        published = "" if known is None else f"{known:.2f}"
        told = "" if name in levy.RULERS else "network" if network else "exact"
        rows.append([law, operator, titled(name), told, str(count),
                     f"{mean:.2f} ± {error:.2f}", over, published, share,
                     (", ".join(flagged(p)) or "nothing") if p else ""])  # fmt: skip
    rows.sort(key=lambda r: (r[0], r[1], float(r[5].split()[0])))
    head = [
        "law",
        "operator",
        "solver",
        "denoiser",
        "truths",
        "gap, dB",
        "above the floor",
        "published",
        "coverage of 90 %",
        "flagged by",
    ]
    text = LEVY.format(floor=levy.FLOOR, samples=levy.SAMPLES)
    return [text, *table(head, rows)]


def _bipsda(found: list[Line]) -> list[str]:
    rows, least, count = [], math.inf, 0
    for line in (one for each in by_row(found, "bipsda").values() for one in each):
        v, case = line["values"], line["item"].split("/")[-1]
        ratios = [sum(v[k]) / sum(v[f"{k}_exact"]) for k in bipsda.FIGURES]
        least, count = min(least, v["effective"]), len(v["mean"])
        rows.append((case, ratios[0], [case, titled(line["row"]), str(line.get("steps", "")),
                     *(f"{r:.3g}" for r in ratios)]))  # fmt: skip
    head = ["problem", "solver", "steps", "mean", "variance", "moments", "mmd"]
    return [
        BIPSDA.format(samples=bipsda.SIZE, least=least, count=count),
        *table(head, [row for *_, row in sorted(rows, key=lambda r: r[:2])]),
    ]


def _learned(found: list[Line]) -> list[str]:
    rows, S = [], learned.SAMPLES
    for line in (one for each in by_row(found, "learned").values() for one in each):
        v, case = line["values"], line["item"].split("/")[-1]
        p = {
            k.replace("_", " "): uniform_p(torch.tensor(v[k]), S)
            for k in v
            if k.startswith("rank_")
        }
        p["coverage"] = mean_p(torch.tensor(v["covered"]), interval_expected(0.9, S))
        words = {k: shape(torch.tensor(v[f"rank_{k}"]), S) for k in ("mean", "detail")}
        told = "; ".join(f"{k}: {w}" for k, w in words.items() if w)
        rows.append([case, f"`{line['row']}`", str(v["nfe"]), str(v["vjps"]),
                     pm(v["covered"]), pm(v["residual"]),
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
    text = LEARNED.format(expected=interval_expected(0.9, S), samples=S, spread=learned.SPREAD)
    return [text, *table(head, rows)]


def _cost(found: list[Line]) -> list[str]:
    rows = []
    for name, (line,) in by_row(found, "cost").items():
        v = line["values"]
        calls = [f"{v[k]:g}" for k in ("evaluations", "gradients", "forward", "back", "inverse")]
        ratio = "" if v["ratio"] is None else f"{v['ratio']:.2f}"
        rows.append((cost.price(v), [titled(name), str(line["steps"]), *calls, ratio,
                     f"{v['seconds']:.1f}", f"{v['memory'] / 2**20:.0f}"]))  # fmt: skip
    head = ["solver", "steps", "evaluations", "gradients", "A x", "A^T y", "inverse",
            "total / network", "seconds of the network", "MiB"]  # fmt: skip
    return [COST, *table(head, [row for _, row in sorted(rows, key=lambda r: r[0])])]


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

    invdiff audit{flag}{only} --out FOLDER --resume

Made by invdiff {version}: {problems} problems of each size of the mixture, at most {steps} steps,
{truths} truths. Solvers have the defaults of their classes, and were not tuned for these problems;
names with a comma are `invdiff.audit.distance.CONFIGURED`. After ± is the standard error over
problems. `exact` are exact samples, `prior` samples that ignore y.

"flagged by": measurements that exact samples would not show, all of a row together with a chance of
{level:g} of any false alarm (Holm). "nothing" means that these problems did not tell the solver
from an exact one; it is no proof that it is.

Items measured: {told}.
The same command with `--resume` measures what is missing. Cutting the steps of a solver changes it:
those that take small steps may diverge. `spectral-ancestral` and `hqs` take a prior's error
spectrum: that of photographs stands in, which fits neither the scale nor the modes of these laws.
An estimate is one picture: it has no spread, and is flagged for it.
"""
LACKING = """## Problems that a solver does not take

They lack what it needs, as `invdiff solvers` tells it.
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
sampling error; after it in brackets, by how many standard errors the twelve figures of 800
simulated samples differ from it at most. Else in brackets what 99 % of exact samples stay below.
Last: the variance, in the same order. A solver that takes only A^T A = c I is given the modes one
by one, and no unseen one.
"""
MIXTURE = f"""## A mixture of 25 normal laws

GMM-25 of Cardoso et al. 2024 (arXiv 2308.07983), in coordinates that hold all of it. Sliced
Wasserstein-2 distance of {SIZE} samples to as many exact ones; the row `exact` is the floor. modes:
total variation of the shares of the modes. residual: |y - A x|^2 over that of exact samples,
median. width: square distance to the nearest mode, 1 for exact samples. Flags compare each cloud
with 19 exact ones, and rank the truth among the samples. Problem i has the same random numbers in
all cells, so that a flag needs one cell that shows it beyond doubt. The Stein discrepancy is
{BLIND}.
"""
LEVY = """## Levy processes

Signals of length 64 (arXiv 2509.12821). gap: squared error of the mean of {samples} samples over
that of the posterior's mean (a Gibbs sampler), in dB; exact samples have {floor:.3f} dB of it. In
brackets the band of the coverage of exact samples, 95 %. `linear` is the best linear estimate.
denoiser: the exact one, which is a closed form of the normal law and of the others a Gibbs sampler
(`audit/oracle.py`), or a network (docs/levy-networks.md tells its errors).
published: gaps of Table 1 of that paper, as others copied them, of its methods l2, C-DPS, DiffPIR
and DPnP, with a learned denoiser of theirs and with knobs tuned for each problem.
"""
BIPSDA = """## Ten dimensions, also nonlinear

The four problems of BIPSDA (arXiv 2503.03007), with matrices of our own: `low` and `high` see eight
of ten numbers with a noise of 0.1 and of 5, `phase` the squares of five projections, `xray` counts
of photons. Errors of {samples} samples over those of as many exact ones: of the mean, of the
variances, of five central moments, and the squared maximum mean discrepancy. 1 is the floor. Sums
over {count} observations of each problem, without an error: where these are few, the order of rows
that are near each other says nothing. Exact posteriors are mixtures, or weighted draws worth at
least {least} of equal weight.
"""
LEARNED = """## A learned prior, on truths that it drew

`fashion28`, with the presets of the tasks; {samples} samples of each truth. Central intervals of
90 % hold {expected:.3f} of the pixels for exact samples; ± is over images. Pixels that are not seen
count, or all where y tells no pixel by itself; truths and samples have noise of {spread:g} on
[-1, 1] there, so that smaller differences do not count. residual: 1 for exact samples.
"""
COST = f"""## Cost of a sample

A picture of {cost.SIDE} x {cost.SIDE} with three channels, of which means of 4 x 4 pixels are seen.
evaluations, gradients: images that the prior evaluates, and pulls back, for one sample. A x, A^T y,
inverse: uses of the operator in a run of {cost.SAMPLES} samples, which share them; inverse: A^+,
(A^T A + c)^-1, or the singular vectors. total / network: processor time of {cost.STEPS} steps with
the prior `{cost.PRIOR}` over the time inside it. seconds of the network: for one sample, by its
evaluations and gradients. MiB: tensors that live at once for {cost.SAMPLES} samples, weights not
counted. The plot has the mixture's distance over evaluations + {PULL} gradients, and
names those that none beats at the same price or less.
"""
BUDGET = """## Do asymptotic solvers approach?

The largest error of the table of singular values, by simulation, as the budget grows: of particles,
where there are some, else of steps. `falls`: it is at most 0.6 of what it is at a quarter of the
budget, or within what exact samples show. Particles of a cloud depend on each other: they are held
against a quarter as many exact samples. One mode: it says nothing of how modes join.
"""
