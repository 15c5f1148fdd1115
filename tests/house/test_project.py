"""What strangers read first says what the code says: versions, terms, checks, paths."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import invdiff
from invdiff.commands import cite
from invdiff.priors.load import BUILT_IN
from invdiff.solvers import registry

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
LICENCES = ("CC0", "CC-BY-SA-4.0", "CC-BY-3.0", "MIT", "Unsplash", "unconfirmed", "no licence")
TERMS = (ROOT / "LICENSES" / "README.md").read_text()


def test_one_version() -> None:
    assert PROJECT["project"]["version"] == invdiff.__version__ == CITATION["version"]
    changes = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[(.+?)\]", changes, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert len(headings) == 1 or headings[1] == invdiff.__version__
    kinds = set(re.findall(r"^### (.+)$", changes, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert f"{len(registry())} solvers" in changes or len(headings) > 1


def test_the_citation_is_that_of_the_command() -> None:
    """The keys that CFF 1.2.0 asks for, and the names that `invdiff cite` prints."""
    assert CITATION["cff-version"] == "1.2.0" and CITATION["message"]
    assert CITATION["title"] == cite.TITLE
    assert [author["name"] for author in CITATION["authors"]] == [cite.AUTHORS]
    assert " AND ".join(CITATION["license"]) == PROJECT["project"]["license"]


def test_terms_ship_with_the_weights() -> None:
    """PEP 639: the files exist, and every prior has a row whose licences are those of its card."""
    patterns = PROJECT["project"]["license-files"]
    shipped = {path for pattern in patterns for path in ROOT.glob(pattern)}
    assert {p.name for p in shipped} == {"LICENSE", "CC-BY-SA-4.0.txt", "README.md"}
    for kind in PROJECT["project"]["license"].split(" AND ")[1:]:
        assert (ROOT / "LICENSES" / f"{kind}.txt").is_file()
    rows = dict(re.findall(r"^\| `(.+?)` \| (.+) \|$", TERMS, re.MULTILINE))
    assert list(rows) == list(BUILT_IN)
    above = ""
    for name, row in rows.items():
        above = above if row.endswith("| the same") else row
        card = (ROOT / "src/invdiff/priors/weights" / f"{name}.md").read_text()
        data = next(line for line in card.splitlines() if line.startswith("- Data: "))
        said = [[word in text for word in LICENCES] for text in (data, above)]
        assert said[0] == said[1] and any(said[0]), name
        offered = re.search(r"Weights .* offered under (\S+?)\.$", data)
        assert row.startswith(offered[1] if offered else "no terms of their own"), name


def test_hooks_are_the_checks_of_ci() -> None:
    """All of them, by the installed versions: what passes here passes there."""
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    hooks = [hook["entry"] for hook in repo["hooks"]]
    assert all(hook["language"] == "system" for hook in repo["hooks"])
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    checks = [line.removeprefix(".venv/bin/") for line in lines if line.startswith(".venv/bin/")]
    others = ("pip", "python -m sphinx")
    checks = [check.removesuffix(" .") for check in checks if not check.startswith(others)]
    assert hooks == checks and len(hooks) == 3


PAGES = ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSES/README.md", "docs/versions.md"]


@pytest.mark.parametrize("page", PAGES)
def test_paths_on_a_page_exist(page: str) -> None:
    """Links, and files of the repository that are named in code."""
    path = ROOT / page
    text = path.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert all((path.parent / link).exists() for link in links), links
    named = re.findall(r"`((?:src|tests|docs|examples|benchmarks|\.ci)/[\w./-]+)`", text)
    assert all((ROOT / name).exists() for name in named), named
    assert links or named


def test_every_bound_is_met_by_what_is_tested() -> None:
    """The versions of constraints.txt satisfy pyproject.toml; every dependency is among them."""
    pinned = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    project = PROJECT["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    for line in (*project["dependencies"], *extras):
        if line.startswith("invdiff["):
            continue
        name, bound = re.fullmatch(
            r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line.replace("_", "-")
        ).groups()
        have = [int(part) for part in pinned[name.lower()].split(".")]
        want = [int(part) for part in bound.split(".")]
        assert have >= want, line
