"""EDM's SongUNet, which is the network of score_sde, as ours."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.published import unet2d
from invdiff.priors.published.base import Options, Weights, mover
from invdiff.priors.published.edm_names import Layout, has_attention
from invdiff.priors.published.song import SongConfig

TO_SONG = {
    "norm0": "norm_0",
    "conv0": "conv_0",
    "affine": "time",
    "norm1": "norm_1",
    "conv1": "conv_1",
}


def convert(w: Weights, layout: Layout, options: Options) -> dict[str, Any]:
    out: dict[str, Tensor] = {}
    move, plain = mover(w, out, TO_SONG, ("skip", "skip"))
    levels, blocks = len(layout.sides), layout.blocks
    if options.heads not in (None, 1) or options.head_channels:
        raise InvdiffError("SongUNet has one attention head; leave heads and head_channels out.")

    def block(src: str, dst: str) -> None:
        plain(src, dst)
        if has_attention(w, src):
            move(f"{src}.norm2", f"{dst}.attention.norm")
            move(f"{src}.proj", f"{dst}.attention.proj")
            for leaf in ("weight", "bias"):
                joint = unet2d.split_qkv(w.take(f"{src}.qkv.{leaf}"), 1, "edm")
                for name, part in zip("qkv", joint, strict=True):
                    out[f"{dst}.attention.{name}.{leaf}"] = part

    fourier = w.has("map_noise.freqs")
    if fourier:
        out["frequencies"] = w.take("map_noise.freqs", None)
    move("map_layer0", "time_0")
    move("map_layer1", "time_1")
    move(f"enc.{layout.at(0)}_conv", "conv_in")
    pyramid, output_skip, widths, attention = "none", False, [], []
    for level in range(levels):
        at, n = layout.at(level), levels - 1 - level
        if level:
            block(f"enc.{at}_down", f"encoder.{level}.down")
        for kind in ("skip", "residual"):
            if level and w.has(f"enc.{at}_aux_{kind}.weight"):
                pyramid = kind
                move(f"enc.{at}_aux_{kind}", f"encoder.{level}.join")
        for j in range(blocks):
            block(f"enc.{at}_block{j}", f"encoder.{level}.blocks.{j}")
        if n:
            block(f"dec.{at}_up", f"decoder.{n}.up")
        for j in range(blocks + 1):
            block(f"dec.{at}_block{j}", f"decoder.{n}.blocks.{j}")
        if w.has(f"dec.{at}_aux_norm.weight"):
            output_skip = output_skip or level > 0
            move(f"dec.{at}_aux_norm", f"decoder.{n}.norm")
            move(f"dec.{at}_aux_conv", f"decoder.{n}.out")
        widths.append(out[f"encoder.{level}.blocks.0.conv_1.bias"].shape[0])
        attention.append(has_attention(w, f"enc.{at}_block0"))
    last = layout.at(levels - 1)
    block(f"dec.{last}_in0", "middle.0")
    block(f"dec.{last}_in1", "middle.1")
    features = out["time_0.weight"].shape[1]
    classes = 0
    if w.has("map_label.weight"):
        matrix = w.take("map_label.weight", features, None)
        rows = matrix.T * math.sqrt(matrix.shape[1])
        rows = torch.cat([rows, torch.zeros_like(rows[:1])])
        bias = w.take("map_label.bias", features) if w.has("map_label.bias") else 0
        out["classes.weight"], classes = rows + bias, len(rows)
    taps = _taps(w)
    config = SongConfig(
        channels=out["conv_in.weight"].shape[1],
        widths=tuple(widths),
        attention=tuple(attention),
        blocks=blocks,
        base=out["conv_in.weight"].shape[0],
        features=features,
        embedding=len(out["time_0.bias"]),
        fourier=fourier,
        pyramid=pyramid,
        output_skip=output_skip,
        fir=taps,
        classes=classes,
    )
    return {"net": "SongUNet", "config": dataclasses.asdict(config), "tensors": out}


def _taps(w: Weights) -> tuple[int, ...]:
    """Taps of the resampling filter, which the file holds as an outer product of sum 1."""
    found = {k: v for k, v in w.tensors.items() if k.endswith("resample_filter")}
    known = {2: (1, 1), 4: (1, 3, 3, 1)}
    for name, kernel in found.items():
        if kernel.is_meta and kernel.shape[-1] in known:  # a layout alone, without numbers
            continue
        taps = torch.tensor(known.get(kernel.shape[-1], (0.0,)), dtype=torch.float64)
        want = torch.outer(taps, taps) / taps.sum() ** 2
        if want.isnan().any() or not torch.allclose(kernel.double().squeeze(), want, atol=1e-6):
            raise InvdiffError(f"The filter {name} is neither (1, 1) nor (1, 3, 3, 1).")
    sizes = {v.shape[-1] for v in found.values()}
    if len(sizes) != 1:
        raise InvdiffError(
            "The weights do not tell one resampling filter; they need their resample_filter."
        )
    return known[sizes.pop()]
