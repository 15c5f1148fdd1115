"""Writes docs/solvers.md, operators.md and priors.md from the code, so that none can go stale.

    python benchmarks/make_docs.py           rewrites all
    python benchmarks/make_docs.py --check   exits 1 when one of them differs, and says which

Costs and gaps are measured: solvers run two steps on an 8 x 8 problem with a Gaussian prior,
operators are tested on images of 3 x 32 x 32. Gaps are printed as bounds with room to spare, so
that round-off of another machine does not change the text.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import inspect
import io
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

import invdiff.operators as ops
from invdiff.audit import learned
from invdiff.audit import records as audited
from invdiff.audit.coverage import interval_expected
from invdiff.audit.distance import UNCHANGED
from invdiff.cli import COMMANDS
from invdiff.commands import batch, degrade, restore, tables
from invdiff.core import schedules
from invdiff.core.cache import CACHE
from invdiff.core.rng import Rng
from invdiff.noise import NOISELESS, GaussianNoise, Noise, Poisson
from invdiff.operators import Linear, Operator, PseudoInvertible, Spectral
from invdiff.operators.algebra.decoded import decoded
from invdiff.operators.kernel_network import expected
from invdiff.priors.base import Denoiser, Prior
from invdiff.priors.formats import FORMATS
from invdiff.priors.gaussian import GaussianPrior
from invdiff.priors.load import BUILT_IN, SOURCES
from invdiff.priors.published.base import Options as PriorOptions
from invdiff.problem import Problem
from invdiff.sampling.needs import Need, offers, why_not
from invdiff.sampling.run import solve
from invdiff.solvers import SYSTEMS, Solver, registry
from invdiff.tasks import TASKS
from invdiff.tasks.table import example
from invdiff.tasks.table import table as task_table

DOCS = Path(__file__).resolve().parents[1] / "docs"
SIZE = (32, 32)
RGB = (3, *SIZE)
VECTOR = (8,)
SHAPES: dict[type[Operator], tuple[int, ...]] = {
    ops.Frames: (3, 4, *SIZE),
    ops.TemporalPool: (3, 4, *SIZE),
    ops.Fourier: (2, *SIZE),
    ops.Sense: (2, *SIZE),
    ops.ClosureAmplitudes: (3, 60),
    ops.ClosurePhases: (3, 60),
    ops.KernelNetworkBlur: (3, 128, 128),
    ops.NonCartesian: (2, *SIZE),
    ops.Matrix: VECTOR,
    ops.MatrixProduct: VECTOR,
    ops.SparseMatrix: VECTOR,
    ops.FromFunctions: (3, 4),
}
"""Shape of one image for operators that do not take RGB."""
FLOOR = {torch.float32: 1e-6, torch.float64: 1e-14}
"""The smallest bound that is printed for a gap: some ten times the round-off of the dtype."""


# ------------------------------------------------------------------------------------- small pieces


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [list(head)] + [list(row) for row in rows]
    lines.insert(1, ["---"] * len(lines[0]))
    return ["| " + " | ".join(line) + " |" for line in lines]


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, within a table."""
    for sign in "|*<>":
        text = text.replace(sign, f"\\{sign}")
    return text


def summary(thing: Any) -> str:
    """The first sentence of a docstring, escaped."""
    paragraph = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return escaped(re.split(r"(?<! al)(?<! eq)\.\s", paragraph)[0].rstrip(".") + ".")


def call(value: Any, first: str = "") -> str:
    """A frozen dataclass as it is written in Python, with the fields that are not the default."""
    told = [] if not first else [str(getattr(value, first))]
    for f in dataclasses.fields(value):
        if f.name != first and getattr(value, f.name) != f.default:
            told.append(f"{f.name}={getattr(value, f.name)!r}")
    return f"`{type(value).__name__}({', '.join(told)})`"


def signature(cls: type) -> str:
    """How a dataclass is called, with its defaults to four decimals."""
    told = []
    for f in dataclasses.fields(cls):
        default = re.sub(r"(\.\d{4})\d+", r"\1", repr(f.default))
        told.append(f.name if f.default is dataclasses.MISSING else f"{f.name}={default}")
    return f"`{cls.__name__}({', '.join(told)})`"


