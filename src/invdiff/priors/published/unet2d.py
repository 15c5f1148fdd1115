"""diffusers' UNet2DModel as the target of a conversion: its blocks, its names, and what it lacks.

It has one number of channels for all attention heads and for all groups, and its time features
have the width of the first level. `build` sets these after construction where a network differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from invdiff.core import InvdiffError

OWN = ("heads", "head_width", "heads_up", "time_width", "quarter_groups")
"""Keys of a configuration that UNet2DModel does not know, for `build`."""


def config(
    channels: int,
    outputs: int,
    widths: Sequence[int],
    attention: Sequence[bool],
    blocks: int,
    resample: str,
    **more: Any,
) -> dict[str, Any]:
    """The configuration of a UNet2DModel.

    widths, attention: of each level, the finest first. resample: "conv", or "resnet" for residual
    blocks that change the size.
    """
    plain = ("DownBlock2D", "UpBlock2D")
    if resample == "resnet":
        plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
    down = ["AttnDownBlock2D" if a else plain[0] for a in attention]
    up = ["AttnUpBlock2D" if a else plain[1] for a in reversed(attention)]
    return {
        "in_channels": channels,
        "out_channels": outputs,
        "block_out_channels": list(widths),
        "layers_per_block": blocks,
        "down_block_types": down,
        "up_block_types": up,
        "downsample_type": resample,
        "upsample_type": resample,
        **more,
    }


def build(config: dict[str, Any], tensors: dict[str, Tensor], diffusers: Any) -> nn.Module:
    """The network with its weights. The keys OWN of config:

    heads: attention heads of every attention, or head_width: channels of one; heads_up: where the
    side is doubled, if others. time_width: number of time features. quarter_groups: GroupNorm has
    min(32, C / 4) groups, not 32.
    Raises InvdiffError when the weights do not fit.
    """
    own = {k: config.get(k) for k in OWN}
    known = {k: v for k, v in config.items() if k not in own}
    widths = known["block_out_channels"]
    if own["quarter_groups"]:
        known |= {"norm_num_groups": 1, "attn_norm_num_groups": 1}
    with torch.device("meta"):
        net = diffusers.UNet2DModel(**(known | {"attention_head_dim": None}))
        if own["time_width"] not in (None, widths[0]):
            from diffusers.models.embeddings import TimestepEmbedding, Timesteps

            n = own["time_width"]
            flip, shift = net.config.flip_sin_to_cos, net.config.freq_shift
            net.time_proj = Timesteps(n, flip, shift)
            net.time_embedding = TimestepEmbedding(n, known["time_embedding_dim"])
    for name, module in net.named_modules():
        if own["quarter_groups"] and isinstance(module, nn.GroupNorm):
            module.num_groups = min(32, module.num_channels // 4)
        if type(module).__name__ == "Attention":
            inner: Any = module
            width = inner.to_q.out_features
            inner.heads = own["heads"] or width // (own["head_width"] or width)
            if own["heads_up"] and name.startswith("up_blocks"):
                inner.heads = own["heads_up"]
            inner.scale = (width // inner.heads) ** -0.5
    return fill(net, tensors)


def fill(net: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """The network, made on the meta device, with its weights. InvdiffError when they do not fit."""
    want = net.state_dict()
    for name in sorted(want.keys() | tensors.keys()):
        if name not in tensors or name not in want:
            how = "is missing" if name in want else "has no place"
            raise InvdiffError(f"The tensor {name} {how}; the weights are not of this network.")
        if want[name].shape != tensors[name].shape:
            found, shape = tuple(tensors[name].shape), tuple(want[name].shape)
            raise InvdiffError(
                f"The tensor {name} has shape {found} where the other weights ask for {shape}; "
                "fetch the file again."
            )
    for name, value in tensors.items():  # the same memory layout, wherever they come from
        tensors[name] = value.clone(memory_format=torch.contiguous_format)
    net.load_state_dict(tensors, strict=True, assign=True)
    return net.eval().requires_grad_(False)


def split_qkv(qkv: Tensor, heads: int, order: str) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v, each (C, ...), of a joint tensor (3 C, ...).

    order of the first axis: "legacy" (heads, 3, channels of a head), as guided-diffusion has it
    unless told otherwise; "new" (3, heads, channels); "edm" (heads, channels, 3).
    """
    n = len(qkv) // 3
    if len(qkv) % 3 or n % heads:
        raise InvdiffError(
            f"Attention of {n} channels has no {heads} heads; give another number of heads."
        )
    rest, width = qkv.shape[1:], n // heads
    shape, axis = {
        "legacy": ((heads, 3, width), 1),
        "new": ((3, heads, width), 0),
        "edm": ((heads, width, 3), 2),
    }[order]
    q, k, v = qkv.reshape(*shape, *rest).unbind(axis)
    return q.reshape(n, *rest), k.reshape(n, *rest), v.reshape(n, *rest)
