"""What blurs and reductions do to the cosine modes of an image, and what that saves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from invdiff.noise import GaussianNoise, StationaryGaussian
from invdiff.operators.algebra import Identity, Linear
from invdiff.operators.algebra.circulant import circulant
from invdiff.operators.algebra.krylov import conjugate_gradients
from invdiff.operators.blur import Blur, blur
from invdiff.operators.blur_kernels import gaussian_kernel, motion_kernel
from invdiff.operators.dct import dct_matrix
from invdiff.operators.downsample import AveragePool, Bicubic
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.weighted import Whitening
from invdiff.priors.modes import Covariance, to_modes
from invdiff.priors.spectrum import SPREAD, smooth
from invdiff.problem import Problem
from invdiff.solvers import normal

SIZE = (12, 16)
F64 = torch.float64
EXACT: dict[str, Linear] = {
    "identity": Identity(),
    "all known": Inpaint(torch.ones(1, 1, *SIZE)),
    "bicubic": Bicubic(4, SIZE),
    "mean": AveragePool(2, SIZE),
    "gaussian": blur(gaussian_kernel(1.0).double(), SIZE),
    "gaussian, unknown": blur(gaussian_kernel(1.0).double(), SIZE, "unknown"),
    "symmetric": Blur(torch.outer(*[torch.tensor([1.0, 2, 1], dtype=F64)] * 2) / 16, SIZE),
}
NEARLY: dict[str, Linear] = {
    "motion": Blur(motion_kernel(5, 30.0).double(), SIZE),
    "motion, unknown": Blur(motion_kernel(5, 30.0).double(), SIZE, "unknown"),
    "channels": Blur(torch.rand(3, 3, 3, dtype=F64, generator=torch.Generator().manual_seed(2)) / 9,
                     SIZE),
    "whitening": Whitening(StationaryGaussian((0.05, 0.4), ((0.1, 0.02),)), SIZE),
}  # fmt: skip


def cosines(size: tuple[int, int]) -> torch.Tensor:
    return torch.kron(dct_matrix(size[0]), dct_matrix(size[1]))


def power(A: Linear, variance: torch.Tensor) -> torch.Tensor:
    """The same by dense matrices: the diagonal of T A T^T L T A^T T^T, mean over channels."""
    n = SIZE[0] * SIZE[1]
    x = torch.eye(n, dtype=F64).reshape(n, 1, *SIZE).expand(-1, 3, -1, -1)
    y = A(x)
    small = (int(y.shape[-2]), int(y.shape[-1]))
    found = []
    for channel in range(3):
        dense = y[:, channel].flatten(1).mT
        modes = cosines(small) @ dense @ cosines(SIZE).mT
        found.append((modes.square() @ variance.flatten()).reshape(small))
    return torch.stack(found).mean(0)


VARIANCE = torch.rand(SIZE, dtype=F64, generator=torch.Generator().manual_seed(0)) + 0.1


@pytest.mark.parametrize("name", EXACT)
def test_power_is_that_of_dense_matrices(name: str) -> None:
    found = EXACT[name].cosine_power(VARIANCE)
    assert found is not None
    torch.testing.assert_close(found, power(EXACT[name], VARIANCE), atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("name", NEARLY)
def test_power_is_near_where_edges_and_directions_mix_modes(name: str) -> None:
    """The median of their ratio is 1 within a third, nine of ten are within a factor of 4."""
    found, exact = NEARLY[name].cosine_power(VARIANCE), power(NEARLY[name], VARIANCE)
    assert found is not None
    factor = (found / exact).log2().flatten()
    assert abs(float(factor.median())) < 0.4
    assert float(factor.abs().quantile(0.9)) < 2


@pytest.mark.parametrize("frames", [0, 2])
def test_noise_of_two_spectra_is_told_by_colours(frames: int) -> None:
    """Of pictures, and of clips: brightness has one gain, the differences of colour another."""
    A = Whitening(StationaryGaussian((0.1,), ((0.1,), (0.3,)), level=0.3), SIZE)
    shape = (3, frames, *SIZE) if frames else (3, *SIZE)
    z = torch.randn(500, *shape, dtype=F64, generator=torch.Generator().manual_seed(4))
    found = to_modes(A(z)).square().mean((0, 2, 3))
    told = A.cosine_power(torch.ones(1, 3 * max(frames, 1), *SIZE, dtype=F64))[0].mean((1, 2))
    torch.testing.assert_close(found, told, rtol=0.03, atol=0)
    assert told.min() == 1 and told.max() == pytest.approx(9)


def falling(size: tuple[int, int]) -> Tensor:
    """Variances of cosine modes as those of photographs fall, (1, 1, H, W)."""
    down, across = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    return (100 / (1 + down**2 + across**2)).double()[None, None]


@pytest.mark.parametrize("sigma", [0.05, 0.0])
@pytest.mark.parametrize("hidden", ["box", "half", "lines"])
def test_what_a_mask_hides_is_left_out(
    hidden: str, sigma: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights of the known pixels in fewer iterations, whatever stands in the others."""
    size, g = (48, 48), torch.Generator().manual_seed(5)
    mask = torch.ones(1, 1, *size)
    places = {"box": (slice(10, 26), slice(12, 28)), "half": (slice(0, 48), slice(24, 48)),
              "lines": (slice(0, 48, 9), slice(0, 48))}  # fmt: skip
    mask[..., *places[hidden]] = 0
    A, V = Inpaint(mask), Covariance(falling(size), torch.ones(1, 1, *size, dtype=F64))
    x = V.root(torch.randn(2, 1, *size, dtype=F64, generator=g))
    y = A(x) + sigma * torch.randn(x.shape, dtype=F64, generator=g)
    problem = Problem(y, A, GaussianNoise(sigma), (1, *size))
    solved = counter(monkeypatch)
    enough = 1e-4
    r = A.restrict(y)
    one = normal.weights(r, V, problem, 5000, enough)
    two = normal.weights(r, V, problem, 5000, enough, modes=True)
    other = normal.weights(r + 9 * (1 - mask), V, problem, 5000, enough, modes=True)
    assert torch.equal(two, other) and not two[(mask == 0).expand_as(two)].any()
    left = r - sigma**2 * two - A(V(two))
    assert float(left.square().mean((1, 2, 3)).max().sqrt()) <= enough
    answers = [V(A.adjoint(w)) for w in (one, two)]
    torch.testing.assert_close(*answers, atol=1e-2, rtol=0)  # hidden pixels are extrapolated
    assert solved[1] < 0.5 * solved[0]


