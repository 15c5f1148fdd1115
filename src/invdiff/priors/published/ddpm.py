"""Networks of DDPM and DDIM (CelebA-HQ, LSUN, CIFAR-10) in the names of their PyTorch port.

Ho et al. 2020 (arXiv 2006.11239), Song et al. 2021 (arXiv 2010.02502).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.published import unet2d
from invdiff.priors.published.base import Converted, Options, Weights, mover, presumed

MARK = "down.0.block.0.norm1.weight"
ATTENTION_SIZE = 16
"""Side of the feature maps that have attention, in every published configuration."""
RES = dict(norm1="norm1", conv1="conv1", temb_proj="time_emb_proj", norm2="norm2", conv2="conv2")
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def convert(tensors: dict[str, Tensor], options: Options) -> Converted:
    """The network as a UNet2DModel. One head, 1000 linear betas, padding below and to the right."""
    w = Weights(tensors, "DDPM")
    w.skip("logvar")  # of its variance, never used here
    levels, blocks = len(w.indices("down.")), len(w.indices("down.0.block."))
    out: dict[str, Tensor] = {}
    move, res = mover(w, out, RES, ("nin_shortcut", "conv_shortcut"))

    def attend(src: str, dst: str) -> None:
        for a, b in ATTENTION.items():
            move(f"{src}.{a}", f"{dst}.{b}")
            if a != "norm":
                out[f"{dst}.{b}.weight"] = out[f"{dst}.{b}.weight"].flatten(1)  # a 1 x 1 kernel

    move("temb.dense.0", "time_embedding.linear_1")
    move("temb.dense.1", "time_embedding.linear_2")
    move("conv_in", "conv_in")
    widths, attention = [], []
    for level in range(levels):
        src, dst, up = f"down.{level}", f"down_blocks.{level}", f"up_blocks.{levels - 1 - level}"
        widths.append(w.take(f"{src}.block.0.conv2.weight", None, None, 3, 3).shape[0])
        attention.append(w.has(f"{src}.attn.0.norm.weight"))
        for j in range(blocks + 1):
            sides = [(src, dst), (f"up.{level}", up)] if j < blocks else [(f"up.{level}", up)]
            for a, b in sides:
                res(f"{a}.block.{j}", f"{b}.resnets.{j}")
                if attention[level]:
                    attend(f"{a}.attn.{j}", f"{b}.attentions.{j}")
        if level < levels - 1:
            _learned(w, f"{src}.downsample.conv.weight")
            move(f"{src}.downsample.conv", f"{dst}.downsamplers.0.conv")
        if level > 0:
            _learned(w, f"up.{level}.upsample.conv.weight")
            move(f"up.{level}.upsample.conv", f"{up}.upsamplers.0.conv")
    res("mid.block_1", "mid_block.resnets.0")
    attend("mid.attn_1", "mid_block.attentions.0")
    res("mid.block_2", "mid_block.resnets.1")
    move("norm_out", "conv_norm_out")
    move("conv_out", "conv_out")
    w.finish()
    channels = out["conv_in.weight"].shape[1]
    made: dict[str, Any] = unet2d.config(
        channels,
        out["conv_out.bias"].shape[0],
        widths,
        attention,
        blocks,
        "conv",
        time_embedding_dim=out["time_embedding.linear_1.bias"].shape[0],
        time_width=out["time_embedding.linear_1.weight"].shape[1],
        flip_sin_to_cos=False,
        freq_shift=1,
        downsample_padding=0,
        norm_eps=1e-6,
    )
    size = options.size
    if size is None and attention.count(True) == 1:
        size = ATTENTION_SIZE << attention.index(True)
    schedule, steps = options.schedule or "linear", options.train_steps or 1000
    trained = {"row": "eps", "schedule": schedule, "steps": steps}
    if options.prediction not in (None, "epsilon"):
        trained["predicts"] = options.prediction
    values = {"schedule": schedule, "train_steps": steps, "prediction": "epsilon", "size": size}
    return Converted(
        "ddpm", "UNet2DModel", made, out, trained, (channels, size, size),
        presumed=presumed(values, options),
    )  # fmt: skip


def _learned(w: Weights, name: str) -> None:
    if not w.has(name):
        raise InvdiffError(
            f"The tensor {name} of a DDPM network is missing; it is truncated, or changes its size "
            "without a convolution, which UNet2DModel cannot express."
        )
