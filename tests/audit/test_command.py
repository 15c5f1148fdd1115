"""`invdiff audit`: a file that grows by whole lines, tables, words in the registry, mistakes."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from functools import partial
from pathlib import Path

import pytest

from invdiff.audit import claims, lines, many, plots, tables
from invdiff.audit.parts import PARTS, QUICK, Budget, Item, items
from invdiff.audit.settings import budget_of, settings
from invdiff.cli import main
from invdiff.core import InvdiffError
from invdiff.solvers import registry

DOCS = Path(__file__).parents[2] / "docs"
SMALL = ["audit", "latino", "--quick", "--problems", "2", "--only", "gaussian,mixture", "--quiet"]
SMALL += ["--workers", "1"]


def test_an_audit_is_written_and_goes_on_where_it_stopped(tmp_path, capsys):
    args = [*SMALL, "--out", str(tmp_path / "a")]
    assert main(args) == 0
    told = capsys.readouterr().out
    assert "audit.md" in told and "audit-gaussian.png" in told
    how, found = lines.read(tmp_path / "a" / lines.NAME)
    assert how == settings(budget_of(True, 2), True)
    assert [x["item"] for x in found][:2] == ["gaussian/latino", "mixture/exact/8,4"]
    page = (tmp_path / "a" / "audit.md").read_text()
    assert "| `latino` | 8 | closed form (2.0) | 0.76 |" in page and "| `exact` |" in page
    assert main(args) == 2 and "--resume goes on with it" in capsys.readouterr().err
    file = tmp_path / "a" / lines.NAME
    whole = file.read_text()
    file.write_text(whole + '{"item": "mixture/latino/800')  # cut off while it was written
    assert main([*args, "--resume"]) == 0 and file.read_text() == whole
    other = [*SMALL[:4], "3", *SMALL[5:], "--out", str(tmp_path / "a"), "--resume"]
    assert main(other) == 2 and "other settings (problems)" in capsys.readouterr().err


def test_the_lines_do_not_depend_on_the_workers(tmp_path):
    def values(workers):
        args = ["latino", "ddrm", "--quick", "--problems", "2", "--only", "mixture", "--quiet"]
        out = tmp_path / workers
        assert main(["audit", *args, "--workers", workers, "--out", str(out)]) == 0
        return [line | {"cpu_seconds": 0} for line in lines.read(out / lines.NAME)[1]]

    assert values("2") == values("1")


def test_a_process_that_dies_is_told():
    waiting = [Item("mixture/a/b", partial(os._exit, 9)), Item("mixture/c/d", dict)]
    with pytest.raises(InvdiffError, match="go on with --resume and fewer --workers"):
        list(many.lines(waiting, 2))
    end = time.monotonic() + 30  # the pool's own thread may be at work on the last of them
    while multiprocessing.active_children() and time.monotonic() < end:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["mpms"], "Did you mean"),
        (["--only", "gausian"], "Did you mean"),
        (["--prior", "photo"], "belong to --problem"),
        (["mmps", "--problem", "run.json"], "name no other"),
        (["--problem", "nowhere/run.json"], "There is no nowhere"),
        (["--problem", "run.json", "--quick"], "--quick belongs to the audit of known posteriors"),
        (["--problem", "run.json", "--out", "a"], "--out belongs to the audit"),
        (["--only", ","], "--only takes parts"),
        (["--only", ""], "--only takes parts"),
        (["--page", "--out", "nowhere"], "There is no audit in nowhere"),
        (["--problems", "1"], "problems"),
        (["--solver.eta", "1"], "no knobs"),
    ],
)
def test_mistakes_are_one_sentence(args, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["audit", *args]) == 2
    err = capsys.readouterr().err
    assert err.startswith("invdiff: ") and err.count("\n") == 1
    assert said in err or said == "Did you mean"
    assert not list(tmp_path.iterdir())


def test_a_solver_that_is_named_is_told_what_does_not_measure_it(tmp_path, capsys):
    """Also by another of its names, and on the page."""
    args = ["pgdm", "hqs", "eps", "--quick", "--only", "gaussian,budget,growth,bipsda"]
    assert main(["audit", *args, "--quiet", "--workers", "1", "--out", str(tmp_path / "a")]) == 0
    err = capsys.readouterr().err
    assert "budget has nothing for pigdm: it is of solvers that claim" in err
    assert "growth has nothing for hqs: it is of solvers of particles" in err
    assert "bipsda/eps/high: the problem lacks what the solver needs" in err
    page = (tmp_path / "a" / "audit.md").read_text()
    assert "--only gaussian,bipsda,budget --out" in page and "| `hqs` (estimate) |" in page
    assert "- bipsda: `eps`\n" in page and "- bipsda phase: `hqs` (estimate), `pigdm`" in page


def test_an_edited_file_is_refused(tmp_path):
    file = tmp_path / lines.NAME
    head = '{"audit": {}}\n'
    for text, said in (
        ("{}\n", "is not a file of"),
        ("[]\n", "is not a file of"),
        ("{nonsense\n", "Line 1"),
        (
            head + '{"item": "gaussian/ddrm", "part": "gaussian"}\n',
            "Line 2 .* is damaged: it lacks",
        ),
        (head + "3\n", "Line 2 .* is damaged: it lacks"),
    ):
        file.write_text(text)
        with pytest.raises(InvdiffError, match=said):
            lines.read(file)


def test_every_solver_is_an_item_of_every_part():
    names = {item.name for item in items([], PARTS, Budget())}
    assert len(names) == len(items([], PARTS, Budget()))
    for solver in registry():
        assert {f"gaussian/{solver}", f"mixture/{solver}/800,4"} <= names
    assert {"controls/exact", "levy/exact/bl,fourier", "budget/csgm"} <= names
    assert QUICK.steps < Budget().steps


@pytest.mark.parametrize("folder", [DOCS, DOCS / "full"], ids=["quick", "full"])
def test_the_committed_page_is_made_of_the_committed_lines(folder: Path):
    how, found = lines.read(folder / lines.NAME)
    drawn = [name for name in plots.NAMES if (folder / name).is_file()]
    assert (folder / "audit.md").read_text() == tables.page(how, found, drawn)


def test_the_committed_controls_are_caught_and_exact_samples_pass():
    page = (DOCS / "audit.md").read_text()
    rows = page.split("## Negative controls")[1].split("##")[0].splitlines()
    table = [row.split(" | ") for row in rows if row.startswith("| ") and "sampler" not in row]
    found = {row[0].removeprefix("| "): row[1:] for row in table if len(row) == 5}
    assert len(found) == 9 and found.pop("exact")[:2] == ["nothing", "none"]
    assert all(row[0] != "nothing" and row[1] == "none" for row in found.values())


def test_exact_and_asymptotic_are_what_the_committed_audit_supports():
    """When this fails, change the claim, or measure it:

    invdiff audit NAME --quick --only gaussian,mixture,budget --resume --out docs
    """
    found = lines.read(DOCS / lines.NAME)[1]
    told = {n: claims.unsupported(n, c.claim, found) for n, c in registry().items()}
    assert {name: why for name, why in told.items() if why} == {}


def test_a_claim_that_is_not_supported_is_found():
    """Negative twins: solvers that were measured and are not exact, or were not measured."""
    found = lines.read(DOCS / lines.NAME)[1]
    assert "not exact on a normal law" in claims.unsupported("ddrm", "exact", found)
    assert "no line" in claims.unsupported("ddrm", "asymptotic", found)
    assert "no lines" in claims.unsupported("unknown", "exact", found)
    assert claims.unsupported("ddrm", "heuristic", found) == ""
    null = [0.1, 0.1]
    assert claims.falls({"0.25": [1.0, 0.2], "1": [0.5, 0.3], "null_99": null})
    assert claims.falls({"0.25": [0.05, 0.1], "1": [0.09, 0.1], "null_99": null})
    assert not claims.falls({"0.25": [1.0, 0.2], "1": [0.7, 0.3], "null_99": null})
    exact = {"error": [0.0], "closed": True}
    line = {"item": "gaussian/x", "part": "gaussian", "row": "x", "values": exact}
    mixture = {"distance_place": [9, 12, 3]}
    other = {"item": "mixture/x/8,4", "part": "mixture", "row": "x", "values": mixture}
    assert claims.unsupported("x", "exact", [line, other]) == ""
    worse = {**other, "values": {"distance_place": [19, 19, 19]}}
    assert "flagged on the mixture by distance" in claims.unsupported("x", "exact", [line, worse])


def test_lines_are_json_and_small():
    text = (DOCS / lines.NAME).read_text()
    assert len(text) < 1_000_000 and all(json.loads(line) for line in text.splitlines())
