"""Masks: constructors, NaN off the mask, and errors."""

from __future__ import annotations

import pytest
import torch

from invdiff.core import InvdiffError
from invdiff.noise import GaussianNoise
from invdiff.operators import Inpaint
from invdiff.problem import Problem


def test_box_is_what_is_missing() -> None:
    mask = Inpaint.box((6, 5), 1, 2, 3, 2).mask
    expected = torch.ones(1, 1, 6, 5, dtype=torch.bool)
    expected[0, 0, 1:4, 2:4] = False
    assert torch.equal(mask, expected)
    for box in [(-1, 0, 2, 2), (5, 0, 2, 2), (0, 4, 2, 2), (0, 0, 0, 2), (0, 0, 7, 2)]:
        with pytest.raises(InvdiffError, match="6 x 5"):
            Inpaint.box((6, 5), *box)
    with pytest.raises(InvdiffError, match="knows no pixel"):
        Inpaint.box((6, 5), 0, 0, 6, 5)


@pytest.mark.parametrize("keep", [0.08, 0.3, 0.5, 1.0])
def test_random_keeps_an_exact_number(keep: float) -> None:
    mask = Inpaint.random((13, 7), keep, seed=4, batch=3).mask
    assert mask.shape == (3, 1, 13, 7)
    assert mask.flatten(1).sum(1).tolist() == [round(keep * 91)] * 3


def test_random_masks_depend_on_their_seed_only() -> None:
    batch = Inpaint.random((13, 7), 0.5, seed=4, batch=3).mask
    for k in range(3):
        assert torch.equal(Inpaint.random((13, 7), 0.5, seed=4 + k).mask[0], batch[k])
    assert not torch.equal(batch[0], batch[1])


def test_random_masks_are_uniform() -> None:
    """Each pixel is known in keep of the masks: 5 standard errors of a binomial share."""
    share = Inpaint.random((8, 8), 0.25, seed=0, batch=2000).mask.double().mean(0)
    assert float((share - 0.25).abs().max()) < 5 * (0.25 * 0.75 / 2000) ** 0.5


def test_off_mask_values_are_never_read() -> None:
    A = Inpaint.box((6, 5), 1, 2, 3, 2)
    x = torch.randn(2, 3, 6, 5)
    y = torch.where(A.mask, x, float("nan"))
    assert torch.equal(A.restrict(y), A(x))
    for out in (A.adjoint(y), A.pinv(y), A.Ut(y)):
        assert bool(torch.isfinite(out).all())
    assert torch.equal(Problem(y, A, GaussianNoise(0.1), (3, 6, 5)).y, A(x))


def test_rows_and_devices_keep_the_mask() -> None:
    A = Inpaint.random((6, 5), 0.5, seed=0, batch=3)
    assert torch.equal(A.rows(torch.tensor([2, 0])).mask, A.mask[[2, 0]])
    assert A.to("cpu", torch.float32).mask.dtype == torch.bool
    shared = Inpaint.random((6, 5), 0.5, seed=0)
    assert torch.equal(shared.rows(torch.tensor([2, 0])).mask, shared.mask)


def test_errors_are_sentences() -> None:
    with pytest.raises(InvdiffError, match="only 1"):
        Inpaint(torch.full((1, 1, 4, 4), 0.5))
    with pytest.raises(InvdiffError, match="only 1"):
        Inpaint(torch.full((1, 1, 4, 4), float("nan")))
    with pytest.raises(InvdiffError, match="image 1 knows no pixel"):
        Inpaint(torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4))
    with pytest.raises(InvdiffError, match="add the missing axes"):
        Inpaint(torch.ones(4, 4))
    wrong = {0: "fraction", -0.1: "fraction", 1.5: "fraction", float("nan"): "must be a finite"}
    for keep, words in wrong.items():
        with pytest.raises(InvdiffError, match=words):
            Inpaint.random((4, 4), keep, seed=0)
    with pytest.raises(InvdiffError, match="knows no pixel"):
        Inpaint.random((4, 4), 0.001, seed=0)
    A = Inpaint(torch.ones(1, 3, 4, 5))
    assert A.y_shape((3, 4, 5)) == (3, 4, 5)
    for shape in ((3, 5, 4), (1, 4, 5), (3, 2, 4, 5)):
        with pytest.raises(InvdiffError, match=r"\(3, 4, 5\) per image"):
            A.y_shape(shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_restriction_by_bits_keeps_known_values_and_passes_gradients(dtype: torch.dtype) -> None:
    A = Inpaint.random((6, 5), 0.5, seed=1)
    y = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    y[0, 0, 0, 0] = float("nan")
    known = A.mask.expand_as(y)
    found = A.restrict(y)
    assert torch.equal(found[known].nan_to_num(7), y[known].nan_to_num(7))
    assert bool((found[~known] == 0).all())
    leaf = y.clone().nan_to_num().requires_grad_()
    A.restrict(leaf).sum().backward()
    assert torch.equal(leaf.grad, known.to(dtype))


def test_a_batch_of_no_masks_is_refused():
    with pytest.raises(InvdiffError, match="number of masks is a whole number from 1"):
        Inpaint.random((4, 4), 0.5, 0, batch=0)
