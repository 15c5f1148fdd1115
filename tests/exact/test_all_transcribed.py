"""Every solver has a second version: see dense.py."""

from __future__ import annotations

import importlib
from pathlib import Path

from dense import TRANSCRIPTIONS

from invdiff.solvers import registry


def test_every_solver_has_a_transcription():
    for file in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(file.stem)
    assert set(TRANSCRIPTIONS) >= set(registry())