def counter(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Products of each call of conjugate gradients by `normal.weights`."""
    solved, plain = list[int](), normal.conjugate_gradients

    def counted(apply, *rest, **more):
        def once(w):
            solved[-1] += 1
            return apply(w)

        solved.append(0)
        return plain(once, *rest, **more)

    monkeypatch.setattr(normal, "conjugate_gradients", counted)
    return solved


def test_noise_with_a_spectrum_is_solved_where_it_was_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a picture of 96 x 96, to a tenth of the noise: 100 iterations are too few without modes.
    At 12 x 16, with variances that differ from pixel to pixel, they help little."""
    size, g = (96, 96), torch.Generator().manual_seed(1)
    noise = StationaryGaussian((0.02, 0.1, 0.5), ((0.03, 0.06, 0.2),))
    A = Whitening(noise, size)
    edges = smooth(torch.randn(1, 1, *size, dtype=F64, generator=g), SPREAD)
    V = Covariance(falling(size), torch.exp(0.5 * edges / edges.std()))
    x = V.root(torch.randn(1, 1, *size, dtype=F64, generator=g))
    y = A(x) + noise.level * torch.randn(x.shape, dtype=F64, generator=g)
    problem = Problem(y, A, GaussianNoise(noise.level), (1, *size))
    solved = counter(monkeypatch)
    for modes in (False, True):
        normal.weights(y, V, problem, 5000, 0.1 * noise.level, modes)
    assert solved[0] > 100 > solved[1] and solved[0] > 2.5 * solved[1]


@pytest.mark.parametrize("name", [n for n in (*EXACT, *NEARLY) if n != "whitening"])
@pytest.mark.parametrize("sigma", [0.02, 0.0])
def test_weights_are_the_same_in_fewer_iterations(
    name: str, sigma: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spectrum that falls and a variance that differs from place to place, as of photographs."""
    A, g = {**EXACT, **NEARLY}[name], torch.Generator().manual_seed(1)
    down, across = torch.arange(SIZE[0])[:, None], torch.arange(SIZE[1])[None]
    L = (1 / (1 + down**2 + across**2)).double().expand(1, 3, *SIZE)
    S = torch.exp(0.5 * torch.randn(2, 1, *SIZE, dtype=F64, generator=g))
    V = Covariance(L, S)
    x = V.root(torch.randn(2, 3, *SIZE, dtype=F64, generator=g))
    z = A(x)
    y = z + sigma * torch.randn(z.shape, dtype=F64, generator=g)
    problem = Problem(y, A, GaussianNoise(sigma), (3, *SIZE))
    solved = counter(monkeypatch)
    one, two = (normal.weights(y, V, problem, 5000, 1e-6, modes) for modes in (False, True))
    answers = [V(A.adjoint(w)) for w in (one, two)]
    left = y - sigma**2 * two - A(answers[1])
    assert float(left.square().mean((1, 2, 3)).max().sqrt()) < 1e-6
    if sigma:  # without noise, blurs leave weights open, and 5000 plain iterations do not suffice
        torch.testing.assert_close(*answers, atol=1e-4, rtol=0)
    assert solved[1] < 0.75 * solved[0]


def iterations(A: Blur, precondition: Callable[[Tensor], Tensor], b: Tensor, shift: float) -> int:
    """Of conjugate gradients, until a thousandth of b is left."""
    count = 0

    def apply(x: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return A.adjoint(A(x)) + shift * x

    found = conjugate_gradients(apply, b, 200, 1e-3, precondition=precondition)
    assert float((apply(found) - b).norm() / b.norm()) < 2e-3
    return count - 1


@pytest.mark.parametrize("shift", [1e-6, 1e-2])
def test_a_reflected_blur_is_solved_in_cosine_modes(shift: float) -> None:
    """A symmetric kernel in one step; others in no more than by frequencies, and by those where
    the image goes on otherwise."""
    g = torch.Generator().manual_seed(3)
    b = torch.randn(2, 3, 48, 40, generator=g, dtype=torch.float64)
    skew = torch.rand(7, 5, generator=g, dtype=torch.float64)
    for kernel, most in ((gaussian_kernel(1.5).double(), 1), (skew / skew.sum(), 40)):
        A = Blur(kernel, (48, 40), "reflect")
        b0 = A.adjoint(A(b)) + shift * b
        own = iterations(A, A.preconditioner(b0, shift), b0, shift)
        assert own <= min(most, iterations(A, circulant(A, b0, shift), b0, shift))
    A = Blur(skew / skew.sum(), (48, 40), "replicate")
    assert torch.equal(A.preconditioner(b, shift)(b), circulant(A, b, shift)(b))
