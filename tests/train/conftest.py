"""Trainings of tests are short, and so is what follows them: errors, samples, the curve."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from invdiff.train.drawings import draw_curve


@pytest.fixture(autouse=True, scope="package")
def short_ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Of the package, so that it holds in fixtures of modules, which run before those of tests.

    The first curve with as many rows is drawn, and stands for the others.
    """
    folder, drawn = tmp_path_factory.mktemp("curves"), dict[tuple[int, bool], Path]()

    def draw(rows: list[dict[str, Any]], path: Path) -> None:
        kind = len(rows), any("held_out_loss" in row for row in rows)
        if kind not in drawn:
            drawn[kind] = folder / f"{len(drawn)}.png"
            draw_curve(rows, drawn[kind])
        shutil.copy(drawn[kind], path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("invdiff.train.spectrum.PATCHES", 2)
        patch.setattr("invdiff.train.spectrum.SIDE", 32)
        patch.setattr("invdiff.train.drawings.SAMPLE_STEPS", 4)
        patch.setattr("invdiff.train.fit.draw_curve", draw)
        yield
