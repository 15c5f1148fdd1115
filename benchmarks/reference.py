"""The posterior of two measurements on a learned prior, by particles, and how sure it is.

    python benchmarks/reference.py [--clouds 6]     build/reference, then the record of it
    python benchmarks/reference.py --record         the record of the clouds that are there

The prior is the law of a chain of 50 ancestral steps of `fashion28`, whose end is drawn from N(D,
0.02^2). Two methods sample its posterior, in clouds that know nothing of each other: particles that
are guided by the chain's own covariances (`invdiff.audit.twisted`), which make the record; and as a
check of it, for the half, particles guided by gradients of the network, for block means the solver
ddsmc. Every cloud is a file; a run that was stopped goes on with the next one. The record is
src/invdiff/audit/reference.json; what it holds is told in `invdiff.audit.reference`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invdiff.audit import reference
from invdiff.audit.converged import summary
from invdiff.audit.learned import operator
from invdiff.audit.reference import CASES, SCHEDULE, problem_of
from invdiff.audit.twisted import Chain, Cloud, cloud, covariances, guides
from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise
from invdiff.priors.load import load_prior
from invdiff.sampling.importance import log_evidence
from invdiff.sampling.run import solve
from invdiff.solvers.ddsmc import DDSMC

BUILD = Path(__file__).resolve().parents[1] / "build" / "reference"
DRAWS, BATCH, COUNT = 1500, 250, 256
"""Chains of the prior, rows at once, and particles of a cloud."""
INFLATION = 1.5
TRUTHS = {"half": 9, "x4": 4}
"""Which of the chains of the prior is measured."""
SOLVER = DDSMC(COUNT, share=0.2, weights=True, schedule=SCHEDULE)
"""The check of x4. The numbers of the half depend on each other too much for a twist that is a
multiple of the identity: with noise 1.0, 256 particles of `tds` found log p(y) -604.2, where those
guided by covariances found -588.3, -589.1, and with gradients -592.3."""
CHECKS = {"half": "twisted particles, gradients", "x4": "ddsmc"}


def chain() -> Chain:
    """The prior."""
    prior = load_prior(reference.PRIOR)

    def denoise(x: Tensor, s: float) -> Tensor:
        with torch.no_grad():
            return prior.denoise(x.reshape(-1, *reference.SHAPE), s).flatten(1)

    def pull(x: Tensor, s: float) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        found, back = prior.x0_vjp(x.reshape(-1, *reference.SHAPE), Level(1.0, s))
        return found.flatten(1), lambda w: back(w.reshape(found.shape)).flatten(1)

    levels = tuple(level.sigma for level in SCHEDULE.levels()[:-1])
    return Chain(denoise, levels, math.prod(reference.SHAPE), pull)


def save(file: Path, what: dict[str, Any]) -> None:
    """Whole, or not at all."""
    torch.save(what, part := file.with_suffix(".part"))
    part.replace(file)


def prior_draws() -> dict[str, Any]:
    """Draws of the chain, their covariances at every level, and CPU seconds."""
    file = BUILD / "prior.pt"
    if not file.is_file():
        began, g = time.process_time(), torch.Generator().manual_seed(0)
        images, sums = [], None
        for _ in range(DRAWS // BATCH):
            x, seen = chain().draw(BATCH, g)
            part = covariances(x, seen)
            sums = part if sums is None else [a + b for a, b in zip(sums, part, strict=True)]
            images.append(x)
        assert sums is not None
        C = [(c * BATCH / DRAWS).float() for c in sums]
        save(file, {"x": torch.cat(images), "C": C, "cpu": time.process_time() - began})
    found: dict[str, Any] = torch.load(file)
    return found


def measurement(case: str, truth: Tensor) -> Tensor:
    """y of a truth (1, *SHAPE)."""
    return GaussianNoise(CASES[case].sigma).sample(
        operator(case)(truth), Rng.of([CASES[case].seed])
    )


def made(case: str, method: str, number: int, y: Tensor, C: list[Tensor]) -> dict[str, Any]:
    """A cloud of one of the two methods."""
    began, p = time.process_time(), problem_of(case, y)
    g = torch.Generator().manual_seed(1000 + number)
    gradient = method == "check"
    if case == "half" or not gradient:
        A, kept = reference.matrix(case)
        by = guides(c := chain(), C, A, CASES[case].sigma, 1.0 if gradient else INFLATION)
        found = cloud(c, by, A.float(), y.flatten()[kept], COUNT, g, gradient)
    else:
        result = solve(p, load_prior(reference.PRIOR), SOLVER, COUNT, seed=1000 + number)
        assert result.log_weight is not None
        w = result.log_weight[0].double()
        found = Cloud(result.samples[0].flatten(1), w, float(log_evidence(w)), 0)
    return {"x": found.equal(g).half(), "log_evidence": found.log_evidence, "roots": found.roots,
            "cpu": time.process_time() - began}  # fmt: skip


def clouds(case: str, method: str) -> tuple[list[Cloud], float]:
    """Those that were made, of equal weight inside, and their CPU seconds."""
    files = sorted(BUILD.glob(f"{case}-{method}-*.pt"), key=lambda f: int(f.stem.split("-")[-1]))
    found = [torch.load(f) for f in files]
    none = torch.zeros(COUNT, dtype=torch.float64)
    kept = [Cloud(one["x"].float(), none, one["log_evidence"], one["roots"]) for one in found]
    return kept, sum(one["cpu"] for one in found)


def main() -> int:
    """Make what is missing, and the record."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--clouds", type=int, default=6, help="half as many of the check")
    p.add_argument("--record", action="store_true", help="of the clouds that are there")
    args = p.parse_args()
    torch.set_num_threads(1)
    BUILD.mkdir(parents=True, exist_ok=True)
    drawn = prior_draws()
    truth = {case: drawn["x"][i].reshape(1, *reference.SHAPE) for case, i in TRUTHS.items()}
    ys = {case: measurement(case, x) for case, x in truth.items()}
    for number in range(0 if args.record else args.clouds):
        for case in CASES:
            for method in ("twisted", "check")[: 1 + (number < args.clouds // 2)]:
                file = BUILD / f"{case}-{method}-{number}.pt"
                if not file.is_file():
                    one = made(case, method, number, ys[case], drawn["C"])
                    save(file, one)
                    told = f"log p(y) {one['log_evidence']:.2f}, {one['cpu']:.0f} CPU s"
                    print(f"{file.stem}: {told}", flush=True)
    found, seconds = {}, drawn["cpu"]
    for case in CASES:
        (own, spent), (other, more) = (clouds(case, method) for method in ("twisted", "check"))
        seconds += spent + more
        found[case] = summary(
            case, own, other, truth[case].flatten(), ys[case], drawn["x"].flatten(1)
        ) | {"check": CHECKS[case]}
    how = {"schedule": repr(SCHEDULE), "draws": DRAWS, "cpu_seconds": round(seconds)}
    text = json.dumps({"how": how, "cases": found}, allow_nan=False)
    reference.FILE.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
