"""Samplers of other libraries in a bench, without the libraries: names, cost, seeds, failures.

A sampler that is put into the table stands in; the libraries themselves: test_azula, test_deepinv.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invdiff.bench import grid, peers
from invdiff.bench.peers.base import Peer, flat
from invdiff.bench.suites import SUITES
from invdiff.cli import main
from invdiff.core import InvdiffError
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Identity
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need

SHAPE = (3, 8, 8)
PRIOR = GaussianPrior(torch.zeros(SHAPE), 1.0)


@pytest.fixture
def problem() -> Problem:
    return Problem(torch.full((1, *SHAPE), 0.3), Identity(), GaussianNoise(0.1), SHAPE)


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "image.png"
    y, x = np.mgrid[:40, :40] / 9
    waves = np.stack([np.sin(y), np.cos(x), np.sin(x + y)], -1) * 100 + 128
    Image.fromarray(waves.astype("uint8")).save(path)
    return path


def descend(problem, prior, steps, count):
    """A sampler that evaluates the prior once in each of its steps."""
    x = torch.randn(count, *problem.x_shape)
    for k in range(steps):
        x = prior.denoise(x, 1.0 / (k + 1))
    return x + 0.1 * torch.randn_like(x)


def fail(problem, prior, steps, count):
    raise RuntimeError("mat1 and mat2\n  do not fit")


TOYS = {
    "toy:mean": Peer("toy:mean", 5, frozenset({Need.LINEAR}), descend),
    "toy:cloud": Peer("toy:cloud", 2, frozenset(), descend, together=True),
    "toy:broken": Peer("toy:broken", 5, frozenset(), fail),
    "toy:nan": Peer("toy:nan", 5, frozenset(), lambda p, *_: p.x_like * float("nan")),
    "toy:small": Peer("toy:small", 5, frozenset(), lambda p, *_: p.x_like[..., :4]),
}


@pytest.fixture
def toys(monkeypatch) -> None:
    """A library called toy, version 1.2."""
    library = types.ModuleType("toy")
    library.__version__ = "1.2"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy", library)
    for name, toy in TOYS.items():
        monkeypatch.setitem(peers.PEERS, name, toy)


def library(name: str, text: str, where: Path, monkeypatch) -> None:
    """A library that is imported from a file."""
    (where / name).mkdir()
    (where / name / "__init__.py").write_text(text)
    for known in [m for m in sys.modules if m.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.syspath_prepend(where)


def test_every_sampler_is_of_a_library_that_is_known():
    for name, peer in peers.PEERS.items():
        assert name == peer.name and peer.library in peers.INSTALL and peer.steps > 1


@pytest.mark.parametrize(
    ("solver", "said"),
    [
        ("azula:mmps", "azula:mmps needs the package azula: pip install azula einops\n"),
        ("deepinv:ddrm", "deepinv:ddrm needs the package deepinv: pip install deepinv\n"),
        ("azula:mmp", "There is no sampler of another library called 'azula:mmp'; did you mean"),
        ("deepinv:sampler", "did you mean deepinv:"),
        ("other:dps", "did you mean"),
    ],
)
def test_a_library_that_is_missing_is_told_first(
    solver, said, image, tmp_path, monkeypatch, capsys
):
    for name in peers.INSTALL:
        monkeypatch.setitem(sys.modules, name, None)
    out = tmp_path / "out"
    args = ["bench", str(image), "--side", "32", "--solvers", f"estimate,{solver}"]
    assert main([*args, "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("invdiff: ") and said in err and err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import never_there_either", "azula, which needs never_there_either: pip install azula"),
        ("raise RuntimeError('operator nms\\n is not there')", "(operator nms is not there)"),
        ("from sys import nothing", "azula cannot be imported: ImportError (cannot import name"),
    ],
)
def test_a_library_that_is_broken_is_one_sentence(text, said, tmp_path, monkeypatch):
    library("azula", text, tmp_path, monkeypatch)
    with pytest.raises(InvdiffError) as error:
        peers.check("azula:dps")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_sample_is_the_same_alone_and_among_others(problem, toys):
    before = torch.get_rng_state()
    alone, one = peers.sample(TOYS["toy:mean"], problem, PRIOR, 1, 4, 3)
    three, each = peers.sample(TOYS["toy:mean"], problem, PRIOR, 3, 4, 3)
    other, _ = peers.sample(TOYS["toy:mean"], problem, PRIOR, 1, 5, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert three.shape == (1, 3, *SHAPE) and torch.equal(three[:, :1], alone)
    assert not torch.equal(three[:, :1], three[:, 1:2]) and not torch.equal(other, alone)
    assert one == each == 3
    cloud, spent = peers.sample(TOYS["toy:cloud"], problem, PRIOR, 3, 4, 2)
    assert cloud.shape == three.shape and spent == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("toy:broken", "toy:broken failed: RuntimeError (mat1 and mat2 do not fit)."),
        ("toy:nan", "toy:nan gave numbers that are not finite."),
        ("toy:small", "gave the shape (1, 3, 8, 4) in place of (1, 3, 8, 8)."),
    ],
)
def test_what_fails_is_one_sentence(name, said, problem, toys):
    with pytest.raises(InvdiffError) as error:
        peers.sample(TOYS[name], problem, PRIOR, 2, 0, 3)
    assert said in str(error.value)


def test_an_interrupt_is_none_of_its_failures(problem):
    def stopped(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        peers.sample(Peer("toy:stopped", 5, frozenset(), stopped), problem, PRIOR, 1, 0, 3)


def test_a_bench_has_it_beside_others(image, tmp_path, toys, capsys):
    out = tmp_path / "out"
    args = ["bench", str(image), "--side", "32", "--solvers", "estimate,toy:mean,toy:broken"]
    args += ["--steps", "3", "--samples", "2", "--out", str(out), "--quiet"]
    assert main(args) == 0
    told = capsys.readouterr().err
    assert told.count("toy:broken failed") == 1 and "Traceback" not in told
    _, *lines = map(json.loads, (out / "bench.jsonl").read_text().splitlines())
    ours = [line for line in lines if line["solver"] == "toy:mean"]
    assert len(ours) == len(SUITES["small"].cases)
    for line in ours:
        assert line["steps"] == line["evaluations"] == 3 and line["samples"] == 2
        assert line["library"] == "toy 1.2" and line["values"]["misfit"] > 0
    page = (out / "bench.md").read_text()
    assert "Samplers of other libraries, of toy 1.2: `toy:mean`." in page
    assert "| `toy:mean` | 3 | 3 | 1 |" in page
    assert "- `toy:broken`: toy:broken failed: RuntimeError" in page


def test_a_measurement_that_it_cannot_do_is_told(image, toys):
    suite = SUITES["daps"]
    cells = grid.Grid((image,), suite, ("toy:mean",), side=32, samples=1, steps=2)
    said = {line["case"]: line.get("error") for line in cells.lines(set())}
    assert said["hdr"] == (
        "toy:mean cannot solve HDR: it needs a linear operator and HDR offers none."
    )
    assert said["box"] is None


def test_complex_numbers_are_two_real_ones():
    y = torch.complex(torch.arange(4.0), -torch.arange(4.0)).reshape(1, 1, 2, 2)
    assert flat(y).tolist() == [[0, 0, 1, -1, 2, -2, 3, -3]]
    assert flat(y.real).tolist() == [[0, 1, 2, 3]]
