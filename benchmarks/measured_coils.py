"""A head in measured coils, undersampled afterwards: the default beside sigpy's and BART's answers.

The sensitivities are those of the 8-coil brain in `examples`, found by ESPIRiT; the image is a
slice that the prior was not trained on, with a smooth phase. All of k-space is written as BART does
where the readout was transformed away, `1 N N C`, and read by `read_kspace`, then undersampled,
with 24 x 24 samples (or 24 columns) in the middle. Every answer has the maps that are estimated
from these. `python benchmarks/medical.py coils` runs it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise
from invdiff.operators.coils import espirit, normalised
from invdiff.operators.mri import Sense, as_complex, fft2c
from invdiff.operators.sampling import acceleration, equispaced, poisson_disc
from invdiff.priors.base import Prior
from invdiff.problem.metrics import psnr, ssim
from invdiff.sampling.run import solve
from invdiff.scans import KSpace, read_kspace
from invdiff.scans.cfl import read_cfl, write_cfl
from invdiff.scans.kspace_problem import MRI, middle, mri_problem
from invdiff.tasks import TASKS, auto
from tv import l1_wavelet, total_variation, tv_objective

EXAMPLE = Path(__file__).parents[1] / "examples" / "brain8coil.npz"
MIDDLE = 24
WEIGHTS = {"TV": (3e-4, 1e-3, 3e-3), "L1-wavelet": (1e-3, 3e-3, 1e-2)}
"""Of which the best is taken, by the truth."""


@dataclass(frozen=True, eq=False)
class Undersampled:
    """A measurement, and the truth (H, W), complex, in the units of k-space."""

    title: str
    k: KSpace
    truth: Tensor

    def score(self, image: Tensor) -> tuple[float, float, float]:
        """NMSE, PSNR in dB and SSIM of magnitudes (H, W), where the head is, after a scalar fit."""
        head = self.truth.abs() > 0.05 * self.truth.abs().max()
        a, b = image.abs() * head, self.truth.abs() * head
        a = a * ((a * b).sum() / a.square().sum())
        top = float(b.max())
        pair = (a / top)[None, None], (b / top)[None, None]
        error = float((a - b).square().sum() / b.square().sum())
        return error, float(psnr(*pair, (0, 1))), float(ssim(*pair, (0, 1)))


def measured_maps(size: tuple[int, int]) -> Tensor:
    """Sensitivities of the example's coils, (8, H, W), without support."""
    k = middle(read_kspace(EXAMPLE), 128)
    found = espirit(k.y, crop=0)
    parts = torch.cat([found.real, found.imag])
    real, imag = F.interpolate(parts, size, mode="bilinear").unbind(0)
    return normalised(torch.complex(real, imag))


