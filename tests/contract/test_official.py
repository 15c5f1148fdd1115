"""The names of solvers, and the configurations of official code."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.noise import GaussianNoise
from invdiff.operators import Identity
from invdiff.priors.base import Denoiser
from invdiff.priors.latent import LatentPrior
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.sampling.stream import stream
from invdiff.solvers import SYSTEMS, aliases, registry, solver_class, system
from invdiff.solvers.csgm import CSGM
from invdiff.solvers.dps import DPS
from invdiff.solvers.latino import LATINO
from invdiff.solvers.replacement import Replacement
from invdiff.solvers.score_mri import ScoreMRI
from invdiff.solvers.snips import SNIPS
from invdiff.tasks import TASKS
from invdiff.tasks.auto import configured

NAMES = {
    "scoresde": "replacement",
    "song-medical": "score-medical",
    "csgm-mri": "csgm",
    "video-diffusion": "vdm",
    "pyramid-ddpm": "pyramid",
    "ddrm-jpeg": "ddrm-jpeg",
    "pgdm": "pigdm",
    "red-diff": "reddiff",
    "score-prior": "score-prior",
    "moment-matching": "mmps",
}


@pytest.mark.parametrize(("name", "own"), NAMES.items())
def test_the_fields_own_names_are_taken(name, own):
    assert solver_class(name) is registry()[own]
    assert configured(TASKS["inpaint"], name, TASKS["inpaint"].toy(0.1)) == configured(
        TASKS["inpaint"], own, TASKS["inpaint"].toy(0.1)
    )
    assert system(own)


def test_names_are_of_one_solver_each():
    owners = [name for name, *_ in SYSTEMS.values()]
    assert set(owners) <= set(registry()) and len(owners) == len(set(owners))
    others = [alias for _, *rest in SYSTEMS.values() for alias in rest]
    assert len(others) == len(set(others)) == len(aliases()) and not set(others) & set(registry())
    assert system("unconditional") == ""


def test_an_unknown_name_suggests_other_names_too():
    with pytest.raises(InvdiffError, match="did you mean .*song-medical"):
        solver_class("song-medcal")
    with pytest.raises(InvdiffError, match="did you mean .*reddiff"):
        solver_class("redddiff")


CONFIGURED = [(name, task) for name, cls in registry().items() for task in cls.configurations()]


@pytest.mark.parametrize(("name", "task"), CONFIGURED)
def test_every_official_configuration_is_one_of_its_class(name, task):
    cls = registry()[name]
    found = cls.official(task)
    assert type(found) is cls and found.num_steps >= 8
    assert dataclasses.replace(found) == found


@pytest.mark.parametrize("name", sorted({name for name, _ in CONFIGURED}))
def test_configurations_name_the_file_they_were_read_from(name):
    told = registry()[name].configurations.__doc__
    assert re.search(r"\.(py|sh|md|yml|yaml)\b", told), told


def test_an_unknown_task_is_one_sentence():
    with pytest.raises(InvdiffError, match="official configuration of dps .*did you mean deblur"):
        DPS.official("deblurr")
    with pytest.raises(InvdiffError, match="No official configuration of unconditional"):
        solver_class("unconditional").official("inpaint")


def test_published_levels_follow_the_range_of_the_prior():
    """ScoreSDE, SNIPS: images on [0, 1]; twice the levels on [-1, 1]. score-MRI: as published."""
    for cls, task, top in ((Replacement, "cifar10", 50.0), (SNIPS, "lsun", 190.0)):
        assert cls.official(task, (0.0, 1.0)).levels[0].s == pytest.approx(top)
        assert cls.official(task).levels[0].s == pytest.approx(2 * top)
        assert cls.official(task).levels[-2].s == pytest.approx(0.02)
    assert Replacement().levels[0].s == pytest.approx(100) and Replacement().num_steps == 1000
    assert ScoreMRI.official("complex").levels[0].s == pytest.approx(378)
    assert ScoreMRI.official("real", (-1.0, 1.0)).levels[0].s == pytest.approx(756)
    assert ScoreMRI.official("sum-of-squares").num_steps == 500


def test_csgm_takes_a_name_or_the_steps_of_late_levels():
    assert CSGM.official("t2") == CSGM.official(4) != CSGM.official("knee") == CSGM.official()


# ---- LATINO's delta in units of the misfit

LATENT = LatentPrior(Denoiser(lambda z, s: z / (1 + s**2)), Identity(), Identity())


def test_delta_in_units_of_the_misfit_is_per_sample():
    """v = delta |y - A u| (1 - abar): for A = 1 the proximal step is (u / v + y / s^2) / (...)."""
    y = seeded(2, 1, 3, 3) * torch.tensor([1.0, 10.0]).reshape(2, 1, 1, 1)
    problem = Problem(y, Identity(), GaussianNoise(0.2), (1, 3, 3))
    solver = LATINO(delta=0.3, unit="misfit").with_steps(4)
    states = list(stream(problem, LATENT, solver, (1, 2)))
    level = solver.levels[0]
    for row in range(2):
        u = LATENT.x0(states[0].x, level)[row]
        v = 0.3 * (y[row] - u).norm() * (1 - level.alpha_bar)
        expected = (u / v + y[row] / 0.2**2) / (1 / v + 1 / 0.2**2)
        torch.testing.assert_close(states[1].x0[row], expected, rtol=1e-10, atol=1e-10)


def test_delta_changes_at_the_late_levels():
    problem = Problem(seeded(1, 1, 3, 3), Identity(), GaussianNoise(0.2), (1, 3, 3))
    levels = LATINO().levels
    late = LATINO(0.0, late_delta=0.7, late_sigma=levels[4].sigma)
    plain = LATINO(0.0)
    pairs = zip(*(stream(problem, LATENT, s, (1,)) for s in (late, plain)), strict=True)
    same = [torch.equal(a.x, b.x) for a, b in pairs]
    assert same == [True] * 5 + [False] * 4


def test_official_samplers_run_on_a_small_problem():
    """Those whose options no other test meets: a few steps, finite samples."""
    problem = Problem(seeded(1, 1, 4, 4), Identity(), GaussianNoise(0.1), (1, 4, 4))
    prior = Denoiser(lambda x, s: x / (1 + s**2))
    tasks = {"replacement": "lsun", "score-medical": "ct-metal", "dds": "ct", "mcg": "ct"}
    for name, task in (tasks | {"diffpir": "deblur", "score-mri": "parallel"}).items():
        solver = registry()[name].official(task).with_steps(6)
        assert solve(problem, prior, solver).samples.isfinite().all(), name
