"""Whose network the weights of a file are, by the names of the tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.published import adm, ddpm, edm

START = re.compile(
    r"(?:^|(?<=\.))(?:"
    + "|".join(re.escape(mark) for mark in (adm.MARK, ddpm.MARK, edm.MARK))
    + r"|all_modules\.0\.\w+)$"
)
"""The end of a name that each known network has once."""


def denoiser(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the one network that is known, without what stands before their names.

    A checkpoint may hold it as a part, such as "net." or "ema_model."; an average counts before
    the live weights. InvdiffError where there is none, with the way to it where one is known.
    """
    for fits, sentence in OTHERS:
        if fits(tensors.keys()):
            raise InvdiffError(sentence)
    found = {k[: m.start()] for k in tensors if (m := START.search(k))}
    if not found:
        first = min(tensors, default="")
        raise InvdiffError(
            f"A network of unknown layout ({len(tensors)} tensors, {first!r} among them); known "
            "are those of guided-diffusion, DDPM, score_sde, EDM and diffusers; wrap another in "
            "Python: invdiff.Denoiser, from_eps_model or from_k_diffusion."
        )
    found = {p for p in found if "ema" in p} or found
    if len(found) > 1:
        raise InvdiffError(
            f"The file holds several networks ({', '.join(sorted(found))}); save the tensors of "
            "one of them alone."
        )
    prefix = found.pop()
    kept = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    return kept | ({"sigmas": tensors["sigmas"]} if "sigmas" in tensors else {})


Names = Collection[str]


def _some(*words: str) -> Callable[[Names], bool]:
    """Whether each word is a part of some name."""
    return lambda names: all(any(word in name for name in names) for word in words)


OTHERS: tuple[tuple[Callable[[Names], bool], str], ...] = (
    (
        _some("lora_"),
        "The file holds LoRA weights, which only change a network; fuse them into their pipeline "
        "in diffusers (load_lora_weights, fuse_lora, save_pretrained) and give that folder.",
    ),
    (
        lambda names: any(
            n.startswith(("model.diffusion_model.", "first_stage_model.")) for n in names
        ),
        "This is Stable Diffusion or another latent model in one file; convert it to a folder once "
        "with diffusers, StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER), "
        "and give the folder.",
    ),
    (
        _some("quant_conv."),
        "This is the autoencoder of a latent model and no denoiser; give the folder of its whole "
        "pipeline of diffusers.",
    ),
    (
        _some("double_blocks.0.", "single_blocks.0."),
        "This is the network of Flux alone; give the folder of the whole FluxPipeline.",
    ),
    (
        _some("joint_blocks.0."),
        "This is the network of Stable Diffusion 3 alone; give the folder of its whole pipeline.",
    ),
    (
        _some("adaLN_modulation", "x_embedder.proj."),
        "This is a DiT in one file; give the folder of its DiTPipeline of diffusers.",
    ),
    (
        _some("init_conv.weight", "downs.0.0."),
        "This is a network of denoising-diffusion-pytorch; build it in Python, load these weights "
        "and wrap it: invdiff.from_eps_model(diffusion.model, diffusion.alphas_cumprod).",
    ),
    (
        lambda names: any(n.endswith(("emb_fourier.freqs", "out_gain")) for n in names),
        "This is a network of EDM2, which is not supported; build it in Python and wrap it: "
        "invdiff.from_k_diffusion(net).",
    ),
    (
        _some("mapping.", "patch_in."),
        "This is a network of k-diffusion; build it in Python, load these weights and wrap it: "
        "invdiff.from_k_diffusion(model).",
    ),
    (
        lambda names: {"conv_in.weight", "time_embedding.linear_1.weight"} <= set(names),
        "These are weights of diffusers; give their folder, with config.json.",
    ),
)
"""Networks that are not read from such a file, and what to do with them."""
