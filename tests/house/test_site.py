"""What the documentation site is made of: pages from records, navigation, docstrings."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

import invdiff
from invdiff.solvers import registry

ROOT = Path(__file__).parents[2]


def module(path: str) -> ModuleType:
    """A script of the repository, imported."""
    spec = importlib.util.spec_from_file_location("site_" + Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


GUIDE, PARTS = module("benchmarks/guide.py"), module("docs/site/parts.py")


def test_the_pages_hold_the_recorded_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When this fails, run: python benchmarks/guide.py. Another figure in a record is noticed."""
    monkeypatch.setattr(sys, "argv", ["guide.py", "--check"])
    assert GUIDE.main() == 0, capsys.readouterr().out
    calibration, *others = GUIDE.records()
    row = next(r for r in calibration if r["key"] == "jpeg" and r["default"])
    row["one"] += 1
    monkeypatch.setattr(GUIDE, "records", lambda: (calibration, *others))
    assert GUIDE.main() == 1
    shown = capsys.readouterr().out
    assert "docs/which-solver.md differs" in shown and "gallery" not in shown


def test_the_nearest_solvers_are_sorted_by_the_record() -> None:
    """Each figure of docs/which-solver.md is that of the lines of the full audit."""
    _, full, *_ = GUIDE.records()
    every: dict[str, list[float]] = {}
    for line in full:
        if line["part"] == "mixture" and line["values"] and line["row"] not in GUIDE.REFERENCES:
            every.setdefault(line["row"], []).extend(line["values"]["distance"])
    means = {n: sum(v) / len(v) for n, v in every.items() if len(v) == 9 * 20}
    best = sorted(means, key=means.__getitem__)[: GUIDE.FIRST]
    rows = list(GUIDE.nearest(full, lambda solver: True))
    assert [row[0].strip("`") for row in rows] == best
    assert rows[0][2].startswith(f"{means[best[0]]:.2f} ± ")


def test_every_task_has_its_place_in_the_gallery() -> None:
    from invdiff.tasks import TASKS

    assert list(GUIDE.TASK_PICTURES) == list(TASKS)
    pictures = set(GUIDE.TASK_PICTURES.values()) - {""}
    assert all((ROOT / "docs/images" / name).is_file() for name in pictures)


def test_every_solver_has_its_picture_or_a_reason() -> None:
    """When a new one fails, run: python benchmarks/solver_pictures.py NAME."""
    folder = ROOT / "docs/images/solvers"
    about = json.loads((folder / "about.json").read_text())
    assert set(about) == set(registry())
    for name, told in about.items():
        assert (folder / f"{name}.webp").is_file() == ("problem" in told)
        assert len({"problem", "lacks", "why"} & set(told)) == 1
        if "problem" in told:
            with Image.open(folder / f"{name}.webp") as picture:
                assert picture.size == (2 * (7 * 64 + 6 * 3), 2 * 64)


def test_pages_stand_where_they_are_linked_first(tmp_path: Path) -> None:
    """In the order of the index; what no page links is refused."""
    (tmp_path / "docs").mkdir()
    texts = {
        "index": "# I\n[b](b.md)\n## One\n[a](a.md#x) [b](b.md)\n## Two\n[other](no.md)\n",
        "a": "# A\n[c](c.md) [i](index.md)\n",
        "b": "# B\n",
        "c": "# C\n",
    }
    for name, text in texts.items():
        (tmp_path / f"docs/{name}.md").write_text(text)
    pages = {f"docs/{name}" for name in texts}
    tree = PARTS.navigation(tmp_path, pages)
    assert tree == {
        "docs/index": [("", ["docs/b"]), ("One", ["docs/a"])],
        "docs/a": [("", ["docs/c"])],
        "docs/b": [],
        "docs/c": [],
    }
    (tmp_path / "docs/d.md").write_text("# D\n")
    with pytest.raises(ValueError, match="docs/d"):
        PARTS.navigation(tmp_path, {*pages, "docs/d"})


def test_the_navigation_has_the_headings_of_the_index() -> None:
    """Of this repository, in the order in which a reader chooses."""
    pages = {f"docs/{file.stem}" for file in (ROOT / "docs").glob("*.md")}
    captions = [caption for caption, _ in PARTS.navigation(ROOT, pages)["docs/index"]]
    assert captions == [
        "", "Choose a task", "Choose a solver", "Bring a checkpoint", "Bring an operator",
        "How good is it", "How it is built",
    ]  # fmt: skip


def test_every_public_name_has_its_entry() -> None:
    names = [name for part in PARTS.groups().values() for name in part]
    assert sorted(names) == sorted(set(invdiff.__all__) - {"__version__"})
    assert PARTS.entry("DPS")[0] == ".. autoclass:: invdiff.DPS"
    assert PARTS.entry("psnr")[0] == ".. autofunction:: invdiff.psnr"
    assert PARTS.entry("NOISELESS")[0] == ".. autodata:: invdiff.NOISELESS"


def test_docstrings_are_plain_text_with_code() -> None:
    """Signs of markup stand for themselves; code, and what is indented, keep their form."""
    lines = ["A*x, x_ of `a_b`.", "", "- one", "  more", "- two", "", "as:", "    x = *y"]
    PARTS.plain_docstring(None, "class", "n", None, None, lines)
    assert lines == [
        r"A\*x, x\_ of ``a_b``.", "", "- one more", "- two", "",
        "::", "", "   as:", "       x = *y", "",
    ]  # fmt: skip
    assert PARTS.escaped("one ` alone") == r"one \` alone"
