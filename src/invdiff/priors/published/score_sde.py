"""Networks of score_sde (PyTorch): NCSN++ and DDPM++, whose layers are one numbered list.

Song et al. 2021 (arXiv 2011.13456); configurations of the released checkpoints from the repository.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.published.base import Converted, Options, Weights
from invdiff.priors.published.song import SongConfig

MARK = "all_modules."
ATTENTION_SIZE = 16
"""Side of the feature maps that have attention, in every published configuration."""
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


class _Reader:
    """The layers one after the other, and what they are."""

    def __init__(self, w: Weights) -> None:
        self.w, self.layers = w, w.indices(MARK)
        self.place = 0

    def kind(self) -> str:
        """Kind of the next layer: fourier, res, resize, attention, pyramid, join, norm or conv."""
        if self.place == len(self.layers):
            return "end"
        at, has = f"{MARK}{self.layers[self.place]}", self.w.has
        if has(f"{at}.W"):
            return "fourier"
        if has(f"{at}.Conv_1.weight"):
            wide = self.w.tensors.get(f"{at}.Conv_2.weight")
            return "resize" if wide is not None and wide.shape[0] == wide.shape[1] else "res"
        for name, leaf in (
            ("attention", "NIN_3.W"),
            ("pyramid", "Conv2d_0.weight"),
            ("join", "Conv.weight"),
            ("plain pyramid", "Conv_0.weight"),
        ):
            if has(f"{at}.{leaf}"):
                return name
        weight = self.w.tensors.get(f"{at}.weight")
        return {1: "norm", 2: "linear", 4: "conv"}.get(-1 if weight is None else weight.ndim, "?")

    def next(self, kind: str) -> str:
        """Name of the next layer, which is of this kind."""
        found = self.kind()
        if found != kind:
            raise InvdiffError(
                f"Layer {self.place} of the score_sde network is {found!r} where NCSN++ and DDPM++ "
                f"have {kind!r}; it is truncated or of a configuration that was not published."
            )
        self.place += 1
        return f"{MARK}{self.layers[self.place - 1]}"


def convert(tensors: dict[str, Tensor], options: Options) -> Converted:
    """The network as a SongUNet.

    Random Fourier times: the exploding SDE, whose levels are the buffer `sigmas`, on [0, 1].
    Positional times: the option sde tells which, on [-1, 1]. FIR filters leave no trace in most
    weights; every published network with an input pyramid has them, the others do not.
    """
    w = Weights(tensors, "score_sde")
    read, out = _Reader(w), {}

    def move(src: str, dst: str) -> None:
        for leaf in ("weight", "bias"):
            out[f"{dst}.{leaf}"] = w.take(f"{src}.{leaf}")

    def res(kind: str, dst: str) -> int:
        src = read.next(kind)
        for a, b in RES.items():
            move(f"{src}.{a}", f"{dst}.{b}")
        if w.has(f"{src}.Conv_2.weight"):
            move(f"{src}.Conv_2", f"{dst}.skip")
        return out[f"{dst}.conv_1.weight"].shape[0]

    def attend(dst: str) -> bool:
        if read.kind() != "attention":
            return False
        src = read.next("attention")
        move(f"{src}.GroupNorm_0", f"{dst}.attention.norm")
        for n, name in enumerate(("q", "k", "v", "proj")):
            matrix = w.take(f"{src}.NIN_{n}.W", None, None)  # (inputs, outputs)
            out[f"{dst}.attention.{name}.weight"] = matrix.T[:, :, None, None].contiguous()
            out[f"{dst}.attention.{name}.bias"] = w.take(f"{src}.NIN_{n}.b")
        return True

    fourier = read.kind() == "fourier"
    if fourier:
        out["frequencies"] = w.take(f"{read.next('fourier')}.W", None)
    move(read.next("linear"), "time_0")
    move(read.next("linear"), "time_1")
    move(read.next("conv"), "conv_in")

    blocks = 0
    while (kind := read.kind()) in ("res", "attention"):  # the first level tells how many
        at = f"encoder.0.blocks.{blocks - (kind == 'attention')}"
        if kind == "res":
            width, blocks = res("res", at), blocks + 1
        else:
            attend(at)
    if not blocks or read.kind() != "resize":
        raise InvdiffError("The score_sde network has one level, which no published one has.")
    widths, pyramid = [width], "none"
    attention = [any(k.startswith("encoder.0.blocks.0.attention.") for k in out)]
    while read.kind() == "resize":
        at = f"encoder.{len(widths)}"
        res("resize", f"{at}.down")
        if read.kind() in ("pyramid", "join"):
            pyramid = {"pyramid": "residual", "join": "skip"}[read.kind()]
            src = read.next(read.kind())
            move(f"{src}.{'Conv2d_0' if pyramid == 'residual' else 'Conv'}", f"{at}.join")
        with_attention = set()
        for j in range(blocks):
            width = res("res", f"{at}.blocks.{j}")
            with_attention.add(attend(f"{at}.blocks.{j}"))
        widths.append(width)
        attention.append(with_attention == {True})
    res("res", "middle.0")
    attend("middle.0")
    res("res", "middle.1")
    output_skip = False
    for n, level in enumerate(reversed(range(len(widths)))):
        at = f"decoder.{n}"
        if n:
            res("resize", f"{at}.up")
        for j in range(blocks + 1):
            res("res", f"{at}.blocks.{j}")
        if attention[level]:
            attend(f"{at}.blocks.{blocks}")
        output_skip = output_skip or (n == 0 and read.kind() == "norm")
        if output_skip or level == 0:
            move(read.next("norm"), f"{at}.norm")
            move(read.next("conv"), f"{at}.out")
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
        fir=(1, 1) if pyramid == "none" else (1, 3, 3, 1),
    )
    return _finished(out, shape, sigmas, options)


def _finished(
    out: dict[str, Tensor], shape: SongConfig, sigmas: Tensor | None, options: Options
) -> Converted:
    trained = _trained(options, shape.fourier, sigmas)
    explodes = trained["row"] == "score"
    config = dataclasses.asdict(dataclasses.replace(shape, centre=explodes))
    size = options.size
    if size is None and shape.attention.count(True) == 1:
        size = ATTENTION_SIZE << shape.attention.index(True)
    return Converted(
        "score_sde", "SongUNet", config, out, trained, (shape.channels, size, size),
        value_range=(0.0, 1.0) if explodes else (-1.0, 1.0),
    )  # fmt: skip


def _trained(options: Options, fourier: bool, sigmas: Tensor | None) -> dict[str, Any]:
    """The row and its numbers. Fourier times were trained by the exploding SDE only."""
    if not fourier:
        if options.sde not in ("vp", "subvp"):
            raise InvdiffError(
                "The weights do not tell the SDE of this score_sde network, and one with "
                "positional times is of the vp or the subvp kind; give the option sde (vp or "
                "subvp)."
            )
        return {"row": "eps_sde", "sub": options.sde == "subvp"}
    if options.sde not in (None, "ve"):
        raise InvdiffError("This network has Fourier times, so its SDE is ve; leave sde out.")
    low, high = options.sigma_min, options.sigma_max
    if sigmas is not None:
        low, high = low or float(sigmas.min()), high or float(sigmas.max())
    if high is None:
        raise InvdiffError(
            "The weights do not tell the largest noise level of this score_sde network; give the "
            "option sigma_max (50 for CIFAR-10, 348 for FFHQ at 256)."
        )
    return {"row": "score", "sigma_min": low or 0.01, "sigma_max": high}
