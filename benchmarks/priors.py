"""How good the priors that come with invdiff are, and whether they remember what they saw.

    python benchmarks/priors.py NAME --data PATH [--out docs/priors]

PATH is what the prior was trained on (`invdiff train NAME --data PATH`); the rule of its recipe
says which images were held out. Written are NAME.md and NAME.png:
- denoising of held-out images beside non-local means and total variation of scikit-image, each
  with its constant chosen with the truth in hand;
- samples without a measurement, with the nearest of the training images below each;
- sliced Wasserstein distances to held-out images: of the samples, of training images (what a
  perfect sampler has) and of Gaussian images with the mean and the spectrum of the training images;
- memorisation: distances to the nearest training image, of samples and of held-out images. A prior
  that repeats what it saw has samples much nearer to the training images than held-out images are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invdiff.core.rng import Rng
from invdiff.files.pictures import save_picture
from invdiff.priors.base import Prior
from invdiff.priors.load import load_prior
from invdiff.problem.metrics import psnr, sliced_wasserstein
from invdiff.train.data import PatchSampler, centre_crops
from invdiff.train.drawings import draw, visible
from invdiff.train.files import read
from invdiff.train.recipe import Recipe
from invdiff.train.recipes import recipe
from invdiff.train.validation import VALIDATION_SIGMAS
from invdiff.train.wiener import Wiener

SIDE = {"photo": 64, "ct": 128}
"""Side of samples, where it is not that of the recipe's validation images."""

UNLICENSED = {"brain", "brain-magnitude", "faces64", "multiscale"}
"""Trained on collections whose licence is not named, or not confirmed: none of it is copied."""


def channels_last(x: Tensor) -> np.ndarray:
    """(C, H, W) as (H, W, C) float64."""
    return x.permute(1, 2, 0).double().numpy()


def library(name: str, x: Tensor, sigma: float, constant: float) -> Tensor:
    """Non-local means or total variation of scikit-image on (C, H, W)."""
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

    if name == "total variation":
        done = denoise_tv_chambolle(channels_last(x), weight=constant * sigma, channel_axis=-1)
    else:
        done = denoise_nl_means(
            channels_last(x), h=constant * sigma, sigma=sigma, patch_size=5, patch_distance=6,
            fast_mode=True, channel_axis=-1,
        )  # fmt: skip
    return torch.from_numpy(done.reshape(*x.shape[1:], len(x))).permute(2, 0, 1).float()


CONSTANTS = {"non-local means": (0.5, 0.7, 0.9), "total variation": (0.4, 0.6, 0.8, 1.2)}


def denoising(prior: Prior, images: Tensor) -> list[str]:
    """Lines of the table: PSNR in dB (peak 2) by sigma, the noise being the same for all."""
    found: dict[str, list[float]] = {n: [] for n in ("this prior", *CONSTANTS)}
    for i, sigma in enumerate(VALIDATION_SIGMAS):
        z = torch.randn(images.shape, generator=torch.Generator().manual_seed(1000 + i))
        noisy = images + sigma * z
        done = torch.cat([prior.denoise(x[None], sigma) for x in noisy])
        found["this prior"].append(float(psnr(done, images, (-1, 1)).mean()))
        for name, constants in CONSTANTS.items():
            best = -np.inf
            for c in constants:
                done = torch.stack([library(name, x, sigma, c) for x in noisy])
                best = max(best, float(psnr(done, images, (-1, 1)).mean()))
            found[name].append(best)
    head = "| sigma | " + " | ".join(f"{s:g}" for s in VALIDATION_SIGMAS) + " |"
    rows = [f"| {n} | " + " | ".join(f"{v:.2f}" for v in vs) + " |" for n, vs in found.items()]
    return [head, "|---|" + "---|" * len(VALIDATION_SIGMAS), *rows]


