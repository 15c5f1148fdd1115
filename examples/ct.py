"""CT from too few X-ray views, with a diffusion prior of CT slices and several posterior samplers.

    python examples/ct.py                       simulated: 30 views of a real chest slice
    python examples/ct.py --case limited        views over 90 of 180 degrees
    python examples/ct.py --case metal          60 views, without the rays that meet two metal parts
    python examples/ct.py --case tooth          measured: 30 of 181 views of a tooth
    python examples/ct.py --case tooth --file tooth_sinogram.h5      the same from TomoPy's file

Each writes one figure and prints the error of every reconstruction.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from invdiff import (
    Inpaint,
    Prior,
    Problem,
    Radon,
    Rng,
    Solver,
    centre_of_rotation,
    fbp,
    hu_to_x,
    limited_angle,
    load_prior,
    metal_trace,
    read_sinogram,
    solve,
    sparse_view,
    transmit,
    x_to_hu,
)
from invdiff.scans.problems import on_unit_norm
from invdiff.tasks import Ct, auto

HERE = Path(__file__).parent
WATER = 0.02  # attenuation of water per mm at about 70 keV
FIELD = 360.0  # mm across the chest slice: the file does not say, this is usual


@dataclass(frozen=True)
class Scan:
    """Line integrals of attenuation, and how x of the prior becomes attenuation.

    y: (1, 1, views, bins). A: of images of attenuation. sigma: typical noise of y. bottom, top:
    attenuation at x = -1 and at x = 1. mask: of the rays that count. truth: x, or a reference.
    """

    title: str
    y: Tensor
    A: Radon
    sigma: float
    bottom: float
    top: float
    truth: Tensor
    truth_name: str
    mask: Inpaint | None = None

    def to_x(self, attenuation: Tensor) -> Tensor:
        return 2 * (attenuation - self.bottom) / (self.top - self.bottom) - 1

    def problem(self, iterations: int) -> Problem:
        """The same in the prior's units: y = A x with an operator of norm 1.

        Step sizes of samplers are meant for that. iterations: bound for every solve and pinv.
        """
        return on_unit_norm(
            self.y, self.A, self.bottom, self.top, self.sigma, self.mask, iterations
        )


# ------------------------------------------------------------------------------------- simulated


def attenuation(hu: Tensor) -> Tensor:
    """Hounsfield units to attenuation per mm."""
    return WATER * (1 + hu / 1000)


def chest(case: str, views: int, photons: float, file: Path) -> Scan:
    """A scan of one slice, with Poisson noise of so many photons per ray.

    The rays are traced through pixels of half the size, so that data and reconstruction do not
    share their discretisation.
    """
    hu = torch.from_numpy(np.load(file)["hu"]).float()[None, None].clamp(-1000, 1500)
    n, mm = hu.shape[-1], FIELD / hu.shape[-1]
    angles = limited_angle(90, 90 / views) if case == "limited" else sparse_view(views)
    mask, metal = None, torch.zeros_like(hu)
    A = Radon(angles, (n, n), pixel=mm)
    if case == "metal":
        metal[..., 178:184, 100:108] = metal[..., 150:154, 160:164] = 1
        mask = metal_trace(A, metal)
    inside = attenuation(hu) + 0.3 * metal
    fine = F.interpolate(inside, scale_factor=2)
    traced = Radon.of(A.geometry.rescaled(2), (2 * n, 2 * n), pixel=mm / 2)(fine)
    y = transmit(traced, photons, Rng.of(0))
    bottom, top = (float(attenuation(x_to_hu(torch.tensor(x)))) for x in (-1.0, 1.0))
    title = {
        "sparse": f"{views} views",
        "limited": f"{views} views over 90 of 180 degrees",
        "metal": f"{views} views without the trace of two metal parts",
    }[case]
    typical = float((traced.exp().mean() / photons).sqrt())
    return Scan(f"Chest, {title}", y, A, typical, bottom, top, hu_to_x(hu), "truth", mask)


# -------------------------------------------------------------------------------------- measured


def tooth(views: int, file: Path, bins: int = 2, side: int = 192) -> Scan:
    """The measured tooth from `views` of its 181 views; `bins` detector pixels are joined to one.

    The axis of rotation is found from all views, by their centres of mass.
    """
    scan = read_sinogram(file, join=bins)
    shift = centre_of_rotation(scan, "mass")
    z, angles = scan.integrals, scan.angles
    assert scan.variance is not None
    sigma = float(scan.variance.mean().sqrt())
    every = scan.radon((side, side), shift)
    reference = fbp(scan.y, every)
    top = 1.1 * float(reference.flatten().quantile(0.995))
    chosen = torch.arange(views) * len(angles) // views
    A = dataclasses.replace(every, angles=tuple(angles[k] for k in chosen))
    found = Scan(
        f"Tooth, {len(chosen)} of {len(angles)} measured views, axis {bins * shift:+.1f} pixels",
        z[chosen][None, None],
        A,
        sigma,
        bottom=0.0,
        top=top,
        truth=reference,
        truth_name=f"FBP, {len(angles)} views",
    )
    return dataclasses.replace(found, truth=found.to_x(reference))


# --------------------------------------------------------------------------------- reconstruction


def solvers(steps: int) -> dict[str, tuple[Solver, int]]:
    """Name to a sampler and the bound on the iterations of its pseudo-inverse or linear solve.

    Chosen by the error of the default case. DPS takes three times the steps: it moves little in
    each. Few iterations keep the pseudo-inverse from amplifying the noise, and y itself is not put
    into the result ("none"), for the same reason.
    """
    chosen = {"score-medical": 6, "mcg": 4, "dps": 1, "diffpir": 20}
    found = {name: auto.configured(Ct, name, Ct.toy(0.0)) for name in chosen}
    return {
        name: (found[name].with_steps(3 * steps if name == "dps" else steps), bound)
        for name, bound in chosen.items()
    }


def figure(scan: Scan, found: dict[str, tuple[Tensor, float]], path: Path) -> None:
    """The sinogram, the reference, and every reconstruction with its error."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = scan.y if scan.mask is None else torch.where(scan.mask.mask, scan.y, float("nan"))
    panels = {f"{scan.title}": shown[0, 0], scan.truth_name: scan.truth[0, 0]}
    panels |= {f"{name}, error {error:.3f}": x[0, 0] for name, (x, error) in found.items()}
    columns = 4
    rows = math.ceil(len(panels) / columns)
    sheet, axes = plt.subplots(rows, columns, figsize=(3.6 * columns, 3.8 * rows), squeeze=False)
    for place in axes.flat:
        place.axis("off")
    low, high = (-1.0, 0.2) if scan.truth_name == "truth" else (-1.0, 1.0)
    for k, (place, (title, image)) in enumerate(zip(axes.flat, panels.items(), strict=False)):
        limits = {} if k == 0 else {"vmin": low, "vmax": high}
        place.imshow(image.numpy(), cmap="gray", aspect="auto" if k == 0 else "equal", **limits)
        place.set_title(title, fontsize=9, wrap=True)
    sheet.tight_layout()
    sheet.savefig(path, dpi=110)


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--case", choices=("sparse", "limited", "metal", "tooth"), default="sparse")
    p.add_argument("--file", type=Path, help="the slice (.npz) or the tooth (.npz, .h5)")
    p.add_argument("--views", type=int, help="30; 60 for metal and limited")
    p.add_argument("--photons", type=float, default=1e6, help="per ray, in the simulation")
    p.add_argument("--solvers", nargs="+", choices=tuple(solvers(1)), help="all")
    p.add_argument("--prior", default="ct", help="what load_prior takes, 1 channel")
    p.add_argument("--steps", type=int, default=60, help="of the samplers; DPS: 3 x")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path("ct.png"))
    args = p.parse_args()

    views = args.views or (60 if args.case in ("metal", "limited") else 30)
    if args.case == "tooth":
        scan = tooth(views, args.file or HERE / "tooth.npz")
    else:
        scan = chest(args.case, views, args.photons, args.file or HERE / "chest-ct.npz")
    run(scan, load_prior(args.prior), args)