def scans(truth: Tensor, sigma: float, folder: Path) -> Iterator[Undersampled]:
    """R = 4 and 8, equispaced columns and Poisson disc, of complex channels (1, 2, N, N)."""
    x = as_complex(truth)[0, 0]
    size = (int(x.shape[0]), int(x.shape[1]))
    clean = fft2c(measured_maps(size) * x)[None]
    full = GaussianNoise(sigma).sample(clean, Rng.of(0))[0]
    write_cfl(folder / "full", full.movedim(0, -1)[None].numpy())
    k = read_kspace(folder / "full.cfl")
    assert torch.equal(k.data, full)
    rows, columns = (slice(n // 2 - MIDDLE // 2, n // 2 + MIDDLE // 2) for n in size)
    for R in (4, 8):
        kinds = {"equispaced": equispaced(size, R), "Poisson": poisson_disc(size, R, 0)}
        for name, mask in kinds.items():
            m = mask[0, 0].bool().expand(size).clone()
            m[rows if name == "Poisson" else slice(None), columns] = True
            true = acceleration(m[None, None])[0]
            cut = KSpace(k.data * m, m)
            yield Undersampled(f"{name}, R = {R} ({true:.2f})", cut, x)


def answers(
    s: Undersampled, prior: Prior, samples: int, bart: bool
) -> Iterator[tuple[str, Tensor, str]]:
    """(name, image (H, W), remark) of every method."""
    m = mri_problem(s.k)
    p = m.problem

    def image(z: Tensor) -> Tensor:
        return as_complex(z)[0, 0]

    A = p.linear
    yield "SENSE", image(A.solve(A.adjoint(p.y), 0.01)), "ridge 0.01"
    assert isinstance(p.A, Sense)
    for name in ("TV", "L1-wavelet"):
        found = []
        for weight in WEIGHTS[name]:
            if name == "TV":
                x = total_variation(p, weight, 60)
                value, gain = tv_objective(p, x, weight), 0.0
            else:
                x, value, gain = l1_wavelet(p, weight)
            found.append((s.score(image(x))[1], x, weight, value, gain))
        _, x, weight, value, gain = max(found, key=lambda one: one[0])
        if name == "TV":
            more = tv_objective(p, total_variation(p, weight, 120), weight)
            value, gain = more, 1 - more / value
        told = f"weight {weight:g}, objective {value:.5g}, second half took off {gain:.1e}"
        yield f"sigpy {name}", image(x), told
    if bart:
        yield from barts(s, m)
    best, _ = auto.estimator(TASKS["mri"], p) or (None, "")
    assert best is not None
    yield f"default estimate ({best.name})", image(solve(p, prior, best, samples=1).samples[0]), ""
    solver = auto.choose(TASKS["mri"], p)[0]
    drawn = solve(p, prior, solver, samples=samples, seed=0).samples[0]
    yield f"default, mean of {samples} ({solver.name})", image(drawn.mean(0, keepdim=True)), ""
    yield f"default, one sample ({solver.name})", image(drawn[:1]), ""


def barts(s: Undersampled, m: MRI) -> Iterator[tuple[str, Tensor, str]]:
    """`bart ecalib` and `bart pics`, at the best of a few weights by the truth."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cfl(folder / "k", (s.k.data / m.scale).movedim(0, -1)[None].numpy())

        def run(*args: str) -> None:
            subprocess.run(["bart", *args], cwd=folder, check=True, capture_output=True)

        # noise and support as in ours: with its own it is 2 to 5 dB lower here
        run("ecalib", "-t", "0.02", "-c", "0", "-r", str(MIDDLE), "-m1", "k", "maps")
        for title, kind in (("L1-wavelet", "W:7:0"), ("TV", "T:7:0")):
            found = []
            for weight in (0.001, 0.003, 0.01):
                run("pics", "-S", "-i", "100", "-R", f"{kind}:{weight}", "k", "maps", "x")
                x = torch.from_numpy(np.array(read_cfl(folder / "x.cfl")).squeeze())
                found.append((s.score(x)[1], x, weight))
            _, x, weight = max(found, key=lambda one: one[0])
            yield f"BART {title}", x, f"weight {weight:g}, 100 iterations"


def table(truth: Tensor, prior: Prior, sigma: float, samples: int, bart: bool) -> str:
    """A row for each answer, a column for each measurement: NMSE / PSNR / SSIM."""
    if bart and shutil.which("bart") is None:
        raise SystemExit("bart is not installed; leave --bart out.")
    cells: dict[str, dict[str, str]] = {}
    remarks, titles = list[str](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        for s in scans(truth, sigma, Path(folder)):
            titles.append(s.title)
            began = time.perf_counter()
            for name, image, told in answers(s, prior, samples, bart):
                error, quality, structure = s.score(image)
                cells.setdefault(name, {})[s.title] = (
                    f"{error:.4f} / {quality:.1f} / {structure:.3f}"
                )
                remarks += [f"- {s.title}, {name}: {told}"] if "objective" in told else []
                record = {"scan": s.title, "answer": name, "psnr": quality, "told": told}
                record["seconds"] = round(time.perf_counter() - began, 1)
                print(json.dumps(record), file=sys.stderr, flush=True)
                began = time.perf_counter()
    lines = ["| answer | " + " | ".join(titles) + " |", "|---|" + "---|" * len(titles)]
    lines += [f"| {name} | " + " | ".join(row[t] for t in titles) + " |"
              for name, row in cells.items()]  # fmt: skip
    return "\n".join([*lines, "", *remarks]) + "\n"
