"""Remove the artifacts of a JPEG file of known tables, with DDRM-JPEG and with PiGDM.

    python examples/jpeg.py --out jpeg-example

A crop of a photograph is compressed by the real codec at three qualities. Each is restored by both
solvers; the figure shows the mean of the samples, and PSNR is printed for the JPEG itself, for the
mean of the samples and for one of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from invdiff import DDRMJPEG, JPEG, NOISELESS, Karras, PiGDM, Problem, load_prior, psnr, solve
from invdiff.files.figures import overview
from invdiff.files.pictures import from_range, read_photo, to_range

HERE = Path(__file__).parent


def main() -> None:
    """Compress, restore, compare."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--photo", default=str(HERE / "alpacas.webp"), help="a colour picture")
    p.add_argument("--crop", type=int, default=144, help="side of the square that is used, pixels")
    p.add_argument("--top", type=int, default=24, help="first row of that square")
    p.add_argument("--left", type=int, default=168, help="first column of that square")
    p.add_argument("--quality", type=int, nargs="+", default=[5, 10, 20], help="of the JPEG")
    p.add_argument("--subsampling", default="4:2:0", help="4:4:4, 4:2:2 or 4:2:0")
    p.add_argument("--steps", type=int, default=20, help="steps of each solver")
    p.add_argument("--samples", type=int, default=4, help="samples of each")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--prior", default="photo")
    p.add_argument("--precision", default="bfloat16", help="of the network: float32, bfloat16")
    p.add_argument("--out", type=Path, default=Path("jpeg-example"), help="folder of the figure")
    args = p.parse_args()

    prior = load_prior(args.prior, precision=args.precision)
    pixels = read_photo(args.photo).pixels[:, args.top :, args.left :]
    pixels = pixels[:, : args.crop, : args.crop]
    truth = to_range(pixels, prior.value_range)[None]

    def score(x: torch.Tensor) -> float:
        return float(psnr(x.clamp(*prior.value_range), truth, prior.value_range))

    panels = []
    path = Karras(args.steps, 1.0, 0.02)  # a JPEG shows the coarse picture: begin half way
    pigdm = PiGDM(weight=0.4, guidance="paper", schedule=path)
    solvers = {"DDRM-JPEG": DDRMJPEG(schedule=path), "PiGDM": pigdm}
    total = len(args.quality) * len(solvers) * args.steps
    with tqdm(total=total, unit="step") as bar:
        for quality in args.quality:
            A = JPEG(quality, args.subsampling)
            y = A(truth)
            problem = Problem(y, A, NOISELESS, tuple(truth.shape[1:]))
            panels += [("photograph", truth), (f"quality {quality}, {score(y):.2f} dB", y)]
            lines = [f"quality {quality:3d}: JPEG {score(y):.2f} dB"]
            for title, solver in solvers.items():
                result = solve(
                    problem,
                    prior,
                    solver,
                    args.samples,
                    args.seed,
                    watch=lambda snapshot: bar.update(snapshot.state.step > 0),
                )
                mean, one = score(result.mean), score(result.samples[:, 0])
                panels.append((f"{title}, {mean:.2f} dB", result.mean))
                lines.append(f"{title} mean of {args.samples} {mean:.2f}, one {one:.2f}")
            tqdm.write("; ".join(lines))
    args.out.mkdir(parents=True, exist_ok=True)
    shown = [(t, from_range(x[0], prior.value_range)) for t, x in panels]
    overview(shown, None, args.out / "jpeg.png", "JPEG, and restorations of it (PSNR)")
    print(f"written: {args.out / 'jpeg.png'}")


if __name__ == "__main__":
    main()
