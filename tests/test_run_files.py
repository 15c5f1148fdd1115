"""run.json and run.safetensors as a format: an edit is refused in a sentence with its field."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import sentence
from invdiff import restore
from invdiff.core import InvdiffError, checksum
from invdiff.restoration.repeat import repeated
from invdiff.restoration.restored import Restoration
from invdiff.sampling import record
from invdiff.sampling.result import Result

GOLDEN = Path(__file__).parent / "golden" / "runs" / "denoise"
VALUES = (None, True, -1, 10**30, float("nan"), "x", [], {})
Key = tuple[Any, ...]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of now."""
    pixels = np.random.default_rng(0).random((8, 8, 3))
    done = restore("denoise", pixels, noise=0.1, samples=2, steps=2, progress=False)
    folder = tmp_path_factory.mktemp("run") / "run"
    done.result.save(folder)  # pictures are none of the format
    return folder


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


def keys(form: Any, at: Key = ()) -> Iterator[Key]:
    """The place of every value."""
    inner = form.items() if isinstance(form, dict) else enumerate(form)
    for key, value in inner:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from keys(value, (*at, key))


def edited(form: Any, place: Key, value: Any, delete: bool = False) -> Any:
    """A copy of a form, with a value in one place."""
    form = copy.deepcopy(form)
    part = form
    for key in place[:-1]:
        part = part[key]
    if delete:
        del part[place[-1]]
    else:
        part[place[-1]] = value
    return form


def edits(form: Any) -> Iterator[tuple[Key, Any]]:
    """Every place deleted, and with values that another field would have."""
    for i, place in enumerate(keys(form)):
        if place[0] not in ("tensors", "checksums"):
            yield place, edited(form, place, None, delete=True)
            for j in (i, i + 3, i + 5):  # three values for each place, all of them in turn
                new = edited(form, place, VALUES[j % len(VALUES)])
                if json.dumps(new) != json.dumps(form):
                    yield place, new


def test_every_edit_names_its_field(saved: Path) -> None:
    told = json.loads((saved / record.JSON_FILE).read_text())
    tensors = load_file(saved / record.TENSOR_FILE)
    record.check(told, tensors)
    count = 0
    for place, form in edits(told):
        count += 1
        with pytest.raises(InvdiffError) as caught:
            record.check(form, tensors)
        text = str(caught.value)
        assert text.startswith(str(place[0])) or "files" in place, (place, text)
        assert "\n" not in text and text.endswith("."), text
    assert count >= 334


def test_edits_of_a_file_of_before_are_told_or_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no checksums: what is another run is another run, but nothing is unexpected."""
    told = json.loads((GOLDEN / record.JSON_FILE).read_text())
    shutil.copytree(GOLDEN, tmp_path / "run")
    refused = 0
    for place, form in list(edits(told))[::14]:
        (tmp_path / "run" / record.JSON_FILE).write_text(json.dumps(form))
        try:
            repeated(tmp_path / "run")
        except InvdiffError as error:
            refused += 1
            assert "\n" not in str(error) and str(error).endswith("."), (place, str(error))
    assert refused >= 20


def test_tensors_are_held_to_their_checksums(run: Path) -> None:
    tensors = load_file(run / record.TENSOR_FILE)
    for name in tensors:
        other = {n: t.clone() for n, t in tensors.items()}
        other[name].reshape(-1)[0] += 1
        save_file(other, run / record.TENSOR_FILE)
        sentence(lambda: Result.load(run), f"the tensor {name} was changed")
    save_file(tensors | {"more": torch.zeros(1)}, run / record.TENSOR_FILE)
    sentence(lambda: Result.load(run), "tensors more")
    data = (run / record.TENSOR_FILE).read_bytes()
    (run / record.TENSOR_FILE).write_bytes(data[:-3])
    sentence(lambda: Result.load(run), "no saved run (a complete")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "no saved run"),
        ('{"a":' * 100_000, "no saved run"),
        ("1" * 6000, "no saved run"),
        ("null", "no saved run"),
        ('{"format": 99}', "format is 99, of a later version"),
        ('{"format": 1}', "format is 1, of no version"),
        ('{"format": "3"}', "format must be a whole number"),
        ('{"format": 1e400}', "format must be a whole number"),
    ],
)
def test_other_texts_are_refused(run: Path, text: str, words: str) -> None:
    (run / record.JSON_FILE).write_text(text)
    sentence(lambda: Result.load(run), words)


def rewritten(run: Path, **fields: Any) -> None:
    """Write fields with the checksums that belong to them, as a stranger would."""
    told = json.loads((run / record.JSON_FILE).read_text()) | fields
    sums = {k: checksum.of_json(v)[:16] for k, v in told.items() if k != "checksums"}
    (run / record.JSON_FILE).write_text(json.dumps(told | {"checksums": sums}))


def test_a_file_of_a_stranger_opens_nothing(run: Path, tmp_path: Path) -> None:
    """No path, no name on the hub, no code, no schedule that fills the memory."""
    assert repeated(run).samples == 2
    for spec in ("someone/model", str(tmp_path / "weights.pt"), "nothing"):
        rewritten(run, prior_spec=spec)
        sentence(lambda: repeated(run), f"names the prior {spec}", f"give --prior {spec}")
        assert repeated(run, prior="photo").samples == 2
    rewritten(run, prior_spec="photo", prior_options={"device": "cuda"})
    sentence(lambda: repeated(run), "prior_options.device")
    rewritten(run, prior_options={})
    solver = json.loads((run / record.JSON_FILE).read_text())["solver"]
    long = edited(solver, ("fields", "schedule", "fields", "steps"), 10**9)
    rewritten(run, solver=long)
    sentence(lambda: repeated(run), "solver.schedule.steps is 1000000000")
    deep: Any = 0
    for _ in range(200):
        deep = [deep]
    rewritten(run, solver=edited(solver, ("fields", "refills"), deep))
    sentence(lambda: repeated(run), "solver.refills must be a whole number")
    for name in ("os:system", "invdiff.os:path", "Nowhere", ""):
        rewritten(run, solver={"type": name, "fields": {}})
        sentence(lambda: repeated(run))
    rewritten(run, solver={"type": "Identity", "fields": {}})
    sentence(lambda: repeated(run), "solver must be a form of Solver, found one of Identity")


def test_a_repeated_run_that_differs_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Of a file of before, whose seed was edited; and its twin, as it was."""
    from invdiff.cli import main

    shutil.copytree(GOLDEN, tmp_path / "run")
    args = ["restore", "--from", str(tmp_path / "run"), "--quiet", "--overwrite"]
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert "repeated" in out and "those of the run" not in err
    told = json.loads((GOLDEN / record.JSON_FILE).read_text())
    (tmp_path / "run" / record.JSON_FILE).write_text(json.dumps(told | {"seed": 6}))
    assert main(args) == 0
    assert "its file was edited" in capsys.readouterr().err


def test_a_restoration_is_read_whole_too(run: Path) -> None:
    assert Restoration.load(run).task == "denoise"
    told = json.loads((run / record.JSON_FILE).read_text())
    rewritten(run, view=told["solver"])
    sentence(lambda: Restoration.load(run), "view is no view")
    sentence(lambda: repeated(run), "view is no view")
