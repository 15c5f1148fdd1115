"""What every solver promises, whatever its mathematics, on every kind of problem it can solve.

Which operators stand for a kind is chosen by `covering`: every solver meets every kind of operator
and noise that it takes, every operator meets solvers of every need that it serves. A new solver in
`invdiff.solvers` is picked up by itself. The prior is elementwise, so that results are compared bit
for bit: no matrix product of the prior's own depends on the size of the batch.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import invdiff.operators as ops
from covering import covering
from helpers import exploding, noise_names, seeded, seeds
from invdiff.core import InvdiffError, Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, VP, Karras, Schedule, SubVP
from invdiff.noise import NOISELESS, GaussianNoise, Noise, Poisson
from invdiff.operators import Linear, Operator, PseudoInvertible, Spectral
from invdiff.operators.algebra.decoded import Autoencoder, decoded
from invdiff.priors.base import Counted, Denoiser, Prior
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError, Need, closure, missing, offers
from invdiff.sampling.particles import ParticleFilter
from invdiff.sampling.run import solve
from invdiff.sampling.state import State
from invdiff.sampling.stream import finish, stream
from invdiff.solvers import Solver, registry, solver_class

SIZE = (7, 6)  # 126 numbers an image: no multiple of a vector register
RGB = (3, *SIZE)
STEPS = 4
MEASUREMENTS = 2


def two_humps(x: Tensor, sigma: float) -> Tensor:
    """E[x0 | x], exact, where every pixel is -0.6 or 0.6 with equal chances, plus N(0, 0.04)."""
    total = 0.04 + sigma**2
    return (0.04 * x + sigma**2 * 0.6 * torch.tanh(0.6 * x / total)) / total


PRIOR = Denoiser(two_humps, name="two-humps")


@dataclass(frozen=True, eq=False)
class Saturated(Operator):
    """y = tanh(2 x): a sensor that is not linear."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.tanh(2 * x)


@dataclass(frozen=True, eq=False)
class Desaturated(Operator):
    """The inverse of `Saturated`, roughly: atanh(x) / 2 to the third order."""

    def __call__(self, x: Tensor) -> Tensor:
        return (x + x * x * x / 3) / 2


def flipped(x: Tensor) -> Tensor:
    return x.flip(-1)


TANH = Autoencoder(Saturated(), Desaturated())
KERNEL = torch.tensor([[0.0, 0.1, 0.0], [0.15, 0.7, 0.0], [0.0, 0.05, 0.0]])
"""It inverts in few iterations."""
MASKS = ops.Inpaint.random(SIZE, 0.5, seed=3, batch=MEASUREMENTS)
OPERATORS: dict[str, Operator] = {
    "identity": ops.Identity(),
    "inpaint": ops.Inpaint.box(SIZE, 2, 1, 3, 4),
    "inpaint-each": MASKS,
    "pool": ops.AveragePool(2, SIZE),
    "bicubic": ops.Bicubic(2, SIZE),
    "blur-circular": ops.CircularBlur(ops.gaussian_kernel(0.6), SIZE),
    "blur-reflect": ops.Blur(KERNEL, SIZE, "reflect"),
    "grey": ops.Grayscale(),
    "weighted-each": ops.Weighted(0.5 + seeded(MEASUREMENTS, 1, 7, 1, seed=7).abs()),
    "flipped-each": MASKS @ Linear.from_functions(flipped, flipped, RGB),  # without its SVD
    "fourier-each": ops.RealFourier(seeded(MEASUREMENTS, 1, *SIZE, seed=5) > -0.3),
    "saturated": Saturated(),
    "jpeg": ops.JPEG(30),
    "quantize-pool": ops.Quantize(6) @ ops.AveragePool(2, SIZE),
    "latent-identity": decoded(ops.Identity(), TANH),
    "latent-inpaint-each": decoded(MASKS, TANH),
    "latent-pool": decoded(ops.AveragePool(2, SIZE), TANH),
    "latent-blur-reflect": decoded(ops.Blur(KERNEL, SIZE, "reflect"), TANH),
    "latent-saturated": decoded(Saturated(), TANH),
}


@functools.cache
def measurement(
    name: str, sigma: float | Noise = 0.1, dtype: torch.dtype = torch.float64
) -> Problem:
    A = OPERATORS[name]
    truth = two_humps(seeded(MEASUREMENTS, *RGB, dtype=dtype), 1.0)
    z = A(truth)
    if isinstance(sigma, Noise):
        return Problem(sigma.sample(z, Rng.of(seeds(MEASUREMENTS))), A, sigma, RGB)
    y = z + sigma * seeded(*z.shape, seed=1, dtype=dtype)
    return Problem(y, A, GaussianNoise(sigma), RGB)


