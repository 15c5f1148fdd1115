"""Writes docs/forward-models.md and its pictures: every operator, from the code that it shows.

    python benchmarks/forward_models.py           rewrites the page and docs/images/operators/
    python benchmarks/forward_models.py --check   exits 1 when the page differs or a picture lacks

Each picture holds the image, its measurement and what the operator gives back, made by the line of
code that stands beside it. Inputs are those of examples/.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import invdiff.operators as ops
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise, Noise, Poisson
from invdiff.operators import Operator
from operator_pictures import (
    SIDE,
    SIZE,
    angles,
    array,
    brain,
    chest,
    clip,
    column,
    display,
    logarithm,
    magnitude,
    metal,
    photo,
    plane,
    side_by_side,
    sky,
    small,
    spread,
    square,
    write_sheet,
)

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "forward-models.md"
PICTURES = ROOT / "docs" / "images" / "operators"


@dataclass(frozen=True)
class Entry:
    """An operator on the page.

    of: its class. formula: Markdown. code: a Python expression, after `from invdiff.operators
    import *`, with size and x_shape in reach. x: the image. noise: what is added to the
    measurement. back: pinv, adjoint, or empty for none. show_x, show_y, show_back: how arrays look.
    name: of the picture, and title: of the entry, where they are not those of the class.
    """

    of: type[Operator]
    formula: str
    code: str
    x: Callable[[], Tensor] = photo
    noise: Noise = GaussianNoise(0.02)
    back: str = "pinv"
    show_x: Callable[[Tensor], Tensor] = display
    show_y: Callable[[Tensor], Tensor] = display
    show_back: Callable[[Tensor], Tensor] | None = None
    name: str = ""
    title: str = ""

    @property
    def slug(self) -> str:
        return self.name or self.of.__name__.lower()


def made(entry: Entry) -> Operator:
    """The operator of an entry's code. It is our own code, from this file."""
    scope = {name: getattr(ops, name) for name in ops.__all__}
    x = entry.x()
    scope |= {"torch": torch, "size": tuple(x.shape[-2:]), "x_shape": tuple(x.shape[1:])}
    scope |= {"array": array(), "metal": metal()}
    scope["rays"] = ops.Radon(ops.sparse_view(48), SIZE, cg_iterations=10)
    A: Operator = eval(entry.code, scope)
    return A


