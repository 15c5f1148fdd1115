"""Tests share two cores with other work; `helpers` is imported from this folder.

Of a test with three or more axes of parameters every two values meet, not every product. With
pytest-xdist a file stays with one worker, so that what its tests share is made once.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ["INVDIFF_CACHE"] = "off"  # no test writes to the user's folders
torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent))

from covering import covering  # noqa: E402


@pytest.fixture(autouse=True)
def quick_figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Sheets take a second each: a file without a picture stands for one in tests of other things.

    Tests that look at the sheets themselves ask for `true_figures`; those of the page have them.
    """
    if "true_figures" in request.fixturenames or request.path.parent.name == "app":
        yield
        return
    from invdiff.restoration import restored

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restored, "overview", lambda panels, std, path, *_: path.touch())
        patch.setattr(restored, "uncertainty_picture", lambda std, count, path, *_: path.touch())
        yield


@pytest.fixture
def true_figures() -> None:
    """The sheets of a restoration are drawn."""


def axes(item: pytest.Item) -> list[tuple[object, ...]]:
    """The values of each parametrize mark that a test has; a mark of several names is one axis."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    found = list[tuple[object, ...]]()
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0]
        found.append(tuple((name.strip(), id(given[name.strip()])) for name in names))
    return found


def met(item: pytest.Item) -> Iterable[tuple[object, ...]]:
    """All pairs of values on two axes that meet in a test."""
    return combinations(axes(item), 2)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    groups = dict[object, list[pytest.Item]]()
    for item in items:
        groups.setdefault(item.nodeid.split("[")[0], []).append(item)
    kept = [t for group in groups.values() for t in thinned(group)]
    if len(kept) < len(items):
        chosen = set(kept)
        config.hook.pytest_deselected(items=[t for t in items if t not in chosen])
        items[:] = [t for t in items if t in chosen]
    items.sort(key=lambda item: item.path.parent.name != "train")  # the longest unit of work first


def thinned(group: list[pytest.Item]) -> list[pytest.Item]:
    """The tests of one function, or of three and more axes those in which all pairs meet."""
    return group if len(axes(group[0])) < 3 else covering(group, met)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What could not be tested here is told, however quiet the run is."""
    skipped = terminalreporter.getreports("skipped")
    for said in sorted({str(r.longrepr[2]) for r in skipped if "NOT tested" in str(r.longrepr)}):
        terminalreporter.write_line(said, yellow=True, bold=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        """A file is one unit of work; of the contract of solvers, what is asked of one run is."""

        def _split_scope(self, nodeid: str) -> str:
            file, _, name = nodeid.partition("::")
            if file.rpartition("/")[0].endswith("tests/app") and "test_intake" not in file:
                return "app"  # one server, and one browser
            split = file.endswith("contract/test_solvers.py") and "[" in name
            return file + name[name.index("[") :] if split else file

    if config.getoption("dist") != "load":
        return None
    config.option.loadscopereorder = False
    return Together(config, log)
