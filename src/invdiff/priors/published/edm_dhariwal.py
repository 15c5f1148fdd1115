"""EDM's DhariwalUNet, which is the network of guided-diffusion, as a UNet2DModel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.published import unet2d
from invdiff.priors.published.base import Options, Weights, mover
from invdiff.priors.published.edm_names import Layout, has_attention

HEAD_WIDTH = 64
"""Channels of an attention head of DhariwalUNet, in every published configuration."""
TO_UNET2D = {
    "norm0": "norm1",
    "conv0": "conv1",
    "affine": "time_emb_proj",
    "norm1": "norm2",
    "conv1": "conv2",
}


def convert(w: Weights, layout: Layout, options: Options) -> dict[str, Any]:
    out: dict[str, Tensor] = {}
    move, block = mover(w, out, TO_UNET2D, ("skip", "conv_shortcut"))
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
            if has_attention(w, src):
                attend(src, f"{dst}.attentions.{j}")
        if level < levels - 1:
            block(f"enc.{layout.at(level + 1)}_down", f"down_blocks.{level}.downsamplers.0")
        for j in range(blocks + 1):
            src, dst = f"dec.{at}_block{j}", f"up_blocks.{up}"
            block(src, f"{dst}.resnets.{j}")
            if has_attention(w, src):
                attend(src, f"{dst}.attentions.{j}")
        if level:
            block(f"dec.{layout.at(level - 1)}_up", f"up_blocks.{up}.upsamplers.0")
        widths.append(out[f"down_blocks.{level}.resnets.0.conv2.bias"].shape[0])
        attention.append(has_attention(w, f"enc.{at}_block0"))
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