SHORT = {
    Need.PRIOR_VJP: "J",
    Need.OPERATOR_VJP: "Aᵀ'",
    Need.LINEAR: "lin",
    Need.GENERALISED_INVERSE: "A⁺",
    Need.PINV: "A⁺",
    Need.SVD: "SVD",
    Need.ISOMETRY: "AᵀA",
    Need.GAUSSIAN: "N",
    Need.NOISELESS: "σ=0",
    Need.NOISY: "σ>0",
    Need.POISSON: "P",
    Need.DENSITY: "p(y|x)",
    Need.AUTOENCODER: "latent",
    Need.IMAGE_LINEAR: "lin",
    Need.GUESS: "x(y)",
    Need.LEARNED_VARIANCE: "var",
    Need.CELLS: "cells",
    Need.PIECES: "pieces",
}
"""What a solver lacks, in a cell of a table."""

LEGEND = (
    "What is missing where a cell is not `yes`: `J` gradients through the prior, `Aᵀ'` gradients "
    "through the operator, `lin` a linear operator, `A⁺` an inverse, `SVD` a singular value "
    "decomposition, `AᵀA` that it be a multiple of the identity, `N` Gaussian noise, `P` Poisson "
    "noise, `p(y|x)` noise with a density, `σ=0` a measurement without noise, `σ>0` one with "
    "noise, `latent` a prior of latents, `cells` the cells of a JPEG file. `invdiff "
    "solvers --task NAME` gives the sentence."
)


def because(sentence: str) -> str:
    """A cell of a table of solvers: what is missing, of the shortest of several ways."""
    if not sentence:
        return "yes"
    way = sentence.split(": ", 1)[1].split("; or ")[0]
    codes = [SHORT[need] for need in Need if f"needs {need.value} and" in way]
    assert codes, sentence
    return ", ".join(dict.fromkeys(codes))


# ------------------------------------------------------------------------------------------ solvers


def cost(solver: Solver) -> str:
    """Evaluations of the prior and vector-Jacobian products of one step, measured over two."""
    noise = NOISELESS if solver.always_needs(Need.NOISELESS) else GaussianNoise(0.1)
    shape, like = (1, 8, 8), torch.zeros(64, dtype=torch.float64)
    variances = torch.linspace(0.1, 1.0, 64, dtype=like.dtype)
    prior = GaussianPrior(like.reshape(shape), variances.reshape(shape))
    A = ops.JPEG(50) if solver.always_needs(Need.CELLS) else ops.Bicubic(2, shape[1:])
    if solver.always_needs(Need.ISOMETRY):
        A = ops.Identity()
    y = A(prior.sample(1, Rng.of(0)))
    if solver.always_needs(Need.AUTOENCODER):
        A = decoded(A, UNCHANGED)
    result = solve(Problem(y, A, noise, shape), prior, solver.with_steps(2))
    return f"{result.nfe / 2:g} + {result.vjps / 2:g}"


def distance(name: str) -> str:
    """Mean distance to the exact posterior of the mixture, as the full audit found it."""
    found = audited.distance(name)
    if found is None:
        return "not in all sizes" if audited.record().get(name) else "cannot"
    return "{:.2f} ± {:.2f}".format(*found)


def held(name: str) -> str:
    """Coverage of 90 % intervals on a learned prior, case by case."""
    found = audited.covered(name)
    return ", ".join(f"{found[case][0]:.2f}" if case in found else "-" for case in learned.CASES)


def needed(solver: Solver) -> str:
    """What a solver declares, in words."""
    ways = [", ".join(n.value for n in Need if n in needs) for needs in solver.requires()]
    return "; or ".join(ways) or "nothing"


def can(solver: Solver, task: str, cell: str) -> str:
    """A cell of the table of tasks: "" or the reason, with what else must be known."""
    if not cell and solver.ignores_y:
        return "ignores y"
    if not cell and why_not(solver, example(task, sigma=0.05)):
        return "yes, σ=0"
    return because(cell)


