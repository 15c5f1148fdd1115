"""Networks of score_sde (PyTorch): NCSN++, DDPM++ and DDPM, whose layers are one numbered list.

Song et al. 2021 (arXiv 2011.13456); configurations of the released checkpoints from the repository.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.published.base import Converted, Options, Weights
from invdiff.priors.published.score_sde_rows import finished
from invdiff.priors.published.song import SongConfig

MARK = "all_modules."
RES = {
    "GroupNorm_0": "norm_0",
    "Conv_0": "conv_0",
    "Dense_0": "time",
    "GroupNorm_1": "norm_1",
    "Conv_1": "conv_1",
}


def with_average(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of {model, ema, ...}: those of the average, which is a list without names.

    The list follows the order of the model's trained parameters: its state without buffers
    (`sigmas`) and without the fixed Fourier frequencies (`.W` of the first layer).
    """
    state, average = dict(checkpoint["model"]), checkpoint["ema"]["shadow_params"]
    fixed = [k for k in state if k.endswith(("sigmas", "all_modules.0.W"))]
    names = [k for k in state if k not in fixed]
    if len(names) != len(average) or any(
        state[k].shape != p.shape for k, p in zip(names, average, strict=True)
    ):
        raise InvdiffError(
            f"ema.shadow_params holds {len(average)} tensors that do not follow the "
            f"{len(names)} parameters of the model in order; give the model's weights alone."
        )
    return state | dict(zip(names, average, strict=True))


class Reader:
    """The layers one after the other, and what they are."""

    def __init__(self, w: Weights) -> None:
        self.w, self.layers = w, w.indices(MARK)
        self.place = 0

    def kind(self) -> str:
        """Kind of the next layer: fourier, res, resize, attention, pyramid, join, norm, conv, or
        side, a convolution that changes the side."""
        if self.place == len(self.layers):
            return "end"
        at, has = f"{MARK}{self.layers[self.place]}", self.w.has
        if has(f"{at}.W"):
            return "fourier"
        if has(f"{at}.Conv_1.weight"):
            wide = self.w.tensors.get(f"{at}.Conv_2.weight")
            return "resize" if wide is not None and wide.shape[0] == wide.shape[1] else "res"
        if has(f"{at}.NIN_3.W"):
            return "attention"
        if has(f"{at}.Conv2d_0.weight"):
            return "pyramid"
        kernel = self.w.tensors.get(f"{at}.Conv_0.weight")
        if kernel is not None:
            return "join" if kernel.shape[-1] == 1 else "side"
        weight = self.w.tensors.get(f"{at}.weight")
        return {1: "norm", 2: "linear", 4: "conv"}.get(-1 if weight is None else weight.ndim, "?")

    def next(self, kind: str) -> str:
        """Name of the next layer, which is of this kind."""
        found = self.kind()
        if found != kind:
            raise InvdiffError(
                f"Layer {self.place} of the score_sde network is {found!r} where NCSN++, DDPM++ "
                f"and DDPM have {kind!r}; it is truncated or of a configuration that was not "
                "published."
            )
        self.place += 1
        return f"{MARK}{self.layers[self.place - 1]}"


class _Build:
    """Takes layers from a Reader into `out`, under the names of a SongUNet."""

    def __init__(self, read: Reader) -> None:
        self.read, self.w = read, read.w
        self.out: dict[str, Tensor] = {}

    def move(self, src: str, dst: str) -> None:
        for leaf in ("weight", "bias"):
            self.out[f"{dst}.{leaf}"] = self.w.take(f"{src}.{leaf}")

    def layer(self, kind: str, dst: str, inner: str = "") -> None:
        self.move(self.read.next(kind) + inner, dst)

    def dense(self, src: str, dst: str) -> None:
        """A matrix (inputs, outputs) as a convolution of one pixel."""
        matrix = self.w.take(f"{src}.W", None, None)
        self.out[f"{dst}.weight"] = matrix.T[:, :, None, None].contiguous()
        self.out[f"{dst}.bias"] = self.w.take(f"{src}.b")

    def res(self, kind: str, dst: str) -> int:
        """A residual block; gives its number of channels."""
        src = self.read.next(kind)
        for a, b in RES.items():
            self.move(f"{src}.{a}", f"{dst}.{b}")
        if self.w.has(f"{src}.Conv_2.weight"):
            self.move(f"{src}.Conv_2", f"{dst}.skip")
        if self.w.has(f"{src}.NIN_0.W"):
            self.dense(f"{src}.NIN_0", f"{dst}.skip")
        return self.out[f"{dst}.conv_1.weight"].shape[0]

    def attend(self, dst: str) -> bool:
        """Attention, where the next layer is one."""
        if self.read.kind() != "attention":
            return False
        src = self.read.next("attention")
        self.move(f"{src}.GroupNorm_0", f"{dst}.attention.norm")
        for n, name in enumerate(("q", "k", "v", "proj")):
            self.dense(f"{src}.NIN_{n}", f"{dst}.attention.{name}")
        return True

    def resize(self, dst: str) -> None:
        """What changes the side: a residual block, or a convolution."""
        if self.read.kind() == "side":
            self.layer("side", dst, ".Conv_0")
        else:
            self.res("resize", dst)


