"""The page of real measurements: what is told of them, and their tables."""

from __future__ import annotations

HEAD = """# Real measurements

Made by `python benchmarks/real.py mri` and `ct`, from the files in
[examples](../examples/README.md). How they are read is told in [mri-and-ct.md](mri-and-ct.md).
There is no truth, so two things are asked:

- chi-square: the mean of residual^2 / variance over the numbers that were used. A sample of the
  posterior leaves as much as the truth does: 1, if model and noise are right. The mean of the
  samples leaves less, by what was fitted. Below 1, noise was copied; far above, the answer has
  not arrived at the data, or the model is wrong.
- held out: the same of numbers that no answer saw. It is 1 plus what could not be predicted, and
  the honest figure; a single sample predicts worse than the mean.

Cells are `mean / one sample` where there are several. Seconds are of one thread of a busy CPU,
for all samples: compare them with care. The network runs in bfloat16.
"""

BRAIN = """
## A head, eight coils, 12.4 % of k-space

The middle 128 rows; {samples:.0f} samples of k-space are used and {held:.0f}, a random tenth, are
held out (none of the 24 x 24 for calibration, from which the coil maps come).

Noise. The rim of k-space gives {rim:.4f}. What eight coils show and no image explains gives
{coils:.4f} (and {full:.4f} from all rows), and falls no further towards the rim: the rim still
holds signal. The solvers are told the {coils:.4f}.

{table}

- diffpir, mmps and score-mri explain the data, with chi-square within 15 % of 1. Within 0.2 of the
  way to the rim all of them leave about 2: the signal is strongest there, so that small errors of
  the coil maps, from 24 x 24 samples, count. SENSE shows the same, so it is the model and no
  solver.
- Held-out samples are predicted best by mmps, then by score-mri. Total variation, its weight chosen
  so that chi-square is below 1, is not far behind: 12.4 % of k-space from eight coils leave little
  to a prior. SENSE and the zero-filled image are far behind.
- score-medical takes y for noiseless: with its paper's strength lam = 1 noise is copied into the
  result. The preset lam = 0.5, which was chosen by the held-out samples, leaves more.
- dps and csgm leave more than the rest. The steps of dps have a fixed length, so that it stops
  short of the data, or swings about the centre of k-space; csgm is an annealed walk of 600 steps
  in place of 3465.

![the head, by every answer](images/real-brain.webp)

{seen}
"""

TOOTH = """
## A tooth, 181 views of 640 pixels

Two detector pixels are joined to a bin and the picture has 192 x 192 pixels, for 30 views; four
and 96 x 96 for all views. (With 176 pixels, the corners of the tooth lie outside, which is an
error of the model.) Rays beyond it are left out. Of 30 views, the other 151 judge the answers;
only the axis of rotation is found from all.

Noise. The variance 1 / photons is what second differences from view to view show in air. The model
is not right: in air beside the tooth line integrals are off by more than the photons' noise, since
the pattern of the beam moved after the white fields were taken. Rings
(`scans.without_rings`, from the views in use) and the drift of each view (`scans.without_drift`)
are taken off; what air still shows beyond its photons (`scans.excess`), {excess:.4f} beside
{photon:.4f}, is added to the variance that the solvers are told. On the command line this is
`--rings remove --drift remove --noise {total:.4f}`. The tables give chi-square over 1 / photons,
as the file has it, and over what was told. As the told variance is the larger by about two, an
answer that fits perfectly has 2 in the first column and 1 in the second.

### All 181 views, four pixels to a bin

{every}

### 30 views, two pixels to a bin

{few}

- From all views diffpir comes nearest to what it was told, then pigdm; mmps, score-medical and mcg
  leave more: with so many rays, their 12, 6 and 4 iterations stop short of the data.
- With 30 views, diffpir and pigdm leave what they were told, and mmps nearly. They predict the 151
  other views to {best} variances or less: three times nearer than total variation, nine times
  nearer than least squares, which fits the 30 views perfectly and nothing else.
- score-medical and mcg take y for noiseless. With few iterations of the pseudo-inverse their
  chi-square comes near 1 over 1 / photons, which is below what model errors alone leave: they fit
  these errors too, and predict less well than diffpir.
- Held-out views are not at 1 for anyone: 30 views do not determine the picture, edges above all.
- Without the corrections, and told 1 / photons alone, diffpir leaves {raw} of it, but one sample
  predicts the other views less well, {rawheld} in place of {one}: it draws the error of the model
  into the picture.
- dps is not shown: its preset was made for simulated chests and does not arrive at these data. The
  number of iterations of mmps was chosen with the other views in sight, so its figure is slightly
  favourable.

![the tooth from 181 views](images/real-tooth-181.webp)

![the tooth from 30 views](images/real-tooth-30.webp)

{seen}
"""