@dataclasses.dataclass(frozen=True, eq=False)
class Saturated(Operator):
    """y = tanh(x): a sensor that is not linear."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


class Opaque(Denoiser):
    """A prior through which no gradient passes."""

    differentiable = False


def situations() -> Mapping[str, tuple[Operator, tuple[Noise, ...], Prior | None]]:
    """What decides beyond the task: operator, kinds of noise (one must do) and prior."""
    kernel = ops.motion_kernel(5, 30)
    either = (GaussianNoise(0.05), NOISELESS)
    pool = ops.AveragePool(4, (16, 16))
    return {
        "Gaussian noise": (pool, (GaussianNoise(0.05),), None),
        "no noise": (pool, (NOISELESS,), None),
        "Poisson noise": (pool, (Poisson(100.0),), None),
        "kernel of rank above 1, boundary reflect or zero": (
            ops.blur(kernel, (16, 16), "reflect"),
            either,
            None,
        ),
        "nonlinear operator": (Saturated(), either, None),
        "prior without gradients": (pool, either, Opaque(lambda x, sigma: x)),
    }


def verdict(
    solver: Solver, A: Operator, noises: tuple[Noise, ...], prior: Prior | None = None
) -> str:
    """A cell of the table of situations."""
    shape = (3, 16, 16)
    y = torch.zeros(1, *A.y_shape(shape))
    found = [why_not(solver, Problem(y, A, noise, shape), prior) for noise in noises]
    return because(min(found, key=len))


def knobs(solver: Solver) -> list[list[str]]:
    """Rows of the table of knobs: name, default, range and help of every field but the schedule."""
    hints = get_type_hints(type(solver))
    rows = []
    for f in dataclasses.fields(solver):
        if f.name == "schedule":
            continue
        low, high = f.metadata["min"], f.metadata["max"]
        span = "" if low is None else f"{low:g} to {high:g}" if high is not None else f"{low:g} up"
        if get_origin(hints[f.name]) is Literal:
            span = ", ".join(f"`{choice}`" for choice in get_args(hints[f.name]))
        default = f.default.name if hints[f.name] is Solver else f.default
        rows.append(
            [f"`{solver.name}`", f"`{f.name}`", f"`{default}`", span, escaped(f.metadata["help"])]
        )
    return rows


def systems() -> list[list[str]]:
    """Rows of the table of systems: the field's name, the solver, the paper and other names."""
    return [
        [
            escaped(known),
            f"`{name}`",
            escaped(registry()[name].paper),
            ", ".join(f"`{alias}`" for alias in others),
        ]
        for known, (name, *others) in SYSTEMS.items()
    ]


def official(solver: Solver) -> list[str]:
    """A row of the table of official configurations: their names and where they were read."""
    source = " ".join((inspect.getdoc(type(solver).configurations) or "").split())
    names = ", ".join(f"`{name}`" for name in solver.configurations())
    return [f"`{solver.name}`", names, escaped(source)]