SECTIONS: list[tuple[str, str, list[Entry]]] = [
    (
        "Missing pixels and colours",
        "",
        [
            Entry(
                ops.Identity,
                "y = x + noise; here the noise has a level of 0.2: denoising.",
                "Identity()",
                noise=GaussianNoise(0.2),
            ),
            Entry(
                ops.Inpaint,
                "y = mask · x. Any mask, one for all measurements or one for each; "
                "`Inpaint.box` hides a box.",
                "Inpaint.random(size, keep=0.3, seed=0)",
            ),
            Entry(
                ops.Grayscale,
                "y = Σ_c w_c x_c, with any weights: colourisation.",
                "Grayscale(REC601)",
            ),
            Entry(
                ops.Bayer,
                "y_ij = x_c(ij): each pixel sees the colour of its filter. RGGB, BGGR, GRBG, GBRG: "
                "demosaicing.",
                'Bayer("RGGB")',
            ),
        ],
    ),
    (
        "Resolution",
        "",
        [
            Entry(ops.AveragePool, "Means over blocks of pixels.", "AveragePool(4, size)"),
            Entry(
                ops.Bicubic,
                "Antialiased cubic decimation, as imresize does it.",
                "Bicubic(4, size)",
            ),
            Entry(
                ops.Upsample,
                "Enlargement of a small image, by repetition or cubic interpolation: "
                "`A @ Upsample(f, size)` measures small images as A measures large ones.",
                'Upsample(2, (96, 96), "bicubic")',
                x=small,
            ),
        ],
    ),
    (
        "Blur and distortion",
        "The pseudo-inverse of a blur amplifies the noise of the measurement (0.02 here) beyond "
        "use; that is what the prior is for. Where a picture shows the adjoint Aᵀy instead, the "
        "caption says so.",
        [
            Entry(
                ops.CircularBlur,
                "y = k * x on a periodic image, any kernel; solved in the Fourier domain.",
                "CircularBlur(motion_kernel(9, 30), size)",
            ),
            Entry(
                ops.SeparableBlur,
                "y = K_H x K_Wᵀ: kernels of rank 1, edges reflected, zero or circular.",
                "SeparableBlur(gaussian_kernel(1.5).sum(0), gaussian_kernel(1.5).sum(0), size)",
                back="adjoint",
            ),
            Entry(
                ops.Blur,
                "y = k * x with any kernel and reflected or dark edges. `blur(kernel, size)` "
                "picks the best of the three.",
                "Blur(motion_kernel(11, -40), size)",
                back="adjoint",
            ),
            Entry(
                ops.TiledBlur,
                "y = Σ_t w_t (k_t * x): a kernel for each tile, windows w_t that overlap and sum "
                "to 1. `lens_kernels` grow towards the corners.",
                "TiledBlur(lens_kernels((5, 5), centre=0.4, corner=4.0), size)",
                back="adjoint",
            ),
            Entry(
                ops.Warp,
                "y_ij = x(i + dy_ij, j + dx_ij), bilinear: the tilts of turbulent air.",
                "Warp.turbulence(size, strength=2.0, scale=6.0)",
            ),
            Entry(
                ops.ComposedLinear,
                "Composition: air that moves and blurs.",
                "TiledBlur(lens_kernels((3, 3), 1.2, 1.6), size) @ Warp.turbulence(size, 2.0, 6.0)",
                back="",
                name="turbulence",
                title="Turbulence",
            ),
            Entry(
                ops.NonlinearBlur,
                "y = R(Σ_k w_k(x) (h_k * L(x))): exposure in linear light L along paths that the "
                "scene decides.",
                "NonlinearBlur(seed=0)",
                back="",
            ),
        ],
    ),
    (
        "Sensors and light",
        "",
        [
            Entry(
                ops.HDR,
                "y = clip(gain · x, -1, 1): shadows and highlights are lost. `straight_through` "
                "lets gradients pass where it clips.",
                "HDR(2.0)",
                back="",
            ),
            Entry(
                ops.Bracket,
                "y_k = clip(e_k u, 0, 1), u = (x + 1)/2 linear light: several exposures; A⁺ "
                "merges them.",
                "Bracket((0.5, 1.0, 4.0))",
                show_y=side_by_side,
            ),
            Entry(
                ops.CameraResponse,
                "From light to display values, gamma with a straight toe (sRGB), and back; it has "
                "an inverse. Whole camera: `CameraResponse() @ Bracket(e) @ "
                "CameraResponse().inverse()`.",
                "CameraResponse()",
            ),
            Entry(
                ops.Affine,
                "Photon counts, peak (x + 1)/2: low light, with Poisson noise of that scale; here "
                "20 photons at white. `affine(A, scale, offset)` makes any other.",
                "to_photons(20.0)",
                noise=Poisson(20.0, 0.0, 20.0),
                show_y=lambda y: display(y / 10 - 1),
                name="photons",
                title="Low light",
            ),
            Entry(
                ops.Quantize,
                "The centre of x's bin, of so many grey levels.",
                "Quantize(6)",
                noise=GaussianNoise(0.0),
            ),
            Entry(
                ops.JPEG,
                "decode(encode(x)) by the real codec; also with tables read from a file.",
                "JPEG(8)",
                noise=GaussianNoise(0.0),
            ),
        ],
    ),
    (
        "Compressed sensing",
        "Coefficients are drawn as a square of grey pixels, row by row.",
        [
            Entry(
                ops.DCTSubsampling,
                "y = mask · (C_H x C_Wᵀ), the orthonormal cosine transform; random, lowest or any "
                "coefficients.",
                "DCTSubsampling.random(size, keep=0.25, seed=0, low=16)",
                show_y=logarithm,
            ),
            Entry(
                ops.WalshHadamard,
                "The first Walsh-Hadamard coefficients in random, natural or sequency order.",
                'WalshHadamard(1024, size, order="sequency")',
                x=square,
                show_y=column,
            ),
            Entry(
                ops.SinglePixel,
                "y = mean(p x) for patterns p of 0 and 1 and their complements; "
                "`A.difference(y)` is what patterns of ±1 would measure, without dark current.",
                "SinglePixel(WalshHadamard(2048, size))",
                x=square,
                noise=GaussianNoise(0.0),
                show_y=lambda y: column(y.flatten(2) - y.mean()),
            ),
            Entry(
                ops.BlockSensing,
                "Random orthonormal projections of every block.",
                "BlockSensing(16, size, block=8)",
                show_y=lambda y: column(y.mean(1, keepdim=True).flatten(2)),
            ),
        ],
    ),
    (
        "Magnetic resonance",
        "k-space is drawn as log magnitude.",
        [
            Entry(
                ops.Fourier,
                "y = mask · F x, complex images as two channels.",
                "Fourier(gaussian_lines(size, 3, seed=0))",
                x=brain,
                noise=GaussianNoise(0.002),
                show_x=magnitude,
                show_y=logarithm,
            ),
            Entry(
                ops.RealFourier,
                "The same for real images.",
                "RealFourier(poisson_disc(size, 4, seed=0))",
                show_y=logarithm,
            ),
            Entry(
                ops.Sense,
                "y_j = mask · F S_j x: several coils with sensitivities S_j (`espirit` estimates "
                "them); one of them is drawn.",
                "Sense(ring_maps(6, size), gaussian_lines(size, 3, seed=0))",
                x=brain,
                noise=GaussianNoise(0.002),
                show_x=magnitude,
                show_y=logarithm,
            ),
            Entry(
                ops.NonCartesian,
                "y_jm = (HW)^-1/2 Σ S_j x exp(-2πi (u_m p/W + v_m q/H)) at any frequencies, here "
                "40 spokes, by finufft (extra `mri`); `spiral_uv` makes spirals. One or more "
                "coils.",
                "NonCartesian(radial_uv(40, 128, size), size)",
                x=brain,
                noise=GaussianNoise(0.002),
                show_x=magnitude,
                show_y=plane(ops.radial_uv(40, 128, SIZE)),
            ),
        ],
    ),
    (
        "X-ray tomography",
        "Sinograms: a row for each angle. Noise: 0.2. The pseudo-inverse is CGLS, stopped after 10 "
        "iterations.",
        [
            Entry(
                ops.Radon,
                "Line integrals along parallel rays or a fan (`source=`).",
                "Radon(sparse_view(24), size, cg_iterations=10)",
                x=chest,
                noise=GaussianNoise(0.2),
                show_y=spread,
                show_back=display,
            ),
            Entry(
                ops.Radon,
                "Angles of a wedge alone are seen.",
                "Radon(limited_angle(100, 3), size, cg_iterations=10)",
                x=chest,
                noise=GaussianNoise(0.2),
                show_y=spread,
                show_back=display,
                name="radon-limited",
                title="Limited angle",
            ),
            Entry(
                ops.ComposedLinear,
                "Only rays that miss the metal are measured; "
                "`rays = Radon(sparse_view(48), size, cg_iterations=10)`.",
                "metal_trace(rays, metal) @ rays",
                x=chest,
                noise=GaussianNoise(0.2),
                show_y=spread,
                show_back=display,
                name="radon-metal",
                title="Metal",
            ),
        ],
    ),
    (
        "Interferometry",
        "Visibilities are drawn at their place in the plane of frequencies, as log magnitude; "
        "`array = earth_rotation(8, 24, 8.0)`.",
        [
            Entry(
                ops.Interferometry,
                "y_m = (HW)^-1/2 Σ x exp(-2πi (u_m p/W + v_m q/H)). Shown back: the dirty image "
                "Aᵀy.",
                "Interferometry(array.uv, size)",
                x=sky,
                noise=GaussianNoise(1e-4),
                back="adjoint",
                show_x=spread,
                show_y=lambda y: plane(array().uv)(y),
                show_back=spread,
            ),
            Entry(
                ops.ClosurePhases,
                "y = V_ab V_bc V̄_ac / |...|: unit phasors around triangles, whatever the "
                "stations' phases. Drawn by angle, red for 0.",
                "ClosurePhases(array.triangles()) @ Interferometry(array.uv, size)",
                x=sky,
                noise=GaussianNoise(0.0),
                back="",
                show_x=spread,
                show_y=angles,
            ),
            Entry(
                ops.ClosureAmplitudes,
                "y = log(|V_p| |V_q| / (|V_r| |V_s|)) around quadrangles, whatever the stations' "
                "gains.",
                "ClosureAmplitudes(array.quadrangles()) @ Interferometry(array.uv, size)",
                x=sky,
                noise=GaussianNoise(0.0),
                back="",
                show_x=spread,
                show_y=column,
            ),
        ],
    ),
    (
        "Phase retrieval",
        "`metrics.align` undoes what a magnitude cannot tell before scoring, and "
        "`best_by_residual` chooses between several starts without the truth.",
        [
            Entry(
                ops.PhaseRetrieval,
                "y = |F P x|. `oversample` follows the papers: int(oversample / 8 · H) zeros on "
                "each side, so 2 makes each axis 1.5 times as long and 4 twice.",
                "PhaseRetrieval(oversample=4.0)",
                back="",
                show_y=logarithm,
            ),
            Entry(
                ops.CodedDiffraction,
                "y_k = |F (mask_k x)|, with known random masks; the first of two is drawn.",
                "CodedDiffraction.random(size, 2, seed=0)",
                back="",
                show_y=lambda y: logarithm(y[:, :, 0]),
            ),
        ],
    ),
    (
        "Video",
        "Every other operator acts on a clip frame by frame.",
        [
            Entry(
                ops.Frames,
                "Some frames are known: prediction, interpolation.",
                "Frames((0, 1), 4)",
                x=clip,
            ),
            Entry(
                ops.TemporalPool,
                "Means of several frames: a long exposure.",
                "TemporalPool(2, 4)",
                x=clip,
            ),
        ],
    ),
    (
        "Combinations",
        "",
        [
            Entry(
                ops.Stack,
                "Several measurements of one image, side by side in one vector (here the grey one "
                "is drawn).",
                "Stack((Bicubic(4, size), Grayscale()), x_shape)",
                show_y=lambda y: display(y[:, -SIDE * SIDE :].reshape(1, 1, SIDE, SIDE)),
                name="stack",
            ),
            Entry(
                ops.ComposedPseudoInvertible,
                "outer @ inner, not both linear: a small JPEG.",
                "JPEG(30) @ Bicubic(2, size)",
                noise=GaussianNoise(0.0),
                name="jpeg-bicubic",
                title="JPEG of a smaller image",
            ),
        ],
    ),
]
"""Title, introduction and operators of each section."""

