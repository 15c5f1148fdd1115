"""A prior of clips for longer clips: windows of frames that overlap, denoised side by side."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.alike import alike
from invdiff.priors.base import Prior
from invdiff.priors.published.files import safetensors_metadata

OVERLAP = 2
"""Frames that a window shares with the next one, at least: docs/video.md has the figures."""
ROWS = 64
"""Windows that go through the network together."""


@dataclass(frozen=True)
class Cuts:
    """How `frames` frames are cut into windows of `length`, which share `overlap` or more.

    Raises InvdiffError for an overlap that leaves nothing new, and for fewer frames than a window.
    """

    frames: int
    length: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.length:
            raise InvdiffError(
                f"Windows of {self.length} frames overlap by 0 to {self.length - 1}, found "
                f"{self.overlap}."
            )
        if self.frames < self.length:
            raise InvdiffError(
                f"A clip of {self.frames} frames is shorter than a window of {self.length}; give a "
                "longer one."
            )

    @property
    def starts(self) -> tuple[int, ...]:
        """First frames of the windows, evenly spread, the first and the last at the ends."""
        steps = -(-(self.frames - self.length) // (self.length - self.overlap))
        return tuple(i * (self.frames - self.length) // max(steps, 1) for i in range(steps + 1))

    @property
    def weights(self) -> Tensor:
        """Weight of every frame in every window, (windows, length), float64.

        They rise and fall by steps of one over the first and the last `overlap` frames, and are
        divided by their sum over the windows that see a frame.
        """
        near = torch.arange(1, self.length + 1).double()
        ramp = torch.minimum(near, near.flip(0)).clamp_max(self.overlap + 1)
        total = torch.zeros(self.frames, dtype=torch.float64)
        for start in self.starts:
            total[start : start + self.length] += ramp
        return torch.stack([ramp / total[s : s + self.length] for s in self.starts])


class Windows(Prior):
    """A prior of clips (C, L, H, W), for clips (C, T, H, W) of any T >= L.

    x0 of a clip is the weighted mean of what the prior says of each window of L frames of the same
    noisy clip (`Cuts`). So a frame has one state, whatever windows see it, and what is known in one
    window reaches the next ones in both directions with every step. Bar-Tal, Yariv, Lipman, Dekel
    2023, "MultiDiffusion", arXiv 2302.08113, eq. 5, with windows along time as in Wang et al. 2023,
    "Gen-L-Video", arXiv 2305.18264. The mean of E[x0 | window] is not E[x0 | clip]: frames that are
    further apart than a window know each other by those between them alone.

    overlap: frames that neighbours share at least, 0 to L - 1.
    Windows are further batch rows of one evaluation. Raises InvdiffError for a prior that is not
    of clips of one length.
    """

    def __init__(self, prior: Prior, overlap: int = OVERLAP) -> None:
        shape = prior.shape or ()
        if len(shape) != 4 or shape[1] is None or prior.autoencoder is not None:
            raise InvdiffError(
                f"The prior {prior.name} is not of clips (channels, frames, height, width) with a "
                "number of frames; windows are for those."
            )
        self.prior, self.length, self.overlap_frames = prior, int(shape[1]), overlap
        Cuts(self.length, self.length, overlap)
        self.name, self.shape = prior.name, (shape[0], None, *shape[2:])
        self.value_range, self.differentiable = prior.value_range, prior.differentiable
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max
        self.spectrum, self.presumed = prior.spectrum, prior.presumed

    @property
    def inner(self) -> tuple[Prior, ...]:
        return (self.prior,)

    def cuts(self, frames: int) -> Cuts:
        """The windows of a clip of so many frames."""
        return Cuts(frames, self.length, self.overlap_frames)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        cuts = self.cuts(x.shape[2])
        seen = torch.stack([x[:, :, s : s + self.length] for s in cuts.starts], 1)
        parts = []
        for rows in torch.split(seen.flatten(0, 1), ROWS):
            with alike(len(rows), rows.device):
                parts.append(self.prior.denoise(rows, sigma))
        windows = torch.cat(parts).reshape(seen.shape)
        x0 = torch.zeros_like(x)
        for i, (start, w) in enumerate(zip(cuts.starts, cuts.weights.to(x), strict=True)):
            x0[:, :, start : start + self.length] += w[:, None, None] * windows[:, i]
        return x0

    @property
    def fingerprint(self) -> str:
        known = self.prior.fingerprint
        return f"{known}-windows-{self.overlap_frames}" if known else ""

    def to(self, device: torch.device | str) -> Windows:
        return Windows(self.prior.to(device), self.overlap_frames)


def clip_length(prior: Prior) -> int | None:
    """Frames of the clips of a prior; None for one that is not of clips, or of any length."""
    shape = prior.image_shape or ()
    return shape[1] if len(shape) == 4 else None


def for_clips(prior: Prior, x_shape: tuple[int, ...]) -> Prior:
    """The prior, in windows where x_shape is of more frames than it takes."""
    length = clip_length(prior)
    longer = length is not None and len(x_shape) == 4 and x_shape[1] > length
    return Windows(prior, min(OVERLAP, length - 1)) if longer and length else prior


def of_clips(spec: str) -> bool:
    """Whether a prior is of clips, by what its file tells without its weights: one that comes with
    invdiff, or that `invdiff train` wrote. No other is."""
    weights = resources.files("invdiff.priors") / "weights"
    with resources.as_file(weights) as folder:
        own, path = folder / f"{spec}.safetensors", Path(spec)
        path = own if own.is_file() else path
        if path.suffix != ".safetensors" or not path.is_file():
            return False
        try:
            told = json.loads(safetensors_metadata(path)["facts"])
            return len(told["recipe"]["shape"]) == 4
        except (InvdiffError, LookupError, TypeError, ValueError):
            return False
