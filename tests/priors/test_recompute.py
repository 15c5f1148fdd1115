"""Blocks that are computed again: the same bits, less memory, and where it is decided by itself."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from helpers import sentence
from invdiff.core import InvdiffError, Level
from invdiff.core.schedules import VP
from invdiff.noise import GaussianNoise
from invdiff.operators import Inpaint
from invdiff.priors import recompute
from invdiff.priors.channels import PerChannel
from invdiff.priors.guidance import Guided
from invdiff.priors.hub import Labelled
from invdiff.priors.load import load_prior
from invdiff.priors.networked import Networked, networks, recomputed
from invdiff.priors.photo import PhotoPrior
from invdiff.priors.photo_net import PhotoNet, PhotoNetConfig
from invdiff.priors.precond import NetworkPrior, predicts_edm, predicts_eps
from invdiff.priors.published.song import SongConfig, SongUNet
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.solvers import solver_class

LEVEL = Level(0.8, 0.6)


def filled(net: nn.Module) -> nn.Module:
    """Weights that leave no part of the network out."""
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return net


def photo(tile: int = 768, precision: str = "float32") -> PhotoPrior:
    torch.manual_seed(0)
    config = PhotoNetConfig(widths=(8, 16), blocks=(2, 2), up_blocks=(2,), embedding=16)
    net = filled(PhotoNet(config))
    return PhotoPrior(net, tile, 8, precision)  # type: ignore[arg-type]


def diffusers() -> NetworkPrior:
    torch.manual_seed(0)
    net = UNet2DModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return NetworkPrior(Labelled(filled(net), 2, None), predicts_eps(VP(10).alpha_bars()))


def song() -> NetworkPrior:
    torch.manual_seed(0)
    net = SongUNet(SongConfig(channels=3, base=16, widths=(16, 32), blocks=2, embedding=32,
                              features=16, attention=(False, True)))  # fmt: skip
    return NetworkPrior(filled(net), predicts_edm())


MADE: dict[str, Callable[[], Networked]] = {
    "photo": photo,
    "photo-tiles": lambda: photo(tile=8),
    "photo-bfloat16": lambda: photo(precision="bfloat16"),
    "diffusers": diffusers,
    "song": song,
}


def image(rows: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 3, 16, 16, generator=generator, dtype=dtype)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("name", MADE)
def test_pulls_are_the_same_bits(name: str, rows: int) -> None:
    """Once and twice, of one row and of several; the network is as it was afterwards."""
    prior, x = MADE[name](), image(rows)
    keys, pulled = prior.fingerprint, {}
    assert prior.has_blocks
    for asked in (False, True):
        prior.set_checkpoint(asked)
        x0, pull = prior.x0_vjp(x, LEVEL)
        y0, last = prior.x0_vjp(x, LEVEL, once=True)
        pulled[asked] = (x0, pull(x), pull(x0), y0, last(x))
    assert all(torch.equal(a, b) for a, b in zip(*pulled.values(), strict=True))
    assert pulled[True][1].abs().max() > 0
    assert not any("forward" in vars(part) for part in prior.net.modules())
    if name != "diffusers":  # whose parts of tests are not all picklable
        pickle.loads(pickle.dumps(prior))
    assert prior.fingerprint == keys


@pytest.mark.parametrize("solver", ["dps", "mmps", "pigdm"])
@pytest.mark.parametrize("name", ["photo", "diffusers"])
def test_samples_are_the_same_bits(name: str, solver: str) -> None:
    """Of one row, which is calculated as one of two, and of several."""
    prior, A = MADE[name](), Inpaint.box((16, 16), 4, 4, 8, 8)
    problem = Problem(0.3 * A(image(1)), A, GaussianNoise(0.1), (3, 16, 16))
    chosen = solver_class(solver)().with_steps(3)
    for batch in (1, 2):
        found = []
        for asked in (False, True):
            prior.set_checkpoint(asked)
            found.append(solve(problem, prior, chosen, 2, batch=batch).samples)
        assert torch.equal(*found)


def test_second_derivatives_pass() -> None:
    """What gradients of a likelihood need: the derivative of a pull."""
    found, prior = [], photo()
    for asked in (False, True):
        x = image(2).requires_grad_()
        prior.set_checkpoint(asked)
        (g,) = torch.autograd.grad(prior.x0(x, LEVEL).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(g.square().sum(), x)[0])
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["photo", "diffusers", "song"])
def test_what_is_kept_is_counted_without_numbers(name: str) -> None:
    """As many bytes as the true pass keeps, or more where that has a faster form of attention; and
    computed again, blocks keep less than half."""
    prior, x = MADE[name](), image(2).requires_grad_()
    time = torch.full((1 if name == "photo" else 2,), 3.0)
    sizes = {}
    for asked in (False, True):
        prior.set_checkpoint(asked)
        seen: dict[int, int] = {}
        own = {p.untyped_storage().data_ptr() for p in prior.net.parameters()}
        own |= {b.untyped_storage().data_ptr() for b in prior.net.buffers()}

        def note(t: Tensor, seen: dict[int, int] = seen, own: set[int] = own) -> Tensor:
            storage = t.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage.nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            out = prior.evaluated(x, time)
        sizes[asked] = sum(seen.values())
        del out
    most = 1.5 if name == "diffusers" else 1.05
    assert 0.95 < recompute.kept(prior.net, x, time) / sizes[False] < most
    assert sizes[True] < sizes[False] / 2


def test_auto_decides_by_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each shape."""
    prior, x, time = photo(), image(2).requires_grad_(), torch.ones(1)
    need = recompute.kept(prior.net, x, time)
    assert prior.checkpoint == "auto"
    for share, again in ((0.4, False), (0.6, True)):
        net = photo().net
        monkeypatch.setattr(recompute, "available", lambda device, s=share: need / s)
        assert recompute.wanted(net, x, time, "auto") == again
        monkeypatch.setattr(recompute, "available", lambda device: 1.0)
        assert recompute.wanted(net, x, time, "auto") == again
        assert recompute.wanted(net, x[:1], time, "auto")


class Opaque(nn.Module):
    """A network that leaves torch, as some of others do, and has no lists of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return x * float(time[0].numpy())


def test_what_has_no_blocks_is_not_computed_again() -> None:
    prior = NetworkPrior(Opaque(), predicts_edm(), name="opaque")
    assert recompute.kept(prior.net, image(1), torch.ones(1)) == 0
    x0, pull = prior.x0_vjp(image(1), LEVEL)
    assert pull(x0).shape == x0.shape
    sentence(lambda: prior.set_checkpoint(True), "opaque holds no lists of blocks", "leave")
    with pytest.raises(InvdiffError, match="checkpoint must be auto, True or False, found 'yes'"):
        prior.set_checkpoint("yes")  # type: ignore[arg-type]
    with recomputed(prior) as any_does:
        assert not any_does and prior.checkpoint == "auto"


def test_every_network_of_a_prior_is_told() -> None:
    one, two = photo(), photo()
    whole = PerChannel(Guided(one, two, 2.0), 3)
    assert list(networks(whole)) == [one, two]
    with recomputed(whole) as any_does:
        assert any_does and one.checkpoint is two.checkpoint is True
    assert one.checkpoint == two.checkpoint == "auto"


def test_load_prior_takes_it() -> None:
    assert load_prior("fashion28").checkpoint == "auto"
    assert load_prior("fashion28", checkpoint=True).checkpoint is True
    sentence(lambda: load_prior("fashion28", checkpoint="on"), "checkpoint", "auto, True or False")
