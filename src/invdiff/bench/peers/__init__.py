"""Samplers of other libraries in the grid of a bench: LIBRARY:METHOD among its solvers.

They have the same prior, the same problem and the same seeds as solvers of invdiff, and settings of
their own. A library is imported when one of its samplers is asked for.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from invdiff.bench.peers import azula, deepinv
from invdiff.bench.peers.base import Peer
from invdiff.core import InvdiffError, Level, nearest, undisturbed
from invdiff.core.signals import as_interrupt
from invdiff.priors.base import Counted, Prior
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError, Need, why_not
from invdiff.sampling.run import row_seed

INSTALL = {"azula": "azula einops", "deepinv": "deepinv"}
"""Library to what pip installs for it."""
PEERS: dict[str, Peer] = {peer.name: peer for peer in (*azula.PEERS, *deepinv.PEERS)}
"""By name."""
MESSAGE = 200
"""Characters of an exception of a library that are told."""


def is_peer(name: str) -> bool:
    """Whether a name of a solver is one of another library, known or not."""
    return ":" in name


def find(name: str) -> Peer:
    """The sampler of a name. Raises InvdiffError for an unknown one, with those that come near."""
    if name not in PEERS:
        raise nearest(name, PEERS, "sampler of another library")
    return PEERS[name]


def check(name: str) -> None:
    """Import the library of a sampler.

    Raises InvdiffError for an unknown sampler, and where its library is missing or broken.
    """
    library = find(name).library
    try:
        importlib.import_module(library)
    except ModuleNotFoundError as error:
        missing = (error.name or library).partition(".")[0]
        also = "" if missing == library else f", which needs {missing}"
        raise InvdiffError(
            f"{name} needs the package {library}{also}: pip install {INSTALL[library]}"
        ) from error
    except Exception as error:  # whatever is broken, as a torchvision that does not match torch
        if isinstance(as_interrupt(error), KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise InvdiffError(f"{library} cannot be imported: {_said(error)}") from error


def library_version(name: str) -> str:
    """The library of a sampler with its version."""
    library = find(name).library
    try:
        return f"{library} {version(library)}"
    except PackageNotFoundError:
        return f"{library} {getattr(importlib.import_module(library), '__version__', '(unknown)')}"


def sample(
    peer: Peer, problem: Problem, prior: Prior, samples: int, seed: int, steps: int
) -> tuple[Tensor, int]:
    """Samples (1, samples, *x_shape) of one measurement, and evaluations of the prior for one.

    Sample k is drawn by itself, after torch's generator was seeded by (seed, k), so that it is the
    same alone and among others; particles that need each other are drawn together. The generator
    of the caller is not touched.
    Raises IncompatibleError where the sampler cannot, and InvdiffError where it fails.
    """
    sentence = why_not(peer, problem, prior)
    if sentence:
        raise IncompatibleError(sentence)
    if Need.PRIOR_VJP in peer.needs:  # what a network decides when it is first asked for gradients
        prior.x0_vjp(torch.zeros_like(problem.x_like), Level(1.0, 1.0), once=True)
    counted = Counted(prior)
    groups = [samples] if peer.together else [1] * samples
    with undisturbed(problem.y.device), torch.random.fork_rng(devices=[]):
        found = [
            _drawn(peer, problem, counted, steps, count, row_seed(seed, 0, k))
            for k, count in enumerate(groups)
        ]
    drawn = torch.cat(found)
    if not bool(drawn.isfinite().all()):
        raise InvdiffError(f"{peer.name} gave numbers that are not finite.")
    return drawn[None].to(problem.y.dtype.to_real()), counted.nfe // len(groups)


def _drawn(peer: Peer, problem: Problem, prior: Prior, steps: int, count: int, seed: int) -> Tensor:
    """Samples (count, *x_shape). Raises InvdiffError for whatever the library raises."""
    torch.manual_seed(seed)
    try:
        found: Any = peer.draw(problem, prior, steps, count).detach()
    except InvdiffError:
        raise
    except Exception as error:
        if isinstance(as_interrupt(error), KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise InvdiffError(f"{peer.name} failed: {_said(error)}") from error
    shape = (count, *problem.x_shape)
    if tuple(found.shape) != shape:
        raise InvdiffError(f"{peer.name} gave the shape {tuple(found.shape)} in place of {shape}.")
    return found


def _said(error: Exception) -> str:
    """An exception of a library as one sentence."""
    text = " ".join(str(error).split())
    text = text if len(text) <= MESSAGE else f"{text[:MESSAGE]} ..."
    return f"{type(error).__name__} ({text or 'without a message'})."
