"""Denoising where the noise is not white: samples are no copies of the measurement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

import invdiff
from helpers import sentence
from invdiff.core.schedules import VE
from invdiff.noise import GaussianNoise
from invdiff.operators import Inpaint
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.solvers.spectral_ancestral import SpectralAncestral

PHOTO = Path(__file__).parents[2] / "benchmarks/data/cid22-3534924.webp"


def test_correlated_noise_is_taken_away() -> None:
    """Samples agree with the measurement and are nearer to the truth, by more than 3 dB, where a
    chain that begins at the whitened picture stays at the noise."""
    clean = np.asarray(Image.open(PHOTO).convert("RGB").crop((40, 40, 168, 168)), np.float32)
    noise = gaussian_filter(np.random.default_rng(0).normal(size=clean.shape), (1, 1, 0))
    noisy = np.clip(clean + 20 * noise / noise.std(), 0, 255).round().astype(np.uint8)
    done = invdiff.restore("denoise", noisy, noise="correlated", samples=1, want="samples")
    misfit = done.result.config["checks"]["samples"]["misfit"]
    assert not done.warnings and all(0.8 < m < 1.2 for m in misfit)

    def error(x: np.ndarray) -> float:
        return float(np.square(x.astype(float) - clean).mean())

    assert error(255 * done.samples[0]) < error(noisy) / 2


def test_a_chain_starts_from_y_where_y_is_a_noisy_image_alone() -> None:
    """Negative twin: with pixels that are unknown, and of another noise than the first level."""
    prior = Denoiser(lambda x, s: x / (1 + s**2))
    solver = SpectralAncestral(data="start", schedule=VE(3, 0.1, 0.02))
    y = 0.1 * torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    known = torch.ones(1, 1, 6, 6)
    shape = (1, 6, 6)
    solve(Problem(y, Inpaint(known), GaussianNoise(0.1), shape), prior, solver)
    known[..., 2, 3] = 0
    for p in (
        Problem(y * known, Inpaint(known), GaussianNoise(0.1), shape),
        Problem(y, Inpaint(torch.ones(1, 1, 6, 6)), GaussianNoise(0.2), shape),
    ):
        sentence(lambda p=p: solve(p, prior, solver), "take data drawn")


def test_hidden_colours_change_nothing() -> None:
    """Transparent pixels are no measurement, whatever colour hides in them."""
    photo = np.asarray(Image.open(PHOTO).convert("RGB").crop((40, 40, 72, 72)))
    hidden = np.random.default_rng(1).random(photo.shape[:2]) < 0.3
    found = []
    for colour in (0, 255):
        pixels = np.where(hidden[..., None], colour, photo).astype(np.uint8)
        rgba = np.dstack([pixels, np.where(hidden, 0, 255).astype(np.uint8)])
        done = invdiff.restore("denoise", Image.fromarray(rgba), noise=0.05, samples=1)
        found.append(done)
    a, b = (np.asarray(d.samples[0], float) for d in found)
    assert np.abs(a - b)[~hidden].max() == 0
    assert np.abs(np.asarray(found[0].estimate, float) - found[1].estimate)[~hidden].max() == 0
