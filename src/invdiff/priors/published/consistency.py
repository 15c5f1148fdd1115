"""Networks of consistency_models that EDM trained; the distilled ones are no denoisers.

Song et al. 2023 (arXiv 2303.01469). The network is that of guided-diffusion, with heads of 64
channels, attention weights of 4 axes and no learned variance; the preconditioner is EDM's (Karras
et al. 2022), with 1000 ln(sigma) / 4 for the time.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.denoises import NOT_DISTILLED
from invdiff.priors.published import adm
from invdiff.priors.published.adm import Heads
from invdiff.priors.published.base import Converted, Options, Weights, presumed

ATTENTION = "middle_block.1.qkv.weight"
HEAD_WIDTH = 64
DISTILLED = {"cd", "ct", "consistency", "distilled"}
"""Words in the names of files that hold a consistency function."""
SIZES: dict[tuple[float, ...], int] = {(1, 2, 3, 4): 64, (1, 1, 2, 2, 4, 4): 256}


def is_one(tensors: dict[str, Tensor]) -> bool:
    """Whether weights in the names of guided-diffusion are of this repository."""
    return ATTENTION in tensors and tensors[ATTENTION].ndim == 4


def refuse_distilled(name: str) -> None:
    """InvdiffError for a file whose name says that it was distilled: its weights cannot tell."""
    words = set(re.split(r"[^a-z]+", Path(name).stem.lower()))
    if words & DISTILLED and "edm" not in words:
        raise InvdiffError(
            f"{name} is a distilled consistency model (its name says {min(words & DISTILLED)}), "
            "which jumps to a sample and is no denoiser; take the EDM weights that it was made "
            "from (edm_*.pt)."
        )


def convert(tensors: dict[str, Tensor], options: Options) -> Converted:
    """The network as a UNet2DModel, on EDM's row."""
    w = Weights(tensors, "consistency_models")
    plan = adm.read_plan(w)
    width = None if options.heads else options.head_channels or HEAD_WIDTH
    heads = Heads(options.attention_order or "new", options.heads, width, options.heads_upsample)
    config, out = adm.moved(w, plan, heads)
    sigma_data = options.sigma_data or 0.5
    low, high = options.sigma_min or 0.002, options.sigma_max or 80.0
    trained = {
        "row": "edm", "sigma_data": sigma_data, "sigma_min": low, "sigma_max": high, "scale": 1000.0
    }  # fmt: skip
    multipliers = tuple(n / plan.base for n in plan.widths)
    size = options.size or SIZES.get(multipliers)
    values = {
        "sigma_data": sigma_data, "sigma_min": low, "sigma_max": high, "head_channels": width,
        "attention_order": heads.order, "size": size,
    }  # fmt: skip
    return Converted(
        "consistency_models", "UNet2DModel", config, out, trained, (plan.channels, size, size),
        classes=plan.classes,
        presumed=(NOT_DISTILLED, *presumed(values, options)),
    )  # fmt: skip