def patches(images: list[np.ndarray], r: Recipe, side: int, count: int) -> Tensor:
    """`count` images or pieces of images as the prior was trained on them, side x side."""
    from dataclasses import replace

    sampler = PatchSampler(images, replace(r, patch=side, batch=64, scales=(1,), halves=0.0), "cpu")
    n = len(sampler(0))  # two items make one clip
    x = torch.cat([sampler(k) for k in range(-(-count // n))])[:count]
    return x if r.shape is None else x.reshape(count, *(s or side for s in r.shape))


def nearest(x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of every x to the nearest of known, per pixel (root mean square), and its index.

    Complex images are compared by their magnitude.
    """
    if x.shape[1] == 2:
        x, known = visible(x), visible(known)
    d = torch.cdist(x.flatten(1), known.flatten(1)) / x[0].numel() ** 0.5
    return d.min(dim=1).values, d.argmin(dim=1)


def sheet(x: Tensor, near: Tensor | None, columns: int = 12) -> Tensor:
    """Rows of samples, each above the row of their nearest training images, if any, (C, H, W)."""
    rows = []
    for k in range(0, len(x), columns):
        for part in (y[k : k + columns] for y in (x, near) if y is not None):
            cells = torch.nn.functional.pad(visible(part), (2, 2, 2, 2), value=1.0)
            rows.append(torch.cat(list(cells), dim=-1))
        rows.append(torch.ones_like(rows[-1][:, :6]))
    width = max(r.shape[-1] for r in rows)
    rows = [torch.nn.functional.pad(r, (0, width - r.shape[-1]), value=1.0) for r in rows]
    return torch.cat(rows, dim=-2)


def clouds(a: Tensor, b: Tensor) -> float:
    """Sliced Wasserstein distance of equally many of each, times the root of the number of values.

    Complex images are compared by their magnitude.
    """
    n = min(len(a), len(b))
    if a.shape[1] == 2:
        a, b = visible(a), visible(b)
    return sliced_wasserstein(a[:n], b[:n], 500) * a[0].numel() ** 0.5


def page(name: str, data: Path, out: Path, count: int, steps: int, known_count: int) -> str:
    """Measure everything; the text of the page. The sheet of samples is written beside it."""
    r, prior = recipe(name), load_prior(name)
    train, valid = read(data, r)
    crops = centre_crops(valid, r, min(r.validated, 24))
    side = SIDE.get(name, r.patch if r.become == "moving clips" else r.validation)
    fresh = patches(valid, r, side, count)
    shape = tuple(fresh.shape[1:])
    drawn = draw(prior, shape, count, steps)
    known = patches(train, r, side, known_count)
    d_drawn, index = nearest(drawn, known)
    d_fresh, _ = nearest(fresh, known)
    shown = min(24, count)
    near = None if name in UNLICENSED else known[index[:shown]]
    save_picture(out / f"{name}.png", sheet(drawn[:shown], near))
    beside = ", each above the nearest training image:"
    if near is None:
        beside = (
            ". The nearest training images are not shown, as their collection names no licence:"
        )
    lines = [
        f"# Prior `{name}`, measured", "",
        f"Made by `python benchmarks/priors.py {name} --data PATH`. The card is "
        f"[{name}.md](../../src/invdiff/priors/weights/{name}.md).", "",
    ]  # fmt: skip
    if crops is not None and crops.ndim == 4:
        lines += [
            f"PSNR in dB (peak 2) of {len(crops)} denoised held-out images, "
            f"{crops.shape[-2]} x {crops.shape[-1]}:", "", *denoising(prior, crops), "",
        ]  # fmt: skip
    pairs: dict[str, Callable[[], Tensor]] = {"samples of the prior": lambda: drawn}
    pairs["training images"] = lambda: known
    if fresh.ndim == 4:
        pairs["Gaussian images of the same mean and spectrum"] = lambda: gaussian(known, count)
    lines += [
        f"Sliced Wasserstein distance to {count} held-out images of {side} x {side}:", "",
        "| from | distance |", "|---|---|",
        *(f"| {label} | {clouds(make(), fresh):.3f} |" for label, make in pairs.items()), "",
        f"Root mean square difference to the nearest of {known_count} training images (pieces of "
        "them, where the prior was trained on pieces):", "",
        "| of | smallest | median |", "|---|---|---|",
        f"| samples | {d_drawn.min():.3f} | {d_drawn.median():.3f} |",
        f"| held-out images | {d_fresh.min():.3f} | {d_fresh.median():.3f} |", "",
        f"Samples without a measurement ({steps} steps){beside}",
        "", f"![samples]({name}.png)", "",
    ]  # fmt: skip
    return "\n".join(lines)


def gaussian(known: Tensor, count: int) -> Tensor:
    """Stationary Gaussian images with the mean and the power spectrum of the known ones."""
    w = Wiener(known)
    z = Rng.of(list(range(count))).normal(torch.empty(count, *known.shape[1:]), "white")
    spectrum = w.power.sqrt() * torch.fft.rfft2(z, norm="ortho")
    return w.mean + torch.fft.irfft2(spectrum, known.shape[-2:], norm="ortho")


def main() -> None:
    """Measure one prior and write its page."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("name", help="of a recipe of `invdiff train`")
    p.add_argument("--data", type=Path, required=True, help="what it was trained on")
    p.add_argument("--out", type=Path, default=Path("docs/priors"))
    p.add_argument("--samples", type=int, default=96)
    p.add_argument("--steps", type=int, default=50)
    p.add_argument("--known", type=int, default=5000, help="training images to compare with")
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        text = page(args.name, args.data, args.out, args.samples, args.steps, args.known)
    (args.out / f"{args.name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
