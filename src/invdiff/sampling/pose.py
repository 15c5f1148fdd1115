"""The problem as solvers see it."""

from __future__ import annotations

from invdiff.priors.base import Prior
from invdiff.priors.latent import in_latent_space
from invdiff.problem import Problem
from invdiff.problem.whiten import centred, whitened


def posed(problem: Problem, prior: Prior) -> Problem:
    """The problem as solvers see it: centred, Gaussian noise white, of latents if the prior is."""
    return in_latent_space(whitened(centred(problem)), prior)
