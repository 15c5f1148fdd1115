"""Trainings of tests are short, and so is the measurement of errors at their end."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="package")
def few_patches() -> Iterator[None]:
    """Of the package, so that it holds in fixtures of modules, which run before those of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("invdiff.train.spectrum.PATCHES", 2)
        patch.setattr("invdiff.train.spectrum.SIDE", 32)
        yield
