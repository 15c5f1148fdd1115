"""Runs: chunks, snapshots, repetition, and folders that appear whole."""

import dataclasses
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import invdiff
from invdiff.core import InvdiffError
from invdiff.core.encode import decode, encode
from invdiff.core.folders import check_apart, whole_folder
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP
from invdiff.noise import GaussianNoise
from invdiff.operators import Identity, Inpaint
from invdiff.priors.base import Denoiser, Prior
from invdiff.problem import Problem
from invdiff.sampling.needs import missing
from invdiff.sampling.result import Result
from invdiff.sampling.run import Snapshot, again, solve
from invdiff.sampling.solver import Solver
from invdiff.solvers import registry
from invdiff.solvers.diffpir import DiffPIR

STEPS = 4


def shrink(x: Tensor, sigma: float) -> Tensor:
    """A denoiser that is not linear, so that every number matters."""
    return torch.tanh(x) / (1 + sigma**2)


class Named(Denoiser):
    @property
    def fingerprint(self) -> str:
        return self.name


def prior(name: str = "shrink") -> Prior:
    return Named(shrink, (1, None, None), name=name)


def problem() -> Problem:
    mask = Inpaint.random((6, 5), 0.5, seed=1, batch=2).mask
    y = torch.linspace(-1, 1, 60).reshape(2, 1, 6, 5)
    return Problem(y, Inpaint(mask), GaussianNoise(0.1), (1, 6, 5))


def solver(name: str = "diffpir") -> Solver:
    return registry()[name]().with_steps(STEPS)


ABLE = [n for n in registry() if not missing(solver(n), problem())]
STOPS = (0, 3, STEPS, 7, 10)
RESUMED = [("diffpir", stop) for stop in STOPS]
RESUMED += [(n, STOPS[i % len(STOPS)]) for i, n in enumerate(ABLE) if n != "diffpir"]
"""Every solver at one of the stops, one solver at all of them."""


@pytest.mark.parametrize(("name", "stop"), RESUMED)
def test_resume_is_bit_exact(name: str, stop: int) -> None:
    """From the snapshot after any step, through a file's form, to the same samples and counts."""
    snapshots: list[Snapshot] = []
    whole = solve(problem(), prior(), solver(name), 3, 5, 2, watch=snapshots.append)
    tensors: dict[str, Tensor] = {}
    stop = min(stop, len(snapshots) - 1)  # a coupled solver runs all rows in one chunk
    form = json.loads(json.dumps(encode(snapshots[stop], tensors)))
    start = decode(form, tensors)
    rest: list[Snapshot] = []
    resumed = solve(problem(), prior(), solver(name), 3, 5, 2, watch=rest.append, start=start)
    assert torch.equal(whole.samples, resumed.samples)
    assert (whole.nfe, whole.vjps) == (resumed.nfe, resumed.vjps)
    assert len(rest) == len(snapshots) - stop


def test_snapshots_count_steps() -> None:
    seen: list[Snapshot] = []
    result = solve(problem(), prior(), solver(), 3, watch=seen.append, batch=4)
    assert [s.steps_done for s in seen] == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8]
    assert all((s.chunks, s.steps) == (2, STEPS) for s in seen)
    assert [len(s.done) for s in seen] == [0] * 5 + [1] * 5
    assert result.samples.shape == (2, 3, 1, 6, 5) and result.nfe == STEPS


def test_a_snapshot_of_another_run_is_refused() -> None:
    seen: list[Snapshot] = []
    solve(problem(), prior(), solver(), 3, batch=4, watch=seen.append)
    for other, samples, batch in [
        (solver(), 3, 3),
        (DiffPIR(schedule=VP(9)), 3, 4),
        (solver(), 7, 4),
    ]:
        with pytest.raises(InvdiffError, match="another run"):
            solve(problem(), prior(), other, samples, batch=batch, start=seen[-1])


@pytest.mark.parametrize(("samples", "batch"), [(0, None), (-1, 2), (2, 0), (2, -3)])
def test_counts_are_checked(samples: int, batch: int | None) -> None:
    with pytest.raises(InvdiffError, match="[Aa]t least 1 sample"):
        solve(problem(), prior(), solver(), samples, batch=batch)


def test_save_load_again(tmp_path: Path) -> None:
    result = solve(problem(), prior(), solver(), 3, 5, 2)
    loaded = Result.load(result.save(tmp_path / "r"))
    assert torch.equal(loaded.samples, result.samples) and loaded.config["batch"] == 2
    assert (loaded.nfe, loaded.vjps, loaded.seconds) == (result.nfe, result.vjps, result.seconds)
    assert torch.equal(again(loaded, prior()).samples, result.samples)
    with pytest.raises(InvdiffError, match="give the same weights"):
        again(loaded, prior("other"))
    with pytest.raises(InvdiffError, match="exists"):
        result.save(tmp_path / "r")
    result.save(tmp_path / "r", overwrite=True)


