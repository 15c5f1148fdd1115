"""From a name, a file or a folder to a prior."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from invdiff.core import InvdiffError, nearest
from invdiff.priors.base import Prior
from invdiff.priors.photo import PhotoPrior, load_embedded, load_weights

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Source:
    """A way to name a prior. spec: what users type; load: gives it when spec is its whole name."""

    spec: str
    summary: str
    load: Callable[[], Prior] | None = None


def _embedded(name: str, summary: str) -> Source:
    return Source(name, summary, partial(load_embedded, name))


SOURCES = (
    _embedded("photo", "colour photographs of any size"),
    _embedded("brain", "complex MR images of the head (real, imaginary), best near 128 x 128"),
    _embedded("ct", "CT slices in Hounsfield units from -1024 to 1500, best near 256 x 256"),
    _embedded("fashion28", "clothes and shoes of Fashion-MNIST, grey, 28 x 28"),
    _embedded("moving-fashion", "clips of moving clothes and shoes, 8 frames of 32 x 32"),
    _embedded("multiscale", "portraits in colour at 64 x 64, 32 x 32 and 16 x 16"),
    Source("FILE.safetensors", "a denoiser that `invdiff train` made"),
    Source("FOLDER", "a model of diffusers: UNet2DModel, Stable Diffusion 1 to 3, XL, Flux, LDM"),
    Source("OWNER/NAME", "the same from the Hugging Face hub, downloaded when first used"),
)
"""Everything that load_prior understands, for tables."""

BUILT_IN = {source.spec: source.load for source in SOURCES if source.load is not None}


def load_prior(
    spec: str,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
    *,
    prompt: str | None = None,
    guidance: float = 1.0,
) -> Prior:
    """The prior called spec, on a device.

    spec: a name in BUILT_IN, such as "photo"; the path of a .safetensors file that `invdiff train`
    wrote, a folder with a diffusers model, or its name OWNER/NAME on the Hugging Face hub.
    precision: of the network; the state of a sampler stays in float32.
    prompt, guidance: of a model of diffusers that reads text, as in `load_diffusers`.
    Raises InvdiffError, with the nearest names where there is no such prior.
    """
    spec = str(spec)
    if spec in BUILT_IN or spec.endswith(".safetensors"):
        if prompt is not None or guidance != 1:
            raise InvdiffError(f"The prior {spec} reads no text; leave prompt and guidance out.")
        prior = BUILT_IN[spec]() if spec in BUILT_IN else load_weights(Path(spec))
        if isinstance(prior, PhotoPrior):
            prior.precision = precision
        return prior.to(device)
    if not Path(spec).exists() and not re.fullmatch(r"[\w.-]+/[\w.-]+", spec):
        hint = str(nearest(spec, BUILT_IN, "prior")).removesuffix(".")
        ways = ", ".join(source.spec for source in SOURCES if source.load is None)
        raise InvdiffError(f"{hint} (or a path or name of the form {ways}).")
    from invdiff.priors.hub import load_diffusers

    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    return load_diffusers(spec, device, dtype=dtype, prompt=prompt, guidance=guidance)
