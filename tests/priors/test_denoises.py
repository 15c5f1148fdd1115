"""The check at load: the package's priors pass, and the same priors told one thing wrong fail.

A trained network of another convention is made of a trained prior: asked for (y, t), it answers
what a network that was trained on a table, to predict eps, x0 or v, would.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import golden
from helpers import sentence
from invdiff import load_prior
from invdiff.cli import main
from invdiff.priors import denoises
from invdiff.priors.base import Denoiser, Prior
from invdiff.priors.denoises import check_denoises, leaves
from invdiff.priors.guidance import Guided
from invdiff.priors.load import BUILT_IN
from invdiff.priors.precond import PREDICTS, NetworkPrior, Precond
from invdiff.priors.published.rows import bars

LINEAR, COSINE, LONG = bars("linear"), bars("cosine"), bars("linear", 4000)


def network(prior: Prior, table: np.ndarray, predicts: str):
    """What a network that was trained on a table answers, made of a prior."""
    log_sigmas = 0.5 * (np.log1p(-table) - np.log(table))

    def answer(y: Tensor, time: Tensor) -> Tensor:
        sigma = math.exp(np.interp(float(time[0]), np.arange(len(table)), log_sigmas))
        a, s = 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)
        x0 = prior.denoise(y / a, sigma)
        eps = (y - a * x0) / s
        return {"epsilon": eps, "sample": x0, "v_prediction": a * eps - s * x0}[predicts]

    return answer


def read_as(
    name: str, trained: tuple[np.ndarray, str], row: Precond, scale: float = 1.0
) -> NetworkPrior:
    """A network that was trained in one way, read as it was in another."""
    prior, c_noise = load_prior(name), row.c_noise
    row = replace(row, c_noise=lambda s: scale * c_noise(s))
    return NetworkPrior(network(prior, *trained), row, prior.shape, name=name)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_priors_of_the_package_pass(name: str) -> None:
    check_denoises(load_prior(name))


@pytest.mark.parametrize("predicts", PREDICTS)
@pytest.mark.parametrize("table", [LINEAR, COSINE, LONG], ids=["linear", "cosine", "long"])
def test_the_right_row_passes(table: np.ndarray, predicts: str) -> None:
    check_denoises(read_as("multiscale", (table, predicts), PREDICTS[predicts](table)))


WRONG = {
    "linear for cosine": ((COSINE, "epsilon"), PREDICTS["epsilon"](LINEAR), 1.0, "schedule"),
    "cosine for linear": ((LINEAR, "epsilon"), PREDICTS["epsilon"](COSINE), 1.0, "schedule"),
    "1000 for 4000 steps": ((LONG, "epsilon"), PREDICTS["epsilon"](LINEAR), 1.0, "train_steps"),
    "times rescaled": ((LINEAR, "epsilon"), PREDICTS["epsilon"](LINEAR), 0.25, "rescale_timesteps"),
    "eps for x0": ((LINEAR, "sample"), PREDICTS["epsilon"](LINEAR), 1.0, "prediction"),
    "x0 for eps": ((LINEAR, "epsilon"), PREDICTS["sample"](LINEAR), 1.0, "prediction"),
    "eps for v": ((LINEAR, "v_prediction"), PREDICTS["epsilon"](LINEAR), 1.0, "prediction"),
    "v for eps": ((LINEAR, "epsilon"), PREDICTS["v_prediction"](LINEAR), 1.0, "prediction"),
}


@pytest.mark.parametrize("how", WRONG)
@pytest.mark.parametrize("name", ["multiscale", "brain"])
def test_a_prior_told_wrong_is_caught(name: str, how: str) -> None:
    trained, row, scale, option = WRONG[how]
    prior = read_as(name, trained, row, scale)
    prior.presumed = ("schedule linear",)
    sentence(lambda: check_denoises(prior), option, "presumed: schedule linear", "--no-check")


def test_other_wrongs_are_caught() -> None:
    """The noisy picture, a blurred one, nothing, a prior that is not finite."""
    for denoise, words in (
        (lambda x, s: x, "does not denoise"),
        (lambda x, s: x / (1 + s * s), "does not denoise"),
        (lambda x, s: 0 * x, "does not denoise"),
        (lambda x, s: x / 0 * 0, "returned values that are NaN or infinite"),
    ):
        prior = Denoiser(denoise, (3, 16, 16))
        sentence(lambda: check_denoises(prior), words)  # noqa: B023


def test_a_distilled_network_is_caught() -> None:
    """It denoises well, but draws an image from pure noise: here by the ODE of the same prior."""
    prior = load_prior("multiscale")

    def drawn(x: Tensor, sigma: float) -> Tensor:
        levels = [*np.geomspace(sigma, 0.05, 13), 0.0]
        for now, then in pairwise(levels):
            x = x + (then - now) * (x - prior.denoise(x, now)) / now
        return x

    for denoise, caught in ((prior.denoise, False), (drawn, True)):
        made = Denoiser(denoise, prior.shape)
        check_denoises(made)
        made.presumed = (denoises.NOT_DISTILLED,)
        if caught:
            sentence(lambda: check_denoises(made), "distilled", "edm_*.pt")  # noqa: B023
        else:
            check_denoises(made)


def test_where_it_does_not_apply() -> None:
    """Video, free shapes, levels that were not trained; guidance is judged by its class alone."""
    wrong = Denoiser(lambda x, s: x)
    for shape in (None, (1, 8, 32, 32), (4,)):
        wrong.shape = shape
        check_denoises(wrong)
    wrong.shape, wrong.sigma_max = (1, 16, 16), 0.1
    check_denoises(wrong)
    good = load_prior("fashion28")
    check_denoises(Guided(good, wrong, 3.0))


def test_it_costs_few_evaluations() -> None:
    calls: list[float] = []
    prior = load_prior("multiscale")

    def counted(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return prior.denoise(x, sigma)

    check_denoises(Denoiser(counted, prior.shape))
    assert calls == list(denoises.LEVELS)


def test_the_picture_is_the_same_for_all_time() -> None:
    picture = leaves((3, 64, 64))
    assert torch.equal(picture, leaves((3, 64, 64))) and picture.abs().max() <= 1
    assert 0.05 < float(picture.var()) < 0.3
    assert abs(float(picture.mean()) - PICTURE[0]) < 1e-6
    assert abs(float(picture.var()) - PICTURE[1]) < 1e-6
    assert leaves((1, 40, 24)).shape == (1, 40, 24)


PICTURE = (-0.06871201, 0.12384015)


def test_load_prior_and_the_command_line(tmp_path: Path, capsys) -> None:
    """Random weights of a published layout are refused, unless they are not checked."""
    path = golden.written("ddpm-sdedit", tmp_path)
    sentence(lambda: load_prior(path), str(path), "does not denoise", "presumed: schedule linear")
    assert load_prior(path, check=False).presumed[0] == "schedule linear"
    photo = Path(denoises.__file__).parent / "weights" / "fashion28-samples.png"
    args = ["restore", "denoise", str(photo), "--noise", "0.1", "--prior", str(path)]
    assert main([*args, "--out", str(tmp_path / "out")]) == 2
    assert "--no-check" in capsys.readouterr().err
