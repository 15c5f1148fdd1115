"""All posterior samplers. A new one is a file in this folder: it is found by itself."""

from __future__ import annotations

import importlib
import pkgutil

from invdiff.core import nearest
from invdiff.sampling.solver import Solver, register, registry

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

SYSTEMS: dict[str, tuple[str, ...]] = {
    "ScoreSDE": ("replacement", "scoresde", "score-sde"),
    "Song et al. 2022, medical": ("score-medical", "song-medical"),
    "ILVR": ("ilvr",),
    "SNIPS": ("snips",),
    "CCDF": ("ccdf",),
    "DDRM": ("ddrm",),
    "DDRM-JPEG": ("ddrm-jpeg",),
    "Video Diffusion, reconstruction guidance": ("vdm", "video-diffusion"),
    "Pyramidal DDPM": ("pyramid", "pyramid-ddpm"),
    "PiGDM": ("pigdm", "pgdm", "pi-gdm"),
    "MCG": ("mcg",),
    "DPS": ("dps",),
    "CSGM-MRI, Langevin": ("csgm", "csgm-mri"),
    "RED-diff": ("reddiff", "red-diff"),
    "Feng et al., score-based priors": ("score-prior",),
    "Score-MRI": ("score-mri",),
    "DDNM": ("ddnm",),
    "DDNM+": ("ddnm+",),
    "DiffPIR": ("diffpir",),
    "DAPS": ("daps",),
    "DDS": ("dds",),
    "Moment matching (MMPS)": ("mmps", "moment-matching"),
    "TDS": ("tds", "twisted-diffusion-sampler"),
    "DDSMC": ("ddsmc",),
    "MCGdiff": ("mcgdiff",),
    "EPS": ("eps",),
    "TMPD": ("tmpd",),
    "CBG": ("cbg",),
    "Xun et al., annealed Langevin": ("annealed-langevin",),
    "PnP-DM": ("pnp-dm", "pnpdm", "dpnp"),
    "PSLD": ("psld",),
    "ReSample": ("resample",),
    "LATINO": ("latino",),
}
"""The field's own name of a system to the name of its solver here, and other names that mean it."""


def _subclasses(cls: type[Solver]) -> list[type[Solver]]:
    return [s for c in cls.__subclasses__() for s in (c, *_subclasses(c))]


register(*(c for c in _subclasses(Solver) if c.__module__.startswith(f"{__name__}.")))


def aliases() -> dict[str, str]:
    """Other names of solvers, each with the name that it stands for."""
    return {alias: name for name, *others in SYSTEMS.values() for alias in others}


def system(name: str) -> str:
    """What the field calls the solver called name; empty for one that is of no paper's system."""
    return next((known for known, (own, *_) in SYSTEMS.items() if own == name), "")


def solver_class(name: str) -> type[Solver]:
    """The solver called name, or that `aliases` has for it.

    Raises InvdiffError with the nearest names when there is none.
    """
    known = registry()
    own = aliases().get(name, name)
    if own not in known:
        raise nearest(name, [*known, *aliases()], "solver")
    return known[own]


__all__ = ["SYSTEMS", "Solver", "aliases", "registry", "solver_class", "system"]
