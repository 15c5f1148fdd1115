"""Search the knobs of solvers for the tasks of `restoration.py`: what `invdiff.tasks` records.

    python benchmarks/tune.py --tasks super-resolution --grid 'DiffPIR(schedule=Karras(20, 2.0,
    0.02))'

A grid entry is a Python expression over the solvers and schedules of invdiff. Each is scored as
`restoration.py` scores it; one line of JSON is printed for each.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

import invdiff
import restoration
from invdiff.priors.load import load_prior


def main() -> None:
    """Print PSNR of the mean and of single samples for every entry of the grid."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--tasks", nargs="*", default=None)
    p.add_argument("--grid", nargs="+", required=True)
    p.add_argument("--samples", type=int, default=8)
    p.add_argument("--images", type=int, default=12)
    p.add_argument("--batch", type=int, default=12)
    p.add_argument("--prior", default="photo")
    p.add_argument("--precision", default="bfloat16")
    p.add_argument("--device", default="cpu")
    args = p.parse_args()
    prior = load_prior(args.prior, args.device, args.precision)
    names = {n: getattr(invdiff, n) for n in invdiff.__all__}
    truth = restoration.photographs(args.images)
    for row in restoration.rows():
        if args.tasks and row.task not in args.tasks:
            continue
        case = restoration.case(row, truth)
        classical = restoration.score(row.baseline(case), truth)
        print(json.dumps({"task": row.task, row.classical: classical}), flush=True)
        for entry in args.grid:
            solver = eval(entry, names)
            began = time.perf_counter()
            problem = case.problem.to(args.device)
            result = invdiff.solve(problem, prior, solver, args.samples, batch=args.batch)
            mean = restoration.score(result.mean, truth)
            one = restoration.score(result.samples[:, 0], truth)
            found = {"solver": entry, "mean": mean, "one": one, "nfe": result.nfe,
                     "vjps": result.vjps, "gain": round(mean[0] - classical[0], 3),
                     "seconds": round(time.perf_counter() - began, 1)}  # fmt: skip
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
