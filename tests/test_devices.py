"""Several devices: the same samples as on one, and one sentence for what is not there.

Two places on the CPU stand for two devices: the problem and the prior are copied, and batches run
side by side in threads.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import sentence
from invdiff import fields
from invdiff.cli import main
from invdiff.core import InvdiffError
from invdiff.core.schedules import VP
from invdiff.noise import GaussianNoise
from invdiff.operators import Inpaint
from invdiff.priors.base import Denoiser
from invdiff.priors.photo import PhotoPrior
from invdiff.priors.photo_net import PhotoNet, PhotoNetConfig
from invdiff.problem import Problem
from invdiff.restoration.job import prepare, torch_devices
from invdiff.restoration.perform import perform
from invdiff.sampling.run import Snapshot, again, solve
from invdiff.solvers import solver_class
from invdiff.tasks import task_class

SIZE = (16, 16)
CPUS = ("cpu", "cpu")


def photo() -> PhotoPrior:
    torch.manual_seed(0)
    net = PhotoNet(PhotoNetConfig(widths=(8, 16), blocks=(1, 1), up_blocks=(1,), embedding=16))
    for parameter in net.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape))
    return PhotoPrior(net)


def problem(rows: int = 1) -> Problem:
    A = Inpaint.box(SIZE, 4, 4, 8, 8)
    x = torch.randn(rows, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    return Problem(A(0.3 * x), A, GaussianNoise(0.1), (3, *SIZE))


@pytest.mark.parametrize("batch", [None, 1, 2])
@pytest.mark.parametrize("name", ["ddrm", "dps", "daps"])
def test_samples_are_those_of_one_device(name: str, batch: int | None) -> None:
    """Bit for bit, whatever the number of rows that run together; so are the counts of a batch."""
    solver, prior = solver_class(name)().with_steps(3), photo()
    one = solve(problem(2), prior, solver, 3, seed=5, batch=batch or 3)
    many = solve(problem(2), prior, solver, 3, seed=5, batch=batch, devices=CPUS)
    assert torch.equal(one.samples, many.samples)
    assert (one.nfe, one.vjps) == (many.nfe, many.vjps)
    assert many.config["devices"] == list(CPUS) and many.config["device"] == "cpu"
    assert torch.equal(again(many, prior).samples, many.samples), "repeated on one device"


def test_batches_run_side_by_side() -> None:
    """Each waits until the other is there: one after the other, they would wait for ever."""
    met = threading.Barrier(2, timeout=20)

    def denoiser(x: Tensor, sigma: float) -> Tensor:
        met.wait()
        return x / (1 + sigma**2)

    solver = solver_class("ddrm")(schedule=VP(2))
    prior = Denoiser(denoiser)
    prior.__deepcopy__ = lambda memo: prior  # type: ignore[attr-defined]  # one barrier for both
    solve(problem(), prior, solver, 2, devices=CPUS)


def test_a_snapshot_of_several_devices_is_that_of_one() -> None:
    """Snapshots tell the first batch that is not done; a run on one device goes on from any."""
    solver, prior, seen = solver_class("dps")(schedule=VP(3)), photo(), list[Snapshot]()
    whole = solve(problem(), prior, solver, 4, batch=1, devices=CPUS, watch=seen.append)
    assert [s.steps_done for s in seen] == sorted(s.steps_done for s in seen)
    assert all(s.chunks == 4 for s in seen)
    for start in (seen[0], seen[-1]):
        for devices in ((), CPUS):
            on = solve(problem(), prior, solver, 4, batch=1, start=start, devices=devices)
            assert torch.equal(on.samples, whole.samples)
            assert (on.nfe, on.vjps) == (whole.nfe, whole.vjps)


def test_an_error_ends_all_devices() -> None:
    """Of a worker, and of who watches; no thread is left."""

    def broken(x: Tensor, sigma: float) -> Tensor:
        raise InvdiffError("The prior is broken.")

    def stop(snapshot: Snapshot) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    solver = solver_class("ddrm")(schedule=VP(50))
    with pytest.raises(InvdiffError, match=r"The prior is broken\."):
        solve(problem(), Denoiser(broken), solver, 4, batch=1, devices=CPUS)
    with pytest.raises(KeyboardInterrupt):
        solve(problem(), photo(), solver, 4, batch=1, devices=CPUS, watch=stop)
    assert threading.active_count() == before


def test_clouds_are_not_split() -> None:
    tds = solver_class("tds")(schedule=VP(2))
    call = lambda: solve(problem(), photo(), tds, 4, devices=CPUS)  # noqa: E731
    sentence(call, "tds draws samples that depend on each other", "give one device")
    alone = solve(problem(), photo(), tds, 4, devices=("cpu",))
    assert torch.equal(alone.samples, solve(problem(), photo(), tds, 4).samples)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tpu", "give cpu, cuda, cuda:NUMBER or mps"),
        ("cpu,x", "There is no device 'x'"),
        ("cuda:-1", "There is no device 'cuda:-1'"),
        ("cpu,", "There is no device ''"),
        ("meta", "There is no device 'meta'"),
    ],
)
def test_what_is_no_device_is_one_sentence(name: str, words: str) -> None:
    sentence(lambda: torch_devices(name), words)


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert torch_devices("auto") == ("cpu",) and torch_devices("cpu,cpu") == CPUS
    for name, kind in (("cuda:0,1", "CUDA"), ("mps", "MPS"), ("cuda", "CUDA")):
        sentence(lambda name=name: torch_devices(name), f"no {kind} device", "give --device cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert torch_devices("cuda:0,1") == torch_devices("cuda:0,cuda:1") == ("cuda:0", "cuda:1")
    assert torch_devices("auto") == torch_devices("cuda") == ("cuda",)
    sentence(lambda: torch_devices("cuda:0,2"), "no device 'cuda:2'", "cuda:0 to cuda:1")


def test_the_command_takes_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.random.default_rng(0).random((16, 16, 3)))
    task = fields.build(task_class("denoise"), {"noise": 0.1}, "denoise")

    def job(device: str):
        return prepare(
            task, Path("a.npy"), samples=4, device=device, configure=lambda s: s.with_steps(2)
        )

    split = job("cpu,cpu")
    assert split.devices == CPUS and split.batch == 2 and split.chunks == 2
    one, two = (perform(j, quiet=True).result for j in (job("cpu"), split))
    assert torch.equal(one.samples, two.samples) and torch.equal(one.estimate, two.estimate)
    command = ["restore", "denoise", "a.npy", "--noise", "0.1", "--steps", "2", "--quiet"]
    assert main([*command, "--device", "cpu,cpu"]) == 0
    assert main(["restore", "--from", "restored-a/run.json", "--out", "again", "--quiet"]) == 0
    for name in ("estimate", "sample-1", "sample-4"):
        first, second = (np.load(f"{folder}/{name}.npy") for folder in ("restored-a", "again"))
        assert np.array_equal(first, second)
