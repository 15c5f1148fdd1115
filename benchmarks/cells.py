"""How far do answers to JPEG files lie from the cells of the file? For the warning's threshold.

    python benchmarks/cells.py

Crops of 64 x 64 of two photographs of the benchmark, at three qualities: rms distance of the
coefficients from their cells, in half steps, of the answers of solvers, of the true picture, of the
decoded file after the denoiser at three levels, and of another picture. `sampling.checks.OUTSIDE`
lies between answers and the other picture. Prints a table.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import restoration
from invdiff.files.pictures import save_picture
from invdiff.priors.load import load_prior
from invdiff.sampling.checks import OUTSIDE, misfit
from invdiff.sampling.pose import pose
from invdiff.sampling.run import solve
from invdiff.tasks import RepairJPEG
from invdiff.tasks.auto import configured
from invdiff.tasks.jpeg import MakeJPEG

QUALITIES, LEVELS = (10, 40, 85), (0.05, 0.1, 0.2)
SOLVERS = ("spectral-jpeg", "pocs", "ddrm-jpeg", "pigdm")


def main() -> None:
    prior, photos = load_prior("photo"), restoration.photographs(3)[..., 96:160, 96:160]
    for quality in QUALITIES:
        for truth, other in zip(photos[:2], photos[1:], strict=True):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                save_picture(folder / "clean.png", (truth + 1) / 2)
                made = MakeJPEG(quality=quality).make(folder / "clean.png", folder, 0)
                made.write(folder)
                problem = RepairJPEG().read(folder / made.measurement, prior).problem
            answers = {"truth": truth, "another picture": other}
            for solver in SOLVERS:
                chosen = configured(RepairJPEG, solver, pose(problem, prior).problem)
                answers[solver] = solve(problem, prior, chosen, 1, seed=0).samples[0, 0]
            for level in LEVELS:
                answers[f"denoised at {level}"] = prior.denoise(problem.y, level)[0]
            far = {n: float(misfit(problem, x[None])[0]) for n, x in answers.items()}
            said = ", ".join(f"{n} {v:.2f}{' (warned)' * (v > OUTSIDE)}" for n, v in far.items())
            print(f"quality {quality}: {said}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
