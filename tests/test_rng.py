"""Noise is a function of (seed, step, role). Bounds are 5 standard errors: P < 6e-7 for each."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from invdiff.core.rng import Rng, sfc64

SHAPE = (3, 8, 8)
N = 200_000
GOLDEN_NORMAL = [-0.38341856002807617, 0.5443764328956604, -0.2290371060371399]
GOLDEN_UNIFORM = [0.9525390863418579, 0.05394482612609863, 0.5857005715370178]


def draw(seeds, step=0, role="z", dtype=torch.float32, portable=False):
    rng = Rng.of(seeds, portable=portable).at(step)
    return rng.normal(torch.empty(len(rng.seeds), *SHAPE, dtype=dtype), role)


def z_scores(x: np.ndarray) -> list[float]:
    """Mean, variance, skewness and kurtosis of x against N(0, 1), in standard errors."""
    root = math.sqrt(x.size)
    spreads = (1, math.sqrt(2), math.sqrt(15), math.sqrt(96))
    means = (0, 1, 0, 3)
    return [
        root * (float((x ** (p + 1)).mean()) - m) / s
        for p, (m, s) in enumerate(zip(means, spreads, strict=True))
    ]


def test_sample_is_the_same_alone_in_a_batch_and_in_another_order():
    batch = draw([5, 0, 7, 5])
    assert torch.equal(batch[2], draw([7])[0])
    assert torch.equal(batch[[2, 1]], draw([7, 0]))
    assert torch.equal(batch[0], batch[3])
    rows = Rng.of([5, 0, 7]).at(3).rows([2, 0])
    assert rows == Rng.of([7, 5]).at(3)


@pytest.mark.parametrize("draws", ["normal", "uniform"])
def test_other_seeds_steps_and_roles_give_other_noise(draws):
    like = torch.empty(1, *SHAPE)
    keys = [(s, t, r) for s in (0, 1, -1) for t in (-1, 0, 1) for r in ("z", "init")]
    keys += [(2**32, 0, "z"), (2**64, 0, "z"), (1 + 2**32, 0, "z")]
    seen = {getattr(Rng.of(s).at(t), draws)(like, r).numpy().tobytes() for s, t, r in keys}
    assert len(seen) == len(keys)


def test_fields_of_the_key_do_not_run_together():
    like = torch.empty(1, *SHAPE)
    one, other = Rng.of(1).at(11).normal(like, "z"), Rng.of(11).at(1).normal(like, "z")
    assert not torch.equal(one, other)


def test_seed_0_is_a_seed():
    assert torch.equal(draw([0]), draw([0]))
    assert Rng.of(0).seeds == (0,) and draw([0]).std() > 0.5


def test_a_draw_does_not_depend_on_earlier_draws_or_on_global_seeds():
    rng = Rng.of([1, 2])
    first = rng.normal(torch.empty(2, 4), "a")
    torch.manual_seed(3)
    np.random.seed(3)
    rng.normal(torch.empty(2, 9), "b")
    assert torch.equal(first, rng.normal(torch.empty(2, 4), "a"))
    odd = rng.uniform(torch.empty(2, 3), "c")  # leaves half a word
    assert torch.equal(odd, rng.uniform(torch.empty(2, 3), "c"))


def test_precision_does_not_change_the_noise():
    single, double = draw([1, 2]), draw([1, 2], dtype=torch.float64)
    assert double.dtype == torch.float64 and torch.equal(double, single.double())
    assert torch.equal(draw([1, 2], portable=True), single)


def test_the_stream_stays_what_it_was():
    """A run can be repeated years later: these numbers were drawn once. Another processor's
    cosine may differ in its last bits: an angle of up to pi has 2^-24 relative round-off."""
    normal = Rng.of(0).at(3).normal(torch.empty(1, 3), "z")[0]
    uniform = Rng.of(0).at(3).uniform(torch.empty(1, 3), "z")[0]
    torch.testing.assert_close(
        normal, torch.tensor(GOLDEN_NORMAL), rtol=0, atol=7 * math.pi * 2**-24
    )
    assert uniform.tolist() == GOLDEN_UNIFORM


@pytest.mark.parametrize("word", [0, 2**64 - 1])
def test_extreme_words_give_finite_normals(monkeypatch, word):
    class Stuck:
        def random_raw(self, n):
            return np.full(n, word, np.uint64)

    generator = SimpleNamespace(bit_generator=Stuck())
    monkeypatch.setattr(Rng, "_generators", lambda self, role: iter([generator]))
    z = draw([1])
    assert torch.isfinite(z).all() and float(z.abs().max()) < 6.7


def test_normal_moments():
    x = Rng.of(11).normal(torch.empty(1, N), "z")[0].double().numpy()
    assert max(map(abs, z_scores(x))) < 5
    assert max(map(abs, z_scores(1.02 * x))) > 5


def test_noise_across_seeds_is_white():
    """One number for each of 20000 seeds: the hash must make neighbours independent."""
    x = Rng.of(range(20_000)).normal(torch.empty(20_000, 1), "z")[:, 0].double().numpy()
    assert max(map(abs, z_scores(x))) < 5
    assert abs((x[1:] * x[:-1]).mean()) * math.sqrt(len(x)) < 5


def test_uniform_moments_and_range():
    u = Rng.of(11).uniform(torch.empty(1, N), "u")[0].double()
    assert 0 <= float(u.min()) and float(u.max()) < 1
    assert abs(float(u.mean()) - 0.5) * math.sqrt(12 * N) < 5
    assert abs(float((u**2).mean()) - 1 / 3) * math.sqrt(N * 45 / 4) < 5


@pytest.mark.parametrize("rate", [0.3, 4.0, 900.0])
def test_poisson_moments(rate):
    k = Rng.of(11).poisson(torch.full((1, N), rate, dtype=torch.float64), "k")[0]
    assert torch.equal(k, k.round())
    assert abs(float(k.mean()) - rate) * math.sqrt(N / rate) < 5
    spread = math.sqrt(rate + 2 * rate**2)
    assert abs(float(((k - rate) ** 2).mean()) - rate) * math.sqrt(N) / spread < 5


def test_rows_without_an_image_axis():
    rng, like = Rng.of([1, 2, 3]), torch.ones(3)
    assert rng.normal(like, "z").shape == rng.uniform(like, "z").shape == (3,)
    assert rng.poisson(like, "z").shape == (3,)


@pytest.mark.parametrize("draws", ["normal", "uniform", "poisson"])
def test_as_many_rows_as_seeds(draws):
    with pytest.raises(ValueError, match="3 rows need as many seeds, found 2"):
        getattr(Rng.of([1, 2]), draws)(torch.ones(3, 4), "z")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_device():
    like = torch.empty(2, *SHAPE, device="cuda")
    rng = Rng.of([3, 4]).at(1)
    own = rng.normal(like, "z")
    assert torch.equal(own[1:], Rng.of([4]).at(1).normal(like[:1], "z"))
    assert not torch.equal(own.cpu(), rng.normal(like.cpu(), "z"))
    portable = Rng.of([3, 4], portable=True).at(1).normal(like, "z")
    assert torch.equal(portable.cpu(), rng.normal(like.cpu(), "z"))


@pytest.mark.parametrize("n", [1, 3, 16, 64])
def test_many_short_rows_draw_what_each_draws_alone(n):
    """Many rows are drawn at once, a single one by numpy's generator: the same bits."""
    like = torch.empty(5 * n, 2 * n)
    many = Rng.of(list(range(5 * n))).at(3).normal(like, "x")
    alone = [Rng.of(seed).at(3).normal(like[:1], "x") for seed in range(5 * n)]
    assert torch.equal(many, torch.cat(alone))


def test_words_are_those_of_numpy():
    """Of its SFC64."""
    bits = np.random.SFC64(7)
    state = np.asarray(bits.state["state"]["state"], np.uint64)[None]
    assert (sfc64(state, 1000)[0] == bits.random_raw(1000)).all()