def solvers_page() -> str:
    """docs/solvers.md."""
    solvers = [cls() for cls in registry().values()]
    cases = situations()
    rows = task_table()
    classes = [
        c
        for c in vars(schedules).values()
        if isinstance(c, type) and issubclass(c, schedules.Schedule)
    ]
    claims = ", ".join(sorted({s.claim for s in solvers}))
    lines = [
        "# Solvers",
        "",
        "Generated from the code by `python benchmarks/make_docs.py`; a test compares the two.",
        "",
        "- claim: what a solver's samples are. `exact`: draws from the posterior; `asymptotic`: as",
        f"  the budget grows; `heuristic`: neither is promised. Claimed at present: {claims}.",
        "- needs: what a problem and a prior must offer; it is checked before the first step.",
        "- cost per step: evaluations of the prior + vector-Jacobian products through it, as",
        "  measured, with all knobs at their defaults.",
        "- distance: to the exact posterior of Gaussian mixtures of nine sizes, measured; of exact",
        f"  samples it is {distance('exact')}. [full/audit.md](full/audit.md) tells how, and",
        "  [which-solver.md](which-solver.md) what follows.",
        "- held: the share of pixels within the 90 % intervals of its samples, on truths that a",
        f"  learned prior drew ({' and '.join(learned.CASES)}), by the preset of a task; of exact",
        f"  samples {interval_expected(0.9, learned.SAMPLES):.3f}.",
        "",
        *table(
            [
                "name",
                "class",
                "paper",
                "claim",
                "distance",
                "held",
                "needs",
                "default schedule",
                "steps",
                "cost per step",
            ],
            (
                [
                    f"`{s.name}`",
                    f"`{type(s).__name__}`",
                    escaped(s.paper),
                    s.claim,
                    distance(s.name),
                    held(s.name),
                    needed(s),
                    call(s.schedule, first="steps"),
                    str(s.num_steps),
                    cost(s),
                ]
                for s in solvers
            ),
        ),
        "",
        "## Systems of the field",
        "",
        "Which solver a published system is. Other names are taken wherever a solver is named.",
        "",
        *table(["system", "solver", "paper", "other names"], systems()),
        "",
        "## Official configurations",
        "",
        "`Solver.official(task)` has the constants, grid and options of the authors' own code, as",
        "far as there is a knob for each; the solver's docstring tells what differs. Tests compare",
        "the samplers with frozen numbers of that code (tests/golden).",
        "",
        *table(
            ["solver", "task", "where they were read"],
            (official(s) for s in solvers if s.configurations()),
        ),
        "",
        "## Solver by task",
        "",
        "From `invdiff.tasks.table.table()`, with each task's default options and the kernel of",
        "`deblur` a box. `yes, σ=0`: only where nothing was added to the measurement.",
        "",
        *textwrap.wrap(LEGEND, 98, break_on_hyphens=False),
        "",
        *table(
            ["", *rows[0][1]],
            (
                [
                    f"`{name}`",
                    *(can(registry()[name](), task, cell) for task, cell in cells.items()),
                ]
                for name, cells in rows
            ),
        ),
        "",
        "## What decides beyond the task",
        "",
        "From `why_not`. The first three columns are a block mean with that noise;",
        "the others take Gaussian noise or none, whichever the solver can do.",
        "",
        *table(
            ["", *cases],
            ([f"`{s.name}`", *(verdict(s, *case) for case in cases.values())] for s in solvers),
        ),
        "",
        "## Knobs",
        "",
        "Every solver also has `schedule`: the noise levels along which it travels.",
        "`solver.with_steps(n)` is the same solver on n steps of the same kind of schedule.",
        "",
        *table(
            ["solver", "knob", "default", "range", "meaning"],
            (row for s in solvers for row in knobs(s)),
        ),
        "",
        "## Paths",
        "",
        *table(
            ["call", "what it is"],
            ([signature(c), summary(c)] for c in classes if c is not schedules.Schedule),
        ),
    ]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------- operators


def steps_of_two() -> tuple[Tensor, Tensor, Tensor]:
    """x[0] + x[1], x[2] + x[3], ... of 8 numbers as a sparse matrix."""
    return torch.arange(0, 9, 2).int(), torch.arange(8).int(), torch.ones(8)