WITHOUT_PICTURE = """\
- `KernelNetworkBlur.load("GOPRO_wVAE.pth", (256, 256))`: y = x + G(x, code), the trained network
  of Tran et al. 2021 that published nonlinear deblurring uses. Its weights do not come with
  invdiff, so there is no picture; `NonlinearBlur` stands in.
- `2 * A`, or `scaled(A, 2.0)`, is a `Scaled`, `ScaledSpectral`, `ScaledPseudoInvertible` or
  `ScaledOperator`, 2 A(x), as A is; `affine(A, 0.5, 0.5)` an `Affine`, 0.5 A(x) + 0.5.
- `A + B` is a `SummedLinear` of two linear operators, and else a `Summed`; `A.T` is a `Transposed`
  or a `TransposedSpectral`.
- `Linear.from_matrix(M, x_shape)` is a `Matrix`, a `MatrixProduct` or a `SparseMatrix`;
  `Linear.from_functions` a `FromFunctions`, and `Operator.from_function` a `FromFunction`:
  [bring your own measurement](bring-your-own.md).
- `Weighted(w)` multiplies a measurement by weights and `Mixed(M)` mixes its channels: what noise
  that is not white turns an operator into.
- `outer @ inner` is a `ComposedLinear` of two linear operators, a `ComposedPseudoInvertible` of two
  that have a generalised inverse, and else a `Composed`, for example `HDR(2.0) @ Bicubic(4, size)`.
- A prior of latents makes a `Decoded`, or a `DecodedLinear` where both are linear: A after the
  prior's decoder, with its encoder beside it ([priors-latent.md](priors-latent.md)).
"""