VARIANTS: dict[str, Solver] = {name: cls().with_steps(STEPS) for name, cls in registry().items()}
VARIANTS |= {
    "dps-l2sq": solver_class("dps")(loss="l2sq", schedule=VP(STEPS)),
    "dps-gaussian": solver_class("dps")(loss="gaussian", zeta=0.003, schedule=VP(STEPS)),
    "dps-likelihood": solver_class("dps")(loss="likelihood", zeta=0.003, schedule=VP(STEPS)),
    "dps-poisson": solver_class("dps")(loss="poisson_diag", zeta=0.003, schedule=VP(STEPS)),
    "dps-poisson-official": solver_class("dps")(loss="poisson_official", schedule=VP(STEPS)),
    "dps-clip": solver_class("dps")(clip="value", schedule=VP(STEPS)),
    "reddiff-official": solver_class("reddiff")(scaling="official", sigma0=0.1, schedule=VP(STEPS)),
    "reddiff-guess": solver_class("reddiff")(init_from="guess", schedule=VP(STEPS)),
    "reddiff-pinv": solver_class("reddiff")(init_from="pinv", schedule=VP(STEPS)),
    "reddiff-prior": solver_class("reddiff")(init_from="prior", schedule=VP(STEPS)),
    "diffpir-noisy": solver_class("diffpir")(final="noisy", clip="value", schedule=VP(STEPS)),
    "dds-clean": solver_class("dds")(end="clean", schedule=VP(STEPS)),
    "latino-misfit": solver_class("latino")(unit="misfit").with_steps(STEPS),
    "score-mri-reversed": solver_class("score-mri")(
        order="predictor-first", parts="apart", schedule=VE(STEPS, 20.0, 0.02)
    ),
    "diffpir-denoised": solver_class("diffpir")(final="denoised", schedule=VP(STEPS)),
    "spectral-isotropic": solver_class("spectral-ancestral")("isotropic", schedule=VP(STEPS)),
    "hqs-data": solver_class("hqs")(final="data", schedule=VE(STEPS, 0.4, 0.02)),
    "mmps-drawn": solver_class("mmps")(draw=True, schedule=Karras(STEPS)),
    "mmps-white": solver_class("mmps")(covariance="white", schedule=Karras(STEPS)),
    "mmps-weights": solver_class("mmps")(weights=True, schedule=Karras(STEPS)),
    "pigdm-paper": solver_class("pigdm")(guidance="paper", schedule=VP(STEPS)),
    "pigdm-cut": solver_class("pigdm")(reach=0.1, schedule=VP(STEPS)),
    "pigdm-weights": solver_class("pigdm")(weights=True, schedule=VP(STEPS)),
    "mmps-deterministic": solver_class("mmps")(eta_ddim=0.0, schedule=Karras(STEPS)),
    "ddrm-jpeg-linear": solver_class("ddrm-jpeg")(mix="linear", eta_prop=0.5, schedule=VP(STEPS)),
    "vdm-replaced": solver_class("vdm")(
        replace_known=True, delta=0.1, gamma=0.3, schedule=VP(STEPS)
    ),
    "vdm-noise-aware": solver_class("vdm")(noise_aware=True, clip=True, schedule=VP(STEPS)),
    "pyramid-small": solver_class("pyramid")(smallest=1, scales=2, t0=1.0, schedule=VP(STEPS)),
    "pyramid-overwrite": solver_class("pyramid")(data="overwrite", smallest=1, schedule=VP(STEPS)),
    "csgm-matched": solver_class("csgm")(
        likelihood="matched", final="denoised", schedule=VE(STEPS, 1.2, 0.1)
    ),
    "score-mri-hybrid": solver_class("score-mri")(
        noised=True, final="noisy", hybrid_every=2, schedule=VE(STEPS, 20.0, 0.02)
    ),
    "score-prior": solver_class("score-prior")(draws=4, times=2, flow_steps=2, schedule=VP(STEPS)),
    "score-prior-exact": solver_class("score-prior")(
        prior_term="exact", family="gaussian", draws=3, ode_steps=2, probes=1, schedule=VP(STEPS)
    ),
    "replacement-vp": solver_class("replacement")(corrector_steps=2, lam=0.5, schedule=VP(STEPS)),
    "tds-moments": solver_class("tds")(2, twist="moments", schedule=Karras(STEPS, 10.0)),
    "tds-frozen": solver_class("tds")(twist="frozen", weights=True, schedule=VP(STEPS)),
    "ddsmc-weights": solver_class("ddsmc")(weights=True, eta=0.5, schedule=VP(STEPS)),
    "mcgdiff-weights": solver_class("mcgdiff")(2, weights=True, schedule=Karras(STEPS)),
    "pnp-dm-rounds": solver_class("pnp-dm")(2, schedule=VE(STEPS, 3.0, 0.1)),
    "daps-langevin": solver_class("daps")("langevin", langevin_steps=3, schedule=Karras(STEPS)),
    "daps-tweedie": solver_class("daps")(centre="tweedie", tau="official", schedule=VP(STEPS)),
    "daps-moments": solver_class("daps")(centre="moments", schedule=Karras(STEPS)),
    "ilvr-pinv": solver_class("ilvr")(up="pinv", range_t=1, schedule=VP(STEPS)),
    "snips-denoised": solver_class("snips")(K=2, final="denoised", schedule=VE(STEPS, 5.0, 0.05)),
    "resample-often": solver_class("resample")(
        every=1, iterations=3, image_iterations=3, zeta=0.1, schedule=VP(STEPS)
    ),
    "ccdf-ddrm": solver_class("ccdf")(
        solver_class("ddrm")(schedule=VP(6)), sigma=2.0, guess="transpose"
    ).with_steps(STEPS),
}


def sigma_for(solver: Solver, name: str = "pool") -> float | Noise:
    """A noise that the solver can take with this operator: Gaussian of 0.1, none, or Poisson."""
    if solver.always_needs(Need.POISSON):
        return Poisson(50.0)
    return 0.0 if missing(solver, measurement(name, 0.1), PRIOR) else 0.1


NOISES: dict[str, float | Noise] = {"noisy": 0.1, "noiseless": 0.0, "counts": Poisson(50.0)}
Pair = tuple[str, str, str]
"""A variant, an operator and a noise."""
STRUCTURES = (Need.CELLS, Need.SVD, Need.PINV, Need.OPERATOR_VJP, Need.GENERALISED_INVERSE)