def examples() -> Mapping[type[Operator], Operator]:
    """An instance of every operator, for images of 3 x 32 x 32, or as SHAPES says."""
    kernel = ops.motion_kernel(7, 30)
    taps = ops.gaussian_kernel(1.5).sum(0)
    circular, bicubic = ops.CircularBlur(kernel, SIZE), ops.Bicubic(4, SIZE)
    blur = ops.Blur(kernel, SIZE, "reflect")
    lines = ops.gaussian_lines(SIZE, 4, seed=0)
    large, small = ops.Upsample(2, (64, 64)), ops.AveragePool(2, (64, 64))
    array = ops.earth_rotation(8, 12, 15.0)
    found: list[Operator] = [
        ops.Identity(),
        ops.Weighted(torch.linspace(0, 1, SIZE[1]).reshape(1, 1, 1, -1)),
        ops.Mixed(0.5 * torch.eye(3) + 0.1),
        ops.Matrix(torch.eye(8).roll(1, 0) - torch.eye(8), VECTOR, VECTOR),
        ops.MatrixProduct(torch.ones(5, 8), VECTOR, (5,)),
        ops.SparseMatrix(*steps_of_two(), VECTOR, (4,)),
        ops.Linear.from_functions(torch.fliplr, torch.fliplr, (3, 4)),
        ops.Operator.from_function(torch.tanh),
        ops.Inpaint.random(SIZE, 0.5, seed=0),
        ops.AveragePool(4, SIZE),
        bicubic,
        circular,
        ops.SeparableBlur(taps, taps, SIZE),
        blur,
        ops.Grayscale(),
        ops.Bayer(),
        ops.DCTSubsampling.random(SIZE, 0.25, seed=0, low=4),
        ops.SinglePixel(ops.WalshHadamard(256, SIZE)),
        ops.TiledBlur(ops.lens_kernels((3, 3)), SIZE),
        ops.Warp.turbulence(SIZE),
        ops.Radon(ops.sparse_view(12), SIZE),
        ops.WalshHadamard(256, SIZE),
        ops.BlockSensing(16, SIZE, 8),
        ops.Fourier(lines),
        ops.RealFourier(lines),
        ops.Sense(ops.ring_maps(8, SIZE), lines),
        ops.NonCartesian(ops.radial_uv(13, 64, SIZE), SIZE, ops.ring_maps(8, SIZE)),
        ops.Interferometry(ops.random_uv(500, 15.0), SIZE),
        ops.Scaled(blur, -1.5),
        ops.ScaledSpectral(bicubic, -1.5),
        ops.ScaledOperator(ops.HDR(), -1.5),
        ops.ScaledPseudoInvertible(ops.JPEG(20), -1.5),
        ops.Summed((ops.HDR(), blur)),
        ops.SummedLinear((blur, circular)),
        ops.Transposed(blur),
        ops.TransposedSpectral(large),
        ops.ComposedLinear(bicubic, circular),
        ops.JPEG(20),
        ops.Quantize(8),
        ops.ComposedPseudoInvertible(ops.JPEG(20), bicubic),
        ops.Stack((bicubic, ops.Grayscale()), RGB),
        ops.Affine(bicubic, torch.tensor(0.5)),
        ops.Composed(ops.Affine(bicubic, torch.tensor(0.5)), circular),
        ops.Upsample(2, (64, 64)),
        ops.Frames((0, 1), 4),
        ops.TemporalPool(2, 4),
        ops.PhaseRetrieval(),
        ops.CodedDiffraction.random(SIZE, 2, seed=0),
        ops.HDR(),
        ops.Bracket((0.25, 1.0, 4.0)),
        ops.CameraResponse(),
        ops.NonlinearBlur(),
        ops.Decoded(ops.AveragePool(4, (64, 64)), Saturated() @ large, small),
        ops.DecodedLinear(ops.AveragePool(4, (64, 64)), large, small),
        kernel_network(),
        ops.ClosurePhases(array.triangles()),
        ops.ClosureAmplitudes(array.quadrangles()),
    ]
    return {type(A): A for A in found}


def kernel_network() -> ops.KernelNetworkBlur:
    """A small network of random weights, for images of 128 x 128."""
    first = {"feature_extractor.0.weight": torch.empty(8, 3, 3, 3)}
    weights = {
        name: Rng.of(0).normal(torch.empty(1, *shape), name)[0] / math.prod(shape[1:]) ** 0.5
        for name, shape in expected(first).items()
    }
    return ops.KernelNetworkBlur(weights, torch.ones(1, 64, 1, 1))


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs(Operator):
    """A complex measurement as pairs of real numbers; a real one as it is."""

    base: Operator

    def __call__(self, x: Tensor) -> Tensor:
        y = self.base(x)
        return torch.view_as_real(y) if y.is_complex() else y

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        pairs = self.base(x).is_complex()
        return self.base.vjp(x, torch.view_as_complex(v.contiguous()) if pairs else v)


def gap(A: Operator, dtype: torch.dtype, shape: tuple[int, ...] = ()) -> float:
    """|<A x - A 0, v> - <x, A^T v>| / (|A x - A 0| |v|), products in float64; NaN if not affine."""
    shape = shape or SHAPES.get(type(A), RGB)
    A, rows = Pairs(A.to("cpu", dtype)), Rng.of(range(4))
    x = rows.normal(torch.empty(4, *shape, dtype=dtype), "x")
    v = rows.normal(torch.empty(4, *A.y_shape(shape), dtype=dtype), "v")
    zero = A(torch.zeros_like(x))
    z = (A(x) - zero).double()
    if (A(x + x.flip(0)) - A(x) - A(x.flip(0)) + zero).norm() > 1e-3 * z.norm():
        return math.nan
    v, back = v.double(), A.vjp(x, v).double()
    return float(((z * v).sum() - (x.double() * back).sum()).abs() / (z.norm() * v.norm()))