@pytest.mark.parametrize("content", ["", "words", "[]", "{}", '{"nfe": 1}'])
def test_what_is_no_run_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(InvdiffError, match="no saved run"):
        Result.load(tmp_path)
    (tmp_path / "run.json").write_text(content)
    (tmp_path / "run.safetensors").write_text(content)
    with pytest.raises(InvdiffError, match="no saved run"):
        Result.load(tmp_path)


def test_portable_reaches_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, given = [], problem()
    original = Rng.of
    monkeypatch.setattr(Rng, "of", lambda s, p=False: seen.append(p) or original(s, p))
    solve(given, prior(), solver(), 1, portable=True)
    assert seen == [True, True]


def test_whole_folder(tmp_path: Path) -> None:
    """Appears when complete; a failure leaves nothing; only our own folders are replaced."""
    out = tmp_path / "deep" / "out"
    with whole_folder(out) as part:
        (part / "run.json").write_text('{"invdiff": "1"}')
        assert not out.exists()
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    with pytest.raises(KeyboardInterrupt), whole_folder(out, True) as part:
        (part / "run.json").write_text("2")
        raise KeyboardInterrupt
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    assert (out / "run.json").read_text() == '{"invdiff": "1"}'
    with pytest.raises(InvdiffError, match="exists"), whole_folder(out):
        pass
    with whole_folder(out, True) as part:
        (part / "run.json").write_text('{"invdiff": "3"}')
    assert (out / "run.json").read_text() == '{"invdiff": "3"}'
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    with pytest.raises(InvdiffError, match="not overwritten"), whole_folder(mine, True):
        pass
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InvdiffError, match="not overwritten"), whole_folder(file, True):
        pass
    with pytest.raises(InvdiffError, match="not writable"), whole_folder(file / "a"):
        pass


def test_inputs_in_the_results_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("")
    check_apart(tmp_path / "b", str(tmp_path / "a.png"), "gaussian:2")
    with pytest.raises(InvdiffError, match="lies in"):
        check_apart(tmp_path, str(tmp_path / "a.png"))


@pytest.mark.parametrize("module", ["", "invdiff.operators.base:", "invdiff.nowhere:"])
def test_files_name_classes_wherever_they_stood(module: str) -> None:
    """Files of today hold the name alone; those of earlier versions tell a module before it."""
    assert isinstance(decode({"type": f"{module}Identity", "fields": {}}, {}), Identity)


def test_stored_classes_have_names_of_their_own() -> None:
    """Two dataclasses of one name could not be told apart in a file; two are found here."""
    found: dict[str, list[type]] = {}
    for module in pkgutil.walk_packages(invdiff.__path__, "invdiff."):
        if module.name != "invdiff.__main__":
            for cls in vars(importlib.import_module(module.name)).values():
                own = isinstance(cls, type) and cls.__module__ == module.name
                if own and dataclasses.is_dataclass(cls):
                    found.setdefault(cls.__name__, []).append(cls)
    assert len(found) > 100 and not {n: c for n, c in found.items() if len(c) > 1}


def test_paths_are_written() -> None:
    form = encode(Path("a") / "b.png", {})
    assert form == {"path": "a/b.png"} and decode(form, {}) == Path("a/b.png")


def test_saved_runs_are_read_by_a_fresh_interpreter() -> None:
    """Result finds the classes that it needs: nobody imported them before."""
    code = (
        "import pathlib, sys; from invdiff.sampling.result import Result\n"
        "for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    if folder.is_dir():\n"
        "        r = Result.load(folder); print(type(r.problem().A).__name__, r.solver().name)\n"
    )
    runs = Path(__file__).parent / "golden" / "runs"
    done = subprocess.run(
        [sys.executable, "-c", code, str(runs)], check=True, capture_output=True, text=True
    )
    assert len(done.stdout.splitlines()) == len([p for p in runs.iterdir() if p.is_dir()]) >= 13


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("os:system", "names os, which is not part of invdiff"),
        ("invdiffed.core:Problem", "not part of invdiff"),
        (":eval", "names no type"),
        ("invdiff.core:InvdiffError", "has no InvdiffError"),  # a class, and no dataclass
        ("invdiff.priors.load:load_prior", "has no load_prior"),
        ("invdiff.nowhere:Elsewhere", "has no Elsewhere"),
        ("Elsewhere", "has no Elsewhere"),
        ("system", "has no system"),
    ],
)
def test_a_file_names_no_other_code(kind: str, sentence: str) -> None:
    with pytest.raises(InvdiffError, match=sentence):
        decode({"type": kind, "fields": {}}, {})
