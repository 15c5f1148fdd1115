"""How a network was trained, read from the configuration of a scheduler of diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from invdiff.core import InvdiffError
from invdiff.core.limits import limited
from invdiff.core.schedules import MOST_STEPS
from invdiff.priors import precond as table
from invdiff.priors.precond import Precond

Prediction = Literal["epsilon", "v_prediction", "sample"]
BY_SIGMA = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "ScoreSdeVeScheduler")
FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
DISTILLED = ("LCMScheduler", "TCDScheduler", "ConsistencyDecoderScheduler")


def require(fine: object, sentence: str) -> None:
    """Raise InvdiffError with this sentence unless fine."""
    if not fine:
        raise InvdiffError(sentence)


def training(
    diffusers: Any,
    fourier: bool,
    schedule: Path | None,
    config: dict[str, Any],
    prediction: str | None,
    betas: Sequence[float] | None,
    name: str,
) -> tuple[Precond, tuple[float, float]]:
    """How the network was trained, in diffusers' unit of time, and the range of its images.

    config: what the file `schedule` holds, if there is one. fourier: whether time goes in as
    Fourier features of log sigma. A shift of a flow's schedule concerns sampling, not training.
    """
    kinds = ", ".join(table.PREDICTS)
    why = f"prediction is one of {kinds}, not {prediction!r}"
    require(prediction in (None, *table.PREDICTS), f"{why}.")
    why = "has no scheduler_config.json, which tells what the network predicts; put it there"
    advice = f"or give prediction ({kinds}), with DDPM's betas unless others are told"
    require(schedule or prediction, f"{name} {why}, {advice}.")
    config = config or {"_class_name": "DDPMScheduler"}
    kind, table_of = str(config.get("_class_name")), config.get("num_train_timesteps")
    if isinstance(table_of, int | float):
        limited(str(schedule), int(min(table_of, 1e18)), "num_train_timesteps", MOST_STEPS, 100)
    try:
        scheduler = getattr(diffusers, kind).from_config(config)
        c = scheduler.config
    except Exception as error:
        why = f"and diffusers {diffusers.__version__} cannot make it ({type(error).__name__})"
        raise InvdiffError(f"{schedule} is a {kind}, {why}; give another.") from error
    old = "sample" if config.get("predict_epsilon") is False else None  # diffusers before 0.9
    known = prediction or config.get("prediction_type", old) or c.get("prediction_type", "epsilon")
    counts = hasattr(scheduler, "alphas_cumprod") and kind not in DISTILLED
    counts = counts and c.get("timestep_type", "discrete") == "discrete" and known in table.PREDICTS
    if counts and not fourier:
        bars = scheduler.alphas_cumprod.double().numpy()
        if c.get("rescale_betas_zero_snr"):  # some schedulers replace the 0 by a small number
            bars[-1] = 0.0
        bars = bars if betas is None else np.cumprod(1 - np.asarray(betas, np.float64))
        return table.PREDICTS[known](bars), (-1.0, 1.0)
    if kind in FLOWS:
        given = prediction is not None or betas is not None
        require(not given, f"{name} has no table ({kind}); leave prediction and betas out.")
        p, steps = table.predicts_flow(), c.num_train_timesteps
        return replace(p, c_noise=partial(table.times, of=p.c_noise, factor=steps)), (-1.0, 1.0)
    if kind in BY_SIGMA:
        given = prediction is not None or betas is not None
        require(not given, f"{name} has no table ({kind}); leave prediction and betas out.")
        if kind == "ScoreSdeVeScheduler":
            p = replace(table.predicts_score(), c_noise=float)  # time = sigma
            return replace(p, sigma_min=c.sigma_min, sigma_max=c.sigma_max), (0.0, 1.0)
        if known in ("epsilon", "v_prediction") and not fourier:
            p = table.predicts_edm(c.sigma_data)
            p = replace(p, sigma_min=c.sigma_min, sigma_max=c.sigma_max)
            if known == "v_prediction":  # diffusers' name for the other sign
                p = replace(p, c_out=partial(table.times, of=p.c_out, factor=-1.0))
            return p, (-1.0, 1.0)
    why = f"{kind}, prediction {known}{', fourier times' if fourier else ''}"
    advice = f"take a model of DDPMScheduler that predicts {kinds}"
    raise InvdiffError(f"{name} was made for {why}, which is not supported; {advice}.")