def bound(found: float, dtype: torch.dtype) -> str:
    """The first power of ten, from FLOOR on, that exceeds a gap ten times; a dash for NaN."""
    if math.isnan(found):
        return "-"
    limit = FLOOR[dtype]
    while 10 * found > limit:
        limit *= 10
    return f"\\< {limit:.0e}".replace("e-0", "e-")


def rung(A: Operator) -> str:
    """Name of the highest rung of the ladder that A stands on."""
    rungs = (Spectral, Linear, PseudoInvertible, Operator)
    return next(c.__name__ for c in rungs if isinstance(A, c))


def functions() -> list[Callable[..., Any]]:
    """The public functions that make operators and kernels."""
    public = [getattr(ops, name) for name in ops.__all__]
    gives = {f: get_type_hints(f)["return"] for f in public if inspect.isfunction(f)}
    kernels = {
        f
        for f, kind in gives.items()
        if kind is Tensor and f.__name__.endswith(("_kernel", "_kernels"))
    }
    return [f for f, kind in gives.items() if f in kernels or kind in (Operator, Linear)]


ALGEBRA = [
    [
        "`2 * A`, `A * 2`, `-A`, `A / 2`",
        "2 A(x), ...; of a `Spectral` a negative factor turns U",
        "that of A",
    ],
    [
        "`A + B`, `A - B`, `sum([A, B, C])`",
        "A(x) + B(x), ...; of multiples of one operator a multiple of it",
        "`Linear` of two linear operators, else `Operator`",
    ],
    ["`A.T`", "the adjoint of a linear A; `A.T.T` is A", "`Linear`"],
    [
        "`A.norm()`",
        "its largest singular value, a number: exact for a `Spectral`, else by Lanczos to `tol` = "
        "1e-4; `A.norm(x_shape)` where no field tells the shape of images",
        "",
    ],
]
"""What operators are written with, what that is, and its rung."""

MOST = "`Blur`, `SeparableBlur`, `TiledBlur`"
EDGES = [
    ["`reflect`", "d c b a, the image mirrored, its edge repeated", MOST],
    ["`mirror`", "d c b, the same, its edge not repeated", MOST],
    ["`replicate`", "d d d, the edge itself", MOST],
    ["`zero`", "0", MOST],
    ["`circular`", "a b c, the other side", "`CircularBlur`, `SeparableBlur`, `TiledBlur`"],
    [
        "`unknown`",
        "nothing: y has the pixels that read nothing beyond the edge; taps of 0 at the sides of "
        "the kernel read nothing",
        "`Blur`, `SeparableBlur`",
    ],
    ["`valid`", "the same by the size of the kernel: y is (H - h + 1) x (W - w + 1)", MOST],
]
"""Boundary, what lies there, and the classes that know it; `blur` knows all."""


