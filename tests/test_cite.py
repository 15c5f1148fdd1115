"""What to cite: nothing is told that the code does not say, and nothing that it says is lost."""

import json
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch
from PIL import Image

import invdiff
from invdiff import noise as laws
from invdiff import operators as ops
from invdiff.cite import citations
from invdiff.cite.references import Reference, completed, parse, unique
from invdiff.cli import main
from invdiff.priors.load import BUILT_IN
from invdiff.solvers import registry

SHAPE = (3, 16, 16)
EXAMPLES = {
    'Chung, Sim, Ye 2022, "Come closer:\n faster", arXiv 2112.05146. x_init -> guess': [
        Reference(("Chung", "Sim", "Ye"), "2022", "Come closer: faster", arxiv="2112.05146")
    ],
    'Zhang, Van Gool 2021, "Plug and play" (DPIR), arXiv 2008.13751, eq. 6 and Algorithm 1': [
        Reference(("Zhang", "Van Gool"), "2021", "Plug and play", arxiv="2008.13751")
    ],
    "this project; builds on Bao et al. 2022b, arXiv 2201.06503 and 2206.07309": [
        Reference(("Bao",), "2022", arxiv="2201.06503", others=True),
        Reference(("Bao",), "2022", arxiv="2206.07309", others=True),
    ],
    "as in Feng and Sohl-Dickstein 2023 (arXiv 2304.11751), and 0001.00001 elsewhere": [
        Reference(("Feng", "Sohl-Dickstein"), "2023", arxiv="2304.11751")
    ],
    "rows of weight 1 (Keys 1981, doi:10.1109/TASSP.1981.1163711).": [
        Reference(("Keys",), "1981", doi="10.1109/TASSP.1981.1163711")
    ],
    "Joseph 1982, IEEE Trans. Medical Imaging 1, 192. The 2 rays": [
        Reference(("Joseph",), "1982", where="IEEE Trans. Medical Imaging 1, 192")
    ],
    'Song, Vahdat 2023, "Pseudo", ICLR 2023, with the score': [
        Reference(("Song", "Vahdat"), "2023", "Pseudo", "ICLR 2023")
    ],
    "Barnett, Magland, af Klinteberg 2019, arXiv:1808.06736": [
        Reference(("Barnett", "Magland", "af Klinteberg"), "2019", arxiv="1808.06736")
    ],
    "photographs of CLIC 2025 (Unsplash licence), version 2021, from 1999": [],
    "2000 steps at 0.0001 of arXiv 2008.13751": [],
}


