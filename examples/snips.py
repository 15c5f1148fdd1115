"""SNIPS (Kawar et al. 2021): noisy inverse problems by Langevin dynamics in the singular basis.

    python examples/snips.py

Inpainting, deblurring, super-resolution and compressed sensing, all with noise of level 0.04 where
black is 0 and white is 1. The short chain keeps excess noise, which the network takes for texture.
"""

from __future__ import annotations

from pathlib import Path

import pictures

import invdiff


def main() -> None:
    """Four problems, one solver."""
    args = pictures.options(__doc__, "400 (the paper takes 2500)").parse_args()
    prior = pictures.load(args.prior)
    x = pictures.picture(prior)
    sheet = pictures.Sheet(prior, x)
    solver = invdiff.SNIPS(c=0.15, K=2, final="denoised", schedule=invdiff.VE(400, 3.0, 0.02))
    size, gauss = pictures.SIZE, invdiff.gaussian_kernel(1.5)
    for name, A in (
        ("half of the pixels", invdiff.Inpaint.random(size, 0.5, seed=0)),
        ("blur", invdiff.blur(gauss, size)),
        ("2 x 2 means", invdiff.AveragePool(2, size)),
        ("256 projections of 32 x 32", invdiff.BlockSensing(256, size)),
    ):
        problem = pictures.measured(A, x, 0.04)
        shown = problem.y if name == "blur" else A.pinv(problem.y)
        sheet.show(f"measured: {name}", shown)
        found = pictures.sample(name, problem, prior, solver, args)
        sheet.show(f"sample: {name}", found, score=True)
    sheet.save(args.out or Path("snips.png"), "SNIPS, noise 0.04")


if __name__ == "__main__":
    main()