def convert(tensors: dict[str, Tensor], options: Options) -> Converted:
    """The network as a SongUNet.

    Random Fourier times: the exploding SDE, whose levels are the buffer `sigmas`, on [0, 1].
    Positional times: the option sde tells which. FIR filters leave no trace in most weights; every
    published network with an input pyramid has them, the others do not.
    """
    w = Weights(tensors, "score_sde")
    make = _Build(Reader(w))
    read, out = make.read, make.out
    fourier = read.kind() == "fourier"
    if fourier:
        out["frequencies"] = w.take(f"{read.next('fourier')}.W", None)
    for name in ("time_0", "time_1"):
        make.layer("linear", name)
    make.layer("conv", "conv_in")
    widths, attention, blocks, pyramid, plain = _encoder(make)
    make.res("res", "middle.0")
    make.attend("middle.0")
    make.res("res", "middle.1")
    output_skip = False
    for n, level in enumerate(reversed(range(len(widths)))):
        at = f"decoder.{n}"
        if n and not plain:
            make.resize(f"{at}.up")
        for j in range(blocks + 1):
            make.res("res", f"{at}.blocks.{j}")
        if attention[level]:
            make.attend(f"{at}.blocks.{blocks}")
        if plain and level:
            make.resize(f"decoder.{n + 1}.up")
        output_skip = output_skip or (n == 0 and read.kind() == "norm")
        if output_skip or level == 0:
            make.layer("norm", f"{at}.norm")
            make.layer("conv", f"{at}.out")
    sigmas = w.take("sigmas", None) if w.has("sigmas") else None
    w.finish()
    shape = SongConfig(
        channels=out["conv_in.weight"].shape[1],
        widths=tuple(widths),
        attention=tuple(attention),
        blocks=blocks,
        base=out["conv_in.weight"].shape[0],
        features=out["time_0.weight"].shape[1],
        embedding=len(out["time_0.bias"]),
        fourier=fourier,
        pyramid=pyramid,
        output_skip=output_skip,
        plain=plain,
    )
    return finished(out, shape, sigmas, options)


def _encoder(make: _Build) -> tuple[list[int], list[bool], int, str, bool]:
    """Widths and attention of the levels, blocks of each, kind of the pyramid, and whether the side
    is changed by convolutions."""
    read, blocks, width = make.read, 0, 0
    first = [False]
    while (kind := read.kind()) in ("res", "attention"):  # the first level tells how many
        at = f"encoder.0.blocks.{blocks - (kind == 'attention')}"
        if kind == "res":
            width, blocks = make.res("res", at), blocks + 1
        else:
            first = [make.attend(at)]
    plain = read.kind() == "side"
    if not blocks or read.kind() not in ("resize", "side"):
        raise InvdiffError(
            f"The first level of the score_sde network ends in {read.kind()!r}, where those that "
            "were published halve the side; it is truncated or of another configuration."
        )
    widths, attention, pyramid = [width], first, "none"
    while read.kind() in ("resize", "side"):
        at = f"encoder.{len(widths)}"
        make.resize(f"{at}.down")
        if read.kind() in ("pyramid", "join"):
            pyramid = {"pyramid": "residual", "join": "skip"}[read.kind()]
            inner = {"residual": ".Conv2d_0", "skip": ".Conv_0"}[pyramid]
            make.layer(read.kind(), f"{at}.join", inner)
        with_attention = set()
        for j in range(blocks):
            width = make.res("res", f"{at}.blocks.{j}")
            with_attention.add(make.attend(f"{at}.blocks.{j}"))
        widths.append(width)
        attention.append(with_attention == {True})
    return widths, attention, blocks, pyramid, plain
