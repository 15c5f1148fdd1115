"""Operators along time in plain loops; and every spatial operator on a video, frame by frame."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import invdiff.operators as ops
from helpers import seeded
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise
from invdiff.operators import Linear, Operator, Spectral
from invdiff.priors.base import Denoiser
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError, check
from invdiff.solvers import registry

B, C, T, H, W = 2, 3, 4, 6, 5
SIZE = (H, W)
VIDEO = seeded(B, C, T, H, W)


def mask(*shape: int) -> Tensor:
    return seeded(*shape, seed=5) > 0


# ---- along time


@pytest.mark.parametrize("indices", [(0, 1), (3, 0), (2,), (0, 1, 2, 3)])
def test_frames(indices):
    A = ops.Frames(indices, T)
    y = A(VIDEO)
    back = A.adjoint(y)
    for k, i in enumerate(indices):
        assert torch.equal(y[:, :, k], VIDEO[:, :, i])
    for i in range(T):
        assert torch.equal(back[:, :, i], VIDEO[:, :, i] if i in indices else 0 * VIDEO[:, :, i])
    assert torch.equal(A.pinv(y), back) and torch.equal(A(back), y)


@pytest.mark.parametrize(("factor", "frames"), [(1, 4), (2, 4), (3, 4), (2, 7), (5, 5)])
def test_temporal_pool(factor, frames):
    x = seeded(B, C, frames, H, W).numpy()
    y = ops.TemporalPool(factor, frames)(torch.from_numpy(x)).numpy()
    assert y.shape[2] == -(-frames // factor)
    for k in range(y.shape[2]):
        block = [x[:, :, i] for i in range(k * factor, min((k + 1) * factor, frames))]
        np.testing.assert_allclose(y[:, :, k], sum(block) / len(block), rtol=0, atol=1e-14)


def test_errors_are_sentences():
    for indices, frames in (((), 4), ((4,), 4), ((-1,), 4), ((1, 1), 4), ((0,), 0)):
        with pytest.raises(InvdiffError, match="distinct numbers"):
            ops.Frames(indices, frames)
    for factor, frames in ((0, 4), (5, 4), (1.5, 4), (1, 0)):
        with pytest.raises(InvdiffError, match="from 1 to the number of frames"):
            ops.TemporalPool(factor, frames)
    for A in (ops.Frames((0,), T), ops.TemporalPool(2, T)):
        for shape in ((C, T + 1, H, W), (C, H, W)):
            with pytest.raises(InvdiffError, match=f"videos of {T} frames"):
                A.y_shape(shape)
    with pytest.raises(InvdiffError, match="with as many axes"):
        ops.Inpaint(mask(1, 1, H, W)).y_shape((C, T, H, W))


# ---- in space, frame by frame


def sharp(*shape: int) -> Tensor:
    """A kernel with a strong middle tap, so that its inverse does not amplify round-off."""
    kernel = seeded(*shape).abs()
    kernel[shape[0] // 2, shape[1] // 2] += 2 * kernel.sum()
    return kernel / kernel.sum()


SPATIAL: dict[str, Operator] = {
    "identity": ops.Identity(),
    "pool": ops.AveragePool(2, SIZE),
    "bicubic": ops.Bicubic(2, SIZE),
    "upsample": ops.Upsample(2, (2 * H, 2 * W), "bicubic"),
    "circular": ops.CircularBlur(sharp(3, 3), SIZE),
    "separable": ops.SeparableBlur(torch.tensor([0.2, 0.7, 0.1]), torch.ones(2) / 2, SIZE),
    "blur-reflect": ops.Blur(sharp(3, 3), SIZE, "reflect", cg_tol=0.0),
    "blur-zero": ops.Blur(sharp(2, 3), SIZE, "zero", cg_tol=0.0),
    "grey": ops.Grayscale(ops.REC601),
    "scaled": ops.scaled(ops.AveragePool(2, SIZE), -2.0),
    "affine": ops.affine(ops.Bicubic(2, SIZE), 0.5, 0.25),
    "composed": ops.AveragePool(2, SIZE) @ ops.Grayscale(),
    "composed-nonlinear": ops.AveragePool(2, SIZE) @ ops.affine(ops.Grayscale(), 0.5, 0.25),
}


def functions(A: Operator) -> dict[str, Callable[[Tensor], Tensor]]:
    """Every map that A offers."""
    found: dict[str, Callable[[Tensor], Tensor]] = {"call": A}
    if isinstance(A, Linear):
        found |= {"adjoint": A.adjoint, "pinv": A.pinv, "solve": lambda b: A.solve(b, 0.3)}
    if isinstance(A, Spectral):
        found |= {"V": A.V, "Vt": A.Vt, "U": A.U, "Ut": A.Ut}
    return found


def assert_frame_by_frame(A: Operator, f: str) -> None:
    """A.f of a video is A.f of its frames; sums may be added in another order."""
    shape = A.y_shape((C, *SIZE)) if f in ("adjoint", "pinv", "Ut") else (C, *SIZE)
    x = seeded(B, shape[0], T, *shape[1:], seed=2)
    grey = isinstance(A, ops.Grayscale)  # its coefficients have the colour third from the end
    whole = functions(A)[f](x.movedim(1, -3) if grey and f in ("V", "U") else x)
    if grey and f in ("Vt", "Ut"):
        whole = whole.movedim(-3, 1)
    for t in range(T):
        own = functions(A)[f](x[:, :, t])
        torch.testing.assert_close(whole[:, :, t], own, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "f"), [(n, f) for n, A in SPATIAL.items() if n != "upsample" for f in functions(A)]
)
def test_a_spatial_operator_acts_frame_by_frame(name, f):
    assert_frame_by_frame(SPATIAL[name], f)


@pytest.mark.parametrize("name", SPATIAL)
def test_shapes_and_gradients_of_a_video(name):
    """y_shape, and vjp against a directional difference (all of these are affine)."""
    A = SPATIAL[name]
    x, direction = VIDEO, seeded(B, C, T, H, W, seed=3)
    z = A(x)
    assert A.y_shape((C, T, H, W)) == tuple(z.shape[1:])
    v = seeded(*z.shape, seed=4)
    slope = ((A(x + direction) - z) * v).sum()
    torch.testing.assert_close((A.vjp(x, v) * direction).sum(), slope, rtol=1e-10, atol=1e-10)


def test_an_operator_along_time_is_not_frame_by_frame():
    """Negative twin."""

    class Lag(ops.Identity):
        def __call__(self, x: Tensor) -> Tensor:
            return x + x.roll(1, 2) if x.ndim == 5 else x

    with pytest.raises(AssertionError):
        assert_frame_by_frame(Lag(), "call")


@pytest.mark.parametrize("channels", [1, C])
def test_a_mask_of_a_video_is_one_of_each_frame(channels):
    m = mask(B, channels, T, H, W)
    A = ops.Inpaint(m)
    y = A(VIDEO)
    for t in range(T):
        assert torch.equal(y[:, :, t], ops.Inpaint(m[:, :, t])(VIDEO[:, :, t]))
    assert torch.equal(A.s, m.double())


def test_a_stack_of_space_and_time():
    parts = (ops.AveragePool(2, SIZE), ops.Frames((0, 2), T))
    A = ops.Stack(parts, (C, T, H, W))
    assert torch.equal(A(VIDEO), torch.cat([p(VIDEO).flatten(1) for p in parts], 1))
    y = seeded(*A(VIDEO).shape, seed=6)
    expected = sum(p.adjoint(v) for p, v in zip(parts, A.split(y), strict=True))
    assert torch.equal(A.adjoint(y), expected)


# ---- the nouns


def test_a_problem_of_a_video():
    A = ops.AveragePool(2, SIZE) @ ops.Frames((0, 2), T)
    clean = A(VIDEO)
    y = GaussianNoise(0.1).sample(clean, Rng.of((1, 2)))
    torch.testing.assert_close(
        GaussianNoise(0.1).sample(clean[1:], Rng.of(2)), y[1:], rtol=0, atol=0
    )
    problem = Problem(y, A, GaussianNoise(0.1), (C, T, H, W))
    assert tuple(problem.x_like.shape) == tuple(VIDEO.shape)
    torch.testing.assert_close(problem.residual(VIDEO), y - A(VIDEO))
    twice = problem.rows(torch.tensor([1, 1]))
    assert torch.equal(twice.y[0], y[1]) and twice.x_shape == problem.x_shape
    with pytest.raises(InvdiffError, match="belongs to this operator"):
        Problem(y[:, :, :1], A, GaussianNoise(0.1), (C, T, H, W))


def test_a_prior_of_images_does_not_fit_a_video():
    problem = Problem(VIDEO, ops.Identity(), GaussianNoise(0.1), (C, T, H, W))
    images = Denoiser(lambda x, sigma: x, shape=(C, None, None), name="stills")
    clips = Denoiser(lambda x, sigma: x, shape=(C, 8, None, None), name="clips")
    solver = registry()["unconditional"]()
    with pytest.raises(IncompatibleError, match="stills makes images .*channels x height x width"):
        check(solver, problem, images)
    with pytest.raises(IncompatibleError, match="clips makes .*channels x frames x height"):
        check(solver, problem, clips)
    check(solver, problem, Denoiser(lambda x, sigma: x, shape=(C, T, None, None)))


def test_an_exact_posterior_of_a_video():
    """A law of videos conditions on known frames: they come out, the others stay."""
    shape = (1, 3, 2, 2)
    prior = GaussianPrior(torch.zeros(shape).double(), torch.ones(shape).double())
    y = seeded(1, 1, 2, 2, 2)
    law = prior.posterior(Problem(y, ops.Frames((0, 2), 3), GaussianNoise(0.0), shape))
    torch.testing.assert_close(law.mean[:, [0, 2]], y[0])
    assert float(law.mean[:, 1].abs().max()) == 0
    variances = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).repeat_interleave(4)
    torch.testing.assert_close(law.cov.diagonal(), variances)


# ---- enlargement


@pytest.mark.parametrize(("factor", "size"), [(1, (5, 4)), (2, (6, 5)), (3, (7, 8)), (4, (3, 9))])
def test_nearest_enlargement_repeats_pixels(factor, size):
    small = -(-size[0] // factor), -(-size[1] // factor)
    x = seeded(1, 2, *small).numpy()
    y = ops.Upsample(factor, size)(torch.from_numpy(x)).numpy()
    assert y.shape == (1, 2, *size)
    for i, j in np.ndindex(size):
        assert np.array_equal(y[..., i, j], x[..., i // factor, j // factor])


def cubic(t: float) -> float:
    """Keys 1981, a = -1/2."""
    t = abs(t)
    if t < 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


@pytest.mark.parametrize(("factor", "size"), [(1, (5, 4)), (2, (6, 5)), (3, (7, 8)), (4, (3, 9))])
def test_bicubic_enlargement(factor, size):
    """Coarse pixel p lies at p factor + (factor - 1) / 2; beyond the edge pixels are mirrored."""
    small = -(-size[0] // factor), -(-size[1] // factor)
    x = seeded(1, 2, *small).numpy()
    y = ops.Upsample(factor, size, "bicubic")(torch.from_numpy(x)).numpy()
    pad = 3
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="symmetric")
    for i, j in np.ndindex(size):
        u, v = ((k - (factor - 1) / 2) / factor for k in (i, j))
        value = sum(
            cubic(p - u) * cubic(q - v) * padded[..., p + pad, q + pad]
            for p in range(-pad, small[0] + pad)
            for q in range(-pad, small[1] + pad)
        )
        np.testing.assert_allclose(y[..., i, j], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 12), (7, 6), (5, 13)])
def test_pooling_takes_nearest_enlargement_back(size):
    """AveragePool(S) @ Upsample(2^k) is pooling by S / 2^k, for every split, also with a rest."""
    for whole_factor, factor in ((2, 2), (4, 2), (4, 4)):
        if whole_factor > min(size):
            continue
        up = ops.Upsample(factor, size)
        small = -(-size[0] // factor), -(-size[1] // factor)
        x = seeded(1, 1, *small)
        y = (ops.AveragePool(whole_factor, size) @ up)(x)
        exact = size[0] % factor == 0 and size[1] % factor == 0
        if exact or whole_factor == factor:
            expected = ops.AveragePool(whole_factor // factor, small)(x)
            torch.testing.assert_close(y, expected, rtol=0, atol=1e-14)


def test_upsample_errors_are_sentences():
    for factor in (0, 1.5):
        with pytest.raises(InvdiffError, match="enlargement is a whole number"):
            ops.Upsample(factor, (4, 4))
    with pytest.raises(InvdiffError, match="nearest and bicubic"):
        ops.Upsample(2, (4, 4), "linear")
    with pytest.raises(InvdiffError, match="made for images of 2 x 3 pixels"):
        ops.Upsample(2, (4, 5)).y_shape((1, 4, 5))
