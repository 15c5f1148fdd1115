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
from invdiff.priors.published.base import Converted, Options, Weights, mover, undecided

MARK = "input_blocks.0.0.weight"
RES = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
}


@dataclass(frozen=True)
class Layout:
    """What the flags of a released checkpoint add to its weights."""

    size: int
    schedule: str
    order: str = "legacy"
    heads: int | None = None
    head_width: int | None = None
    steps: int = 1000
    scale: float = 1.0


BOTH = (1, 1, 2, 2, 4, 4)
PUBLISHED = {
    # (channels, multipliers, blocks, residual resampling, scale and shift)
    (192, (1, 2, 3, 4), 3, True, True): Layout(64, "cosine", "new", head_width=64),
    (256, (1, 1, 2, 3, 4), 2, True, True): Layout(128, "linear", heads=4),
    (256, BOTH, 2, True, True): Layout(256, "linear", head_width=64),
    (256, (0.5, *BOTH[:2], 2, 2, 4, 4), 2, True, True): Layout(512, "linear", head_width=64),
    (128, BOTH, 1, True, True): Layout(256, "linear", head_width=64),
    (128, (1, 2, 3, 4), 3, False, True): Layout(64, "cosine", heads=4, steps=4000, scale=0.25),
    (128, (1, 2, 2, 2), 3, False, True): Layout(32, "cosine", heads=4, steps=4000, scale=0.25),
    (192, (1, 2, 3, 4), 3, False, True): Layout(64, "cosine", heads=4, steps=4000),
    (128, BOTH, 2, False, False): Layout(256, "linear", heads=1),
}
"""Released layouts: ImageNet 64, 128, 256 (also LSUN), 512; FFHQ of DPS; improved-diffusion's four
(its scale 0.25 is rescale_timesteps)."""


@dataclass(frozen=True)
class _Plan:
    """The architecture, from names and shapes. ends: last part of each output block; grows: whether
    it doubles the side; residual: whether sides change in residual blocks."""

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


def convert(tensors: dict[str, Tensor], options: Options) -> Converted:
    """The network as a UNet2DModel. The order of q, k, v and the heads are no part of the weights:
    they come from the options, else from the released layout with the same shapes."""
    w = Weights(tensors, "guided-diffusion")
    channels = w.take(MARK, None, None, 3, 3).shape[1]
    base = w.take("time_embed.0.weight", None, None).shape[1]
    plan = _plan(w)
    multipliers = tuple(n / base for n in plan.widths)
    layout = PUBLISHED.get((base, multipliers, plan.blocks, plan.residual, plan.shifts))
    order, heads, head_width = _attention(options, layout, plan.widths, plan.attention)
    schedule = options.schedule or (layout.schedule if layout else None)
    if schedule is None:
        raise undecided("the noise schedule", "schedule", "linear or cosine")
    out = _moved(w, plan, order, heads, head_width)
    classes = len(out.get("class_embedding.weight", ()))
    w.finish()
    made: dict[str, Any] = unet2d.config(
        channels,
        out["conv_out.bias"].shape[0],
        plan.widths,
        plan.attention,
        plan.blocks,
        "resnet" if plan.residual else "conv",
        resnet_time_scale_shift="scale_shift" if plan.shifts else "default",
        attn_norm_num_groups=32,
        time_embedding_dim=out["time_embedding.linear_1.bias"].shape[0],
        num_class_embeds=classes or None,
        time_width=base,
        heads=heads,
        head_width=head_width,
    )
    steps = options.train_steps or (layout.steps if layout else 1000)
    trained = {"row": "eps", "schedule": schedule, "steps": steps}
    trained["scale"] = layout.scale if layout and not options.train_steps else 1.0
    size = options.size or (layout.size if layout else None)
    return Converted(
        "guided-diffusion", "UNet2DModel", made, out, trained, (channels, size, size),
        classes=classes,
    )  # fmt: skip


def _plan(w: Weights) -> _Plan:
    """How many blocks a level has shows where output blocks end in one that doubles the side."""
    ins, outs = w.indices("input_blocks."), w.indices("output_blocks.")
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
    return _Plan(widths, attention, blocks, residual, grown == 2 * widths[0], ends, grows)


def _kind(w: Weights, block: str) -> str:
    for name, leaf in (("res", "in_layers.0"), ("attention", "qkv"), ("up", "conv")):
        if w.has(f"{block}.{leaf}.weight"):
            return name
    return ""


def _moved(
    w: Weights, plan: _Plan, order: str, heads: int | None, head_width: int | None
) -> dict[str, Tensor]:
    """The tensors in UNet2DModel's names."""
    levels, blocks = len(plan.widths), plan.blocks
    out: dict[str, Tensor] = {}
    move, res = mover(w, out, RES, ("skip_connection", "conv_shortcut"))

    def attend(src: str, dst: str) -> None:
        move(f"{src}.norm", f"{dst}.group_norm")
        n = w.take(f"{src}.proj_out.weight").shape[0]
        each = heads or n // (head_width or n)
        for leaf in ("weight", "bias"):
            joint = w.take(f"{src}.qkv.{leaf}")
            for name, part in zip("qkv", unet2d.split_qkv(joint, each, order), strict=True):
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


def _attention(
    options: Options, layout: Layout | None, widths: list[int], attention: list[bool]
) -> tuple[str, int | None, int | None]:
    """Order of q, k, v (no matter for single heads); heads; channels of a head."""
    heads, head_width = options.heads, options.head_channels
    if heads and head_width:
        raise InvdiffError("Give one of the options heads and head_channels, and not both.")
    if not (heads or head_width):
        if layout is None:
            raise undecided("the attention heads", "heads", "a number, or head_channels instead")
        heads, head_width = layout.heads, layout.head_width
    used = {n for n, a in zip(widths, attention, strict=True) if a} | {widths[-1]}
    single = all((heads or n // (head_width or n)) == 1 for n in used)
    order = options.attention_order or (layout.order if layout else "legacy" if single else None)
    if order is None:
        raise undecided("the order of q, k and v", "attention_order", "legacy or new")
    return order, heads, head_width
