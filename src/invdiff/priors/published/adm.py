"""Networks of guided-diffusion and improved-diffusion, in their own names.

Dhariwal and Nichol 2021 (arXiv 2105.05233), Nichol and Dhariwal 2021 (arXiv 2102.09672); flags of
the released checkpoints from the README files of their repositories.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.published import unet2d
from invdiff.priors.published.adm_released import Layout, released
from invdiff.priors.published.base import (
    Converted,
    Options,
    Weights,
    mover,
    presumed,
    undecided,
)

MARK = "input_blocks.0.0.weight"
RES = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
}


@dataclass(frozen=True)
class _Plan:
    """The architecture, from names and shapes. ends: last part of each output block; grows: whether
    it doubles the side; residual: whether sides change in residual blocks."""

    channels: int
    outputs: int
    base: int
    classes: int
    widths: list[int]
    attention: list[bool]
    blocks: int
    residual: bool
    shifts: bool
    ends: list[str]
    grows: list[bool]

    def block(self, level: int, j: int) -> int:
        """Number of an input block; j = blocks is the one that halves the side."""
        return 1 + level * (self.blocks + 1) + j

    def several(self, heads: Heads) -> bool:
        """Whether some attention has more than one head, so that the order of q, k, v matters."""
        used = {n for n, a in zip(self.widths, self.attention, strict=True) if a}
        everywhere = [heads.at(n, up) for n in used for up in (False, True)]
        return any(n > 1 for n in [*everywhere, heads.at(self.widths[-1])])


@dataclass(frozen=True)
class Heads:
    """order of q, k and v; heads, or the channels of one; heads_up: where the side is doubled."""

    order: str
    heads: int | None
    head_width: int | None
    heads_up: int | None = None

    def at(self, width: int, up: bool = False) -> int:
        """How many heads attention of this width has."""
        if up and self.heads_up:
            return self.heads_up
        return self.heads or width // (self.head_width or width)


def convert(tensors: dict[str, Tensor], options: Options) -> Converted:
    """The network as a UNet2DModel. The order of q, k, v and the heads are no part of the weights:
    they come from the options, else from the released layout with the same shapes."""
    w = Weights(tensors, "guided-diffusion")
    plan = read_plan(w)
    levels = tuple(n for n, a in enumerate(plan.attention) if a)
    multipliers = tuple(n / plan.base for n in plan.widths)
    key = (plan.base, multipliers, plan.blocks, plan.residual, plan.shifts, levels)
    layout = released(key, plan.channels, plan.outputs, plan.classes)
    heads, schedule = _settled(options, layout, plan)
    config, out = moved(w, plan, heads)
    steps = options.train_steps or (layout.steps if layout else 1000)
    rescaled = options.rescale_timesteps
    if rescaled is None:
        rescaled = layout is not None and layout.rescaled and not options.train_steps
    trained = {"row": "eps", "schedule": schedule, "steps": steps}
    trained["scale"] = 1000 / steps if rescaled else 1.0
    if options.prediction not in (None, "epsilon"):
        trained["predicts"] = options.prediction
    size = options.size or (layout.size if layout else None)
    values = {
        "schedule": schedule, "train_steps": steps, "prediction": "epsilon",
        "rescale_timesteps": str(rescaled).lower(), "heads": heads.heads,
        "head_channels": heads.head_width, "size": size,
        "attention_order": heads.order if plan.several(heads) else None,
    }  # fmt: skip
    return Converted(
        "guided-diffusion", "UNet2DModel", config, out, trained, (plan.channels, size, size),
        classes=plan.classes, presumed=presumed(values, options, layout.name if layout else ""),
    )  # fmt: skip


def _settled(options: Options, layout: Layout | None, plan: _Plan) -> tuple[Heads, str]:
    """Heads and betas, by options or a released layout; InvdiffError names all that is open."""
    count, width = options.heads, options.head_channels
    if count and width:
        raise InvdiffError("Give one of the options heads and head_channels, and not both.")
    if not (count or width) and layout:
        count, width = layout.heads, layout.head_width
    if options.heads_upsample and width:
        raise InvdiffError(
            f"Heads of {width} channels are so everywhere; give heads, or leave heads_upsample out."
        )
    order = options.attention_order or (layout.order if layout else "")
    schedule = options.schedule or (layout.schedule if layout else "")
    heads = Heads(order or "legacy", count, width, options.heads_upsample)
    left = {}
    if not (count or width):
        left["heads"] = "a number, or head_channels instead"
    if not order and ("heads" in left or plan.several(heads)):
        left["attention_order"] = "legacy or new"
    if not schedule:
        left["schedule"] = "linear or cosine"
    if left:
        raise undecided(left)
    return heads, schedule


def read_plan(w: Weights) -> _Plan:
    """How many blocks a level has shows where output blocks end in one that doubles the side."""
    ins, outs = w.indices("input_blocks."), w.indices("output_blocks.")
    if not outs and ins:
        raise InvdiffError(
            "The weights are half a network (input blocks alone), as those of a classifier, and no "
            "denoiser; take those of the diffusion model."
        )
    last = [max(w.indices(f"output_blocks.{i}."), default=0) for i in outs]
    ends = [f"output_blocks.{i}.{j}" for i, j in zip(outs, last, strict=True)]
    grows = [j > 0 and _kind(w, e) in ("res", "up") for e, j in zip(ends, last, strict=True)]
    levels = sum(grows) + 1
    blocks = grows.index(True) if True in grows else len(outs) - 1
    whole = list(range((blocks + 1) * levels))
    if blocks < 1 or ins != whole or outs != whole:
        raise InvdiffError(
            f"The weights have {len(ins)} input blocks and {len(outs)} output blocks, which is no "
            "whole guided-diffusion network; fetch the file again."
        )
    widths, attention = [], []
    for level in range(levels):
        first = 1 + level * (blocks + 1)
        at = f"input_blocks.{first}.0.out_layers.3.weight"
        widths.append(w.take(at, None, None, 3, 3).shape[0])
        numbers = range(first, first + blocks)
        has = {_kind(w, f"input_blocks.{n}.1") == "attention" for n in numbers}
        if len(has) > 1:
            raise InvdiffError(
                f"Level {level} of the network has attention in some of its blocks and not in "
                "others, which UNet2DModel cannot express."
            )
        attention.append(has == {True})
    residual = levels == 1 or _kind(w, ends[blocks]) == "res"
    grown = w.take("input_blocks.1.0.emb_layers.1.weight", None, None).shape[0]
    channels = w.take(MARK, None, None, 3, 3).shape[1]
    outputs = w.take("out.2.weight", None, None, 3, 3).shape[0]
    base = w.take("time_embed.0.weight", None, None).shape[1]
    classes = len(w.take("label_emb.weight", None, None)) if w.has("label_emb.weight") else 0
    return _Plan(
        channels, outputs, base, classes, widths, attention, blocks, residual,
        grown == 2 * widths[0], ends, grows,
    )  # fmt: skip


def _kind(w: Weights, block: str) -> str:
    for name, leaf in (("res", "in_layers.0"), ("attention", "qkv"), ("up", "conv")):
        if w.has(f"{block}.{leaf}.weight"):
            return name
    return ""


def moved(w: Weights, plan: _Plan, heads: Heads) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration of a UNet2DModel, and all of the tensors in its names."""
    out = _tensors(w, plan, heads)
    w.finish()
    config = unet2d.config(
        plan.channels,
        plan.outputs,
        plan.widths,
        plan.attention,
        plan.blocks,
        "resnet" if plan.residual else "conv",
        resnet_time_scale_shift="scale_shift" if plan.shifts else "default",
        attn_norm_num_groups=32,
        time_embedding_dim=out["time_embedding.linear_1.bias"].shape[0],
        num_class_embeds=plan.classes or None,
        time_width=plan.base,
        heads=heads.heads,
        head_width=heads.head_width,
    )
    return config | ({"heads_up": heads.heads_up} if heads.heads_up else {}), out


