"""From a name, a file or a folder to a prior."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from invdiff.core import InvdiffError, as_usual, nearest
from invdiff.core.arguments import checked
from invdiff.priors.base import Prior
from invdiff.priors.denoises import check_denoises
from invdiff.priors.guidance import Guided
from invdiff.priors.hub import HUB, local
from invdiff.priors.networked import networks
from invdiff.priors.photo import PhotoPrior, load_embedded, load_weights
from invdiff.priors.precision import AskedPrecision, settled
from invdiff.priors.recompute import Checkpoint
from invdiff.priors.spectrum import beside
from invdiff.priors.spectrum import load as load_spectrum


@dataclass(frozen=True)
class PriorSource:
    """A way to name a prior. spec: what users type; load: gives it when spec is its whole name."""

    spec: str
    summary: str
    load: Callable[[], Prior] | None = None


def _embedded(name: str, summary: str) -> PriorSource:
    return PriorSource(name, summary, partial(load_embedded, name))


SOURCES = (
    _embedded("photo", "colour photographs of any size"),
    _embedded("brain", "complex MR images of the head (real, imaginary), best near 128 x 128"),
    _embedded("brain-magnitude", "magnitudes of MR images of the head, best near 128 x 128"),
    _embedded("ct", "CT slices in Hounsfield units from -1024 to 1500, best near 256 x 256"),
    _embedded("fashion28", "clothes and shoes of Fashion-MNIST, grey, 28 x 28"),
    _embedded("moving-fashion", "clips of moving clothes and shoes, 8 frames of 32 x 32"),
    _embedded("faces64", "portraits in colour, 64 x 64"),
    _embedded("multiscale", "portraits in colour at 64 x 64, 32 x 32 and 16 x 16"),
    PriorSource("FILE.safetensors", "a denoiser that `invdiff train` made, or published weights"),
    PriorSource("FILE.pt", "published weights: .pt, .pth, .ckpt, .bin, .safetensors or EDM's .pkl"),
    PriorSource(
        "FOLDER", "a model of diffusers: UNet2DModel, Stable Diffusion 1 to 3, XL, Flux, LDM, DiT"
    ),
    PriorSource("hf:OWNER/NAME", "the same from the Hugging Face hub, downloaded when first used"),
)
"""Everything that load_prior understands, for tables."""

BUILT_IN = {source.spec: source.load for source in SOURCES if source.load is not None}


@checked
@as_usual()
def load_prior(
    spec: str | Path,
    device: torch.device | str = "cpu",
    precision: AskedPrecision = "float32",
    *,
    label: int | None = None,
    prompt: str | None = None,
    guidance: float | None = None,
    check: bool = True,
    checkpoint: Checkpoint = "auto",
    compile: bool = False,
    **options: Any,
) -> Prior:
    """The prior called spec, on a device.

    spec: a name in BUILT_IN, such as "photo"; the path of a file of weights, of a folder with a
    diffusers model, or hf:OWNER/NAME, its name on the Hugging Face hub. Nothing but a name that
    begins with hf: reaches the internet.
    precision: of the network, as `priors.precision` tells; the state of a sampler stays in float32.
    label: class from 0, of a class-conditional network. prompt: what the image shows, for a prior
    that reads text; guidance: w of classifier-free guidance towards either,
    D = D_uncond + w (D_cond - D_uncond), where a label stands for no class (null_label, or EDM's).
    check: whether published weights have to denoise a small picture (`denoises.py`), which costs
    three evaluations; False for weights that do not, and for images unlike any photograph.
    checkpoint: whether gradients compute the blocks of the network again instead of keeping what is
    inside: less memory, more time, the same bits; auto: where memory is short (`Networked`).
    compile: whether torch.compile makes what evaluates the network without gradients, which takes
    minutes when it is first evaluated, and changes results by round-off (`Networked.set_compile`).
    options: what the weights leave open, as `published.base.Options` has them.
    Raises InvdiffError, with the nearest names where there is no such prior.
    """
    from invdiff.priors.published.base import Options

    known = [f.name for f in dataclasses.fields(Options)]
    for name in options:
        if name not in known:
            raise nearest(name, known, "option of priors")
    told = Options(**options)
    _check_device(device)
    prior = _loaded(spec, device, precision, label, prompt, guidance, check, options, told)
    for part in networks(prior):
        part.set_checkpoint(checkpoint)
        if compile:
            part.set_compile(device)
    return prior


def _loaded(
    spec: str | Path,
    device: torch.device | str,
    precision: AskedPrecision,
    label: int | None,
    prompt: str | None,
    guidance: float | None,
    check: bool,
    options: dict[str, Any],
    told: Any,
) -> Prior:
    """`load_prior`, with options that were looked at."""
    from invdiff.priors.published.files import SUFFIXES, check_file

    name, remote = str(spec), isinstance(spec, str) and spec.startswith(HUB)
    found = None if remote or name in BUILT_IN else local(spec)
    path = found or Path(spec)
    file = not remote and (path.suffix in SUFFIXES or (found is not None and not found.is_dir()))
    if file:
        check_file(path)
    ours = name in BUILT_IN or (file and path.suffix == ".safetensors" and _is_photo(path))
    if prompt is not None and (ours or file):
        raise InvdiffError(f"{name} reads no text; leave the prompt out.")
    if ours:
        given = {"label": label, "guidance": guidance, **options}
        what = [key for key, value in given.items() if value is not None]
        if what:
            raise InvdiffError(
                f"{name} is a prior of invdiff and takes no {what[0]}; leave it out."
            )
        prior = BUILT_IN[name]() if name in BUILT_IN else load_weights(path)
        if isinstance(prior, PhotoPrior):
            prior.precision = settled(precision, name, str(device))
            low = {"mixed": prior.bfloat16_from, "blocks": prior.blocks_from}
            if low.get(prior.precision, 0.0) is None:
                raise InvdiffError(
                    f"From which noise level on {name} may run in bfloat16 was not measured; do so "
                    "with `invdiff priors measure`, or take float32 or bfloat16."
                )
        return prior.to(device)
    if precision in ("mixed", "blocks"):
        raise InvdiffError(
            f"{name} is a published network: take float32 or bfloat16, not {precision}."
        )
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    if file:
        if guidance is not None and label is None:
            raise InvdiffError("guidance needs label: the class that it leads to.")
        return _sound(_published(path, device, dtype, label, guidance, told), check, path)
    if found is None and not remote and "/" not in name:
        hint = str(nearest(name[:100], BUILT_IN, "prior")).removesuffix(".")
        ways = ", ".join(source.spec for source in SOURCES if source.load is None)
        raise InvdiffError(f"{hint} (or a path or name of the form {ways}).")
    return _sound(_diffusers(spec, device, dtype, label, prompt, guidance, told), check, path)


def _check_device(device: torch.device | str) -> None:
    try:
        torch.device(device)
    except RuntimeError as error:
        raise InvdiffError(f"There is no device {device!r}; give cpu or cuda.") from error


def _sound(prior: Prior, check: bool, path: Path) -> Prior:
    """The prior, with the error spectrum that lies beside its weights; InvdiffError where check
    finds that it does not denoise."""
    if check:
        check_denoises(prior)
    spectrum = beside(path)
    if spectrum.exists():
        prior.spectrum = load_spectrum(spectrum, prior.fingerprint)
    return prior


def _is_photo(path: Path) -> bool:
    """Whether a .safetensors file is one of `invdiff train`; a broken one is nobody's."""
    from invdiff.priors.published.files import safetensors_metadata

    return {"config", "facts"} <= safetensors_metadata(path).keys()


def _published(
    path: Path,
    device: torch.device | str,
    dtype: torch.dtype,
    label: int | None,
    guidance: float | None,
    options: Any,
) -> Prior:
    from invdiff.priors.published import load, network

    found = load.load(path, options, dtype)
    c, name = found.converted, str(path)
    network.check_label(c, label, name)
    if any(p.is_meta for p in found.net.parameters()) and torch.device(device).type != "meta":
        raise InvdiffError(f"{name} holds names and shapes without numbers; fetch the weights.")

    def of(k: int | None) -> Prior:
        return network.prior(c, found.net, k, options.any_size, name, found.source).to(device)

    if guidance is None:
        if options.null_label is not None:
            raise InvdiffError(
                "null_label counts with guidance alone; give guidance, or leave it out."
            )
        return of(label)
    null = c.null if options.null_label is None else options.null_label
    return Guided(of(label), of(_null(null, name)), guidance)


def _diffusers(
    spec: str | Path,
    device: torch.device | str,
    dtype: torch.dtype,
    label: int | None,
    prompt: str | None,
    guidance: float | None,
    options: Any,
) -> Prior:
    from invdiff.priors.hub import SCHEDULES, load_diffusers
    from invdiff.priors.published.rows import bars as eps_bars

    told, found = ["any_size", "null_label"], local(spec)
    if found is None or not any((found / name).is_file() for name in SCHEDULES):
        told += ["prediction", "schedule", "train_steps"]
    for field in dataclasses.fields(options):
        if field.name not in told and getattr(options, field.name) is not None:
            raise InvdiffError(
                f"A diffusers model states its {field.name}; leave the option {field.name} out."
            )
    betas = None
    if options.schedule or options.train_steps:
        bars = eps_bars(options.schedule or "linear", options.train_steps or 1000)
        betas = 1 - bars / np.concatenate([[1.0], bars[:-1]])
    w = 1.0 if guidance is None else guidance
    return load_diffusers(
        spec, device, prediction=options.prediction, betas=betas, class_label=label,
        null_label=options.null_label, prompt=prompt, guidance=w, any_size=options.any_size,
        dtype=dtype,
    )  # fmt: skip


def _null(label: int | None, name: str) -> int:
    if label is None:
        raise InvdiffError(
            f"Nothing tells which label of {name} stands for no class, and guidance needs one; "
            "give the option null_label, or leave guidance out."
        )
    return label