@functools.cache
def offered(name: str, noise: str) -> frozenset[Need]:
    return offers(measurement(name, NOISES[noise]), PRIOR)


@functools.cache
def kinds(name: str, noise: str) -> frozenset[str]:
    """What a solver may treat in its own way: structure, noise, differing rows of A, kind of y."""
    problem, given = measurement(name, NOISES[noise]), offered(name, noise)
    found = {noise, next(need.name for need in STRUCTURES if need in given)}
    if Need.AUTOENCODER in given:
        found = {noise, f"latent, {'linear' if Need.IMAGE_LINEAR in given else 'not linear'}"}
    found.add("complex" if problem.y.is_complex() else "real")
    return frozenset(found | ({"rows"} if problem.A.batch_rows > 1 else set()))


def can(variant: str, name: str, noise: str) -> bool:
    """Whether it is a problem at all, counts being real numbers, and the solver takes it."""
    if noise == "counts" and (OPERATORS[name].cells or name.startswith(("fourier", "quantize"))):
        return False
    ways = VARIANTS[variant].requires()
    return any(closure(needs) <= offered(name, noise) for needs in ways)


def meetings(pair: Pair) -> set[tuple[str, str]]:
    """(variant, kind of problem) and (operator, need of the solver), of one run.

    Knobs other than the defaults meet every structure, but not every noise.
    """
    variant, name, noise = pair
    ways = VARIANTS[variant].requires()
    needs = set[Need]().union(*(way for way in ways if closure(way) <= offered(name, noise)))
    met = kinds(name, noise) - (set() if variant in registry() else set(NOISES))
    return {(variant, kind) for kind in met} | {(name, n.name) for n in needs}


CANDIDATES: list[Pair] = [
    pair for pair in itertools.product(VARIANTS, OPERATORS, NOISES) if can(*pair)
]
PAIRS = covering(CANDIDATES, meetings, spread=lambda pair: pair[1])
each_pair = pytest.mark.parametrize(
    ("variant", "name", "noise"), PAIRS, ids=["-".join(p) for p in PAIRS]
)
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def home(solver: Solver, name: str) -> str:
    """name, or the problem of latents, cells, or an isometry, that stands for it where needed."""
    if solver.always_needs(Need.ISOMETRY):
        return "identity"
    if solver.always_needs(Need.CELLS):
        return "jpeg"
    return "latent-pool" if solver.always_needs(Need.AUTOENCODER) else name


def setting(
    variant: str, name: str, noise: str = "", dtype: torch.dtype = torch.float64
) -> tuple[Solver, Problem]:
    """A solver and a problem; without a noise, of one that it takes."""
    solver = VARIANTS[variant]
    return solver, measurement(name, NOISES[noise] if noise else sigma_for(solver, name), dtype)


def run(problem: Problem, prior: Prior, solver: Solver, keys: Any, start: State | None = None):
    """All states, and the samples of the last."""
    found = list(stream(problem, prior, solver, keys, start))
    return found, finish(found[-1], problem, prior, solver, keys)


def copied(state: State) -> State:
    extra = {k: v.clone() for k, v in state.extra.items()}
    return State(state.step, state.x.clone(), state.x0.clone(), extra)


@functools.cache
def kept(variant: str, name: str, noise: str) -> tuple[list[State], list[State], Tensor]:
    """A run made once: its states, copies of them made at once, and its samples."""
    solver, problem = setting(variant, name, noise)
    keys = seeds(MEASUREMENTS)
    found, copies = list[State](), list[State]()
    for state in stream(problem, PRIOR, solver, keys):
        found.append(state)
        copies.append(copied(state))
    return found, copies, finish(found[-1], problem, PRIOR, solver, keys)


def usual(variant: str, name: str, noise: str) -> tuple[list[State], Tensor]:
    """The run that several tests compare with."""
    found, _, samples = kept(variant, name, noise)
    return found, samples


def tensors_of(thing: Any) -> dict[str, Tensor]:
    """Every tensor field of a dataclass, by name, nested ones too."""
    found: dict[str, Tensor] = {}
    for f in dataclasses.fields(thing):
        value = getattr(thing, f.name)
        if isinstance(value, Tensor):
            found[f.name] = value
        elif dataclasses.is_dataclass(value):
            found |= {f"{f.name}.{k}": v for k, v in tensors_of(value).items()}
    return found


def same_state(a: State, b: State) -> bool:
    return (
        a.step == b.step
        and torch.equal(a.x, b.x)
        and torch.equal(a.x0, b.x0)
        and a.extra.keys() == b.extra.keys()
        and all(torch.equal(a.extra[k], b.extra[k]) for k in a.extra)
    )


def test_all_that_can_meet_do():
    """Each solver and each kind of problem that it takes, each operator and each need it serves."""
    met = set[tuple[str, str]]().union(*map(meetings, PAIRS))
    assert sorted(set().union(*map(meetings, CANDIDATES)) - met) == []
    assert len(PAIRS) < len(CANDIDATES) / 5
    for name in registry():
        alone = {Need.CELLS, Need.ISOMETRY} & solver_class(name).needs  # of jpeg, of the identity
        least = 1 if alone else 2
        assert len({operator for variant, operator, _ in PAIRS if variant == name}) >= least, name


# ---- the same inputs, the same run


