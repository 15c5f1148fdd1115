"""Whatever a public noun is given: it works, or one sentence says what was asked and found."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import invdiff
from invdiff import DDRM, DPS, HQS, GaussianPrior, solvers
from invdiff.core import InvdiffError, Level, undisturbed
from invdiff.core.arguments import _hints
from invdiff.core.rng import Rng
from invdiff.core.schedules import MOST_STEPS, VE, VP, VPSDE, Flow, Karras, Schedule, Stairs, SubVP
from invdiff.noise import GaussianNoise, StudentT
from invdiff.operators import Fourier, Identity
from invdiff.priors.adapters import from_k_diffusion
from invdiff.priors.base import Denoiser, Prior
from invdiff.problem import Problem
from invdiff.sampling.run import estimate, solve
from invdiff.sampling.solver import Solver
from invdiff.sampling.stream import stream

SHAPE = (1, 4, 4)
Y = torch.linspace(-1, 1, 16).reshape(1, *SHAPE)
PROBLEM = Problem(Y, Identity(), GaussianNoise(0.2), SHAPE)
PRIOR = GaussianPrior(torch.zeros(SHAPE), 0.25)
PATH = Karras(3, 1.0, 0.1)
DRAW = DDRM(schedule=PATH)
SOLVERS = solvers.registry()
PATHS = (VP, VPSDE, SubVP, VE, Stairs, Karras, Flow)


def sentence(make: Callable[[], Any], *words: str) -> str:
    """The one sentence that make raises."""
    with pytest.raises(InvdiffError) as found:
        make()
    text = str(found.value)
    assert "\n" not in text and text.endswith((".", "?")), text
    for word in words:
        assert word in text, (word, text)
    return text


def knobs(kind: Any) -> Iterator[tuple[str, str]]:
    """(solver, knob) of every knob of a kind: int, or Literal."""
    for name, cls in SOLVERS.items():
        for knob, hint in typing.get_type_hints(cls).items():
            inside = [h for h in (hint, *typing.get_args(hint)) if typing.get_origin(h) is kind]
            field = {f.name for f in dataclasses.fields(cls) if f.init}
            if knob in field and (hint is kind or inside):
                yield name, knob


@pytest.mark.parametrize(("name", "knob"), list(knobs(typing.Literal)))
@pytest.mark.parametrize("wrong", ["Exact", "", None, 0, ["exact"]])
def test_every_choice_refuses_a_wrong_word(name: str, knob: str, wrong: Any) -> None:
    sentence(lambda: SOLVERS[name](**{knob: wrong}), knob, "must be")


@pytest.mark.parametrize(("name", "knob"), list(knobs(int)))
@pytest.mark.parametrize("wrong", [2.5, "2", None, True, math.nan, 10**30])
def test_every_whole_number_is_whole(name: str, knob: str, wrong: Any) -> None:
    told = sentence(lambda: SOLVERS[name](**{knob: wrong}), knob)
    assert "whole number" in told or "from 1 to" in told or "at least" in told


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_admits_its_fields(name: str) -> None:
    """Its annotations can be read, its schedule is one, and what it has already is admitted."""
    cls = SOLVERS[name]
    assert {f.name for f in dataclasses.fields(cls)} <= set(_hints(cls))
    for wrong in ("VP", 3, VP):
        sentence(lambda wrong=wrong: cls(schedule=wrong), "schedule must be a Schedule")
    made = cls()
    same = {f.name: getattr(made, f.name) for f in dataclasses.fields(cls) if f.init}
    assert cls(**same) == made
    for field in dataclasses.fields(cls):
        if field.init and isinstance(getattr(made, field.name), float):
            sentence(lambda name=field.name: cls(**{name: "1"}), field.name, "a number")
            sentence(lambda name=field.name: cls(**{name: math.nan}), field.name, "nan")


def test_there_are_knobs_of_each_kind() -> None:
    """The loops above see something."""
    assert len(list(knobs(typing.Literal))) > 30 and len(list(knobs(int))) > 15


def test_a_solver_of_the_users_own_is_admitted_too() -> None:
    @dataclasses.dataclass(frozen=True)
    class Own(DDRM):
        name: typing.ClassVar[str] = "own"
        count: int = 3

        def __post_init__(self) -> None:
            super().__post_init__()
            assert isinstance(self.count, int)

    assert Own(count=np.int64(4)).count == 4
    sentence(lambda: Own(count=2.5), "Own: count", "whole number", "2.5")


@pytest.mark.parametrize("cls", PATHS)
def test_steps_are_a_whole_number_that_memory_holds(cls: type[Schedule]) -> None:
    assert len(cls(4).levels()) == 5
    for wrong in (2.5, "4", None, 0, -1, True):
        sentence(lambda wrong=wrong: cls(wrong))
    sentence(lambda: cls(MOST_STEPS + 1), "would take", "MB of memory")
    sentence(lambda: cls(10**18), "EB of memory")


WRONG_PATHS: list[Callable[[], Schedule]] = [
    lambda: Karras(4, -1.0, 0.02),
    lambda: Karras(4, 0.02, 1.0),
    lambda: Karras(4, 1.0, -0.02),
    lambda: Karras(4, 1.0, 0.0),
    lambda: Karras(4, math.inf, 0.02),
    lambda: Karras(4, 1.0, 0.02, rho=0.0),
    lambda: VE(4, 0.01, 100.0),
    lambda: VE(4, 1.0, -1.0),
    lambda: VE(4, math.nan),
    lambda: Stairs(4, 0.01, 1.0),
    lambda: Stairs(4, hold=0),
    lambda: VP(4, beta_min=0.02, beta_max=1e-4),
    lambda: VP(4, beta_max=1.5),
    lambda: VP(4, "quadratic"),  # type: ignore[arg-type]
    lambda: VP(4, train_steps=10**9),
    lambda: VP(4, top=1001),
    lambda: VPSDE(4, 20.0, 0.1),
    lambda: SubVP(4, eps=2.0),
    lambda: Flow(4, 1.0),
    lambda: Flow(4, -0.5),
]


@pytest.mark.parametrize("make", WRONG_PATHS)
def test_levels_of_a_path_fall_from_noise_to_image(make: Callable[[], Schedule]) -> None:
    sentence(make)


def test_good_paths_are_as_before() -> None:
    """The negative twin: equal levels are one level that is held, and one step needs no second."""
    assert [level.s for level in VE(1, 0.1, 0.1).levels()] == [0.1, 0.0]
    path = Karras(np.int64(2), np.float32(2.0), torch.tensor(0.5))
    assert path.levels()[0].sigma == pytest.approx(2)


def test_a_level_is_positive() -> None:
    assert Level(1, 0) == Level(1.0, 0.0) and type(Level(1, 0).a) is float
    for a, s in ((0.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (math.nan, 1.0), (1.0, math.inf), ("1", 0)):
        sentence(lambda a=a, s=s: Level(a, s))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [None, "0.1", [0.1], math.nan, math.inf, -1.0])
def test_noise_is_a_number(wrong: Any) -> None:
    sentence(lambda: GaussianNoise(wrong))
    sentence(lambda: StudentT(wrong))
    assert GaussianNoise(np.float32(0.5)).sigma == 0.5


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"y": None}, "array of numbers"),
        ({"y": "y"}, "array of numbers"),
        ({"y": Y.byte()}, "uint8"),
        ({"y": Y.long()}, "int64"),
        ({"y": Y > 0}, "bool"),
        ({"y": Y.half()}, "float16"),
        ({"y": Y + 0j}, "give y.real"),
        ({"y": Y[:0]}, "at least 1 measurement"),
        ({"y": torch.tensor(1.0)}, "at least 1 measurement"),
        ({"y": Y * math.nan}, "16 values that are NaN"),
        ({"y": Y[:, :, :2]}, "(1, 2, 4)"),
        ({"A": lambda x: x}, "Operator.from_function"),
        ({"A": Identity}, "not the class"),
        ({"A": None}, "Operator"),
        ({"noise": 0.1}, "GaussianNoise"),
        ({"noise": None}, "Noise"),
        ({"x_shape": 4}, "x_shape"),
        ({"x_shape": (1.0, 4, 4)}, "x_shape[0]"),
        ({"x_shape": "144"}, "x_shape"),
    ],
)
def test_a_problem_is_made_of_its_parts(given: dict[str, Any], word: str) -> None:
    parts = {"y": Y, "A": Identity(), "noise": GaussianNoise(0.2), "x_shape": SHAPE}
    sentence(lambda: Problem(**(parts | given)), word)


def test_arrays_and_lists_are_measurements_too() -> None:
    for y in (Y.numpy(), Y.tolist()):
        assert torch.equal(Problem(y, Identity(), GaussianNoise(0.2), SHAPE).y.float(), Y)
    mask = torch.ones(1, 1, 4, 4)
    complex_y = torch.ones(1, 1, 4, 4, dtype=torch.complex64)
    assert Problem(complex_y, Fourier(mask), GaussianNoise(0.2), (2, 4, 4)).y.is_complex()


RUNS: dict[str, Callable[..., Any]] = {
    "solve": lambda p=PROBLEM, prior=PRIOR, s=DRAW, **more: solve(p, prior, s, **more),
    "stream": lambda p=PROBLEM, prior=PRIOR, s=DRAW, **more: stream(
        p, prior, s, **({"seeds": [0]} | more)
    ),
    "estimate": lambda p=PROBLEM, prior=PRIOR, s=DRAW, **more: estimate(p, prior, s, **more),
}


@pytest.mark.parametrize("door", RUNS)
@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"p": Y}, "problem must be a Problem"),
        ({"p": None}, "problem must be a Problem"),
        ({"prior": "photo"}, "load_prior"),
        ({"prior": torch.nn.Identity()}, "prior must be a Prior"),
        ({"prior": GaussianPrior}, "not the class"),
        ({"s": DDRM}, "not the class; write DDRM(...)"),
        ({"s": "ddrm"}, "solver must be a Solver"),
        ({"portable": "yes"}, "True or False"),
    ],
)
def test_a_run_is_made_of_its_parts(door: str, given: dict[str, Any], word: str) -> None:
    if door == "estimate":
        word = word.replace("solver must", "estimator must")
    sentence(lambda: RUNS[door](**given), word)


@pytest.mark.parametrize("wrong", ["2", 1.5, None, True, 0, -1, 10**12])
def test_samples_are_a_number_that_memory_holds(wrong: Any) -> None:
    sentence(lambda: solve(PROBLEM, PRIOR, DRAW, samples=wrong), "ample")


@pytest.mark.parametrize("wrong", [None, "a", 1.5, [1, 2], True])
def test_seeds_are_whole_numbers(wrong: Any) -> None:
    sentence(lambda: solve(PROBLEM, PRIOR, DRAW, seed=wrong), "seed must be a whole number")
    for make in (Rng.of, Rng):
        if not isinstance(wrong, list):
            sentence(lambda make=make: make(wrong), "eeds")
    sentence(lambda: stream(PROBLEM, PRIOR, DRAW, [wrong]), "seeds[0]")
    sentence(lambda: Rng((0,), step=wrong), "step")


def test_seeds_of_numpy_are_the_same_seeds() -> None:
    like = torch.zeros(2, 3)
    want = Rng.of([3, 4]).normal(like, "a")
    for seeds in (np.array([3, 4]), torch.tensor([3, 4]), (np.int64(3), np.uint8(4))):
        assert torch.equal(Rng.of(seeds).normal(like, "a"), want)


ANSWERS: dict[str, tuple[Callable[[Tensor, float], Any], str]] = {
    "channels": (lambda x, s: x[:, :0], "the shape (2, 0, 4, 4)"),
    "one row": (lambda x, s: x.mean(0, keepdim=True), "the shape (1, 1, 4, 4)"),
    "no batch": (lambda x, s: x[0], "the shape (1, 4, 4)"),
    "scalar": (lambda x, s: x.mean(), "the shape ()"),
    "none": (lambda x, s: None, "None"),
    "tuple": (lambda x, s: (x,), "a tuple"),
    "dict": (lambda x, s: {"sample": x}, "a dict"),
    "numpy": (lambda x, s: x.numpy(), "a ndarray"),
    "whole": (lambda x, s: x.long(), "int64"),
    "double": (lambda x, s: x.double(), "float64"),
    "complex": (lambda x, s: x + 0j, "complex64"),
    "elsewhere": (lambda x, s: x.to("meta"), "a tensor on meta"),
    "nan": (lambda x, s: x * math.nan, "values that are NaN"),
    "infinite": (lambda x, s: x / 0, "values that are NaN or infinite"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_a_denoiser_returns_an_image_like_its_own(case: str) -> None:
    f, word = ANSWERS[case]

    class Own(Prior):
        name = "own"

        def denoise(self, x: Tensor, sigma: float) -> Tensor:
            return f(x, sigma)

    for prior in (Denoiser(f, name="own"), Own()):
        for run in (
            lambda prior=prior: solve(PROBLEM, prior, DRAW, samples=2),
            lambda prior=prior: list(
                stream(PROBLEM.rows(torch.tensor([0, 0])), prior, DRAW, [0, 1])
            ),
        ):
            sentence(run, f"The prior own returned {word}")


@pytest.mark.parametrize(
    "f", [lambda x, s: 0.5 * x.detach(), lambda x, s: torch.zeros_like(x)], ids=["cut", "constant"]
)
def test_solvers_with_gradients_need_a_graph(f: Any) -> None:
    solve(PROBLEM, Denoiser(f), DRAW)
    sentence(
        lambda: solve(PROBLEM, Denoiser(f), DPS(schedule=PATH)), "without a gradient", "detach"
    )


@pytest.mark.parametrize("solver", [DRAW, DPS(schedule=PATH), HQS(schedule=PATH)])
def test_what_a_denoiser_is_given_may_be_written_to(solver: Solver) -> None:
    """The same bits as from a denoiser that writes nothing, in a run and in every frame."""

    class Writes(Prior):
        def denoise(self, x: Tensor, sigma: float) -> Tensor:
            return x.mul_(0.5)

    want = solve(PROBLEM, Denoiser(lambda x, s: 0.5 * x), solver, 2).samples
    for prior in (Denoiser(lambda x, s: x.mul_(0.5)), Writes()):
        assert torch.equal(solve(PROBLEM, prior, solver, 2).samples, want)


@pytest.mark.parametrize(
    "given",
    [
        {"denoiser": "x"},
        {"shape": "abc"},
        {"value_range": (1, -1)},
        {"value_range": 3},
        {"name": 1},
    ],
)
def test_a_denoiser_is_told_what_it_is(given: dict[str, Any]) -> None:
    sentence(lambda: Denoiser(**({"denoiser": lambda x, s: x} | given)), *given)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_networks_of_another_precision_are_called_in_theirs(dtype: torch.dtype) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(0.5, dtype=dtype))

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            assert x.dtype == sigma.dtype == dtype
            return self.weight * x

    found = solve(PROBLEM, from_k_diffusion(Net()), DRAW).samples
    want = solve(PROBLEM, Denoiser(lambda x, s: (0.5 * x.to(dtype)).float()), DRAW).samples
    assert found.dtype == torch.float32 and torch.equal(found, want)


@pytest.mark.parametrize(
    "given",
    [
        {"solver": DDRM},
        {"solver": 5},
        {"prior": 5},
        {"prior": lambda x, s: x},
        {"watch": 5},
        {"prior_options": 5},
        {"samples": "x"},
        {"samples": 1.5},
        {"samples": 10**9},
        {"seed": None},
        {"seed": 1.5},
        {"batch": "a"},
        {"steps": 2.5},
        {"want": "all"},
        {"device": "tpu"},
        {"precision": "bf16"},
        {"progress": "maybe"},
    ],
)
def test_restore_says_what_is_wrong(given: dict[str, Any]) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    more: dict[str, Any] = {"noise": "0.1", "progress": False} | given
    sentence(lambda: invdiff.restore("denoise", picture, **more))


@pytest.mark.parametrize("solver", [DRAW, DPS(schedule=PATH)])
def test_the_callers_modes_do_not_matter(solver: Solver) -> None:
    """inference_mode, autocast, no_grad and another default dtype: the same bits."""
    net = torch.nn.Conv2d(1, 1, 3, padding=1)
    prior = Denoiser(lambda x, s: net(x))
    want = solve(PROBLEM, prior, solver, 2).samples
    with torch.inference_mode():
        inside = Problem(Y.clone(), Identity(), GaussianNoise(0.2), SHAPE)
        assert torch.equal(solve(inside, prior, solver, 2).samples, want)
        assert prior.x0_vjp(Y.clone(), Level(1.0, 0.5))[1](Y).shape == Y.shape
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(solve(PROBLEM, prior, solver, 2).samples, want)
    with torch.no_grad():
        assert torch.equal(solve(PROBLEM, prior, solver, 2).samples, want)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(solve(PROBLEM, prior, solver, 2).samples, want)
    finally:
        torch.set_default_dtype(before)


def test_the_modes_come_back() -> None:
    """The negative twin: a run leaves them as they were, and they do something by themselves."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        solve(PROBLEM, PRIOR, DRAW)
        assert torch.is_inference_mode_enabled() and torch.is_autocast_enabled("cpu")
        assert (Y[0, 0] @ Y[0, 0]).dtype == torch.bfloat16
        with undisturbed(torch.device("cpu")):
            assert (Y[0, 0] @ Y[0, 0]).dtype == torch.float32