def operators_page() -> str:
    """docs/operators.md. Raises KeyError for an operator without an example above."""
    public = [getattr(ops, name) for name in ops.__all__]
    abstract = (Operator, PseudoInvertible, Linear, Spectral, ops.Separable)
    classes = [c for c in public if isinstance(c, type) and issubclass(c, Operator)]
    classes = [c for c in classes if c not in abstract]
    given = examples()
    found = [given[c] for c in classes]
    ladder = {
        Operator: Saturated(),
        PseudoInvertible: given[ops.JPEG],
        Linear: given[ops.Blur],
        Spectral: given[ops.Identity],
    }

    def offered(A: Operator) -> str:
        hidden = {Need.PRIOR_VJP, Need.POISSON, Need.IMAGE_LINEAR}
        offer = offers(Problem(torch.zeros(1, *A.y_shape(RGB)), A, Poisson(1.0), RGB))
        return ", ".join(n.value for n in Need if n in offer - hidden)

    lines = [
        "# Operators",
        "",
        "Generated from the code by `python benchmarks/make_docs.py`; a test compares the two.",
        "",
        "An operator is a frozen dataclass that maps images (B, C, H, W) to measurements. It",
        "stands on one of four rungs, which decides what [solvers](solvers.md) can use it.",
        "",
        *table(
            ["rung", "promise", "offers"],
            ([f"`{c.__name__}`", summary(c), offered(A)] for c, A in ladder.items()),
        ),
        "",
        "## All operators",
        "",
        "Gap: how far the adjoint is from the transpose, |\\<A x - A 0, v\\> - \\<x, Aᵀ v\\>|",
        "divided by |A x - A 0| |v|, measured on white noise of 3 x 32 x 32 (of 3 x 4 x 32 x 32",
        "for operators along time, of 2 x 32 x 32 for complex images, of 3 x 128 x 128 for the",
        "kernel network, here with random weights, of 3 x 60 visibilities for closures, of few",
        "numbers for a matrix or functions); a dash for operators that are not affine, `none`",
        "where no gradient passes.",
        "",
        *table(
            ["operator", "what it measures", "rung", "gap, float32", "gap, float64"],
            (
                [
                    signature(type(A)),
                    summary(type(A)),
                    rung(A),
                    *(
                        bound(gap(A, dtype), dtype) if A.differentiable else "none"
                        for dtype in FLOOR
                    ),
                ]
                for A in found
            ),
        ),
        "",
        "`outer @ inner` composes: a `ComposedLinear` of two linear operators, else a",
        "`ComposedPseudoInvertible` of two that have a generalised inverse, else a `Composed`.",
        "",
        "## Numbers, sums, transposes",
        "",
        *table(["written", "what it is", "rung"], ALGEBRA),
        "",
        "An `Affine` stays one: its offset is multiplied and added too. With y and the noise",
        "multiplied by the same number, `c * A` is the same problem; the step sizes of samplers",
        "assume a norm of about 1: `A / A.norm()`.",
        "",
        "## Kernels and boundaries",
        "",
        "`Blur`, `CircularBlur` and `blur` take a kernel (h, w), one for each channel, (C, h, w),",
        "or one for each measurement, (M or 1, C or 1, h, w). Beyond the edge of the image:",
        "",
        *table(["boundary", "what the blur reads there", "taken by"], EDGES),
        "",
        "## Functions that make operators and kernels",
        "",
        *table(
            ["function", "what it gives"],
            (
                [f"`{f.__name__}({', '.join(inspect.signature(f).parameters)})`", summary(f)]
                for f in functions()
            ),
        ),
    ]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------- priors


def _own(name: str) -> list[str]:
    """A prior of the package, and links to what is told of it."""
    table_of = "restoration.md" if name == "photo" else f"restoration-{name}.md"
    return [
        f"`{name}`",
        f"[card](../src/invdiff/priors/weights/{name}.md)",
        f"[page](priors/{name}.md)",
        f"[table]({table_of})" if (DOCS / table_of).is_file() else "-",
    ]


