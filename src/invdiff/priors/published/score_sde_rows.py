"""What a score_sde network was trained for, of which its file tells little.

Song et al. 2021 (arXiv 2011.13456), section 3.4 and appendix C; discrete times as in appendix G.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.published.base import Converted, Options, presumed
from invdiff.priors.published.song import SongConfig

ATTENTION_SIZE = 16
"""Side of the feature maps that have attention, in every published configuration."""
FILTER, PLAIN = (1, 3, 3, 1), (1, 1)
CHOICES = "vp, subvp, vp-discrete or ve-discrete"


def finished(
    out: dict[str, Tensor], shape: SongConfig, sigmas: Tensor | None, options: Options
) -> Converted:
    """The network with its row, its range and its size. sigmas: the file's noise levels, if any."""
    trained = _trained(options, shape.fourier, sigmas)
    explodes = trained["row"] in ("score", "score_discrete")
    centered = not explodes if options.centered is None else options.centered
    filters = shape.pyramid != "none" if options.fir is None else options.fir
    if shape.pyramid == "residual" and not filters:
        raise InvdiffError("The weights of this network have filters; leave fir out.")
    rescale = not shape.plain if options.skip_rescale is None else options.skip_rescale
    size = options.size
    if size is None and shape.attention.count(True) == 1:
        size = ATTENTION_SIZE << shape.attention.index(True)
    config = dataclasses.replace(
        shape, centre=not centered, fir=FILTER if filters else PLAIN, rescale=rescale
    )
    values = {
        "centered": centered,
        "fir": None if shape.plain or shape.pyramid == "residual" else filters,
        "skip_rescale": rescale,
        "scale_by_sigma": explodes or None,
        "beta_min": None if explodes else 0.1,
        "beta_max": None if explodes else 20,
        "sigma_min": trained.get("sigma_min") if sigmas is None else None,
        "size": size,
    }
    words = {k: str(v).lower() if isinstance(v, bool) else v for k, v in values.items()}
    return Converted(
        "score_sde", "SongUNet", dataclasses.asdict(config), out, trained,
        (shape.channels, size, size), value_range=(-1.0, 1.0) if centered else (0.0, 1.0),
        presumed=presumed(words, options),
    )  # fmt: skip


def _trained(options: Options, fourier: bool, sigmas: Tensor | None) -> dict[str, Any]:
    """The row and its numbers. Fourier times were trained by the continuous exploding SDE only."""
    sde = options.sde or ("ve" if fourier else None)
    if sde is None:
        raise InvdiffError(
            "The weights do not tell the SDE of this score_sde network of positional times; "
            f"give the option sde ({CHOICES})."
        )
    if fourier and sde != "ve":
        raise InvdiffError("This network has Fourier times, so its SDE is ve; leave sde out.")
    if not fourier and sde == "ve":
        raise InvdiffError(
            "This score_sde network has positional times, which the continuous ve does not have; "
            f"give another sde ({CHOICES})."
        )
    if options.scale_by_sigma is not None and not sde.startswith("ve"):
        raise InvdiffError(f"The {sde} SDE does not divide by sigma; leave scale_by_sigma out.")
    if sde.startswith("ve"):
        return _exploding(options, sde, sigmas)
    told = {"beta0": options.beta_min, "beta1": options.beta_max}
    betas = {k: v for k, v in told.items() if v is not None}
    if sde == "vp-discrete":
        return {"row": "eps", "steps": _steps(options, sigmas), **betas}
    return {"row": "eps_sde", "sub": sde == "subvp", **betas}


def _exploding(options: Options, sde: str, sigmas: Tensor | None) -> dict[str, Any]:
    low, high = options.sigma_min, options.sigma_max
    if sigmas is not None and not sigmas.is_meta:
        low, high = low or float(sigmas.min()), high or float(sigmas.max())
    if high is None:
        raise InvdiffError(
            "The weights do not tell the largest noise level of this score_sde network; give the "
            "option sigma_max (50 for CIFAR-10, 348 for FFHQ at 256)."
        )
    low = low or 0.01
    if not low < high:
        raise InvdiffError(
            f"Noise levels from {low:g} to {high:g} do not rise; give sigma_min and sigma_max."
        )
    found = {"row": "score", "sigma_min": low, "sigma_max": high}
    if options.scale_by_sigma is False:
        found["times_sigma"] = False
    if sde == "ve-discrete":
        found |= {"row": "score_discrete", "steps": _steps(options, sigmas)}
    return found


def _steps(options: Options, sigmas: Tensor | None) -> int:
    """How many discrete times: one for each level of the file."""
    return options.train_steps or (1000 if sigmas is None else len(sigmas))
