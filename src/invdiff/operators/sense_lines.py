"""Exact data steps of parallel imaging where whole lines of k-space were sampled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MOST_BYTES = 2**29
"""Memory for eigenvectors, at most: 512 MB, which is 400 x 400 pixels in single precision."""


@dataclass(frozen=True)
class Lines:
    """A^H A of `Sense` by eigenvectors, one matrix for each line of the image.

    Where k-space is sampled in whole lines along one axis, the Fourier transform along that axis
    cancels in A^H A = sum_j conj(S_j) F^H mask F S_j, which then acts on each line across it by
    itself: for columns that were sampled, on each row i of the image, by the matrix
    T[a, b] sum_j conj(S_j[i, a]) S_j[i, b], T the circulant matrix whose first column is the
    inverse transform of the mask. It is the unfolding of SENSE (Pruessmann et al. 1999, eq. 3) for
    any choice of lines, with no iteration.

    across: the axis, -2 or -1, along which lines of k-space are missing. values: (M or 1, lines,
    n), ascending; vectors: (M or 1, lines, n, n), complex.
    """

    across: int
    values: Tensor
    vectors: Tensor

    def filtered(self, z: Tensor, gain: Tensor) -> Tensor:
        """Each eigenvector's share of images z (B, H, W), times its gain (M or 1, lines, n)."""
        z = z.movedim(self.across, -1)
        if len(self.vectors) == 1:  # all images share the matrices: one product for each line
            Q = self.vectors[0]
            c = Q.mH @ z.permute(1, 2, 0)
            done = (Q @ (gain[0, ..., None] * c)).permute(2, 0, 1)
        else:
            c = self.vectors.mH @ z[..., None]
            done = (self.vectors @ (gain[..., None] * c))[..., 0]
        return done.movedim(-1, self.across)

    def solve(self, z: Tensor, shift: float) -> Tensor:
        """(A^H A + shift)^-1 z."""
        return self.filtered(z, 1 / (self.values + shift))

    def ridge(self, z: Tensor, shift: float) -> Tensor:
        """`solve` of z = A^H y, which has nothing but round-off where A^H A vanishes."""
        n, eps = self.values.shape[-1], torch.finfo(self.values.dtype).eps
        seen = self.values > n * eps * self.values.amax()
        return self.filtered(z, torch.where(seen, 1 / (self.values + shift), 0.0))


@dataclass(frozen=True)
class SampledLines:
    """k-space of coils where whole lines of it were sampled: these lines alone, and not
    transformed along themselves. It is what `Sense` measures but for an isometry.

    maps: (M or 1, coils, H, W), with the middle of the axis `across` moved to its beginning.
    places: which lines were sampled, in the order of `torch.fft`, and index: in that of k-space,
    where the zero frequency stands in the middle.
    """

    maps: Tensor
    across: int
    places: Tensor
    index: Tensor

    def forward(self, z: Tensor) -> Tensor:
        """Complex images (B, 1, H, W) to the lines of every coil."""
        axis = self.across
        k = torch.fft.fft(self.maps * torch.fft.ifftshift(z, dim=axis), dim=axis, norm="ortho")
        return k.index_select(axis, self.places)

    def adjoint(self, k: Tensor) -> Tensor:
        """The adjoint of `forward`."""
        z = torch.fft.ifft(self._among(k, self.places), dim=self.across, norm="ortho")
        z = (self.maps.conj() * z).sum(1, keepdim=True)
        return torch.fft.fftshift(z, dim=self.across)

    def to(self, y: Tensor) -> Tensor:
        """The lines of k-space (B, coils, H, W), transformed back along themselves."""
        k = y.index_select(self.across, self.index)
        axis = self._along
        k = torch.fft.ifft(torch.fft.ifftshift(k, dim=axis), dim=axis, norm="ortho")
        return torch.fft.fftshift(k, dim=axis)

    def back(self, k: Tensor) -> Tensor:
        """The adjoint of `to`: k-space that is 0 where nothing was sampled."""
        axis = self._along
        y = torch.fft.fft(torch.fft.ifftshift(k, dim=axis), dim=axis, norm="ortho")
        return self._among(torch.fft.fftshift(y, dim=axis), self.index)

    @property
    def _along(self) -> int:
        return -3 - self.across

    def _among(self, k: Tensor, index: Tensor) -> Tensor:
        """Lines at their places among all, the others 0."""
        shape = list(k.shape)
        shape[self.across] = self.maps.shape[self.across]
        return k.new_zeros(shape).index_copy(self.across, index, k)


def sampled_lines(maps: Tensor, mask: Tensor) -> SampledLines | None:
    """The lines that a mask (1, 1, H or 1, W or 1) samples of coils with maps (M or 1, coils, H,
    W); None where it samples points, where masks differ from image to image, for videos, and where
    maps hold one number for all of an axis."""
    if maps.ndim != 4 or len(mask) != 1 or 1 in maps.shape[-2:]:
        return None
    axis = across(mask, (int(maps.shape[-2]), int(maps.shape[-1])))
    if axis is None:
        return None
    n = int(maps.shape[axis])
    index = mask.movedim(axis, -1)[0, 0, 0].bool().expand(n).nonzero()[:, 0]
    places = (index + (n + 1) // 2) % n
    return SampledLines(torch.fft.ifftshift(maps, dim=axis), axis, places, index)


def across(mask: Tensor, size: tuple[int, int]) -> int | None:
    """The axis, -1 or -2, along which a mask (M or 1, 1, H or 1, W or 1) has gaps, where it has
    none along the other; None for a mask of single points."""
    mask = mask.bool().expand(*mask.shape[:-2], *size)
    for axis, other in ((-1, -2), (-2, -1)):
        first = mask.narrow(other, 0, 1)
        if bool((mask == first).all()):
            return axis
    return None


def lines(maps: Tensor, mask: Tensor) -> Lines | None:
    """The eigenvectors of A^H A; None where no whole lines were sampled, and beyond MOST_BYTES.

    maps: (M or 1, coils, H, W), complex; mask: (M or 1, 1, H or 1, W or 1), of 0 and 1.
    """
    if maps.ndim != 4:
        return None
    axis = across(mask, (int(maps.shape[-2]), int(maps.shape[-1])))
    if axis is None:
        return None
    S = maps.movedim(axis, -1).permute(0, 2, 3, 1)  # (M or 1, lines, n, coils)
    n = S.shape[2]
    rows = max(len(maps), len(mask))
    if rows * S.shape[1] * n * n * S.element_size() > MOST_BYTES:
        return None
    sampled = mask.movedim(axis, -1)[:, 0, 0].to(S.real.dtype).expand(-1, n)
    column = torch.fft.ifft(torch.fft.ifftshift(sampled, dim=-1), dim=-1)
    place = torch.arange(n, device=S.device)
    T = column[:, (place[:, None] - place[None]) % n]
    values, vectors = torch.linalg.eigh((S.conj() @ S.mT) * T[:, None])
    return Lines(axis, values.clamp_min(0), vectors)