def priors_page() -> str:
    """docs/priors.md."""
    lines = [
        "# Priors",
        "",
        "Generated from the code by `python benchmarks/make_docs.py`; a test compares the two.",
        "",
        "`load_prior(SPEC)`, and `--prior SPEC` on the command line, take:",
        "",
        *table(["SPEC", "what it is"], ([f"`{s.spec}`", escaped(s.summary)] for s in SOURCES)),
        "",
        "Nothing but a name that begins with `hf:` reaches the internet. What loading costs was",
        "measured: [loading.md](loading.md).",
        "",
        "## Our own, measured",
        "",
        "The card tells what a prior was trained on, how, and how well it denoises. The page",
        "compares it with library denoisers, and its samples with images that it never saw: how",
        "far apart they are, and whether it repeats what it was trained on. `invdiff train NAME",
        "--data PATH` trains each of them again.",
        "",
        *table(["prior", "card", "measured", "restoration"], map(_own, BUILT_IN)),
        "",
        "## Published weights",
        "",
        "A file is recognised by the names of its tensors. Converters are compared with frozen",
        "numbers: names, shapes and outputs of the official modules, with random weights",
        "([tests/golden/networks](../tests/golden/networks/README.md)); released files themselves",
        "have not been tried.",
        "",
        *table(
            ["format", "examples", "read from the file", "not in the file", "options"],
            (map(escaped, (f.name, f.examples, f.read, f.stated, f.options)) for f in FORMATS),
        ),
        "",
        "What neither the file nor a released layout tells is an error that names the option. What",
        "is presumed all the same is printed by `restore` (`presumed`) and kept in run.json.",
        "",
        "Before it is used, a prior of images has to denoise a small picture at three noise levels",
        "better than a linear filter does. A wrong schedule, prediction or scale of time shows",
        "there, and the sentence says what is likely wrong; `--no-check`, `check=False` in Python,",
        "takes the prior as it is. What this may not see: an SDE that differs little (vp for",
        "vp-discrete), the range of images, and a wrong option of a prior that knows one narrow",
        "kind of image.",
        "",
        "Other files are refused with the way to convert them: Stable Diffusion in one file (save",
        "it as a folder with diffusers), denoising-diffusion-pytorch, k-diffusion and EDM2 (build",
        "the network in Python and wrap it), TorchScript and whole modules (save the state_dict).",
        "A distilled consistency model has the names and shapes of the EDM network that it was",
        "made from; it is refused by its file's name (`cd_*`, `ct_*`), and else by what it makes",
        "of pure noise.",
        "",
        "| option | meaning |",
        "| --- | --- |",
        *(
            f"| `{f.name}` | {escaped(f.metadata['help'])} |"
            for f in dataclasses.fields(PriorOptions)
        ),
        "| `checkpoint` | of any network: whether gradients compute its blocks again instead of "
        "keeping what is inside, the same bits in less memory and more time; auto (unless told), "
        "where memory is short, true or false |",
        "",
        "Options are keywords of `load_prior`, and `--prior-options NAME=VALUE,...` on the command",
        "line. `label` (`--label`) is the class of a class-conditional network; with `guidance` w",
        "(`--guidance`), D = D_uncond + w (D_cond - D_uncond), two calls of the network for each",
        "evaluation. That needs a label which was trained to stand for no class: zeros in EDM's",
        "networks, else `null_label`.",
        "",
        "No code in a file is run. `.pkl` files of EDM go through an unpickler that knows tensors,",
        "numbers, containers and the one function that would run their source, which it replaces;",
        "other files go through `torch.load(weights_only=True)` or safetensors, after their sizes",
        "were compared with the file's.",
        "",
        f"Converted weights are kept in `~/.cache/invdiff` (`XDG_CACHE_HOME`, `{CACHE}`) under the",
        f"hash of their source, and take as much disk as it. `{CACHE}=off` turns that off.",
        "Together with matrices of scans they take 4 GB at most; `invdiff cache` shows them, and",
        "`invdiff cache --clear` deletes them, which is safe: they are made again.",
    ]
    return "\n".join(lines) + "\n"


TEXTS = DOCS.parent / "src/invdiff/texts"
"""Help and tables as they are printed, so that printing them needs no torch."""


def texts() -> dict[Path, str]:
    """Every stored text, by its file."""
    found = {name: "\n".join(tables.table(name)) for name in ("tasks", "solvers", "priors")}
    for command in (restore, batch, degrade):
        name = command.__name__.rpartition(".")[2]
        found[f"{name}.help"] = command.help_on(name, [])
        for task, cls in TASKS.items():
            if command is not degrade or cls.simulation() is not None:
                found[f"{name}-{task}.help"] = command.help_on(name, [task])
    for name in set(COMMANDS) - {"restore", "batch", "degrade"}:
        found[f"{name}.help"] = printed(name)
    found["priors-measure.help"] = printed("priors", "measure")
    return {TEXTS / f"{name}.txt": text + "\n" for name, text in found.items()}


def printed(name: str, *words: str) -> str:
    """What `invdiff NAME WORDS --help` prints where nothing is stored."""
    module = importlib.import_module(f"invdiff.commands.{COMMANDS[name][0]}")
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        module.run(name, [*words, "--help"])
    return out.getvalue().rstrip("\n")


def main() -> int:
    """Write the pages, or compare them with --check; exit code 1 when one differs."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--check", action="store_true", help="write nothing; exit 1 on a difference")
    check = p.parse_args().check
    torch.set_num_threads(1)
    stale = False
    pages = {
        DOCS / "solvers.md": solvers_page(),
        DOCS / "operators.md": operators_page(),
        DOCS / "priors.md": priors_page(),
        **texts(),
    }
    for file, text in pages.items():
        if check and (not file.is_file() or file.read_text(encoding="utf-8") != text):
            name = file.relative_to(DOCS.parent)
            print(f"{name} differs from the code; run python benchmarks/make_docs.py")
            stale = True
        elif not check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    for file in set(TEXTS.glob("*.txt")) - set(pages):
        print(f"{file.name} belongs to no command")
        stale = True
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
