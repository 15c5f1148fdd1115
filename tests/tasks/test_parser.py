"""Command lines: what is read, what of before is answered, YAML files, help, completion."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import tiny
from invdiff.cli import main
from invdiff.commands.parser import Parser
from invdiff.commands.restore import COMMON
from invdiff.core import InvdiffError
from invdiff.tasks import TASKS

QUICK = ["--steps", "1", "--samples", "1", "--quiet", "--prior", "tiny.safetensors"]


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("prior") / "tiny.safetensors")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, prior: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a picture and a prior."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    Image.fromarray(pixels).save("-odd.png")
    mask = np.zeros((16, 20), np.uint8)
    mask[4:8, 4:8] = 255
    Image.fromarray(mask).save("mask.png")
    Path("tiny.safetensors").symlink_to(prior)
    yield tmp_path


def parser(task: str) -> Parser:
    to = Parser("restore", "", "")
    for cls in (TASKS[task], *COMMON):
        to.add(cls, "")
    return to


def test_negative_numbers_are_values() -> None:
    given = parser("ct").read(["s.h5", "--angles", "-90,90", "--center", "-1.5", "--water=-1e-3"])
    assert given.options == {"angles": "-90,90", "center": "-1.5", "water": "-1e-3"}
    assert given.words == ["s.h5"]
    given = parser("denoise").read(["--solver.zeta", "-.5", "--solver.schedule.steps=-2"])
    assert given.knobs == {"zeta": "-.5", "schedule.steps": "-2"}


def test_a_schedule_is_known_by_its_name_of_before() -> None:
    given = parser("denoise").read(["--solver.path.steps", "2", "--solver.path.schedule=cosine"])
    assert given.knobs == {"schedule.steps": "2", "schedule.betas": "cosine"}


def test_what_follows_two_hyphens_is_no_option() -> None:
    given = parser("denoise").read(["--noise", "0.1", "--", "photo.png"])
    assert given.words == ["photo.png"] and given.options == {"noise": "0.1"}


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--noise"], "--noise needs a value"),
        (["--noise", "--steps", "2"], "--noise needs a value"),
        (["--solver.zeta"], "--solver.zeta needs a value"),
        (["--overwrite=1"], "--overwrite takes no value"),
        (["--nosie", "1"], "did you mean --noise"),
        (["--scale", "2"], "--scale does not belong to denoise, which takes --noise"),
        (["-x"], "no option called '-x'"),
        (["--step", "2"], "did you mean --steps"),
    ],
)
def test_a_wrong_option_is_one_sentence(args: list[str], sentence: str) -> None:
    with pytest.raises(InvdiffError, match=sentence):
        parser("denoise").read(args)


OLD = {
    "denoise": ["photo.png", "--task", "denoise", "--sigma", "0.1"],
    "deblur": ["--task=deblur", "photo.png", "--kernel", "gaussian:1", "--noise", "0.1"],
    "inpaint": ["--task", "inpaint", "--mask", "mask.png", "photo.png"],
    "sigma alone": ["denoise", "photo.png", "--sigma=25/255"],
    "three": ["--sigma", "0.1", "photo.png", "--task", "denoise", "--solver.name", "dps"],
    "both": ["deblur", "photo.png", "--task", "deblur", "--kernel", "gaussian:1"],
    "spaces": ["my photo.png", "--task", "colorize"],
}


@pytest.mark.parametrize("case", OLD)
@pytest.mark.parametrize("command", ["restore", "degrade"])
def test_an_old_command_is_answered_with_one_that_works(
    command: str, case: str, here: Path, capsys: pytest.CaptureFixture
) -> None:
    (here / "my photo.png").write_bytes((here / "photo.png").read_bytes())
    if command == "degrade" and case == "three":
        pytest.skip("degrade has no solvers")
    more = QUICK if command == "restore" else []
    assert main([command, *OLD[case], *more, "--out", "out"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and " of before " in err and not (here / "out").exists()
    told = err.partition(" gone: ")[2].rpartition(" does the same now.")[0]
    words = shlex.split(told)
    assert words[:2] == ["invdiff", command]
    assert main(words[1:]) == 0 and (here / "out").is_dir()


def test_an_old_file_of_options_is_answered_too(capsys: pytest.CaptureFixture) -> None:
    for name, now in (("sigma: 0.1", "noise"), ("photo: photo.png", "file")):
        Path("c.yaml").write_text(f"task: denoise\n{name}\n")
        assert main(["restore", "--config", "c.yaml"]) == 2
        assert f"write `{now}:` now" in capsys.readouterr().err


def test_a_file_of_options_holds_knobs_and_gives_way_to_the_command_line(here: Path) -> None:
    Path("c.yaml").write_text(
        "task: denoise\nfile: photo.png\nnoise: 0.1\nsteps: 1\nsamples: 1\nquiet: true\n"
        "solver:\n  name: dps\n  zeta: 0.5\n  schedule:\n    spacing: trailing\n"
    )
    assert main(["restore", "--config", "c.yaml", "--out", "a"]) == 0
    solver = json.loads(Path("a/run.json").read_text())["solver"]["fields"]
    assert solver["zeta"] == 0.5 and solver["schedule"]["fields"]["spacing"] == "trailing"
    args = ["--solver.zeta", "0.25", "--noise", "0.2", "--out", "b"]
    assert main(["restore", "denoise", "--config", "c.yaml", *args]) == 0
    run = json.loads(Path("b/run.json").read_text())
    assert run["solver"]["fields"]["zeta"] == 0.25 and "0.2000" in run["noise"]
    Path("c.yaml").write_text("task: denoise\nfile: photo.png\nnosie: 0.1\n")
    assert main(["restore", "--config", "c.yaml", "--out", "c"]) == 2


@pytest.mark.parametrize("solver", [[], ["--solver", "dps", "--solver.path.spacing", "trailing"]])
def test_printed_options_give_the_same_run(
    solver: list[str], here: Path, capsys: pytest.CaptureFixture
) -> None:
    args = ["restore", "inpaint", "photo.png", "--mask", "mask.png", "--noise", "0.1", *QUICK]
    args += [*solver, "--seed", "3", "--out", "a"]
    assert main([*args, "--print-config"]) == 0 and not Path("a").exists()
    Path("c.yaml").write_text(capsys.readouterr().out)
    assert main(args) == 0
    assert main(["restore", "--config", "c.yaml", "--out", "b"]) == 0
    for name in ("mean.png", "estimate.png"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    assert main(["restore", "--config", "c.yaml", "--out", "c", "--seed", "4"]) == 0
    assert Path("a/mean.png").read_bytes() != Path("c/mean.png").read_bytes()


@pytest.mark.parametrize("task", TASKS)
def test_help_fits_a_screen_or_two(task: str, capsys: pytest.CaptureFixture) -> None:
    """At most 60 lines of at most 100 characters."""
    commands = ["restore"] + ["degrade"] * (TASKS[task].simulation() is not None)
    for command in commands:
        assert main([command, task, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 60 and max(map(len, lines)) <= 100, command
        assert lines[0].startswith(f"usage: invdiff {command} {task}")


@pytest.mark.parametrize("command", ["restore deblur --help", "degrade ct --help", "tasks"])
def test_help_and_tables_need_no_torch(command: str) -> None:
    """Their texts are stored; a test of the docs compares them with the code."""
    code = (
        f"import sys; from invdiff.cli import main; assert main({command.split()!r}) == 0;"
        "bad = {'torch', 'numpy', 'yaml'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell: str, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(f"{word}" in script for word in ("restore", "super-resolution", "--kernel"))
    if shell == "bash":
        Path("script").write_text(script)
        subprocess.run(["bash", "-n", "script"], check=True, env=dict(os.environ))
    assert main(["completion", "fish"]) == 2
    assert "Name a shell, bash or zsh" in capsys.readouterr().err


def test_underscores_are_as_good_as_hyphens(tmp_path, capsys):
    photo = Path(__file__).parents[2] / "examples" / "alpacas-small.png"
    assert main(["restore", "denoise", str(photo), "--noise", "0.1", "--print_config"]) == 0
    told = capsys.readouterr().out
    assert main(["restore", "denoise", str(photo), "--noise", "0.1", "--print-config"]) == 0
    assert capsys.readouterr().out == told and "noise: '0.1'" in told


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["inpaint", "--mask", ""], "--mask needs a value, found ''"),
        (
            ["inpaint", "--mask", "no.png"],
            "no file no.png, and it is no mask; give random:SHARE",
        ),
        (["inpaint", "--mask", "random:2"], "with a SHARE above 0 and below 1"),
        (["inpaint", "--mask", "random:nan"], "with a SHARE above 0 and below 1"),
        (["inpaint", "--mask", "."], "There is no file ., and it is no mask"),
        (["deblur", "--kernel", ""], "--kernel needs a value, found ''"),
        (["deblur", "--kernel", "."], "'.' is not a kernel and no file"),
        (["super-resolution", "--scale", " "], "--scale expects a whole number, found ' '"),
        (["super-resolution", "--scale", "9" * 30], "--scale is too large a number"),
        (["hdr", "--gain", "inf"], "--gain is too large a number, found inf"),
        (["denoise", "--noise", "-inf"], "is a finite number that is not negative, found -inf"),
        (["denoise", "--noise", "0.1", "--steps", "9" * 18], "--steps is at most 100000"),
        (["denoise", "--noise", "0.1", "--samples", "9" * 18], "--samples is at most 100000"),
        (["denoise", "--noise", "0.1", "--out", ""], "--out needs a value, found ''"),
    ],
)
def test_a_value_that_cannot_be_is_one_sentence_and_leaves_nothing(
    args: list[str], sentence: str, here: Path, capsys: pytest.CaptureFixture
) -> None:
    before = set(here.iterdir())
    assert main(["restore", args[0], "photo.png", *args[1:]]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and sentence in err
    assert set(here.iterdir()) == before


def test_a_sinogram_of_endless_views_is_refused(capsys: pytest.CaptureFixture) -> None:
    assert main(["degrade", "ct", "photo.png", "--views", "9" * 18, "--out", "o"]) == 2
    assert "at most 20000 views, found" in capsys.readouterr().err and not Path("o").exists()
