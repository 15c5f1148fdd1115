"""Calls in Python, and runs that were edited: whatever does not fit is one sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import invdiff
from invdiff import InvdiffError
from invdiff.fields import convert
from invdiff.restoration.repeat import repeated
from invdiff.tasks import Angles, Kernel, Mask

WRONG: list[tuple[Any, str]] = [
    (np.ma.masked_array(np.ones((8, 8)), np.eye(8)), "masked entries"),
    (np.ones((8, 8), object), "holds object and not numbers"),
    (torch.eye(8).to_sparse(), "is sparse"),
    (Image.new("CMYK", (8, 8)), "mode CMYK is not taken"),
    ([[0.1]], "is a path, a PIL image, an array or a tensor, found list"),
    (None, "found NoneType"),
]


@pytest.mark.parametrize(("file", "sentence"), WRONG)
def test_what_is_no_measurement_is_refused(file: Any, sentence: str) -> None:
    with pytest.raises(InvdiffError, match=sentence):
        invdiff.restore("denoise", file, noise=0.1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"samples": "x"}, "--samples expects a whole number"),
        ({"steps": 1.5}, "--steps expects a whole number"),
        ({"seed": None}, "--seed expects a whole number"),
        ({"want": "nope"}, "--want is estimate, samples or both"),
        ({"noise": True}, "--noise is a NoiseLevel, found bool True"),
    ],
)
def test_options_of_a_wrong_type_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvdiffError, match=sentence):
        invdiff.restore("denoise", np.zeros((8, 8)), **{"noise": 0.1, **options})


def test_arrays_as_values() -> None:
    assert convert(int, np.int64(2), "scale") == 2 == convert(int, torch.tensor(2), "scale")
    grad = torch.ones(3, 3, requires_grad=True)
    assert convert(Kernel, grad, "kernel").at((8, 8)).sum() == pytest.approx(1)
    for kind, value in ((Kernel, grad * 1j), (Mask, [[1], [1, 2]]), (Angles, np.array(["a"]))):
        with pytest.raises(InvdiffError, match="cannot be made of"):
            convert(kind, value, "it")
    with pytest.raises(InvdiffError, match="a row of numbers"):
        convert(Angles, 5, "angles")


def test_an_edited_run_is_one_sentence(tmp_path: Path) -> None:
    options: dict[str, Any] = {"samples": 1, "steps": 1, "want": "samples", "progress": False}
    invdiff.restore("denoise", np.full((8, 8), 0.5), noise=0.1, **options).save(tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    assert repeated(tmp_path / "run").samples == 1
    written = json.loads(file.read_text())
    for change in ({"task": 3}, {"photo": "x"}, {"view": 3}, {"samples": "x"}, {"batch": 0}):
        file.write_text(json.dumps(written | change))
        with pytest.raises(InvdiffError, match=r"is not (the run\.json|a run as it was written)"):
            repeated(tmp_path / "run")
