"""X-ray projections: the line integrals of an image, from parallel rays or from a point source.

`Geometry` says where the rays run; its lengths are in pixels here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import checked
from invdiff.core.cache import cached
from invdiff.operators.algebra import Linear
from invdiff.operators.algebra.circulant import circulant
from invdiff.operators.algebra.sparse import (
    Csr,
    Map,
    by_matrix,
    by_rays,
    by_rays_back,
    joseph,
    mapped,
    sparse_pair,
    transposed,
)
from invdiff.operators.geometry import Geometry
from invdiff.operators.sizes import (
    LONGEST_SIDE,
    check_count,
    check_image,
    check_iterations,
    checked_size,
    whole,
)

MATRIX_BYTES = 2 * 10**9
"""A matrix and its transpose that need more than this are not kept; see `Radon.mode`."""
INDICES = 2**31
"""Sparse matrices count their entries with 32 bits."""
Mode = Literal["auto", "matrix", "rays"]
NAMES = ("ends", "places", "values")
"""Parts of a sparse matrix, as they are kept."""


@checked
def sparse_view(views: int, span: float = 180.0) -> tuple[float, ...]:
    """`views` angles in equal steps over [0, span) degrees; span itself is not repeated."""
    check_count("views", views)
    return tuple(span * k / views for k in range(views))


@checked
def limited_angle(degrees: float, step: float = 1.0) -> tuple[float, ...]:
    """Angles 0, step, 2 step, ... below `degrees`: the rest of the half circle is never seen."""
    if not (0 < step <= degrees <= 360 and degrees / step <= 100_000):
        raise InvdiffError(
            f"An arc of {degrees} degrees in steps of {step} is no set of angles; give "
            "0 < step <= degrees <= 360, and 100000 angles at most."
        )
    return tuple(step * k for k in range(math.ceil(degrees / step - 1e-9)))


@dataclass(frozen=True, eq=False)
class Radon(Linear):
    """Line integrals of an image along every ray of every view: images (B, ..., H, W) to sinograms
    (B, ..., angles, detectors), each channel by itself.

    angles, detectors, pitch, shift, source: those of the `Geometry`, in pixels of the image, in
    the middle of which is the axis; `Radon.of` takes it as a whole. 0 detectors are
    ceil(hypot(H, W)), which see the whole image in parallel rays of pitch 1. A source lies outside
    of the image. size: (H, W) of the image. pixel: side of a pixel in the unit of length of the
    sinogram, so that y is a sum of values times lengths.
    cg_iterations: bound for solve and pinv. cg_tol: residual at which solve stops, over the right
    side; against 0.001 the default 0.01 changed the error of samples by less than 1 % in a trial
    on the CT problem of `benchmarks/overhead.py --problems`. pinv is CGLS: with noisy data, fewer
    iterations are the usual regularisation, and far from convergence A pinv(y) is not the
    projection of y.

    Along each ray the image is interpolated linearly, once in each row it crosses (in each column
    where the ray is flatter than 45 degrees): Joseph 1982, IEEE Trans. Medical Imaging 1, 192. The
    weights form a sparse matrix, built when first used and kept with its transpose, 8 bytes (12 in
    float64) each; adjoint is that transpose exactly. Matrices are also kept on disk (`kept`).
    mode: where the two need more than MATRIX_BYTES (2 GB), "auto" computes the same weights again
    in every application, view by view, which takes little memory and some thirty times the time;
    "matrix" and "rays" force one or the other. `largest_side` tells what fits.
    """

    angles: tuple[float, ...]
    size: tuple[int, int]
    detectors: int = 0
    pitch: float = 1.0
    shift: float = 0.0
    pixel: float = 1.0
    source: float | None = None
    cg_iterations: int = 200
    mode: Mode = "auto"
    cg_tol: float = 1e-2

    def __post_init__(self) -> None:
        size = checked_size(self.size)
        bins = self.detectors or math.ceil(math.hypot(*size))
        changes = {"size": size, "detectors": bins, "angles": tuple(map(float, self.angles))}
        for name, value in changes.items():
            object.__setattr__(self, name, value)
        if not (whole(bins) and bins <= LONGEST_SIDE and self.pitch > 0 and self.pixel > 0):
            raise InvdiffError(
                f"A detector has 1 to {LONGEST_SIDE} bins, and pitch and pixel are above 0, found "
                f"{bins} bins, pitch {self.pitch} and pixel {self.pixel}."
            )
        _ = self.geometry  # names what is wrong with it
        if self.source is not None and not self.source > math.hypot(*size) / 2:
            raise InvdiffError(
                f"The source is {self.source} pixels from the axis, inside an image of {size[0]} x "
                f"{size[1]} pixels; move it out, or give none for parallel rays."
            )
        check_iterations(self.cg_iterations, self.cg_tol)
        if self.mode == "matrix" and self.nonzeros >= INDICES:
            raise InvdiffError(
                f"{len(self.angles)} views of {bins} bins on {size[0]} x {size[1]} pixels need a "
                "matrix beyond 32-bit indices; take the mode rays."
            )

    @classmethod
    @checked
    def of(
        cls,
        geometry: Geometry,
        size: tuple[int, int],
        pixel: float = 1.0,
        cg_iterations: int = 200,
        mode: Mode = "auto",
        cg_tol: float = 1e-2,
    ) -> Radon:
        """The projection of images of `size` along the rays of a geometry."""
        g = geometry
        rays = g.angles, size, g.detectors, g.pitch, g.shift, pixel, g.source
        return cls(*rays, cg_iterations, mode, cg_tol)

    @cached_property
    def geometry(self) -> Geometry:
        """Where its rays run, in pixels."""
        return Geometry(self.angles, self.detectors, self.pitch, self.shift, self.source)

    def __call__(self, x: Tensor) -> Tensor:
        forward, back = self._maps(x)
        return mapped(x.flatten(-2), forward, back).reshape(*x.shape[:-2], *self._y)

    def adjoint(self, y: Tensor) -> Tensor:
        forward, back = self._maps(y)
        return mapped(y.flatten(-2), back, forward).reshape(*y.shape[:-2], *self.size)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        check_image(type(self).__name__, self.size, x_shape)
        return (*x_shape[:-2], *self._y)

    def preconditioner(self, like: Tensor, shift: float) -> Callable[[Tensor], Tensor]:
        return circulant(self, like, shift)

    @property
    def _y(self) -> tuple[int, int]:
        return len(self.angles), self.detectors

    @property
    def spread(self) -> float:
        """1 / source: by how much a ray turns per pixel of the detector, 0 for parallel rays."""
        return self.geometry.spread

    def bins(self) -> Tensor:
        """Positions s_j on the detector, in pixels, float64."""
        return self.geometry.bins()

    @cached_property
    def nonzeros(self) -> int:
        """How many weights the matrix holds, about: within 2 percent and 2 max(H, W) per view for
        parallel rays, within 10 percent for a fan, too many where the detector misses the image.

        A ray meets a line of pixels in two of them, and neighbouring rays meet a row (a column,
        where they are flatter) pitch / max(|cos|, |sin|) apart.
        """
        height, width = self.size
        theta = torch.tensor(self.angles, dtype=torch.float64).deg2rad()
        dense = torch.maximum(theta.cos().abs(), theta.sin().abs()) / self.pitch
        if self.source is not None:  # rays are denser near the source: the mean over a disc
            near = math.sqrt(height * width / math.pi) / self.source
            dense = dense * 2 * (1 - math.sqrt(1 - near**2)) / near**2
        crossed = torch.minimum(dense * height * width, torch.tensor(self._most / 2))
        return int(2 * crossed.sum())

    @property
    def _most(self) -> float:
        """The largest number of weights of one view: every ray meets every line."""
        return 2.0 * max(self.size) * self.detectors

    def matrix_bytes(self, dtype: torch.dtype = torch.float32) -> int:
        """Memory of the matrix and its transpose, by the estimate `nonzeros`."""
        ends = math.prod(self._y) + math.prod(self.size) + 2
        return 2 * self.nonzeros * (4 + dtype.itemsize) + 4 * ends

    def keeps_matrix(self, dtype: torch.dtype = torch.float32) -> bool:
        """Whether the weights are kept as a matrix, and not computed again each time."""
        if self.mode != "auto":
            return self.mode == "matrix"
        return self.nonzeros < INDICES and self.matrix_bytes(dtype) <= MATRIX_BYTES

    def _maps(self, like: Tensor) -> tuple[Map, Map]:
        """A and its transpose as maps of rows, in the precision and on the device of like."""
        if self.keeps_matrix(like.dtype):
            forward, back = self._pair(like)
            return by_matrix(forward), by_matrix(back)
        n = math.prod(self._y), math.prod(self.size)
        if like.device.type == "meta":
            return tuple(lambda x, m=m: x.new_empty(len(x), m) for m in n)  # type: ignore[return-value]
        views = len(self.angles)

        def part(view: int) -> tuple[Tensor, Tensor]:
            pixels, weights = self._weights(self.angles[view], like.device)
            return pixels, weights.to(like.dtype)

        return by_rays(part, views), by_rays_back(part, views, n[1])

    def _pair(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """A and its transpose as sparse matrices in the precision and on the device of like."""

        def made() -> tuple[Tensor, Tensor]:
            n = math.prod(self._y), math.prod(self.size)
            parts = cached(
                "radon", f"{self._geometry}/{like.dtype}", lambda: self._built(like.dtype)
            )
            return sparse_pair(_side(parts, "forward"), _side(parts, "back"), n, like.device)

        return self._once("pair", like, made)

    @property
    def _geometry(self) -> tuple[object, ...]:
        """All that the weights depend on."""
        lengths = self.pitch, self.shift, self.pixel, self.source
        return self.angles, self.size, self.detectors, *lengths

    def _built(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Row ends, places and values of A and of its transpose."""
        forward = self._assemble(dtype)
        sides = {"forward": forward, "back": transposed(forward, math.prod(self.size))}
        return {
            f"{side}.{name}": t
            for side, parts in sides.items()
            for name, t in zip(NAMES, parts, strict=True)
        }

    def _assemble(self, dtype: torch.dtype) -> Csr:
        """A, ray by ray; the weights are computed in float64."""
        counts, places, values = [], [], []
        for angle in self.angles:
            pixels, weights = self._weights(angle, torch.device("cpu"))
            seen = weights != 0
            counts.append(seen.sum(1))
            places.append(pixels[seen].int())
            values.append(weights[seen].to(dtype))
        ends = torch.cat(counts).cumsum(0)
        return torch.cat([ends.new_zeros(1), ends]).int(), torch.cat(places), torch.cat(values)

    def _weights(self, angle: float, device: torch.device) -> tuple[Tensor, Tensor]:
        """Pixels and weights (float64) of every ray of a view, (detectors, 2 max(H, W))."""
        point, way = (t.to(device) for t in self._rays(angle))
        pixels, weights = joseph(point, way, self.size)
        return pixels, weights * self.pixel

    def _rays(self, angle: float) -> tuple[Tensor, Tensor]:
        """A point and the unit direction of every ray, (detectors, 2): x right, and rows down."""
        # rounded, so that right angles meet pixels and not their round-off
        cos, sin = (
            round(math.cos(math.radians(angle)), 15),
            round(math.sin(math.radians(angle)), 15),
        )
        s = self.bins()[:, None]
        u = torch.tensor([[cos, -sin]], dtype=torch.float64)
        v = torch.tensor([[-sin, -cos]], dtype=torch.float64)
        way = v + self.spread * s * u
        return s * u, way / way.norm(dim=1, keepdim=True)


def _side(parts: dict[str, Tensor], side: str) -> Csr:
    """The matrix or its transpose."""
    ends, places, values = (parts[f"{side}.{name}"] for name in NAMES)
    return ends, places, values


@checked
def largest_side(views: int, dtype: torch.dtype = torch.float32) -> int:
    """The largest n for which so many parallel views of n x n pixels are kept as a matrix."""
    low, high = 1, 2**16
    while high - low > 1:
        middle = (low + high) // 2
        kept_ = Radon(sparse_view(views), (middle, middle)).keeps_matrix(dtype)
        low, high = (middle, high) if kept_ else (low, middle)
    return low