def run(scan: Scan, prior: Prior, args: argparse.Namespace) -> None:
    """Reconstruct with FBP and with every sampler asked for; print and draw."""

    def error(x: Tensor) -> float:
        inside = (x.clamp(-1, 1) - scan.truth.clamp(-1, 1)).square().mean()
        return float(inside.sqrt())

    print(scan.title)
    filled = scan.y
    if scan.mask is not None:
        filled = bridged(scan.y, scan.mask.mask.expand_as(scan.y))
    plain = scan.to_x(fbp(filled, scan.A))
    found = {"FBP": (plain, error(plain))}
    for name, (solver, iterations) in solvers(args.steps).items():
        if args.solvers and name not in args.solvers:
            continue
        with tqdm(total=solver.num_steps, desc=name, leave=False) as bar:
            result = solve(
                scan.problem(iterations),
                prior,
                solver,
                seed=args.seed,
                watch=lambda s: bar.update(s.steps_done - bar.n),
            )
        x = result.samples[0]
        found[name] = (x, error(x))
        print(f"{name:14} {result.seconds:6.0f} s  {result.nfe} evaluations")
    for name, (_, e) in found.items():
        print(f"{name:14} root mean square error {e:.4f} on [-1, 1] against {scan.truth_name}")
    figure(scan, found, args.out)
    print(args.out)


def bridged(y: Tensor, known: Tensor) -> Tensor:
    """The sinogram with unknown bins replaced by a straight line between their neighbours."""
    out = y.clone()
    where = np.arange(y.shape[-1])
    for view in range(y.shape[-2]):
        keep = known[0, 0, view].numpy()
        row = np.interp(where, where[keep], y[0, 0, view].numpy()[keep])
        out[0, 0, view] = torch.from_numpy(row).to(y.dtype)
    return out


if __name__ == "__main__":
    main()
