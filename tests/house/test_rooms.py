"""The rooms of the package: each imports from itself and from those above it, and none in a circle.

Every import counts: within functions, for type checkers alone, relative ones, public names of
`invdiff`, and modules that are named in a string, as `importlib.import_module` takes them.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import invdiff

SRC = Path(__file__).parents[2] / "src" / "invdiff"

ROOMS: dict[str, set[str]] = {
    "core": {"core", "option", "allocator"},
    "noise": {"noise"},
    "operators": {"operators"},
    "problem": {"problem", "toys"},
    "priors": {"priors"},
    "sampling": {"sampling"},
    "solvers": {"solvers"},
    "files": {"files", "kernels"},
    "scans": {"scans"},
    "fields": {"fields"},
    "tasks": {"tasks", "measured"},
    "plugins": {"plugins"},
    "testing": {"testing"},
    "restoration": {"restoration"},
    "batch": {"batch"},
    "train": {"train"},
    "audit": {"audit"},
    "bench": {"bench"},
    "cite": {"cite"},
    "app": {"app"},
    "commands": {"commands", "cli", "__main__"},
}
"""Each room with its top-level modules and packages, from the ground up."""

Arrow = tuple[str, str]
"""A module of the package and one that it imports, without the leading `invdiff.`."""


def room(module: str) -> str:
    """The room that a module is in; its own name where it is in none."""
    top = module.split(".")[0]
    return next((name for name, tops in ROOMS.items() if top in tops), top)


def named(node: ast.AST, package: list[str], homes: dict[str, tuple[str, str]]) -> Iterator[str]:
    """Modules of invdiff that a node names. package: that of the file, from invdiff on."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) + 1 - node.level] if node.level else []
        module = ".".join([*base, *filter(None, [node.module])])
        if module == "invdiff":
            yield from (homes.get(a.name, (f"invdiff.{a.name}", ""))[0] for a in node.names)
        else:
            yield module
    elif isinstance(node, ast.Constant) and re.fullmatch(r"invdiff(\.\w+)+", str(node.value)):
        yield str(node.value)


def arrows(src: Path) -> set[Arrow]:
    """Every import within the package whose folder is src."""
    found = set()
    for path in sorted(src.rglob("*.py")):
        parts = path.relative_to(src).with_suffix("").parts
        if parts != ("__init__",):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for name in named(node, ["invdiff", *parts[:-1]], invdiff._HOMES):
                    start, _, module = name.partition(".")
                    if start == "invdiff" and module not in {"", "__version__"}:
                        found.add((".".join(parts), module))
    return found


def backward(found: set[Arrow]) -> list[str]:
    """What is wrong with arrows: those to a later room, and modules in no room."""
    order = list(ROOMS)
    lost = {m for arrow in found for m in arrow if room(m) not in order}
    wrong = [f"{module} is in no room" for module in sorted(lost)]
    for one, other in sorted(found):
        if not {one, other} & lost and order.index(room(other)) > order.index(room(one)):
            wrong.append(f"{one} ({room(one)}) imports {other} ({room(other)})")
    return wrong


def circles(found: set[Arrow]) -> set[frozenset[str]]:
    """Sets of rooms that reach one another, in whatever order they stand."""
    reached: dict[str, set[str]] = {}
    for one, other in found:
        reached.setdefault(room(one), set()).add(room(other))
    grown = True
    while grown:
        grown = False
        for near in reached.values():
            more = set().union(*(reached.get(other, set()) for other in near)) - near
            near |= more
            grown = grown or bool(more)
    together = (
        frozenset({one} | {other for other in near if one in reached.get(other, set())})
        for one, near in reached.items()
    )
    return {rooms for rooms in together if len(rooms) > 1}


@pytest.fixture(scope="module")
def graph() -> set[Arrow]:
    """The imports of the package."""
    return arrows(SRC)


def test_no_arrow_goes_back(graph: set[Arrow]) -> None:
    assert not backward(graph)


def test_no_rooms_form_a_circle(graph: set[Arrow]) -> None:
    assert not circles(graph)


def test_the_graph_is_seen(graph: set[Arrow]) -> None:
    """Every room but the first imports from another, and every source file is in a room."""
    assert len(graph) > 800
    assert {room(one) for one, other in graph if room(one) != room(other)} >= {
        room(path.name.removesuffix(".py"))
        for path in SRC.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    } - {"core", "__init__"}


@pytest.mark.parametrize(
    "line",
    [
        "from invdiff.solvers.ddrm import DDRM",
        "import invdiff.solvers.ddrm",
        "from invdiff import solvers",
        "from invdiff import DDRM",
        "from ..solvers.ddrm import DDRM",
        "from ..solvers import ddrm",
        "def f():\n    from invdiff.solvers.ddrm import DDRM",
        "if TYPE_CHECKING:\n    from invdiff.solvers.ddrm import DDRM",
        "importlib.import_module('invdiff.solvers.ddrm')",
    ],
)
def test_a_planted_arrow_is_found(line: str, tmp_path: Path) -> None:
    """The negative twin: one import in a copy of a room, of any kind."""
    shutil.copytree(SRC / "noise", tmp_path / "noise")
    assert not backward(arrows(tmp_path))
    with (tmp_path / "noise" / "base.py").open("a") as file:
        file.write(f"\n\n{line}\n")
    (wrong,) = backward(arrows(tmp_path))
    assert wrong.startswith("noise.base (noise) imports solvers") and wrong.endswith("(solvers)")


def test_a_module_in_no_room_is_found(tmp_path: Path) -> None:
    (tmp_path / "attic.py").write_text("from invdiff.core import InvdiffError\n")
    assert backward(arrows(tmp_path)) == ["attic is in no room"]


def test_a_planted_circle_is_found(graph: set[Arrow]) -> None:
    """The negative twin: two rooms that know each other, and three by way of a third."""
    assert circles({("noise.a", "noise.b"), ("noise.b", "noise.a")}) == set()
    assert circles(graph | {("core.rng", "noise.base")}) == {frozenset({"core", "noise"})}
    around = {("core.a", "noise.b"), ("noise.b", "priors.c"), ("priors.c", "core.a")}
    assert circles(around) == {frozenset({"core", "noise", "priors"})}