@each_pair
def test_a_step_is_pure_and_a_run_goes_on_from_any_saved_state(variant, name, noise, tmp_path):
    """Each step, made again from a file of the state before it, gives the state that the whole run
    has after it, bit for bit; hence so does a run that goes on from there. Nothing that was given
    is written to: not the problem, nor the solver, nor an earlier state."""
    solver, problem = setting(variant, name, noise)
    keys, file = seeds(MEASUREMENTS), tmp_path / "state.safetensors"
    before = {k: v.clone() for k, v in tensors_of(problem).items()}
    config = dataclasses.asdict(solver)
    found, copies, samples = kept(variant, name, noise)
    assert same_state(next(stream(problem, PRIOR, solver, keys)), copies[0])
    for state, first in zip(found, copies, strict=True):
        save_file({"x": state.x, "x0": state.x0, **state.extra}, file)
        parts = load_file(file)
        saved = State(state.step, parts.pop("x"), parts.pop("x0"), parts)
        began, *rest = itertools.islice(stream(problem, PRIOR, solver, keys, saved), 2)
        assert began is saved and same_state(saved, first)
        assert len(rest) == (state.step < solver.num_steps)
        assert not rest or same_state(rest[0], copies[state.step + 1])
    assert torch.equal(samples, finish(saved, problem, PRIOR, solver, keys))
    # a later step may not reach back into an earlier state
    assert all(same_state(a, b) for a, b in zip(found, copies, strict=True))
    after = tensors_of(problem)
    assert before.keys() == after.keys() and dataclasses.asdict(solver) == config
    assert all(torch.equal(before[k], after[k]) for k in before)


@each_pair
def test_states_have_the_promised_form(variant, name, noise):
    for dtype in (torch.float32, torch.float64):
        solver, problem = setting(variant, name, noise, dtype)
        if dtype == torch.float64:
            found, samples = usual(variant, name, noise)
        else:
            found, samples = run(problem, PRIOR, solver, seeds(MEASUREMENTS))
        assert [s.step for s in found] == list(range(solver.num_steps + 1))
        assert samples.shape == (MEASUREMENTS, *RGB)
        for state in found:
            for tensor in (state.x, state.x0, *state.extra.values()):
                assert torch.isfinite(tensor).all() and not tensor.requires_grad
            # log weights are in float64 whatever the images are
            log_weights = {"log_w", "evidence", "log_weight"}
            exempt = log_weights if isinstance(solver, ParticleFilter) else set()
            kept_as = {k: t for k, t in state.extra.items() if k not in exempt}
            for tensor in (state.x, state.x0, *kept_as.values()):
                assert tensor.dtype == dtype
            assert state.x.shape[0] == MEASUREMENTS
            assert state.x0.shape == (MEASUREMENTS, *RGB)
        assert samples.dtype == dtype


def alike(a: Tensor, b: Tensor, problem: Problem) -> bool:
    """Bit for bit; where y is complex, to round-off: torch multiplies complex numbers at the end of
    a vector register in another way than within it, so that they depend on the size of the batch.
    """
    return torch.allclose(a, b, rtol=0, atol=1e-9) if problem.y.is_complex() else torch.equal(a, b)


@each_pair
def test_a_sample_is_the_same_alone_in_a_batch_and_in_any_chunks(variant, name, noise):
    """In one chunk; in chunks of three rows and one, across measurements; and of fewer samples."""
    solver, problem = setting(variant, name, noise, torch.float32)
    if problem.y.is_complex():
        solver, problem = setting(variant, name, noise)
    together = solve(problem, PRIOR, solver, samples=2, seed=7)
    assert together.samples.shape == (MEASUREMENTS, 2, *RGB)
    apart = solve(problem, PRIOR, solver, samples=2, seed=7, batch=3)
    fewer = solve(problem, PRIOR, solver, samples=1, seed=7)
    if not solver.coupled:
        assert alike(together.samples, apart.samples, problem)
        assert alike(together.samples[:, :1], fewer.samples, problem)


@each_pair
def test_a_row_does_not_depend_on_its_neighbours(variant, name, noise):
    """One measurement alone, or after another: its states are the same, bit for bit. That the
    first does not depend on the second is in the test of chunks."""
    solver, problem = setting(variant, name, noise)
    if solver.coupled:
        pytest.skip("its samples interact by design")
    row, keys = MEASUREMENTS - 1, seeds(MEASUREMENTS)
    both, _ = usual(variant, name, noise)
    own, _ = run(problem.rows(torch.tensor([row])), PRIOR, solver, keys[row:])
    for a, b in zip(both, own, strict=True):
        assert alike(a.x[row], b.x[0], problem) and alike(a.x0[row], b.x0[0], problem)


@each_variant
def test_seed_0_is_a_seed(variant):
    solver, problem = setting(variant, home(VARIANTS[variant], "pool"))
    zero = solve(problem, PRIOR, solver, seed=0).samples
    assert torch.equal(zero, solve(problem, PRIOR, solver, seed=0).samples)
    if solver.estimates:  # no noise is drawn
        assert torch.equal(zero, solve(problem, PRIOR, solver, seed=1).samples)
        return
    assert not torch.equal(zero, solve(problem, PRIOR, solver, seed=1).samples)
    two = solve(problem, PRIOR, solver, samples=2, seed=0).samples
    if not isinstance(solver, ParticleFilter):  # whose samples may be copies of one
        assert not torch.equal(two[:, 0], two[:, 1])
    starts_with_noise = any(step < 0 for step, _ in noise_names(solver, problem, PRIOR))
    with torch.no_grad():
        starts = [solver.init(problem, PRIOR, Rng.of((k, k)).at(-1)).x for k in (0, 1)]
    assert not (starts_with_noise and torch.equal(*starts))


