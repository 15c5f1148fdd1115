"""Pipelines of diffusers that work on latents, as priors: Stable Diffusion and its relatives.

The text is encoded once, when the prior is made; the text encoders are then dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from invdiff.core import InvdiffError
from invdiff.priors.autoencoder import Decoder, Encoder, latent_scale
from invdiff.priors.base import Prior
from invdiff.priors.guidance import Guided
from invdiff.priors.hub import SCHEDULES, fingerprint, import_diffusers, read_config, sha256
from invdiff.priors.latent import LatentPrior
from invdiff.priors.precond import NetworkPrior
from invdiff.priors.quiet import quiet
from invdiff.priors.schedules import require, training
from invdiff.priors.text_networks import KINDS, DiT, Flux, Network, Text

PARTS = ("vae", "vqvae", "unet", "transformer", "scheduler", *(
    f"{kind}{end}" for kind in ("text_encoder", "tokenizer") for end in ("", "_2", "_3")
))  # fmt: skip
FILES = ("*.json", "*.txt", "*.model", "*model.safetensors", "*model-*-of-*.safetensors")
NEEDED = ["model_index.json", *(f"{part}/{file}" for part in PARTS for file in FILES)]
"""Files of a model on the hub that are downloaded: no safety checker, no duplicates."""


def load_latent(
    folder: Path,
    name: str,
    device: torch.device | str,
    dtype: torch.dtype,
    prompt: str | None,
    negative_prompt: str | None,
    guidance: float,
    class_label: int | None = None,
    null_label: int | None = None,
) -> LatentPrior:
    """The prior of a pipeline folder, one of KINDS.

    dtype: of the network and the autoencoder; an autoencoder whose configuration says that it
    overflows in float16 then runs in float32. The rest is as in `load_diffusers`.
    Raises InvdiffError, in one sentence, for whatever is missing, broken or not supported.
    """
    index = read_config(folder / "model_index.json")
    kind = str(index.get("_class_name"))
    known = ", ".join(KINDS)
    require(kind in KINDS, f"{name} is a {kind}, which is not supported; take one of {known}.")
    cls = KINDS[kind]
    auto = "vqvae" if "vqvae" in index else "vae"
    named = {k for k, v in index.items() if k in PARTS and v != [None, None]}
    for part in sorted(named | {cls.part, auto, "scheduler"}):
        found = (folder / part).is_dir()
        require(found, f"The pipeline {name} has no {part}; fetch the whole model again.")
    pipe = _pipeline(folder, name, index, dtype)
    vae, net = getattr(pipe, auto), getattr(pipe, cls.part)
    if dtype == torch.float16 and vae.config.get("force_upcast"):
        vae.float()
    for module in (vae, net):
        module.eval().requires_grad_(False)
    schedule = folder / SCHEDULES[1]
    precond, _ = training(
        import_diffusers(), False, schedule, read_config(schedule), None, None, name
    )
    channels = vae.config.latent_channels
    patched = 4 if cls is Flux else 1
    why = f"takes {net.config.in_channels} channels where its autoencoder makes {channels}"
    fits = net.config.in_channels == patched * channels
    require(fits, f"The network of {name} {why}; take a model without a second input.")
    texts, uses = _told(
        pipe, cls, name, (prompt, negative_prompt, class_label, null_label), guidance
    )
    parts = sorted(p for d in (cls.part, auto) for p in (folder / d).glob("*.safetensors"))
    source, limits = sha256(parts), (-float("inf"), float("inf"))
    priors = []
    for text, use in zip(texts, uses, strict=False):
        network = cls(pipe, text).to(device)
        priors.append(NetworkPrior(network, precond, (channels, None, None), limits, name))
        priors[-1]._hash = fingerprint(source, precond, use)
    inner: Prior = priors[0] if len(priors) == 1 else Guided(priors[0], priors[1], guidance)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    told = (
        vae.to(device),
        *latent_scale(vae.config, channels),
        channels,
        factor,
        factor * cls.patch,
    )
    shape = (vae.config.out_channels, None, None)
    return LatentPrior(inner, Decoder(*told), Encoder(*told), shape).to(device)


def _told(
    pipe: Any, cls: type[Network], name: str, given: tuple[Any, Any, Any, Any], guidance: float
) -> tuple[list[Text], tuple[object, object]]:
    """What the network is told, and its names for the fingerprint: first of the prompt or class,
    then, with guidance, of the negative prompt or of no class.

    given: prompt, negative_prompt, class_label and null_label.
    """
    prompt, negative, label, null = given
    if issubclass(cls, DiT):
        require(prompt is negative is None, f"{name} reads no text; leave the prompt out.")
        return cls.labels(pipe, label, null, guidance), ((label, null, guidance), null)
    why = "works on latents without classes; leave label (class_label) and null_label out"
    require(label is null is None, f"{name} {why}.")
    with torch.no_grad():
        texts = cls.texts(pipe, prompt or "", negative, guidance)
    why = "negative_prompt counts with guidance alone; give guidance, or leave it out."
    require(negative is None or len(texts) == 2, why)
    return texts, ((prompt or "", negative, guidance), negative)


def _pipeline(folder: Path, name: str, index: dict[str, Any], dtype: torch.dtype) -> Any:
    """The pipeline that diffusers loads, without its safety checker and what reads pictures."""
    kind = index["_class_name"]
    if kind not in ("LDMPipeline", "DiTPipeline"):
        try:
            import transformers  # noqa: F401
        except ImportError as error:
            why = "reads text, which needs transformers; run: pip install 'invdiff[latent]'"
            raise InvdiffError(f"{name} {why}.") from error
    unused = {k for k, v in index.items() if isinstance(v, list) and (k not in PARTS or not v[0])}
    options: dict[str, Any] = dict.fromkeys(unused)
    if "requires_safety_checker" in index:
        options["requires_safety_checker"] = False
    if list(folder.glob("*/*.fp16.safetensors")) and not list(folder.glob("*/*model.safetensors")):
        options["variant"] = "fp16"
    with quiet():
        cls = getattr(import_diffusers(kind), kind)
        try:
            return cls.from_pretrained(
                folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True, **options
            )
        except Exception as error:
            why = f"cannot be loaded ({type(error).__name__}): a part of it is broken or missing"
            raise InvdiffError(
                f"The pipeline {name} {why}; fetch the whole model again."
            ) from error
