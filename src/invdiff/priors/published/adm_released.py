"""Released checkpoints of guided-diffusion and improved-diffusion: what their shapes leave open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layout:
    """What the flags of a released checkpoint add to its weights. name: of its file; classes: the
    numbers of classes that were released, 0 for none."""

    name: str
    size: int
    schedule: str
    order: str = "legacy"
    heads: int | None = None
    head_width: int | None = None
    steps: int = 1000
    rescaled: bool = False
    classes: tuple[int, ...] = (0,)


BOTH = (1, 1, 2, 2, 4, 4)
MANY = (0.5, 1, 1, 2, 2, 4, 4)
COSINE: dict[str, Any] = dict(schedule="cosine", heads=4, steps=4000)
RELEASED: list[tuple[tuple[Any, ...], Layout]] = [
    # (channels, multipliers, blocks, residual resampling, scale and shift), levels with attention
    ((192, (1, 2, 3, 4), 3, True, True, (1, 2, 3)),
     Layout("64x64_diffusion.pt", 64, "cosine", "new", head_width=64, classes=(1000,))),
    ((256, (1, 1, 2, 3, 4), 2, True, True, (2, 3, 4)),
     Layout("128x128_diffusion.pt", 128, "linear", heads=4, classes=(1000,))),
    ((256, BOTH, 2, True, True, (3, 4, 5)),
     Layout("256x256_diffusion.pt and lsun_*.pt", 256, "linear", head_width=64, classes=(0, 1000))),
    ((256, MANY, 2, True, True, (4, 5, 6)),
     Layout("512x512_diffusion.pt", 512, "linear", head_width=64, classes=(0, 1000))),
    ((128, BOTH, 1, True, True, (4,)),
     Layout("ffhq_10m.pt", 256, "linear", head_width=64)),
    ((128, (1, 2, 3, 4), 3, False, True, (2, 3)),
     Layout("imagenet64_uncond_*.pt", 64, rescaled=True, **COSINE)),
    ((128, (1, 2, 2, 2), 3, False, True, (1, 2)),
     Layout("cifar10_uncond_*.pt", 32, rescaled=True, **COSINE)),
    ((192, (1, 2, 3, 4), 3, False, True, (2, 3)),
     Layout("imagenet64_cond_*.pt", 64, classes=(1000,), **COSINE)),
    ((128, BOTH, 2, False, False, (4,)),
     Layout("lsun_uncond_*.pt", 256, "linear", heads=1)),
]  # fmt: skip
"""Of guided-diffusion (ImageNet 64 to 512, LSUN), of DPS (FFHQ), of improved-diffusion. All learn
the variance, so that 3 channels become 6."""


def released(key: tuple[Any, ...], channels: int, outputs: int, classes: int) -> Layout | None:
    """The released layout of these shapes, if they are of one."""
    found = next((layout for shapes, layout in RELEASED if shapes == key), None)
    fits = found and classes in found.classes and (channels, outputs) == (3, 6)
    return found if fits else None
