"""What every converter reads and gives: weights by name, options, and a network in our terms."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from invdiff.core import InvdiffError


@dataclass(frozen=True)
class Options:
    """What a file of weights may leave open; None: read it from the file or a published layout."""

    schedule: Literal["linear", "cosine"] | None = field(
        default=None, metadata={"help": "betas of a guided-diffusion network: linear or cosine"}
    )
    train_steps: int | None = field(
        default=None, metadata={"help": "how many betas; 1000 unless the layout says otherwise"}
    )
    attention_order: Literal["legacy", "new"] | None = field(
        default=None, metadata={"help": "order of q, k, v in guided-diffusion: legacy or new"}
    )
    heads: int | None = field(default=None, metadata={"help": "attention heads at every level"})
    head_channels: int | None = field(
        default=None, metadata={"help": "channels of a head, instead of heads"}
    )
    sde: Literal["ve", "vp", "subvp"] | None = field(
        default=None, metadata={"help": "of a score_sde network: ve, vp or subvp"}
    )
    sigma_min: float | None = field(default=None, metadata={"help": "least trained noise level"})
    sigma_max: float | None = field(default=None, metadata={"help": "largest trained noise level"})
    sigma_data: float | None = field(
        default=None, metadata={"help": "of EDM weights without their pickle; 0.5 in the paper"}
    )
    size: int | None = field(default=None, metadata={"help": "side of the training images"})
    any_size: bool = field(
        default=False, metadata={"help": "take every side that the network's levels divide"}
    )
    null_label: int | None = field(
        default=None, metadata={"help": "label that stands for no class, for guidance"}
    )

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value, kind = getattr(self, f.name), KINDS.get(f.name, int)
            if value is None:
                continue
            if f.name in CHOICES and value not in CHOICES[f.name]:
                known = ", ".join(CHOICES[f.name])
                raise InvdiffError(f"The option {f.name} is one of {known}; found {value!r}.")
            number = isinstance(value, int if kind is int else int | float)
            number = number and not isinstance(value, bool)
            if f.name not in CHOICES and not (isinstance(value, bool) if kind is bool else number):
                what = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
                raise InvdiffError(f"The option {f.name} is {what}; found {value!r}.")
            if number and not (value >= 0 if f.name == "null_label" else 0 < value < math.inf):
                least = "0 or more" if f.name == "null_label" else "above 0"
                raise InvdiffError(f"The option {f.name} is {least}; found {value!r}.")


KINDS = {"sigma_min": float, "sigma_max": float, "sigma_data": float, "any_size": bool}
"""Of options that are neither whole numbers nor one of CHOICES."""
CHOICES = {
    "schedule": ("linear", "cosine"),
    "attention_order": ("legacy", "new"),
    "sde": ("ve", "vp", "subvp"),
}


@dataclass(frozen=True, eq=False)
class Converted:
    """A checkpoint as a network that we can build.

    layout: which converter made it. net: "UNet2DModel" or "SongUNet", built from config.
    trained: the row of the table in `precond.py` and its numbers, for `rows.py`.
    shape: (C, H, W), None for a free side. classes: how many, 0 for an unconditional network;
    null: the label that stands for no class, if there is one.
    """

    layout: str
    net: Literal["UNet2DModel", "SongUNet"]
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    trained: dict[str, Any]
    shape: tuple[int, int | None, int | None]
    value_range: tuple[float, float] = (-1.0, 1.0)
    classes: int = 0
    null: int | None = None

    def facts(self) -> dict[str, Any]:
        """Everything but the tensors, for JSON."""
        names = [f.name for f in dataclasses.fields(self) if f.name != "tensors"]
        return {name: getattr(self, name) for name in names}


class Weights:
    """Tensors by name, each of which is taken once: what is left at the end had no place."""

    def __init__(self, tensors: dict[str, Tensor], what: str) -> None:
        self.tensors, self.what = tensors, what
        self.left = set(tensors)

    def take(self, name: str, *shape: int | None) -> Tensor:
        """The tensor called name, in float32; InvdiffError unless it has the shape (None: any)."""
        if name not in self.tensors:
            raise InvdiffError(
                f"The tensor {name} of a {self.what} network is missing; fetch the file again."
            )
        self.left.discard(name)
        value = self.tensors[name]
        fits = len(shape) == value.ndim and all(
            b in (None, a) for a, b in zip(value.shape, shape, strict=True)
        )
        if shape and not fits:
            want = " x ".join("any" if n is None else str(n) for n in shape)
            found = " x ".join(map(str, value.shape)) or "a number"
            raise InvdiffError(
                f"The tensor {name} of a {self.what} network has the wrong shape: {found} "
                f"instead of {want}."
            )
        if not value.is_floating_point():
            raise InvdiffError(f"The tensor {name} holds {value.dtype}, not weights.")
        return value.to(torch.float32)

    def has(self, name: str) -> bool:
        return name in self.tensors

    def skip(self, suffix: str) -> None:
        """Leave out constants that networks keep among their weights."""
        self.left -= {name for name in self.left if name.endswith(suffix)}

    def indices(self, prefix: str) -> list[int]:
        """The numbers n for which some tensor is called prefix + n + "...", sorted."""
        starts = (k[len(prefix) :].split(".")[0] for k in self.tensors if k.startswith(prefix))
        return sorted({int(s) for s in starts if s.isdecimal()})

    def finish(self) -> None:
        """InvdiffError when tensors are left."""
        if self.left:
            name = min(self.left)
            raise InvdiffError(
                f"{len(self.left)} tensors, {name} among them, have no place in a {self.what} "
                "network; it is of another kind than its names say."
            )


def mover(
    w: Weights, out: dict[str, Tensor], names: Mapping[str, str], skip: tuple[str, str]
) -> tuple[Callable[[str, str], None], Callable[[str, str], None]]:
    """Two functions that take a layer, and a residual block, from w into out under other names.

    names: of a block's layers there, to those here; skip: those of its skip connection, if any.
    """

    def move(src: str, dst: str) -> None:
        for leaf in ("weight", "bias"):
            out[f"{dst}.{leaf}"] = w.take(f"{src}.{leaf}")

    def block(src: str, dst: str) -> None:
        for a, b in names.items():
            move(f"{src}.{a}", f"{dst}.{b}")
        if w.has(f"{src}.{skip[0]}.weight"):
            move(f"{src}.{skip[0]}", f"{dst}.{skip[1]}")

    return move, block


def undecided(what: str, option: str, choices: str) -> InvdiffError:
    """What to say when the weights leave something open."""
    return InvdiffError(
        f"The weights do not tell {what} of this network, and its layout is none that was "
        f"published; give the option {option} ({choices})."
    )
