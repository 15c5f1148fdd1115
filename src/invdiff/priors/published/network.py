"""From a converted checkpoint to a prior: build the network, give it a class, choose its row."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn

from invdiff.core import InvdiffError
from invdiff.priors.hub import Labelled, import_diffusers
from invdiff.priors.precond import NetworkPrior
from invdiff.priors.published import unet2d
from invdiff.priors.published.base import Converted
from invdiff.priors.published.rows import row
from invdiff.priors.published.song import SongConfig, SongUNet


def build(converted: Converted) -> nn.Module:
    """The network with its weights. Raises InvdiffError when they do not fit."""
    diffusers = import_diffusers() if converted.net == "UNet2DModel" else None
    try:
        if diffusers:
            return unet2d.build(converted.config, converted.tensors, diffusers)
        config: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in converted.config.items()
        }
        with torch.device("meta"):
            net = SongUNet(SongConfig(**config))
        return unet2d.fill(net, converted.tensors)
    except InvdiffError:
        raise
    except Exception as error:
        raise InvdiffError(
            f"The shapes of the weights are of no {converted.layout} network "
            f"({type(error).__name__}); fetch the file again."
        ) from error


def prior(
    converted: Converted, net: nn.Module, label: int | None, any_size: bool, name: str, source: str
) -> NetworkPrior:
    """The prior of one class. source: hash of the file that the weights come from."""
    check_label(converted, label, name)
    widths = converted.config.get("block_out_channels") or converted.config["widths"]
    stride = 2 ** (len(widths) - 1)
    channels, *sides = converted.shape
    shape = (channels, None, None) if any_size else (channels, *sides)
    made = NetworkPrior(
        Labelled(net, stride, label), row(converted.trained), shape, converted.value_range, name
    )
    made.presumed = converted.presumed
    use = json.dumps([converted.trained, converted.config, label], sort_keys=True)
    made.learned_variance = converted.config.get("out_channels") == 2 * channels
    made._hash = f"{source[:16]}-{hashlib.sha256(use.encode()).hexdigest()[:8]}"
    return made


def check_label(converted: Converted, label: int | None, name: str) -> None:
    """InvdiffError when a class is missing, or is not among those that were trained."""
    n = converted.classes
    if not n and label is not None:
        raise InvdiffError(f"{name} knows no classes; leave label out.")
    if n and (label is None or label not in (*range(n), converted.null)):
        raise InvdiffError(
            f"{name} is class-conditional; give label, a whole number from 0 to {n - 1}."
        )


def facts(text: str) -> dict[str, Any]:
    """The inverse of Converted.facts in JSON."""
    found: dict[str, Any] = json.loads(text)
    for key in ("shape", "value_range", "presumed"):
        found[key] = tuple(found[key])
    return found