# --------------------------------------------------------------------------------- picture and page


def panels(entry: Entry) -> list[Tensor]:
    """The image, the measurement and what comes back, (3, h, w) on [0, 1] each."""
    A, x = made(entry), entry.x()
    y = A.restrict(entry.noise.sample(A(x), Rng.of(0)))
    found = [entry.show_x(x), entry.show_y(y)]
    if entry.back:
        back: Tensor = getattr(A, entry.back)(y)
        found.append((entry.show_back or entry.show_x)(back))
    return found


def page() -> str:
    """The text of docs/forward-models.md."""
    lines = [
        "# Forward models",
        "",
        "What every operator of invdiff measures. Generated, with its pictures, by",
        "`python benchmarks/forward_models.py`; signatures and rungs are in",
        "[operators.md](operators.md). Each picture shows the image x, the measurement y (with",
        "noise of 0.02 on [-1, 1] where nothing else is said) and A⁺y, made by the line of code",
        "beside it, after `from invdiff.operators import *` and with `size` the height and width.",
        "",
    ]
    for title, text, entries in SECTIONS:
        lines += [f"## {title}", ""]
        lines += [text, ""] if text else []
        for e in entries:
            kind = {"pinv": ", A⁺y", "adjoint": ", Aᵀy", "": ""}[e.back]
            lines += [
                f"### {e.title or e.of.__name__}",
                "",
                e.formula,
                "",
                "```python",
                f"A = {e.code}",
                "```",
                "",
                f"![x, y{kind}](images/operators/{e.slug}.png)",
                "",
            ]
    return "\n".join([*lines, "## Without a picture", "", WITHOUT_PICTURE.rstrip()]) + "\n"


def main() -> int:
    """Write the page and its pictures, or compare with --check."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--check", action="store_true", help="write nothing; exit 1 on a difference")
    p.add_argument("--only", nargs="+", default=[], help="draw these pictures alone")
    args = p.parse_args()
    torch.set_num_threads(1)
    entries = [e for _, _, found in SECTIONS for e in found]
    if args.check:
        text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
        have = {f.stem for f in PICTURES.glob("*.png")}
        odd = sorted(have ^ {e.slug for e in entries})
        if text != page() or odd:
            print(f"docs/forward-models.md or its pictures {odd} differ from the code; run "
                  "python benchmarks/forward_models.py")  # fmt: skip
        return int(text != page() or bool(odd))
    PICTURES.mkdir(parents=True, exist_ok=True)
    for e in entries:
        if not args.only or e.slug in args.only:
            write_sheet(panels(e), PICTURES / f"{e.slug}.png")
            print(f"{e.slug}: {(PICTURES / f'{e.slug}.png').stat().st_size / 1000:.0f} kB")
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
