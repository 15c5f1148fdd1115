"""What every converter reads and gives: weights by name, options, and a network in our terms."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from invdiff.core import InvdiffError


def _told(help: str, default: Any = None) -> Any:
    """A field of Options."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Options:
    """What a file of weights may leave open; None: read it from the file or a published layout."""

    schedule: Literal["linear", "cosine"] | None = _told("betas: linear or cosine")
    train_steps: int | None = _told("how many betas; 1000 unless the layout says otherwise")
    prediction: Literal["epsilon", "sample", "v_prediction"] | None = _told(
        "what the network predicts: epsilon (unless told), sample (its x0) or v_prediction"
    )
    rescale_timesteps: bool | None = _told(
        "of guided-diffusion: whether the network is told 1000 t / train_steps"
    )
    attention_order: Literal["legacy", "new"] | None = _told(
        "order of q, k, v in guided-diffusion: legacy or new"
    )
    heads: int | None = _told("attention heads at every level")
    heads_upsample: int | None = _told("heads where the network doubles the side, if others")
    head_channels: int | None = _told("channels of a head, instead of heads")
    sde: Literal["ve", "vp", "subvp", "ve-discrete", "vp-discrete"] | None = _told(
        "of a score_sde network: ve, vp or subvp; ve-discrete or vp-discrete where it was trained "
        "on discrete times"
    )
    beta_min: float | None = _told("of the vp and subvp SDE: 0.1 unless told")
    beta_max: float | None = _told("of the vp and subvp SDE: 20 unless told")
    centered: bool | None = _told(
        "of score_sde: whether images are on [-1, 1], as for vp and subvp, or on [0, 1], as for ve"
    )
    fir: bool | None = _told(
        "of score_sde: whether sides change by filters; published: with an input pyramid alone"
    )
    skip_rescale: bool | None = _told("of score_sde: whether sums are scaled by sqrt(1/2)")
    scale_by_sigma: bool | None = _told(
        "of score_sde's ve: whether the network's output is divided by sigma"
    )
    sigma_min: float | None = _told("least trained noise level")
    sigma_max: float | None = _told("largest trained noise level")
    sigma_data: float | None = _told("of EDM weights without their pickle: 0.5 unless told")
    size: int | None = _told("side of the training images")
    any_size: bool = _told("take every side that the network's levels divide", default=False)
    null_label: int | None = _told("label that stands for no class, for guidance")

    def __post_init__(self) -> None:
        hints = get_type_hints(Options)
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            kind, *_ = get_args(hints[f.name]) or (hints[f.name],)
            if value is not None:
                _check(f.name, value, kind)


def _check(name: str, value: object, kind: Any) -> None:
    """InvdiffError unless the value of an option is of its kind: a type, or a Literal."""
    if get_origin(kind) is Literal:
        known = get_args(kind)
        if value not in known:
            raise InvdiffError(f"The option {name} is one of {', '.join(known)}; found {value!r}.")
        return
    wanted: dict[Any, tuple[str, Any]] = {
        int: ("a whole number", int),
        float: ("a number", (int, float)),
        bool: ("true or false", bool),
    }
    what, types = wanted[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and kind is not bool):
        raise InvdiffError(f"The option {name} is {what}; found {value!r}.")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not (value >= 0 if name == "null_label" else 0 < value < math.inf):
        least = "0 or more" if name == "null_label" else "above 0"
        raise InvdiffError(f"The option {name} is {least}; found {value!r}.")


@dataclass(frozen=True, eq=False)
class Converted:
    """A checkpoint as a network that we can build.

    layout: which converter made it. net: "UNet2DModel" or "SongUNet", built from config.
    trained: the row of the table in `precond.py` and its numbers, for `rows.py`.
    shape: (C, H, W), None for a free side. classes: how many, 0 for an unconditional network;
    null: the label that stands for no class, if there is one. presumed: what neither the file nor
    an option told, in words, and a published layout or a rule of this package did.
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
    presumed: tuple[str, ...] = ()

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


def undecided(open: Mapping[str, str]) -> InvdiffError:
    """What to say when the weights leave something open: options, and what they choose from."""
    names = [f"{name} ({choices})" for name, choices in open.items()]
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return InvdiffError(
        "The weights do not tell everything of this network, and its layout is none that was "
        f"published; give the option{'s' if len(names) > 1 else ''} {listed}."
    )


def presumed(values: Mapping[str, Any], options: Options, released: str = "") -> tuple[str, ...]:
    """What is presumed, in words: values of options that were not told, and None for what is none.

    released: the file whose layout this is, and which settles them.
    """
    told = {f.name for f in dataclasses.fields(Options) if getattr(options, f.name) is not None}
    left = [f"{k} {v}" for k, v in values.items() if v is not None and k not in told]
    return (*left, f"as in {released}") if left and released else tuple(left)
