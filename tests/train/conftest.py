"""Trainings of tests are short, and so is the measurement of errors at their end."""

import pytest


@pytest.fixture(autouse=True)
def few_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invdiff.train.spectrum.PATCHES", 2)
    monkeypatch.setattr("invdiff.train.spectrum.SIDE", 32)
