"""How fast the operators are, beside the plainest torch code and beside deepinv where it imports.

    python benchmarks/operator_speed.py [--side 256] [--only NAME ...] [--out FILE]

One run times all three by turns, on one thread, as processor time, the best of several rounds: once
A and A^T of an image, once the proximal step (A^T A + shift)^-1 (A^T y + shift z). The plain code
of a row is what one writes who wants no library: one torch call or a short loop, the transpose by
automatic differentiation where it has no such form, and conjugate gradients to a relative residual
of 1e-4 where the proximal step has no closed form of one line. It is checked against ours before it
is timed. deepinv (optional; `pip install --no-deps deepinv einops`) runs with its own defaults.
Exit code 1 when a bar is missed: against deepinv 4 times as fast on super-resolution, 6 times on
spatial blur and 50 times on its proximal step; against plain torch at most 1.2 times slower.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import invdiff.operators as ops
from invdiff.operators.algebra import Linear
from invdiff.operators.coils import ring_maps
from invdiff.operators.radon import sparse_view
from invdiff.operators.sampling import gaussian_lines, poisson_disc
from make_docs import bound, gap, rung, summary

SHIFT = 0.01
Map = Callable[[Tensor], Tensor]


@dataclass
class Plain:
    """The same measurement in bare torch; what is None is left to autograd and to a loop."""

    forward: Map
    adjoint: Map | None = None
    solve: Map | None = None
    same: bool = True  # whether it is the same operator to round-off


@dataclass
class Row:
    """An operator, its shape, the plain code, deepinv's class, and the bars against deepinv."""

    name: str
    A: Linear
    x_shape: tuple[int, ...]
    plain: Plain
    peer: Callable[[Any], Any] | None = None
    bars: tuple[float, float] = (0.0, 0.0)


def by_autograd(forward: Map, x_shape: tuple[int, ...]) -> Map:
    """The transpose of a linear map, by automatic differentiation."""

    def adjoint(y: Tensor) -> Tensor:
        x = torch.zeros(len(y), *x_shape, requires_grad=True)
        with torch.enable_grad():
            (g,) = torch.autograd.grad(forward(x), x, y)
        return g

    return adjoint


def by_cg(forward: Map, adjoint: Map) -> Map:
    """(A^T A + SHIFT)^-1 b by conjugate gradients from 0, to a relative residual of 1e-4."""

    def solve(b: Tensor) -> Tensor:
        x, r = torch.zeros_like(b), b.clone()
        p, rr = r.clone(), r.square().sum()
        stop = 1e-8 * rr
        for _ in range(200):
            q = adjoint(forward(p)) + SHIFT * p
            a = rr / (p * q).sum()
            x, r = x + a * p, r - a * q
            old, rr = rr, r.square().sum()
            if rr < stop:
                break
            p = r + rr / old * p
        return x

    return solve


def orthogonal_rows(forward: Map, adjoint: Map, gain: float) -> Map:
    """(A^T A + SHIFT)^-1 b where A A^T = gain: one line by the Woodbury identity."""
    return lambda b: (b - adjoint(forward(b)) / (gain + SHIFT)) / SHIFT