SEEN = {
    "brain": """\
What is seen: the zero-filled image is a blur with ripples. SENSE has every fold of the cortex,
under fine grain that covers the air too. Total variation, diffpir, mmps, score-mri and
score-medical look alike at this size: dark air, a sharp skull, the same ventricles, folds and
small vessels, so that none of these was invented by one prior. Total variation paints small flat
patches in the grey matter; score-medical keeps some of the grain. dps is plainly smoother, with
the folds at the rim washed together, and csgm a little. A dark patch at the left and a bright dot
beside the skull at the right are in every picture, so they are in the data. The uncertainty of
diffpir is about 0.01 inside, and 0.02 in the scalp and skull, where the contrast is; it has no
structure that hints at a doubtful fold.""",
    "tooth": """\
What is seen: back-projection of 30 views is covered with streaks, and least squares keeps them,
weaker and blurred. Total variation takes most of them away and leaves serrated borders and a long
straight line. The solvers show the tooth without streaks: black air, two tissues of even grey with
sharp borders, and the two wide cracks that all 181 views show, at the upper left and at the right.
The thin cracks at the lower left, seen from 181 views, are faint or missing. score-medical and mcg
keep thin straight lines through the tooth and in the air, pigdm and mmps keep them faintly, diffpir
hardly. In back-projection these lines are bright or dark rays of single bins, outliers that were
not marked; the uncertainty of diffpir lies along the borders and does not show them. From all views
the lines of outliers are still there in back-projection, with faint rings of the beam's pattern in
the air; diffpir and pigdm, which come nearest to the data, draw fine waves beside the borders: 96 x
96 pixels are too coarse for what the rays show.""",
}


def cell(values: list[float | None]) -> str:
    """mean / one sample."""
    return " / ".join("-" if v is None else f"{v:.2f}" if v < 100 else f"{v:.0f}" for v in values)


def table(rows: list[dict], columns: dict[str, str]) -> str:
    """Markdown; columns: key of a record to its heading."""
    lines = ["| answer | NFE | seconds | " + " | ".join(columns.values()) + " |"]
    lines += ["|---|---|---|" + "---|" * len(columns)]
    for r in rows:
        cells = [cell(r[k] if isinstance(r[k], list) else [r[k]]) for k in columns]
        seconds = f"{r['seconds']:.0f}" if r["seconds"] >= 0.5 else "< 1"
        lines.append(f"| {r['answer']} | {r['cost']} | {seconds} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(record: dict) -> str:
    """All of it, in Markdown, as far as it was measured."""
    text = HEAD
    if "mri 0" in record:
        found = record["mri 0"]
        facts = found["facts"]
        columns = {
            "chi2": "chi-square", "centre": "one, centre", "rest": "one, elsewhere",
            "held": "held out",
        }  # fmt: skip
        text += BRAIN.format(
            **{k: facts[k] for k in ("samples", "held", "rim", "coils")},
            full=facts["coils, full"], table=table(found["rows"], columns), seen=SEEN["brain"],
        )  # fmt: skip
    if all(f"ct {n}" in record for n in range(3)):
        every, few, raw = (record[f"ct {n}"] for n in range(3))
        both = {"chi2": "over 1 / photons", "told": "over what was told"}
        held = both | {"held": "151 other views"}
        facts = few["facts"]
        best, one = {r["answer"]: r for r in few["rows"]}["diffpir"]["held"]
        left = {r["answer"]: r for r in raw["rows"]}["diffpir"]
        text += TOOTH.format(
            excess=facts["excess"], photon=facts["photon noise"],
            total=(facts["excess"] ** 2 + facts["photon noise"] ** 2) ** 0.5,
            every=table(every["rows"], both), few=table(few["rows"], held), best=f"{best:.1f}",
            one=f"{one:.2f}",
            raw=cell(left["chi2"][:1]), rawheld=cell(left["held"][:1]), seen=SEEN["tooth"],
        )  # fmt: skip
    return text.rstrip() + "\n"