@each_pair
def test_only_the_plain_sampler_ignores_the_measurement(variant, name, noise):
    solver, problem = setting(variant, name, noise)
    other = Problem(problem.y * 0.8, problem.A, problem.noise, RGB)
    keys = seeds(MEASUREMENTS)
    same = torch.equal(usual(variant, name, noise)[1], run(other, PRIOR, solver, keys)[1])
    assert same == solver.ignores_y


# ---- honest needs


@dataclass(frozen=True, eq=False)
class NoOperator(Operator):
    """Tells the shape of y, and raises on everything else."""

    base: Operator

    def __call__(self, x: Tensor) -> Tensor:
        raise AssertionError("the operator was applied without being asked for")

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        raise AssertionError("vjp was used without OPERATOR_VJP")

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.base.y_shape(x_shape)

    def restrict(self, y: Tensor) -> Tensor:
        return self.base.restrict(y)


class ForwardOnly(NoOperator):
    def __call__(self, x: Tensor) -> Tensor:
        return self.base(x)


class VjpOnly(NoOperator):
    def __call__(self, x: Tensor) -> Tensor:
        return self.base(x)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.base.vjp(x, v)


class GeneralisedInverseOnly(NoOperator, PseudoInvertible):
    base: PseudoInvertible

    def __call__(self, x: Tensor) -> Tensor:
        return self.base(x)

    def pinv(self, y: Tensor) -> Tensor:
        return self.base.pinv(y)

    def pinv_residual(self, y: Tensor, x: Tensor) -> Tensor:
        return self.base.pinv_residual(y, x)


class LinearOnly(VjpOnly, Linear):
    base: Linear

    def adjoint(self, y: Tensor) -> Tensor:
        return self.base.adjoint(y)

    def solve(self, b: Tensor, shift: float) -> Tensor:
        return self.base.solve(b, shift)

    def ridge(self, y: Tensor, shift: float) -> Tensor:
        return self.base.ridge(y, shift)

    def pinv(self, y: Tensor) -> Tensor:
        raise AssertionError("pinv was used without PINV")


class PinvOnly(LinearOnly):
    def pinv(self, y: Tensor) -> Tensor:
        return self.base.pinv(y)


class SvdOnly(PinvOnly, Spectral):
    base: Spectral

    @property
    def s(self) -> Tensor:
        return self.base.s

    def V(self, c: Tensor) -> Tensor:
        return self.base.V(c)

    def Vt(self, x: Tensor) -> Tensor:
        return self.base.Vt(x)

    def seen(self, c: Tensor) -> Tensor:
        return self.base.seen(c)

    def V_seen(self, c: Tensor) -> Tensor:
        return self.base.V_seen(c)

    def Vt_seen(self, x: Tensor) -> Tensor:
        return self.base.Vt_seen(x)

    def U(self, c: Tensor) -> Tensor:
        return self.base.U(c)

    def Ut(self, y: Tensor) -> Tensor:
        return self.base.Ut(y)


class GuessOnly(VjpOnly):
    guesses = True

    def guess(self, y: Tensor, x_shape: tuple[int, ...]) -> Tensor:
        return self.base.guess(y, x_shape)


