"""Networks of Karras et al. 2022 (arXiv 2206.00364), in the names that their files use.

DhariwalUNet is the network of guided-diffusion and becomes a UNet2DModel; SongUNet is that of
score_sde and becomes ours. The input for augmentation is 0 when an image is sampled, so its weights
are left out; the same holds for the label that stands for no class: a row of zeros.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.published import unet2d
from invdiff.priors.published.base import Converted, Options, Weights
from invdiff.priors.published.song import SongConfig

MARK = "map_layer0.weight"
HEAD_WIDTH = 64
"""Channels of an attention head of DhariwalUNet, in every published configuration."""
TO_UNET2D = {
    "norm0": "norm1",
    "conv0": "conv1",
    "affine": "time_emb_proj",
    "norm1": "norm2",
    "conv1": "conv2",
}
TO_SONG = {
    "norm0": "norm_0",
    "conv0": "conv_0",
    "affine": "time",
    "norm1": "norm_1",
    "conv1": "conv_1",
}


class _Layout:
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


def convert(tensors: dict[str, Tensor], options: Options, pickled: Mapping[str, Any]) -> Converted:
    """pickled: class_name, sigma_data and the like, as the file's own objects have them; empty for
    bare weights, which then need the option sigma_data."""
    w = Weights(tensors, "EDM")
    w.skip("resample_filter")
    if w.has("map_augment.weight"):
        w.take("map_augment.weight")
    dhariwal = w.has("out_conv.weight")
    layout = _Layout(w)
    null = None
    if w.has("map_label.weight"):
        null = w.take("map_label.weight", None, None).shape[1]
    made = (_dhariwal if dhariwal else _song)(w, layout, options)
    w.finish()
    trained = _trained(options, pickled)
    channels = made["config"].get("in_channels", made["config"].get("channels"))
    side = options.size or layout.sides[0]
    return Converted(
        "edm", **made, trained=trained, shape=(channels, side, side), classes=null or 0, null=null
    )


def _trained(options: Options, pickled: Mapping[str, Any]) -> dict[str, Any]:
    """The row that belongs to the class of the file: EDMPrecond, VPPrecond or VEPrecond."""
    kind = pickled.get("class_name", "EDMPrecond")
    if kind == "EDMPrecond":
        sigma_data = options.sigma_data or pickled.get("sigma_data")
        if sigma_data is None:
            raise InvdiffError(
                "Bare EDM weights do not tell their sigma_data; give the option sigma_data (0.5 "
                "for the networks of the paper), or the pickle itself."
            )
        low, high = options.sigma_min or 0.002, options.sigma_max or 80.0
        return {"row": "edm", "sigma_data": sigma_data, "sigma_min": low, "sigma_max": high}
    if kind == "VPPrecond":
        low, rise = float(pickled.get("beta_min", 0.1)), float(pickled.get("beta_d", 19.9))
        scale = float(pickled.get("M", 1000)) - 1
        return {"row": "eps_sde", "scale": scale, "beta0": low, "beta1": low + rise}
    if kind == "VEPrecond":
        low, high = options.sigma_min or 0.02, options.sigma_max or 100.0
        return {"row": "edm_ve", "sigma_min": low, "sigma_max": high}
    raise InvdiffError(
        f"The file holds a {kind}, which is not supported; take one of EDMPrecond, VPPrecond or "
        "VEPrecond."
    )


def _mover(w: Weights, out: dict[str, Tensor], names: Mapping[str, str], skip: str) -> Any:
    """Two functions, move and block: from a name of EDM to one of ours."""

    def move(src: str, dst: str) -> None:
        for leaf in ("weight", "bias"):
            out[f"{dst}.{leaf}"] = w.take(f"{src}.{leaf}")

    def block(src: str, dst: str) -> None:
        for a, b in names.items():
            move(f"{src}.{a}", f"{dst}.{b}")
        if w.has(f"{src}.skip.weight"):
            move(f"{src}.skip", f"{dst}.{skip}")

    return move, block


def _attention(w: Weights, src: str) -> bool:
    return w.has(f"{src}.qkv.weight")


def _dhariwal(w: Weights, layout: _Layout, options: Options) -> dict[str, Any]:
    out: dict[str, Tensor] = {}
    move, block = _mover(w, out, TO_UNET2D, "conv_shortcut")
    levels, blocks = len(layout.sides), layout.blocks
    head_width = options.head_channels or HEAD_WIDTH

    def attend(src: str, dst: str) -> None:
        move(f"{src}.norm2", f"{dst}.group_norm")
        n = w.take(f"{src}.norm2.weight").shape[0]
        heads = options.heads or n // head_width
        if not heads:
            raise InvdiffError(
                f"Attention of {n} channels has no heads of {head_width}; give the option heads."
            )
        for leaf in ("weight", "bias"):
            joint = unet2d.split_qkv(w.take(f"{src}.qkv.{leaf}"), heads, "edm")
            parts = zip(("to_q", "to_k", "to_v"), joint, strict=True)
            for name, part in (*parts, ("to_out.0", w.take(f"{src}.proj.{leaf}"))):
                out[f"{dst}.{name}.{leaf}"] = part.flatten(1) if leaf == "weight" else part

    move("map_layer0", "time_embedding.linear_1")
    move("map_layer1", "time_embedding.linear_2")
    move(f"enc.{layout.at(0)}_conv", "conv_in")
    widths, attention = [], []
    for level in range(levels):
        at, up = layout.at(level), levels - 1 - level
        for j in range(blocks):
            src, dst = f"enc.{at}_block{j}", f"down_blocks.{level}"
            block(src, f"{dst}.resnets.{j}")
            if _attention(w, src):
                attend(src, f"{dst}.attentions.{j}")
        if level < levels - 1:
            block(f"enc.{layout.at(level + 1)}_down", f"down_blocks.{level}.downsamplers.0")
        for j in range(blocks + 1):
            src, dst = f"dec.{at}_block{j}", f"up_blocks.{up}"
            block(src, f"{dst}.resnets.{j}")
            if _attention(w, src):
                attend(src, f"{dst}.attentions.{j}")
        if level:
            block(f"dec.{layout.at(level - 1)}_up", f"up_blocks.{up}.upsamplers.0")
        widths.append(out[f"down_blocks.{level}.resnets.0.conv2.bias"].shape[0])
        attention.append(_attention(w, f"enc.{at}_block0"))
    last = layout.at(levels - 1)
    block(f"dec.{last}_in0", "mid_block.resnets.0")
    attend(f"dec.{last}_in0", "mid_block.attentions.0")
    block(f"dec.{last}_in1", "mid_block.resnets.1")
    move("out_norm", "conv_norm_out")
    move("out_conv", "conv_out")
    if w.has("map_label.weight"):
        labels = w.take("map_label.weight", None, None).T
        out["class_embedding.weight"] = torch.cat([labels, torch.zeros_like(labels[:1])])
    config = unet2d.config(
        out["conv_in.weight"].shape[1],
        out["conv_out.bias"].shape[0],
        widths,
        attention,
        blocks,
        "resnet",
        resnet_time_scale_shift="scale_shift",
        time_embedding_dim=out["time_embedding.linear_1.bias"].shape[0],
        num_class_embeds=len(out["class_embedding.weight"]) if w.has("map_label.weight") else None,
        time_width=out["time_embedding.linear_1.weight"].shape[1],
        heads=options.heads,
        head_width=head_width,
        quarter_groups=True,
    )
    return {"net": "UNet2DModel", "config": config, "tensors": out}


def _song(w: Weights, layout: _Layout, options: Options) -> dict[str, Any]:
    out: dict[str, Tensor] = {}
    move, plain = _mover(w, out, TO_SONG, "skip")
    levels, blocks = len(layout.sides), layout.blocks
    if options.heads not in (None, 1) or options.head_channels:
        raise InvdiffError("SongUNet has one attention head; leave heads and head_channels out.")

    def block(src: str, dst: str) -> None:
        plain(src, dst)
        if _attention(w, src):
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
        attention.append(_attention(w, f"enc.{at}_block0"))
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
