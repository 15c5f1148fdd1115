"""What the two networks of EDM share: the names of their feature maps."""

from __future__ import annotations

import re

from invdiff.core import InvdiffError
from invdiff.priors.published.base import Weights


class Layout:
    """Sides of the feature maps, and the blocks at each, from names such as enc.32x32_block0."""

    def __init__(self, w: Weights) -> None:
        found: dict[str, set[str]] = {"enc": set(), "dec": set()}
        for name in w.tensors:
            part, _, rest = name.partition(".")
            if part in found:
                found[part].add(rest.split(".")[0])
        self.names = found
        self.sides = sorted({int(n.split("x")[0]) for n in found["enc"] if re.match(r"\d+x", n)})
        self.sides.reverse()
        halved = [self.sides[0] >> i for i in range(len(self.sides))] if self.sides else []
        if not self.sides or self.sides != halved:
            raise InvdiffError(
                f"An EDM network halves the side from level to level, but these weights have the "
                f"sides {self.sides}; fetch the file again."
            )
        self.blocks = sum(n.startswith(f"{self.at(0)}_block") for n in found["enc"])

    def at(self, level: int) -> str:
        return f"{self.sides[level]}x{self.sides[level]}"


def has_attention(w: Weights, src: str) -> bool:
    return w.has(f"{src}.qkv.weight")
