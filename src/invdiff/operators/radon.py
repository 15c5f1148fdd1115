"""X-ray projections: the line integrals of an image, from parallel rays or from a point source.

Geometry. Lengths are in pixels, the origin is the middle of the image, x points right and y up.
At the angle theta (degrees, counter-clockwise) the detector lies along u = (cos, sin) and rays
travel along v = (-sin, cos). Bin j is at s_j = (j - (detectors - 1) / 2 - shift) pitch:
  parallel   the ray of bin j is s_j u + t v, that is x cos + y sin = s_j
  fan        the ray of bin j runs from the source at -source v through s_j u: the detector is flat,
             and its pitch is measured where it would stand on the axis of rotation
At theta = 0 parallel rays sum columns, and bins count from left to right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.base import Linear
from invdiff.operators.separable import check_image, checked_size, whole
from invdiff.operators.sparse import Csr, product, sparse, transposed


def sparse_view(views: int, span: float = 180.0) -> tuple[float, ...]:
    """`views` angles in equal steps over [0, span) degrees; span itself is not repeated."""
    if not whole(views):
        raise InvdiffError(f"A number of views is a whole number above 0, found {views}.")
    return tuple(span * k / views for k in range(views))


def limited_angle(degrees: float, step: float = 1.0) -> tuple[float, ...]:
    """Angles 0, step, 2 step, ... below `degrees`: the rest of the half circle is never seen."""
    if not (0 < step <= degrees <= 360):
        raise InvdiffError(
            f"An arc of {degrees} degrees in steps of {step} is no set of angles; give "
            "0 < step <= degrees <= 360."
        )
    return tuple(step * k for k in range(math.ceil(degrees / step - 1e-9)))


@dataclass(frozen=True, eq=False)
class Radon(Linear):
    """Line integrals of an image along every ray of every view: images (B, ..., H, W) to sinograms
    (B, ..., angles, detectors), each channel by itself.

    angles: of the views, degrees. size: (H, W) of the image. detectors: bins of the detector;
    0 takes ceil(hypot(H, W)), which sees the whole image at pitch 1.
    pitch: width of a bin, in pixels. shift: the axis of rotation falls on bin
    (detectors - 1) / 2 + shift. pixel: side of a pixel in the unit of length of the sinogram,
    so that y is a sum of values times lengths. source: distance from the source to the axis of
    rotation in pixels, None for parallel rays; the image lies within it.
    cg_iterations: bound for solve and pinv. pinv is CGLS: with noisy data, fewer iterations are
    the usual regularisation, and far from convergence A pinv(y) is not the projection of y.

    Along each ray the image is interpolated linearly, once in each row it crosses (in each column
    where the ray is flatter than 45 degrees): Joseph 1982, IEEE Trans. Medical Imaging 1, 192. The
    weights form a sparse matrix, built when first used and kept with its transpose, 8 bytes (12 in
    float64) each for up to 2 max(H, W) of them per ray; adjoint is that transpose exactly.
    """

    angles: tuple[float, ...]
    size: tuple[int, int]
    detectors: int = 0
    pitch: float = 1.0
    shift: float = 0.0
    pixel: float = 1.0
    source: float | None = None
    cg_iterations: int = 200

    def __post_init__(self) -> None:
        size = checked_size(self.size)
        bins = self.detectors or math.ceil(math.hypot(*size))
        changes = {"size": size, "detectors": bins, "angles": tuple(map(float, self.angles))}
        for name, value in changes.items():
            object.__setattr__(self, name, value)
        if not self.angles or not all(map(math.isfinite, (*self.angles, self.shift))):
            raise InvdiffError(
                "A projection needs at least one angle, and finite angles and shift, found "
                f"{len(self.angles)} angles and shift {self.shift}."
            )
        if not (whole(bins) and 0 < self.pitch < math.inf and 0 < self.pixel < math.inf):
            raise InvdiffError(
                "A detector has a whole number of bins, and pitch and pixel are above 0, found "
                f"{bins} bins, pitch {self.pitch} and pixel {self.pixel}."
            )
        if self.source is not None and not self.source > math.hypot(*size) / 2:
            raise InvdiffError(
                f"The source is {self.source} pixels from the axis, inside an image of {size[0]} x "
                f"{size[1]} pixels; move it out, or give none for parallel rays."
            )
        if 2 * max(size) * bins * len(self.angles) >= 2**31:
            raise InvdiffError(
                f"{len(self.angles)} views of {bins} bins on {size[0]} x {size[1]} pixels need a "
                "matrix beyond 32-bit indices; use fewer views or bins, or larger pixels."
            )

    def __call__(self, x: Tensor) -> Tensor:
        return product(x.flatten(-2), *self._pair(x)).reshape(*x.shape[:-2], *self._y)

    def adjoint(self, y: Tensor) -> Tensor:
        forward, back = self._pair(y)
        return product(y.flatten(-2), back, forward).reshape(*y.shape[:-2], *self.size)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        check_image(type(self).__name__, self.size, x_shape)
        return (*x_shape[:-2], *self._y)

    @property
    def _y(self) -> tuple[int, int]:
        return len(self.angles), self.detectors

    @property
    def spread(self) -> float:
        """1 / source: by how much a ray turns per pixel of the detector, 0 for parallel rays."""
        return 0.0 if self.source is None else 1 / self.source

    def bins(self) -> Tensor:
        """Positions s_j on the detector, in pixels, float64."""
        j = torch.arange(self.detectors, dtype=torch.float64)
        return (j - (self.detectors - 1) / 2 - self.shift) * self.pitch

    def _pair(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """A and its transpose as sparse matrices in the precision and on the device of like."""
        casts = self.__dict__.setdefault("_casts", {})
        key = ("pair", like.dtype, like.device)
        if key not in casts:
            n = math.prod(self._y), math.prod(self.size)
            forward = self._assemble(like.dtype)
            back = transposed(forward, n[1])
            casts[key] = (
                sparse(forward, n, like.device),
                sparse(back, n[::-1], like.device),
            )
        pair: tuple[Tensor, Tensor] = casts[key]
        return pair

    def _assemble(self, dtype: torch.dtype) -> Csr:
        """A, ray by ray; the weights are computed in float64."""
        views = [self._view(angle) for angle in self.angles]
        counts = torch.cat([v[0] for v in views])
        pointers = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        values = torch.cat([v[2].to(dtype) for v in views])
        return pointers.int(), torch.cat([v[1] for v in views]), values

    def _view(self, angle: float) -> tuple[Tensor, Tensor, Tensor]:
        """Non-zero weights of one view: how many for each ray, then pixels and weights."""
        point, way = self._rays(angle)
        steep = way[:, 1].abs() >= way[:, 0].abs()
        pixels = torch.zeros(self.detectors, max(self.size), 2, dtype=torch.int32)
        weights = torch.zeros(pixels.shape, dtype=torch.float64)
        height, width = self.size
        for rays, along, lines, across in ((steep, 1, height, width), (~steep, 0, width, height)):
            p, d = point[rays], way[rays]
            line = torch.arange(lines, dtype=torch.float64)
            t = (line - (lines - 1) / 2 - p[:, along, None]) / d[:, along, None]
            where = p[:, 1 - along, None] + t * d[:, 1 - along, None] + (across - 1) / 2
            low = where.floor()
            cell = torch.stack([low, low + 1], dim=2)
            share = (
                (1 - (where[:, :, None] - cell).abs()) * self.pixel / d[:, along, None, None].abs()
            )
            weights[rays, :lines] = torch.where((cell >= 0) & (cell < across), share, 0.0)
            index = line[:, None] * width + cell if along else cell * width + line[:, None]
            pixels[rays, :lines] = index.int()
        kept = weights != 0
        return kept.flatten(1).sum(1), pixels[kept], weights[kept]

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