def _tensors(w: Weights, plan: _Plan, heads: Heads) -> dict[str, Tensor]:
    levels, blocks = len(plan.widths), plan.blocks
    out: dict[str, Tensor] = {}
    move, res = mover(w, out, RES, ("skip_connection", "conv_shortcut"))

    def attend(src: str, dst: str) -> None:
        move(f"{src}.norm", f"{dst}.group_norm")
        each = heads.at(w.take(f"{src}.proj_out.weight").shape[0], dst.startswith("up_blocks"))
        for leaf in ("weight", "bias"):
            joint = w.take(f"{src}.qkv.{leaf}")
            for name, part in zip("qkv", unet2d.split_qkv(joint, each, heads.order), strict=True):
                out[f"{dst}.to_{name}.{leaf}"] = part.flatten(1) if leaf == "weight" else part
            back = w.take(f"{src}.proj_out.{leaf}")
            out[f"{dst}.to_out.0.{leaf}"] = back.flatten(1) if leaf == "weight" else back

    move("time_embed.0", "time_embedding.linear_1")
    move("time_embed.2", "time_embedding.linear_2")
    move("input_blocks.0.0", "conv_in")
    for level in range(levels):
        up = levels - 1 - level
        for j in range(blocks):
            src, dst = f"input_blocks.{plan.block(level, j)}", f"down_blocks.{level}"
            res(f"{src}.0", f"{dst}.resnets.{j}")
            if plan.attention[level]:
                attend(f"{src}.1", f"{dst}.attentions.{j}")
        if level < levels - 1:
            src, dst = (
                f"input_blocks.{plan.block(level, blocks)}.0",
                f"down_blocks.{level}.downsamplers.0",
            )
            res(src, dst) if plan.residual else move(f"{src}.op", f"{dst}.conv")
        for j in range(blocks + 1):
            number = up * (blocks + 1) + j
            src, dst = f"output_blocks.{number}", f"up_blocks.{up}"
            res(f"{src}.0", f"{dst}.resnets.{j}")
            if plan.attention[level]:
                attend(f"{src}.1", f"{dst}.attentions.{j}")
            if plan.grows[number]:
                src, dst = plan.ends[number], f"{dst}.upsamplers.0"
                res(src, dst) if plan.residual else move(f"{src}.conv", f"{dst}.conv")
    res("middle_block.0", "mid_block.resnets.0")
    attend("middle_block.1", "mid_block.attentions.0")
    res("middle_block.2", "mid_block.resnets.1")
    move("out.0", "conv_norm_out")
    move("out.2", "conv_out")
    if w.has("label_emb.weight"):
        out["class_embedding.weight"] = w.take("label_emb.weight", None, None)
    return out