def plain(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("text", EXAMPLES)
def test_references_in_text(text: str) -> None:
    assert parse(text) == EXAMPLES[text]


@pytest.mark.parametrize("name", registry())
def test_nothing_is_invented_and_nothing_lost(name: str) -> None:
    """Of every solver: all arXiv ids of `paper`, and no word that stands in no docstring."""
    cls = registry()[name]
    own = citations.of_solver(cls)[0]
    assert own.what == f"solver {name}"
    assert {r.arxiv for r in own.references} - {""} == set(re.findall(r"\d{4}\.\d{5}", cls.paper))
    assert "this project" in cls.paper or own.references
    texts = [plain(f"{c.paper} {c.__doc__}") for c in registry().values()]
    for r in own.references:
        homes = [t for t in texts if (r.arxiv or r.authors[0]) in t]
        assert r.authors[0] in cls.paper and r.year in cls.paper
        assert all(any(part in t for t in homes) for part in (*r.authors, r.title, r.where))
        assert r.findable or own.words == cls.paper, r


def test_the_title_is_found_where_another_solver_states_it() -> None:
    """DDNM+ has the paper of DDNM, whose docstring alone has its title."""
    found = citations.of_solver(invdiff.DDNMPlus)[0].references[0]
    assert found.title.startswith("Zero-shot image restoration") and not found.others


def test_what_may_mean_two_papers_stays_as_it_is() -> None:
    known = parse("Song, Meng 2021, arXiv 2010.02502; Song, Kingma 2021, arXiv 2011.13456")
    short = parse("Song et al. 2021")[0]
    assert completed(short, known) == short
    assert completed(short, known[:1]).arxiv == "2010.02502"
    assert len(unique([*known, *known, short])) == 3


def test_references_of_operators_and_noise_are_whole() -> None:
    """In front of no reference stands a name that was left behind."""
    for home in (ops, laws):
        for name in home.__all__:
            text = plain(getattr(home, name).__doc__ or "")
            for r in parse(text):
                before = text.partition(f"{r.authors[0]}")[0]
                assert not re.search(r"[A-Z]\w+, (?:and )?(?:[a-z]+ )?$", before), (name, r)


def cite(*args: str, capsys: pytest.CaptureFixture) -> str:
    assert main(["cite", *args]) == 0
    return capsys.readouterr().out


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with an estimate and a solver inside of a solver."""
    prior = invdiff.GaussianPrior(torch.zeros(SHAPE).double(), 1.0)
    A = invdiff.Bicubic(4, SHAPE[1:])
    y = torch.zeros(1, *A.y_shape(SHAPE)).double()
    problem = invdiff.Problem(y, A, invdiff.GaussianNoise(0.1), SHAPE)
    solver = invdiff.CCDF(base=invdiff.ILVR(schedule=invdiff.VP(4)))
    best = invdiff.HQS(schedule=invdiff.VE(2, 1.0, 0.1))
    return invdiff.solve(problem, prior, solver, estimator=best).save(tmp_path / "run")


def test_a_run(run: Path, capsys: pytest.CaptureFixture) -> None:
    text = cite(str(run), capsys=capsys)
    assert text == cite(str(run / "run.json"), capsys=capsys)
    heads = [line for line in text.splitlines() if line and line[0] != " "]
    assert heads == [
        "invdiff",
        "solver ccdf",
        "solver ilvr",
        "estimator hqs",
        "operator Bicubic",
        "prior gaussian",
    ]
    for source in ("2112.05146", "2108.02938", "2008.13751", "10.1109/TASSP.1981.1163711"):
        assert source in text
    assert f"version {invdiff.__version__}" in text and "none of invdiff's own" in text


def test_what_was_done_before_the_run(run: Path, capsys: pytest.CaptureFixture) -> None:
    """Sources of what the measurement went through are told where run.json tells of it."""
    before = cite(str(run), capsys=capsys)
    c = json.loads((run / "run.json").read_text())
    c["noise"] = "0.0200 (estimated from the photo's finest detail; rounding to 8 bits: 0.0011)"
    old = {"options": {"rings": "remove", "coil-maps": "espirit"}}  # of format 1
    new = {"type": "Ct", "fields": {"rings": "remove", "coil_maps": "espirit"}}
    c["problem"]["fields"]["A"]["fields"]["maps"] = {"tensor": "problem.A.maps"}
    c["prior_spec"] = "moving-fashion"
    for task in (old, new):
        c["task"] = {"name": "ct", **task}
        (run / "run.json").write_text(json.dumps(c))
        after = cite(str(run), capsys=capsys)
        for source in ("Donoho, Johnstone 1994", "Boin, Haibel 2006", "Uecker et al. 2014"):
            assert source in after and source not in before
    assert "Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747" in after


def test_restore_tells_of_the_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """From the photograph to the source of the noise estimator; with a level it is not cited."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    pixels = (torch.rand(32, 32, 3) * 255).byte().numpy()
    Image.fromarray(pixels).save("photo.png")
    common = ["restore", "denoise", "photo.png", "--steps", "1", "--samples", "1"]
    common += ["--want", "samples", "--solver", "ddrm", "--quiet"]
    assert main([*common, "--noise", "estimate", "--out", "a"]) == 0
    assert main([*common, "--noise", "0.1", "--out", "b"]) == 0
    assert main(["restore", "--from", "a/run.json", "--out", "c", "--quiet"]) == 0
    capsys.readouterr()
    told = [cite(name, capsys=capsys) for name in "abc"]
    assert ["Donoho" in text for text in told] == [True, False, True]
    assert all("2201.11793" in text and "CID22" in text for text in told)


def test_names(capsys: pytest.CaptureFixture) -> None:
    text = cite("--solver", "pgdm", "--solver", "spectral-jpeg", "--prior", "photo", capsys=capsys)
    assert "Song, Vahdat, Mardani, Kautz 2023" in text and "builds on Bao et al. 2022" in text
    assert "CC-BY-SA-4.0" in text
    assert cite(capsys=capsys).startswith("invdiff\n")


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_card_names_its_data(name: str) -> None:
    card = resources.files("invdiff.priors").joinpath("weights", f"{name}.md").read_text("utf-8")
    words = citations.of_prior(name).words
    assert words.startswith("Data: ") and words in card


def test_a_card_beside_weights(tmp_path: Path) -> None:
    """As `invdiff train` leaves it; weights without one are told apart."""
    (tmp_path / "mine.safetensors").write_bytes(b"")
    assert "none of invdiff's own" in citations.of_prior(str(tmp_path / "mine.safetensors")).words
    (tmp_path / "mine.md").write_text("# Prior\n\n- Data: 7 pictures of mine.\n- Held out: none\n")
    words = citations.of_prior(str(tmp_path / "mine.safetensors")).words
    assert words == "Data: 7 pictures of mine."


def test_bibtex(run: Path, capsys: pytest.CaptureFixture) -> None:
    """Every source is an entry, once; what is outside of entries is a comment."""
    names = [part for name in registry() for part in ("--solver", name)]
    for args in (names, [str(run)]):
        text = cite(*args, "--format", "bibtex", capsys=capsys)
        entries = re.findall(r"^@(\w+)\{([^,]+),\n((?:  \w+ = \{.*\},\n)+)\}$", text, re.MULTILINE)
        keys = [key for _, key, _ in entries]
        assert len(keys) == len(set(keys)) == text.count("@") and keys[0] == "invdiff"
        rest = re.sub(r"^@\w+\{.*?^\}$", "", text, flags=re.MULTILINE | re.DOTALL)
        assert all(line.startswith("% ") for line in rest.splitlines() if line)
        for _, key, fields in entries:
            assert fields.count("{") == fields.count("}") and "author = {" in fields, key
            if key != "invdiff":
                assert re.search(r"year = \{\d{4}\}", fields), key
    assert "eprint = {2108.02938}" in text and "doi = {10.1109/TASSP.1981.1163711}" in text


BAD = {
    "no run": (["nothing"], "nothing holds no run"),
    "a folder": (["."], ". holds no run"),
    "no JSON": (["text.json"], "text.json holds no run"),
    "a list": (["list.json"], "list.json holds no run"),
    "nested": (["deep.json"], "deep.json holds no run"),
    "half a run": (["half.json"], "half.json holds no run"),
    "a run and names": (["half.json", "--solver", "dps"], "leave --solver and --prior out"),
    "an unknown solver": (["--solver", "mmsp"], "did you mean mmps"),
    "an unknown prior": (["--prior", "phto"], "did you mean photo"),
    "an unknown format": (["--format", "yaml"], "--format is text or bibtex, found yaml."),
    "an unknown option": (["--sover", "dps"], "did you mean --solver"),
    "no value": (["--solver"], "--solver needs a value."),
    "two runs": (["a", "b"], "There is one 'b' too many"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_sentence(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.json").write_text("no JSON")
    Path("list.json").write_text("[1, 2]")
    Path("deep.json").write_text("[" * 100_000)
    Path("half.json").write_text('{"invdiff": "0.1.0", "problem": {"fields": {}}}')
    args, sentence = BAD[kind]
    assert main(["cite", *args]) == 2
    out, err = capsys.readouterr()
    assert not out and sentence in err and err.count("\n") == 1


def test_a_solver_of_the_users_own(run: Path, capsys: pytest.CaptureFixture) -> None:
    """What is not ours is named as the file has it, and nothing of a file is imported."""
    c = json.loads((run / "run.json").read_text())
    for form in ({"repr": "Mine(k=1)"}, {"type": "evil.module:Mine", "fields": {}}):
        c["solver"] = form
        other = run.with_name("other")
        shutil.copytree(run, other, dirs_exist_ok=True)
        (other / "run.json").write_text(json.dumps(c))
        assert "cite what its authors ask for" in cite(str(other), capsys=capsys)
    assert "evil" not in sys.modules


def test_help_is_light() -> None:
    code = (
        "import sys; from invdiff.cli import main; main(['cite', '--help']);"
        "bad = {'torch', 'numpy', 'yaml'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
