"""Compiled networks: the same prior, the same images to round-off."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from helpers import sentence
from invdiff.cli import main
from invdiff.commands.common import PriorOptions
from invdiff.core import Level
from invdiff.priors import networked
from invdiff.priors.load import load_prior
from invdiff.priors.networked import as_it_is, compiler_missing
from invdiff.priors.photo import PhotoPrior
from invdiff.priors.photo_net import PhotoNet, PhotoNetConfig

TINY = PhotoNetConfig(widths=(8,), blocks=(1,), up_blocks=(), embedding=8)


@pytest.mark.skipif(bool(compiler_missing("cpu")), reason="there is no C++ compiler")
def test_a_compiled_network_is_the_same_prior() -> None:
    """Its fingerprint and gradients are the same bits, its images to round-off."""
    torch.manual_seed(0)
    net = PhotoNet(TINY)
    for parameter in net.parameters():
        parameter.data.normal_(0, 0.2)
    usual, fast, x = PhotoPrior(net), PhotoPrior(net), torch.randn(1, 3, 8, 8)
    fast.set_compile("cpu")
    with torch.no_grad():
        expected, found = usual.denoise(x, 0.5), fast.denoise(x, 0.5)
    assert fast._fast is not None and fast._fast is not net
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert fast.fingerprint == usual.fingerprint
    assert fast.net.state_dict().keys() == net.state_dict().keys()
    level = Level(0.8, 0.6)
    assert torch.equal(fast.x0_vjp(x, level)[1](x), usual.x0_vjp(x, level)[1](x))
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert other.compiled and other._fast is None
    with as_it_is(fast), torch.no_grad():
        assert torch.equal(fast.denoise(x, 0.5), expected)
    assert fast.compiled


def test_it_is_off_unless_asked_for() -> None:
    assert not load_prior("fashion28").compiled
    assert "compile" not in PriorOptions().told()
    assert PriorOptions(compile=True).told() == {"compile": True}


def test_without_a_compiler_one_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(networked.shutil, "which", lambda name: None)
    wanted = ("torch.compile needs a C++ compiler", "leave compile out")
    sentence(lambda: load_prior("fashion28", compile=True), *wanted)
    monkeypatch.chdir(tmp_path)
    torch.save(torch.zeros(1, 28, 28), "a.pt")
    import numpy as np

    np.save("a.npy", np.zeros((28, 28)))
    args = ["restore", "denoise", "a.npy", "--noise", "0.1", "--prior", "fashion28", "--compile"]
    assert main(args) == 2
    assert wanted[0] in capsys.readouterr().err


def test_what_fails_to_compile_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, x = PhotoPrior(PhotoNet(TINY)), torch.zeros(1, 3, 8, 8)
    prior.set_compile("cpu")

    def broken(net):
        def fail(x, time):
            raise torch._dynamo.exc.TorchDynamoException("no such kernel\nmore")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    wanted = ("could not compile the network photo (TorchDynamoException: no such kernel)", "leave")
    with torch.no_grad():
        sentence(lambda: prior.denoise(x, 0.5), *wanted)
