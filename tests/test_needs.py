"""Incompatibility is one sentence, derived from types, before the loop."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from invdiff.core import InvdiffError, nearest
from invdiff.noise import NOISELESS, GaussianNoise, Noise, Poisson
from invdiff.operators.algebra import Identity, Operator, PseudoInvertible
from invdiff.operators.algebra.compose import ComposedLinear, ComposedPseudoInvertible
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.jpeg import JPEG
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.needs import (
    IMPLIES,
    IncompatibleError,
    Need,
    check,
    closure,
    missing,
    offers,
    why_not,
)
from invdiff.sampling.solver import Solver, register, registry
from invdiff.solvers.diffpir import DiffPIR


class Squared(Operator):
    def __call__(self, x):
        return x**2


class BlackBox(Squared):
    differentiable: ClassVar[bool] = False


class Rounded(PseudoInvertible):
    """A generalised inverse, and no gradient."""

    differentiable: ClassVar[bool] = False

    def __call__(self, x):
        return x.round()

    def pinv(self, y):
        return y


class Clipped(Rounded):
    differentiable: ClassVar[bool] = True


class Blind(Denoiser):
    differentiable = False


def solver(
    named: str, *wanted: Need, blind: bool = False, instead: tuple[Need, ...] | None = None
) -> Solver:
    class Toy(Solver):
        name = named
        needs = frozenset(wanted)
        ignores_y = blind

        def requires(self) -> tuple[frozenset[Need], ...]:
            return (self.needs,) if instead is None else (self.needs, frozenset(instead))

    return Toy()


def problem(A: Operator, noise: Noise = NOISELESS) -> Problem:
    return Problem(torch.zeros(1, 1, 4, 4), A, noise, (1, 4, 4))


LINEAR = ComposedLinear(Identity(), Identity())
PRIOR = Denoiser(lambda x, sigma: x, shape=(1, 4, 4), name="toy")
DDRM = solver("DDRM", Need.SVD, Need.GAUSSIAN)
DPS = solver("DPS", Need.PRIOR_VJP, Need.OPERATOR_VJP)
DDNM = solver("DDNM", Need.PINV)
PRIOR_ONLY = solver("prior", blind=True)
ALL = (DDRM, DPS, DDNM, PRIOR_ONLY)


def test_closure_holds_every_implication():
    inverse = {Need.GENERALISED_INVERSE, Need.GUESS}
    ladder = {Need.PINV, Need.LINEAR, Need.OPERATOR_VJP, *inverse}
    assert closure([Need.SVD]) == {Need.SVD, *ladder}
    assert closure([Need.PINV]) == ladder
    assert closure([Need.LINEAR]) == {Need.LINEAR, Need.OPERATOR_VJP}
    assert closure([Need.GENERALISED_INVERSE]) == inverse
    assert closure([Need.CELLS]) == {Need.CELLS, *inverse}
    assert closure([Need.GAUSSIAN]) == {Need.GAUSSIAN} and closure([]) == frozenset()
    for need in Need:
        full = closure([need])
        assert need in full and closure(full) == full
        assert all(IMPLIES[n] <= full for n in full if n in IMPLIES)


@pytest.mark.parametrize(
    ("A", "strongest"),
    [
        (Identity(), {Need.SVD}),
        (LINEAR, {Need.PINV}),
        (Rounded(), {Need.GENERALISED_INVERSE}),
        (Clipped(), {Need.GENERALISED_INVERSE, Need.OPERATOR_VJP}),
        (Squared(), {Need.OPERATOR_VJP}),
        (BlackBox(), set()),
        (Identity() @ BlackBox(), set()),
        (Rounded() @ Identity(), {Need.GENERALISED_INVERSE}),
    ],
)
def test_an_operator_offers_its_rung(A, strongest):
    ladder = {Need.SVD, Need.PINV, Need.LINEAR, Need.OPERATOR_VJP, Need.GENERALISED_INVERSE}
    ladder.add(Need.GUESS)
    assert offers(problem(A)) & ladder == closure(strongest)


@pytest.mark.parametrize(
    ("noise", "offered"),
    [
        (NOISELESS, {Need.GAUSSIAN, Need.NOISELESS}),
        (GaussianNoise(0.1), {Need.GAUSSIAN, Need.NOISY, Need.DENSITY}),
        (Poisson(10.0), {Need.POISSON, Need.DENSITY}),
    ],
)
def test_noise_offers_its_kind(noise, offered):
    kinds = {Need.GAUSSIAN, Need.NOISELESS, Need.NOISY, Need.POISSON, Need.DENSITY}
    assert offers(problem(Identity(), noise)) & kinds == offered


def test_prior_offers_its_gradient():
    blind = Blind(lambda x, sigma: x)
    assert Need.PRIOR_VJP in offers(problem(Identity()), PRIOR)
    assert Need.PRIOR_VJP in offers(problem(Identity()))
    assert Need.PRIOR_VJP not in offers(problem(Identity()), blind)
    assert missing(DPS, problem(Identity()), blind) == [Need.PRIOR_VJP]
    assert "gradients through the prior" in why_not(DPS, problem(Identity()), blind)


def test_only_the_strongest_missing_need_is_named():
    assert missing(DDRM, problem(Squared())) == [Need.SVD]
    assert missing(DDRM, problem(BlackBox(), Poisson(1.0))) == [Need.SVD, Need.GAUSSIAN]
    assert missing(DDRM, problem(Identity())) == []


def test_the_sentence_names_solver_operator_need_and_the_able():
    with pytest.raises(IncompatibleError) as error:
        check(DDRM, problem(Squared()), PRIOR, ALL)
    text = str(error.value)
    for part in ("DDRM", "Squared", "a singular value decomposition", "These can: DPS."):
        assert part in text
    assert "\n" not in text


def test_the_sentence_does_not_offer_what_cannot_help():
    with pytest.raises(IncompatibleError) as error:
        check(DDRM, problem(BlackBox()), PRIOR, ALL)
    assert "These can" not in str(error.value)


@pytest.mark.parametrize(
    ("wanted", "noise", "word"),
    [
        (Need.GAUSSIAN, Poisson(1.0), "Poisson"),
        (Need.NOISELESS, GaussianNoise(0.25), "0.25"),
        (Need.NOISY, NOISELESS, "no noise"),
        (Need.POISSON, NOISELESS, "GaussianNoise"),
        (Need.DENSITY, NOISELESS, "GaussianNoise(sigma=0.0) has none"),
    ],
)
def test_the_sentence_blames_the_noise_where_it_is_at_fault(wanted, noise, word):
    sentence = why_not(solver("s", wanted), problem(Identity(), noise))
    assert wanted.value in sentence and word in sentence
    assert "Identity offers none" not in sentence


EITHER = solver("either", Need.PINV, Need.GAUSSIAN,
                instead=(Need.GENERALISED_INVERSE, Need.NOISELESS))  # fmt: skip


def test_one_of_several_sets_of_needs_is_enough():
    for A, noise in ((LINEAR, NOISELESS), (LINEAR, GaussianNoise(0.1)), (Rounded(), NOISELESS)):
        assert missing(EITHER, problem(A, noise)) == [] and why_not(EITHER, problem(A, noise)) == ""
    assert missing(EITHER, problem(Squared(), GaussianNoise(0.1))) == [Need.PINV]


def test_the_sentence_tells_every_nearest_way():
    """One lacks as much as the other: both are told. One that lacks more is not."""
    sentence = why_not(EITHER, problem(Rounded(), GaussianNoise(0.1)))
    assert sentence == (
        "either cannot solve Rounded: it needs a pseudo-inverse and Rounded offers none; or it "
        "needs a measurement without noise and the noise is GaussianNoise(sigma=0.1)."
    )
    sentence = why_not(EITHER, problem(Squared(), GaussianNoise(0.1)))
    assert "a pseudo-inverse" in sentence and " or " not in sentence
    twice = solver("twice", Need.PINV, instead=(Need.PINV, Need.GAUSSIAN))
    assert why_not(twice, problem(Squared())).count("it needs") == 1


def test_an_approximate_generalised_inverse_is_offered_on_request():
    """A hole in a JPEG: its pinv fills the hole with grey, which JPEG does not keep."""
    hole, wants = Inpaint.box((4, 4), 1, 1, 2, 2), solver("wants", Need.GENERALISED_INVERSE)
    masked = ComposedPseudoInvertible(hole, JPEG(50))
    assert "approximate=True accepts" in why_not(wants, problem(masked))
    assert not missing(wants, problem(dataclasses.replace(masked, approximate=True)))
    assert not missing(wants, problem(JPEG(50) @ Inpaint(torch.ones(1, 1, 4, 4))))
    assert missing(wants, problem(JPEG(50) @ hole))


def test_check_is_silent_when_all_is_there():
    assert why_not(DDRM, problem(Identity()), PRIOR) == ""
    check(DDRM, problem(Identity()), PRIOR, ALL)
    check(DDRM, problem(Identity()))


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 8, 8), (1, 1, 4, 4)])
def test_a_prior_of_another_shape_is_refused(shape):
    prior = Denoiser(lambda x, sigma: x, shape=shape, name="toy")
    with pytest.raises(IncompatibleError, match=f"toy makes images of {shape[0]} x.*1 x 4 x 4"):
        check(DPS, problem(Identity()), prior)


@pytest.mark.parametrize("shape", [None, (1, None, None), (1, 4, 4)])
def test_free_sides_of_a_prior_fit(shape):
    check(DPS, problem(Identity()), Denoiser(lambda x, sigma: x, shape=shape))


def test_nearest_names_come_first_and_strangers_get_the_list():
    error = nearest("DDMR", ["ddrm", "ddnm", "reddiff"], "solver")
    assert isinstance(error, InvdiffError)
    assert "solver called 'DDMR'" in str(error) and "ddrm" in str(error)
    assert "reddiff" not in str(error)
    assert "known are ddrm, ddnm" in str(nearest("xyzzy", ["ddrm", "ddnm"], "solver"))


def test_a_name_is_registered_once() -> None:
    """A second solver of one name is refused; the same one may register again."""
    before = registry()

    @dataclass(frozen=True)
    class Impostor(DiffPIR):
        """Another solver under the name of DiffPIR."""

    register(DiffPIR)
    with pytest.raises(InvdiffError, match="Impostor cannot be called diffpir"):
        register(Impostor)
    assert registry() == before and before["diffpir"] is DiffPIR
    again = type("DiffPIR", (DiffPIR,), {"__module__": DiffPIR.__module__})
    register(again)  # its module was loaded twice: the later one counts
    assert registry()["diffpir"] is again
    register(DiffPIR)
    assert registry() == before