def convolution(kernel: Tensor) -> Map:
    """Correlation with a kernel on an image that is mirrored at its border."""
    k = kernel.float().flip(0, 1)[None, None].expand(3, 1, -1, -1).contiguous()
    h, w = (n // 2 for n in kernel.shape)
    pad = partial(_mirror, h=h, w=w)
    return lambda x: F.conv2d(pad(x), k, groups=3)


def _mirror(x: Tensor, h: int, w: int) -> Tensor:
    """x with the half-sample reflection that `boundary="reflect"` means."""
    x = torch.cat([x[..., :h, :].flip(-2), x, x[..., -h:, :].flip(-2)], dim=-2)
    return torch.cat([x[..., :w].flip(-1), x, x[..., -w:].flip(-1)], dim=-1)


def fourier_filter(kernel: Tensor, n: int) -> tuple[Map, Map, Map]:
    """Circular convolution, its transpose and its proximal step, by rfft2."""
    k = torch.zeros(n, n)
    k[: kernel.shape[0], : kernel.shape[1]] = kernel
    k = k.roll([-(kernel.shape[0] // 2), -(kernel.shape[1] // 2)], (0, 1))
    K = torch.fft.rfft2(k)

    def times(f: Tensor) -> Map:
        return lambda x: torch.fft.irfft2(f * torch.fft.rfft2(x), s=(n, n))

    return times(K), times(K.conj()), times((1 / (K.abs().square() + SHIFT)).to(K.dtype))


def kspace(mask: Tensor) -> tuple[Map, Map]:
    """Centred orthonormal FFT of a complex image in two channels, times a mask; its transpose."""

    def forward(x: Tensor) -> Tensor:
        z = torch.complex(x[:, 0], x[:, 1])
        z = torch.fft.ifftshift(z, dim=(-2, -1))
        return mask * torch.fft.fftshift(torch.fft.fft2(z, norm="ortho"), dim=(-2, -1))[:, None]

    def adjoint(y: Tensor) -> Tensor:
        z = torch.fft.ifftshift((mask * y)[:, 0], dim=(-2, -1))
        z = torch.fft.fftshift(torch.fft.ifft2(z, norm="ortho"), dim=(-2, -1))
        return torch.stack([z.real, z.imag], dim=1)

    return forward, adjoint


def coils(maps: Tensor, mask: Tensor) -> tuple[Map, Map]:
    """The same for every coil's view of the image."""

    def forward(x: Tensor) -> Tensor:
        z = maps * torch.complex(x[:, 0], x[:, 1])[:, None]
        z = torch.fft.fft2(torch.fft.ifftshift(z, dim=(-2, -1)), norm="ortho")
        return mask * torch.fft.fftshift(z, dim=(-2, -1))

    def adjoint(y: Tensor) -> Tensor:
        z = torch.fft.ifft2(torch.fft.ifftshift(mask * y, dim=(-2, -1)), norm="ortho")
        z = (maps.conj() * torch.fft.fftshift(z, dim=(-2, -1))).sum(1)
        return torch.stack([z.real, z.imag], dim=1)

    return forward, adjoint


def rotated_sums(angles: tuple[float, ...], n: int) -> Map:
    """X-ray projections by rotating the picture and adding up its rows."""
    grids = []
    for t in angles:
        c, s = math.cos(t), math.sin(t)
        theta = torch.tensor([[[c, -s, 0.0], [s, c, 0.0]]])
        grids.append(F.affine_grid(theta, [1, 1, n, n], align_corners=False))

    def forward(x: Tensor) -> Tensor:
        views = [F.grid_sample(x, g, align_corners=False).sum(-2) for g in grids]
        return torch.stack(views, dim=-2)

    return forward


def rows(n: int) -> list[Row]:
    """The operators that are timed, for images of n x n pixels."""
    rgb, cplx = (3, n, n), (2, n, n)
    gauss, motion = ops.gaussian_kernel(2.0), ops.motion_kernel(15, 30)
    weights = torch.tensor([0.299, 0.587, 0.114])[None, :, None, None]
    inpaint = ops.Inpaint.random((n, n), 0.5, seed=0)
    m = inpaint.mask
    lines, disc = gaussian_lines((n, n), 4, seed=0), poisson_disc((n, n), 4, seed=0)
    maps = ring_maps(8, (n, n))
    circular, circular_t, circular_prox = fourier_filter(gauss.float(), n)
    single, single_t = kspace(lines)
    angles = sparse_view(60)

    def pool(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 4)

    def pool_t(y: Tensor) -> Tensor:
        return F.interpolate(y, scale_factor=4.0) / 16

    def grey(x: Tensor) -> Tensor:
        return (weights * x).sum(1, keepdim=True)

    def grey_t(y: Tensor) -> Tensor:
        return weights * y

    gain = float(weights.square().sum())
    inverse = orthogonal_rows(single, single_t, 1.0)
    return [
        Row("Inpaint, half of the pixels", inpaint, rgb,
            Plain(lambda x: m * x, lambda y: m * y, lambda b: b / (m + SHIFT)),
            lambda p: p.Inpainting(rgb, mask=m.expand(1, *rgb))),
        Row("AveragePool(4)", ops.AveragePool(4, (n, n)), rgb,
            Plain(pool, pool_t, orthogonal_rows(pool, pool_t, 1 / 16))),
        Row("Bicubic(4)", ops.Bicubic(4, (n, n)), rgb,
            Plain(lambda x: F.interpolate(x, scale_factor=0.25, mode="bicubic", antialias=True),
                  same=False),
            lambda p: p.Downsampling(rgb, filter="bicubic", factor=4), (4.0, 0.0)),
        Row("CircularBlur, Gaussian 2", ops.CircularBlur(gauss, (n, n)), rgb,
            Plain(circular, circular_t, circular_prox),
            lambda p: p.BlurFFT(rgb, filter=gauss.float()[None, None])),
        Row("SeparableBlur, Gaussian 2", ops.blur(gauss, (n, n), "reflect"), rgb,
            Plain(convolution(gauss)),
            lambda p: p.Blur(filter=gauss.float()[None, None], padding="reflect"), (6.0, 50.0)),
        Row("Blur, motion 15 pixels", ops.blur(motion, (n, n), "reflect"), rgb,
            Plain(convolution(motion)),
            lambda p: p.Blur(filter=motion.float()[None, None], padding="reflect")),
        Row("Grayscale", ops.Grayscale((0.299, 0.587, 0.114)), rgb,
            Plain(grey, grey_t, orthogonal_rows(grey, grey_t, gain)),
            lambda p: p.Decolorize(channels=3)),
        Row("Fourier, lines, R = 4", ops.Fourier(lines), cplx, Plain(single, single_t, inverse),
            lambda p: p.MRI(mask=lines.expand(1, 2, n, n), img_size=cplx)),
        Row("Sense, 8 coils, R = 4", ops.Sense(maps, disc), cplx, Plain(*coils(maps, disc)),
            lambda p: p.MultiCoilMRI(
                mask=disc.expand(1, 2, n, n), coil_maps=maps, img_size=cplx)),
        Row("Radon, 60 views", ops.Radon(angles, (n, n)), (1, n, n),
            Plain(rotated_sums(angles, n), same=False),
            lambda p: p.Tomography(60, img_width=n, normalize=False)),
    ]  # fmt: skip


BOXES = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
OPS = {
    "(Tensor a, Tensor b, float c) -> Tensor": ("nms", "qnms"),
    "(Tensor a, Tensor b, float c, int d, int e, int f, bool g) -> Tensor": ("roi_align",),
    "(Tensor a, Tensor b, float c, int d, int e) -> (Tensor, Tensor)": ("roi_pool", "ps_roi_pool"),
    "(Tensor a, Tensor b, float c, int d, int e, int f) -> (Tensor, Tensor)": ("ps_roi_align",),
    "(Tensor a) -> Tensor": ("deform_conv2d", "_deform_conv2d_backward")
    + tuple(f"_{name}_backward" for name in BOXES),
}
"""The native operators that torchvision looks up when it is imported."""


def peers() -> Any | None:
    """deepinv's module of operators; None, and a line that says why, where it cannot be imported.

    deepinv imports torchvision, which need not fit the installed torch; as nothing that is timed
    uses torchvision's native operators, they are declared, without a body, in this process.
    """
    with contextlib.suppress(RuntimeError):
        library = torch.library.Library("torchvision", "DEF")
        for schema, names in OPS.items():
            for name in names:
                library.define(name + schema)
        KEPT.append(library)
    try:
        import deepinv.physics
    except ImportError as error:
        print(f"deepinv is left out: {error}", file=sys.stderr)
        return None
    return deepinv.physics


KEPT: list[Any] = []
"""A library of operators ends with the object."""


def timed(actions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Milliseconds of processor time of each action, by turns, the best of some rounds."""
    found = dict.fromkeys(actions, math.inf)
    counts = {}
    for name, action in actions.items():
        action()
        began = time.process_time()
        action()
        counts[name] = max(1, min(200, int(0.05 / max(time.process_time() - began, 1e-5))))
    for _ in range(rounds):
        for name, action in actions.items():
            began = time.process_time()
            for _ in range(counts[name]):
                action()
            spent = (time.process_time() - began) / counts[name]
            found[name] = min(found[name], 1000 * spent)
    return found


def measure(row: Row, physics: Any | None, rounds: int) -> dict[str, float]:
    """Times of one row: keys are (who, what) joined by a space."""
    A, p = row.A, row.plain
    x = torch.randn(1, *row.x_shape, generator=torch.Generator().manual_seed(0))
    y = A(x)
    adjoint = p.adjoint or by_autograd(p.forward, row.x_shape)
    y_plain = p.forward(x)
    solve = p.solve or by_cg(p.forward, adjoint)
    z, b = torch.zeros_like(x), A.adjoint(y)
    if p.same:
        agree(row.name, "forward", y_plain, y, 1e-5)
        agree(row.name, "adjoint", adjoint(y_plain), b, 1e-5)
        agree(row.name, "proximal step", solve(b), A.solve(b, SHIFT), 1e-2)
    both = {
        "ours both": lambda: A.adjoint(A(x)),
        "plain both": lambda: adjoint(p.forward(x)),
    }
    prox = {
        "ours solve": lambda: A.solve(A.adjoint(y) + SHIFT * z, SHIFT),
        "plain solve": lambda: solve(adjoint(y_plain) + SHIFT * z),
    }
    if row.peer is not None and physics is not None:
        peer = row.peer(physics)
        y_peer = peer.A(x)
        both["deepinv both"] = lambda: peer.A_adjoint(peer.A(x))
        prox["deepinv solve"] = lambda: peer.prox_l2(z, y_peer, 1 / SHIFT)
    return timed(both, rounds) | timed(prox, rounds)


def agree(name: str, what: str, a: Tensor, b: Tensor, tolerance: float) -> None:
    """Stop when two ways to compute the same thing differ by more than a share of its norm."""
    gap = float((a - b).abs().square().sum().sqrt() / b.abs().square().sum().sqrt())
    if gap > tolerance:
        sys.exit(f"{name}: the plain {what} differs from ours by {gap:.2g} of its norm.")


def described(row: Row) -> list[str]:
    """What an operator measures, its shapes, its rung, and how exact its adjoint is."""
    A = row.A
    shapes = [" x ".join(map(str, s)) for s in (row.x_shape, A.y_shape(row.x_shape))]
    gaps = [bound(gap(A, t, row.x_shape), t) for t in (torch.float32, torch.float64)]
    return [summary(type(A)), " to ".join(shapes), rung(A), *gaps]


def markdown(found: dict[str, dict[str, float]], cells: dict[str, list[str]], side: int) -> str:
    """The table as the docs show it."""
    head = ["operator", "what it measures", "x to y", "rung", "gap, float32", "gap, float64"]
    head += [f"{what}: {who}" for what in ("A and Aᵀ", "proximal step")
             for who in ("invdiff", "plain torch", "deepinv")]  # fmt: skip
    lines = [
        "# Times of operators",
        "",
        f"Milliseconds of processor time on one thread, one image of {side} x {side}, made by",
        "`python benchmarks/operator_speed.py`, which says what is timed. The gap is that of",
        "[operators.md](operators.md), of four images of this size.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for name, t in found.items():
        times = [
            f"{t[f'{who} {what}']:.3g}" if f"{who} {what}" in t else "-"
            for what in ("both", "solve")
            for who in ("ours", "plain", "deepinv")
        ]
        lines.append(f"| {name} | " + " | ".join([*cells[name], *times]) + " |")
    return "\n".join(lines) + "\n"


def missed(row: Row, t: dict[str, float]) -> list[str]:
    """The bars that a row misses, in words."""
    wrong = []
    for what, label in (("both", "A and A^T"), ("solve", "proximal step")):
        slower = t[f"ours {what}"] / t[f"plain {what}"]
        if slower > 1.2:
            wrong.append(f"{row.name}, {label}: {slower:.2f} times the plain code")
    if "deepinv both" in t:
        for what, bar in zip(("both", "solve"), row.bars, strict=True):
            gain = t[f"deepinv {what}"] / t[f"ours {what}"]
            if gain < bar:
                wrong.append(f"{row.name}, {what}: {gain:.1f} times as fast as deepinv, not {bar}")
    return wrong


def main() -> int:
    """Time all rows, print the table; exit code 1 when a bar is missed."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--side", type=int, default=256)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument(
        "--only", nargs="*", default=None, help="rows whose name starts with one of these"
    )
    p.add_argument("--out", type=Path, default=None, help="write the table to this file")
    args = p.parse_args()
    torch.set_num_threads(1)
    physics, found, cells, wrong = peers(), {}, {}, []
    for row in rows(args.side):
        if args.only and not row.name.startswith(tuple(args.only)):
            continue
        found[row.name] = measure(row, physics, args.rounds)
        cells[row.name] = described(row)
        wrong += missed(row, found[row.name])
        print(row.name, {k: round(v, 3) for k, v in found[row.name].items()}, file=sys.stderr)
    text = markdown(found, cells, args.side)
    print(text)
    if args.out:
        args.out.write_text(text)
    for line in wrong:
        print("missed: " + line, file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
