"""In which numbers a network runs: float32, or bfloat16 where that was measured to change nothing.

Cores with AMX, and GPUs from compute capability 8.0 on, multiply bfloat16 several times faster.
Elsewhere it is as slow as float32, or slower.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Literal

Precision = Literal["float32", "blocks", "mixed", "bfloat16"]
"""What a network runs in; the state of a sampler stays in float32. mixed: bfloat16 at noise levels
from which it was measured to add next to nothing to the error, float32 below them. blocks: as
mixed, but below that level the convolutions of the residual blocks are in bfloat16 too, from where
that adds as little; what blocks are added to, and the first and last layers, are float32."""
AskedPrecision = Literal["auto", "float32", "blocks", "mixed", "bfloat16"]
"""auto: blocks, or mixed, where the device multiplies bfloat16 and the prior was measured for it;
else float32."""
LOSS = 0.01
"""Mean square error that bfloat16 may add, in dB."""


def settled(asked: AskedPrecision, spec: str, device: str) -> Precision:
    """The precision of a run. spec: of the prior, as `load_prior` takes it."""
    if asked != "auto":
        return asked
    if not multiplies(device) or bfloat16_from(spec) is None:
        return "float32"
    return "mixed" if blocks_from(spec) is None else "blocks"


def multiplies(device: str) -> bool:
    """Whether the device multiplies bfloat16 faster than float32."""
    import torch

    at = torch.device(device)
    if at.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability(at) >= (8, 0)
    told = getattr(torch.cpu, "get_capabilities", None)
    return at.type == "cpu" and told is not None and bool(told().get("amx_bf16", False))


def bfloat16_from(spec: str) -> float | None:
    """The noise level from which the prior called spec may run in bfloat16; None if unknown.

    It stands beside the prior's error spectrum, with which it is measured.
    """
    return _told(spec, "bfloat16_from")


def blocks_from(spec: str) -> float | None:
    """The same of its blocks alone."""
    return _told(spec, "blocks_from")


def _told(spec: str, field: str) -> float | None:
    """A noise level that the file of a prior's error spectrum tells."""
    from invdiff.priors.spectrum import beside

    weights = resources.files("invdiff.priors") / "weights" / f"{spec}.safetensors"
    try:
        path = beside(Path(str(weights)) if weights.is_file() else Path(spec))
        told = json.loads(path.read_text()).get(field)
    except (OSError, ValueError, AttributeError):  # no path, no file, or no spectrum
        return None
    return float(told) if isinstance(told, int | float) else None