class NoGradient(Denoiser):
    """The prior without its gradients."""

    differentiable = False

    def x0_vjp(
        self, xt: Tensor, level: Level, once: bool = False
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        raise AssertionError("x0_vjp was used without PRIOR_VJP")


class NamelessNoise(Noise):
    """Noise of an unknown law: Problem.sigma_y raises."""


RUNGS = (
    (Need.SVD, SvdOnly),
    (Need.PINV, PinvOnly),
    (Need.LINEAR, LinearOnly),
    (Need.GENERALISED_INVERSE, GeneralisedInverseOnly),
    (Need.GUESS, GuessOnly),
    (Need.OPERATOR_VJP, VjpOnly),
    (Need.DENSITY, ForwardOnly),
)


def bare(solver: Solver, problem: Problem) -> tuple[Problem, Prior]:
    """The problem and the prior with nothing but what the solver declares.

    Of a solver with several sets of needs, the first one that the problem meets.
    """
    ways = map(closure, solver.requires())
    declared = next((w for w in ways if w <= offers(problem, PRIOR)), closure(solver.requires()[0]))
    rung = next((cls for need, cls in RUNGS if need in declared), NoOperator)
    known = declared & {
        Need.GAUSSIAN,
        Need.NOISELESS,
        Need.NOISY,
        Need.POISSON,
        Need.DENSITY,
    }
    noise = problem.noise if known else NamelessNoise()
    prior = PRIOR if Need.PRIOR_VJP in declared else NoGradient(two_humps)
    A = problem.A if Need.CELLS in declared else rung(problem.A)  # cells are JPEG's own
    if Need.AUTOENCODER in declared:
        outer = LinearOnly if Need.IMAGE_LINEAR in declared else VjpOnly
        parts = Autoencoder(VjpOnly(problem.A.inner), VjpOnly(problem.A.encoder))
        A = decoded(outer(problem.A.outer), parts)
    vars(A)["_complex"] = problem.y.is_complex()  # which a problem asks of an operator, once
    return Problem(problem.y, A, noise, problem.x_shape), prior


@each_pair
def test_needs_are_honest(variant, name, noise):
    """A solver runs, with the same result, on objects that offer only what it declares."""
    solver, problem = setting(variant, name, noise)
    keys = seeds(MEASUREMENTS)
    poor, prior = bare(solver, problem)
    assert not missing(solver, poor, prior)
    assert torch.equal(run(poor, prior, solver, keys)[1], usual(variant, name, noise)[1])


@pytest.mark.parametrize(
    ("variant", "hidden"),
    [
        ("ddrm", Need.SVD),
        ("pigdm-paper", Need.PINV),
        ("diffpir", Need.LINEAR),
        ("dps", Need.OPERATOR_VJP),
        ("dps", Need.PRIOR_VJP),
        ("mmps", Need.PRIOR_VJP),
        ("replacement", Need.PINV),
        ("ddnm", Need.GENERALISED_INVERSE),
        ("ddrm-jpeg", Need.GENERALISED_INVERSE),
        ("ddrm", Need.GAUSSIAN),
    ],
)
def test_the_proxies_catch_a_solver_that_hides_a_need(variant, hidden):
    """Negative twin: with one need undeclared, the same run must fail."""
    solver, problem = setting(variant, home(VARIANTS[variant], "pool"))
    weaker = {Need.SVD: {Need.PINV}, Need.PINV: {Need.LINEAR}, Need.LINEAR: {Need.OPERATOR_VJP}}
    needs = closure(solver.requires()[0]) - {hidden} - {n for n in Need if hidden in closure([n])}
    needs |= weaker.get(hidden, set())
    liar = type("Liar", (type(solver),), {"requires": lambda self: (frozenset(needs),)})
    knobs = {f.name: getattr(solver, f.name) for f in dataclasses.fields(solver)}
    poor, prior = bare(liar(**knobs), problem)
    rng = Rng.of(seeds(MEASUREMENTS))
    with pytest.raises((AssertionError, AttributeError, InvdiffError)), torch.no_grad():
        state = solver.init(poor, prior, rng.at(-1))
        while state.step < solver.num_steps:
            state = solver.step(state, poor, prior, rng.at(state.step))


class Pulled(Denoiser):
    """Notes, for each x0_vjp, whether one pull was promised, and how many there were."""

    def __init__(self) -> None:
        super().__init__(two_humps)
        self.seen: list[list[int]] = []

    def x0_vjp(
        self, xt: Tensor, level: Level, once: bool = False
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        x0, pull = super().x0_vjp(xt, level, once)
        noted = [int(once), 0]
        self.seen.append(noted)

        def counted(v: Tensor) -> Tensor:
            noted[1] += 1
            return pull(v)

        return x0, counted


@pytest.mark.parametrize(
    "variant", [v for v, s in VARIANTS.items() if s.always_needs(Need.PRIOR_VJP)]
)
def test_activations_are_kept_only_for_a_second_pull(variant):
    """once is said where a step pulls once, and where none is said a second pull does follow."""
    solver, problem = setting(variant, home(VARIANTS[variant], "pool"))
    prior = Pulled()
    run(problem, prior, solver, seeds(MEASUREMENTS))
    assert prior.seen
    assert all(pulls <= 1 for once, pulls in prior.seen if once)
    kept = [pulls for once, pulls in prior.seen if not once]
    assert not kept or max(kept) > 1


def test_a_prior_of_others_without_once_is_pulled():
    """An x0_vjp that was written before `once` was."""

    class Older(Denoiser):
        def x0_vjp(self, xt: Tensor, level: Level) -> Any:
            return super().x0_vjp(xt, level)

    solver, problem = setting("dps", "pool")
    found = run(problem, Older(two_humps), solver, seeds(MEASUREMENTS))[1]
    assert torch.equal(found, run(problem, PRIOR, solver, seeds(MEASUREMENTS))[1])


# ---- weight 0 is the plain sampler


SCHEDULES = [VP(6), VP(6, spacing="trailing"), VE(6, 50.0, 0.02)]
WEIGHTLESS = [
    ("replacement", {"lam": 0.0, "corrector_steps": 0}, 1.0),  # its predictor is ancestral
    *[
        (name, {**knobs, "eta_ddim": eta}, eta)
        for eta in (0.0, 0.6, 1.0)
        for name, knobs in (
            ("dps", {"zeta": 0.0, "loss": "l2"}),
            ("dps", {"zeta": 0.0, "loss": "l2sq"}),
            ("dps", {"zeta": 0.0, "loss": "gaussian"}),
            ("dps", {"zeta": 0.0, "loss": "likelihood"}),
            ("pigdm", {"weight": 0.0}),
            ("pigdm", {"weight": 0.0, "guidance": "paper"}),
            ("psld", {"omega": 0.0, "gamma": 0.0}),
        )
    ],
]


@functools.cache
def plain_run(eta: float, schedule: Schedule, name: str) -> tuple[list[State], Tensor]:
    plain = solver_class("unconditional")(eta_ddim=eta, schedule=schedule)
    return run(measurement(name), PRIOR, plain, seeds(MEASUREMENTS))


@pytest.mark.parametrize("operator", ["inpaint", "bicubic", "blur-reflect"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=["leading", "trailing", "ve"])
@pytest.mark.parametrize(("name", "knobs", "eta"), WEIGHTLESS, ids=str)
def test_weight_0_is_the_plain_sampler(name, knobs, eta, schedule, operator):
    """Bit for bit, every state, the start included."""
    solver = solver_class(name)(**knobs, schedule=schedule)
    operator = home(solver, operator)
    ours, samples = run(measurement(operator), PRIOR, solver, seeds(MEASUREMENTS))
    theirs, expected = plain_run(eta, schedule, operator)
    assert torch.equal(samples, expected)
    assert all(same_state(a, b) for a, b in zip(ours, theirs, strict=True))


# ---- costs


@pytest.mark.parametrize(
    ("name", "knobs", "nfe", "vjps"),
    [
        ("unconditional", {}, 1, 0),
        ("replacement", {}, 2, 0),
        ("replacement", {"corrector_steps": 0}, 1, 0),
        ("replacement", {"corrector_steps": 3}, 4, 0),
        ("dps", {}, 1, 1),
        ("pigdm", {}, 1, 1),
        ("pigdm", {"guidance": "paper"}, 1, 1),
        ("mmps", {"iterations": 3, "draw": True}, 1, 4),
        ("ddrm", {}, 1, 0),
        ("ddnm", {}, 1, 0),
        ("ddnm+", {}, 1, 0),
        ("ddrm-jpeg", {}, 1, 0),
        ("diffpir", {}, 1, 0),
        ("diffpir", {"final": "denoised"}, 1, 0),
        ("reddiff", {}, 1, 0),
        ("reddiff", {"init_from": "pinv", "sigma0": 0.1}, 1, 0),
        ("mmps", {"iterations": 1}, 1, 2),
        ("daps", {}, 5, 0),
        ("dds", {}, 1, 0),
        ("daps", {"centre": "tweedie"}, 1, 0),
        ("daps", {"centre": "moments"}, 1, 7),
        ("mmps", {"iterations": 3}, 1, 4),
        ("mmps", {"covariance": "white"}, 1, 0),
        ("tds", {}, 1, 1),
        ("tds", {"twist": "frozen"}, 1, 4),
        ("tmpd", {}, 1, 2),
        ("cbg", {"draws": 3, "inner": 4}, 12, 0),
        ("annealed-langevin", {"start": 0.4, "final": "none"}, 1, 0),
        ("ddsmc", {}, 1, 0),
        ("mcgdiff", {}, 1, 0),
        ("psld", {}, 1, 1),
        ("latino", {}, 1, 0),
        ("resample", {}, 1, 0),
        ("resample", {"zeta": 0.5}, 1, 1),
    ],
    ids=str,
)
def test_costs_are_as_published(name, knobs, nfe, vjps):
    """Evaluations of the prior and vector-Jacobian products, per step and image."""
    solver = solver_class(name)(**knobs, schedule=VP(5))
    sigma = 0.0 if solver.always_needs(Need.NOISELESS) else 0.1
    for batch in (None, 1):
        problem = measurement(home(solver, "bicubic"), sigma)
        result = solve(problem, PRIOR, solver, samples=2, batch=batch)
        assert (result.nfe, result.vjps) == (5 * nfe, 5 * vjps)


def test_mmps_stops_once_its_system_is_solved():
    """With V and A multiples of the identity, the first iteration solves it, up to round-off."""
    linear = Denoiser(lambda x, sigma: x / (1 + sigma**2))
    solver = solver_class("mmps")(iterations=30, schedule=VP(5))
    result = solve(measurement("identity"), linear, solver)
    assert result.vjps <= 5 * (2 + 2)


# ---- incompatible


def refuse(x: Tensor, sigma: float) -> Tensor:
    raise AssertionError("the prior was called before the check")


REFUSING = (Denoiser(refuse), NoGradient(refuse))


def refusal(name: str, problem: Problem, differentiable: bool = True) -> str:
    prior = (Denoiser if differentiable else NoGradient)(refuse)
    with pytest.raises(IncompatibleError) as caught:
        solve(problem, prior, solver_class(name)().with_steps(STEPS))
    return str(caught.value)


def able(sentence: str) -> set[str]:
    """The solvers that a refusal recommends; none when it recommends nothing."""
    assert sentence.endswith(".")
    _, _, names = sentence.rstrip(".").partition(" These can: ")
    return set(names.split(", ")) if names else set()


def test_ddnm_refuses_noise():
    sentence = refusal("ddnm", measurement("pool"))
    assert sentence.startswith("ddnm cannot solve AveragePool: it needs a measurement without")
    assert "GaussianNoise(sigma=0.1)" in sentence
    assert {"ddnm+", "ddrm", "diffpir", "dps"} <= able(sentence)
    assert not {"ddnm", "unconditional"} & able(sentence)


def test_ddrm_refuses_an_operator_without_decomposition():
    sentence = refusal("ddrm", measurement("blur-reflect"))
    assert "it needs a singular value decomposition and Blur offers none" in sentence
    assert {"diffpir", "dps", "mmps", "pigdm"} <= able(sentence)
    assert not {"ddrm", "ddnm+", "ddnm"} & able(sentence)


def test_dps_refuses_a_prior_without_gradients():
    sentence = refusal("dps", measurement("pool"), differentiable=False)
    assert "it needs gradients through the prior and this prior offers none" in sentence
    assert {"ddrm", "diffpir", "replacement"} <= able(sentence)
    assert not {"dps", "mmps", "pigdm"} & able(sentence)


def test_the_likelihood_loss_of_dps_refuses_a_noiseless_measurement():
    solver = solver_class("dps")(loss="gaussian", schedule=VP(STEPS))
    with pytest.raises(IncompatibleError, match="a noise level above 0"):
        solve(measurement("pool", 0.0), Denoiser(refuse), solver)
    assert not solver_class("dps")().always_needs(Need.NOISY)


def test_whatever_is_missing_is_said_before_the_prior_is_called():
    """Every solver on every problem that it cannot solve; the list is of what was not said."""
    solvers = {name: cls().with_steps(STEPS) for name, cls in registry().items()}
    unsaid, refused = [], 0
    for operator, sigma, prior in itertools.product(OPERATORS, (0.0, 0.1), REFUSING):
        problem = measurement(operator, sigma)
        lacks = {name: missing(solver, problem, prior) for name, solver in solvers.items()}
        able_ones = {n for n, lack in lacks.items() if not lack and not solvers[n].ignores_y}
        for name in (name for name, lack in lacks.items() if lack):
            refused += 1
            with pytest.raises(IncompatibleError) as caught:
                solve(problem, prior, solvers[name])
            said = str(caught.value)
            if not (name in said and type(problem.A).__name__ in said and able(said) == able_ones):
                unsaid.append((name, operator, sigma, said))
    assert unsaid == [] and refused > 500


@pytest.mark.parametrize("name", ["ddrm", "ddnm+", "diffpir", "dps", "pigdm", "mmps"])
@pytest.mark.parametrize("operator", ["identity", "inpaint", "pool", "blur-circular", "grey"])
def test_a_noiseless_measurement_is_no_division_by_zero(name, operator):
    """Those that are not only for noiseless data solve these too, and stay finite and sane."""
    solver = solver_class(name)(schedule=VP(8))
    problem = measurement(operator, 0.0)
    assert problem.noise == NOISELESS
    samples = solve(problem, PRIOR, solver, samples=2).samples
    assert torch.isfinite(samples).all() and samples.abs().max() < 50


# ---- diverging (see test_divergence.py for absurd knobs)


@each_variant
def test_a_prior_that_fails_is_noticed_at_once(variant):
    """A NaN from the network at the third step is reported there, and the prior is named."""
    solver, problem = setting(variant, home(VARIANTS[variant], "pool"))
    solver = dataclasses.replace(solver, schedule=VP(6)).with_steps(6)
    calls, before = [0], []  # evaluations so far, and when each state was there

    def counts(x: Tensor, sigma: float) -> Tensor:
        calls[0] += 1
        return two_humps(x, sigma)

    for _ in stream(problem, Denoiser(counts), solver, seeds(MEASUREMENTS)):
        before.append(calls[0])
    calls[0] = 0

    def fails(x: Tensor, sigma: float) -> Tensor:
        return counts(x, sigma) * (float("nan") if calls[0] > before[2] else 1.0)

    with pytest.raises(InvdiffError, match="The prior denoiser returned values that are NaN"):
        solve(problem, Denoiser(fails), solver)
    assert calls[0] == before[2] + 1


# ---- frames, schedules


FRAMELESS = {
    "unconditional": {},
    "ddrm": {},
    "ddnm": {},
    "ddnm+": {},
    "ddrm-jpeg": {"eta_prop": 0.7},
    "diffpir": {},
    "pigdm": {},
    "mmps": {},
    "replacement": {"corrector_steps": 0},
    "ilvr": {},
    "snips": {"K": 1},
    "ccdf": {"start": 1.0},
    "vdm": {"delta": 0.1},
    "daps": {},
    "dds": {},
    "tds": {},
    "tmpd": {},
    "cbg": {"draws": 3},
    "ddsmc": {},
    "mcgdiff": {},
}


@pytest.mark.parametrize("schedule", [VP(8), SubVP(8)], ids=["vp", "sub-vp"])
@pytest.mark.parametrize("operator", ["inpaint", "bicubic", "blur-circular", "grey"])
@pytest.mark.parametrize("name", FRAMELESS)
def test_preserving_and_exploding_runs_agree(name, operator, schedule):
    """u = x / a: the same levels s / a and the same noise give the same run, to round-off. On the
    sub-VP schedule, a^2 + s^2 is not 1.

    DPS is absent: its step zeta is in the frame's units. So is the corrector of replacement: the
    paper's step size differs by 1 - beta between the frames. The state of RED-diff is an image.
    """
    solver = solver_class(name)(**FRAMELESS[name], schedule=schedule)
    other = dataclasses.replace(solver, schedule=exploding(schedule))
    problem = measurement(operator, sigma_for(solver))
    ours, _ = run(problem, PRIOR, solver, seeds(MEASUREMENTS))
    theirs, _ = run(problem, PRIOR, other, seeds(MEASUREMENTS))
    for state, twin, level in zip(ours, theirs, solver.levels, strict=True):
        torch.testing.assert_close(twin.x, state.x / level.a, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(twin.x0, state.x0, rtol=1e-9, atol=1e-9)


def test_dps_does_depend_on_the_frame():
    """Negative twin of the test above."""
    solver = solver_class("dps")(schedule=VP(8))
    other = dataclasses.replace(solver, schedule=exploding(VP(8)))
    problem = measurement("bicubic")
    a, b = (run(problem, PRIOR, s, seeds(MEASUREMENTS))[1] for s in (solver, other))
    assert (a - b).abs().max() > 1e-2


@each_variant
def test_with_steps_changes_the_number_of_steps_alone(variant):
    solver = VARIANTS[variant]
    more = solver.with_steps(11)
    assert more.num_steps == 11 and solver.num_steps == STEPS
    assert dataclasses.replace(more, schedule=solver.schedule) == solver


def test_a_counted_prior_is_the_prior():
    solver, problem = setting("dps", "pool")
    counted = Counted(PRIOR)
    a = run(problem, counted, solver, seeds(MEASUREMENTS))[1]
    assert torch.equal(a, run(problem, PRIOR, solver, seeds(MEASUREMENTS))[1])
    assert (counted.nfe, counted.vjps) == (STEPS, STEPS)
