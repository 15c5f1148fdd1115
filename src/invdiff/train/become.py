"""What patches of magnitudes or items become before training: complex images, moving clips."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Become = Callable[[Tensor, torch.Generator], Tensor]

FRAMES = 8
CANVAS = 32


def random_phase(x: Tensor, g: torch.Generator) -> Tensor:
    """Complex images (n, 2, h, w) with the magnitudes (x + 1) / 2 of grey images x (n, 1, h, w).

    The phase is a random constant plus a polynomial of degree 3 in the pixel's coordinates on
    [-1, 1]: coefficients of standard deviation 1 / degree radian, times an amplitude of the image
    that is uniform on [0, 2].
    """
    n, _, h, w = x.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=g, device=x.device)

    v = torch.linspace(-1, 1, h, device=x.device)[:, None]
    u = torch.linspace(-1, 1, w, device=x.device)[None]
    phase = 2 * math.pi * uniform(n, 1, 1)
    amplitude = 2 * uniform(n, 1, 1)
    for degree in (1, 2, 3):
        for i in range(degree + 1):
            c = torch.randn(n, 1, 1, generator=g, device=x.device) / degree
            phase = phase + amplitude * c * v**i * u ** (degree - i)
    magnitude = (x[:, 0] + 1) / 2
    return torch.stack([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)


def moving_clips(x: Tensor, g: torch.Generator, frames: int = FRAMES) -> Tensor:
    """Clips (n, frames, CANVAS, CANVAS) of items that move on black and bounce, from 2 n of them.

    x: items (2 n, 1, h, w) on [-1, 1], with black (-1) around them; shown at half size. Half of the
    clips show one item, the others two, which are joined by their maximum. An item starts anywhere
    within the canvas, moves 0 to 2.5 pixels a frame in any direction, at a constant speed, and is
    reflected by the canvas's borders. Between pixels it is interpolated linearly.
    """
    n, device = len(x) // 2, x.device
    items = F.avg_pool2d(x, 2)
    side = torch.tensor(items.shape[-2:], device=device)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=g, device=device)

    room = CANVAS - side
    start, angle, speed = uniform(2 * n, 1, 2), uniform(2 * n, 1, 1), uniform(2 * n, 1, 1)
    angle = 2 * math.pi * angle
    velocity = 2.5 * speed * torch.cat([angle.sin(), angle.cos()], dim=2)
    t = torch.arange(frames, device=device)[None, :, None]
    corner = room - (torch.remainder(start * room + t * velocity, 2 * room) - room).abs()
    shown = _place(items + 1, corner)
    second = uniform(n, 1, 1, 1) < 0.5
    return torch.maximum(shown[:n], shown[n:] * second) - 1


def _place(items: Tensor, corner: Tensor) -> Tensor:
    """Items (n, 1, h, w) on canvases of zeros, (n, T, CANVAS, CANVAS).

    corner: row and column of the items' upper left corners, (n, T, 2), not whole numbers.
    Bilinear weights are products of one for the row and one for the column: R items C^T.
    """
    h, w = items.shape[-2:]

    def weights(size: int, at: Tensor) -> Tensor:
        where = torch.arange(CANVAS, device=items.device)[:, None] - at[..., None, None]
        return (1 - (where - torch.arange(size, device=items.device)).abs()).clamp_min(0)

    rows, cols = weights(h, corner[..., 0]), weights(w, corner[..., 1])
    return rows @ items @ cols.mT


BECOME: dict[str, Become] = {
    "": lambda x, g: x,
    "complex images": random_phase,
    "moving clips": moving_clips,
}
"""By the names that recipes use; each takes patches on [-1, 1] and a generator."""
