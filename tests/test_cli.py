"""The command line: every task, every kind of bad input, repetition, interruption and resume."""

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from helpers import array, names, tiny
from invdiff.cli import COMMANDS, explain, main
from invdiff.commands import restore as restore_command
from invdiff.core.option import flag
from invdiff.fields import options
from invdiff.files.pictures import read_photo
from invdiff.priors.photo import PhotoPrior
from invdiff.restoration import perform as performing
from invdiff.restoration import restored
from invdiff.sampling.needs import Need
from invdiff.sampling.result import Result
from invdiff.sampling.run import Snapshot
from invdiff.sampling.run import draw as real_solve
from invdiff.solvers import registry
from invdiff.tasks import TASKS

SIZE = (20, 24)
QUICK = ["--prior", "tiny.safetensors", "--steps", "2", "--samples", "2", "--quiet"]
OPTIONS = {
    "inpaint": ["--mask", "mask.png"],
    "super-resolution": ["--scale", "2"],
    "deblur": ["--kernel", "gaussian:1.0"],
    "denoise": ["--noise", "0.1"],
    "colorize": [],
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that the tests read."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny(folder / "tiny.safetensors", seed=0)
    tiny(folder / "other.safetensors", seed=1)
    colours = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(colours).save(folder / "photo.png")
    Image.fromarray(colours[..., 0]).save(folder / "grey.png")
    alpha = (np.arange(480) % 256).astype(np.uint8).reshape(SIZE)
    Image.fromarray(np.dstack([colours, alpha])).save(folder / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colours).save(folder / "turned.jpg", exif=exif)
    mask = np.zeros(SIZE, np.uint8)
    mask[5:9, 4:12] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(mask[:10]).save(folder / "small.png")
    Image.fromarray(0 * mask).save(folder / "black.png")
    Image.fromarray(0 * mask + 255).save(folder / "white.png")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    (folder / "text.png").write_text("not a picture")
    (folder / "text.txt").write_text("not a kernel")
    np.save(folder / "zero.npy", np.zeros((3, 3)))
    np.save(folder / "nan.npy", np.full((*SIZE, 3), np.nan))
    np.save(folder / "float.npy", colours / 255)
    (folder / "run.json").write_text("{}")
    (folder / "bad.yaml").write_text("task: [denoise")
    (folder / "list.yaml").write_text("- denoise")
    (folder / "weights.safetensors").write_text("not weights")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with links to the inputs."""
    for path in inputs.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def restore(*args: str, task: str = "denoise", photo: str = "photo.png", code: int = 0) -> None:
    """Run `invdiff restore` with the tiny prior, and compare the exit code."""
    assert main(["restore", task, photo, *OPTIONS[task], *QUICK, *args]) == code


# -- what is bad ----------------------------------------------------------------------------------

P = ["restore", "photo.png"]
DENOISE = ["restore", "denoise", "photo.png", "--noise", "0.1", *QUICK]
SR = ["restore", "super-resolution", "photo.png", *QUICK]
INPAINT = ["restore", "inpaint", "photo.png", *QUICK]
DEBLUR = ["restore", "deblur", "photo.png", *QUICK]
DEGRADE = ["photo.png", "--out", "out"]
BAD = {
    "nothing": (["restore"], "task is missing: invdiff restore TASK FILE; the tasks are inpaint"),
    "no task": (P, "task comes before the file: invdiff restore TASK photo.png; the tasks are in"),
    "no file": (["restore", "denoise", *QUICK], "file is missing: invdiff restore denoise FILE"),
    "missing file": (["restore", "denoise", "no.png", *DENOISE[3:]], "no file no.png"),
    "folder": (["restore", "denoise", ".", *DENOISE[3:]], "is a folder"),
    "not an image": (["restore", "denoise", "text.png", *DENOISE[3:]], "not an image"),
    "bomb": (["restore", "denoise", "bomb.png", *DENOISE[3:]], "100 megapixels"),
    "nan": (["restore", "denoise", "nan.npy", *DENOISE[3:]], "1440 values that are NaN"),
    "two photos": ([*DENOISE, "grey.png"], "'grey.png' too many"),
    "mask size": ([*INPAINT, "--mask", "small.png"], "24 x 10 pixels, but the photo has 24 x 20"),
    "nothing to restore": ([*INPAINT, "--mask", "black.png"], "is empty"),
    "nothing known": ([*INPAINT, "--mask", "white.png"], "nothing is known"),
    "mask missing": (INPAINT, "inpaint needs --mask"),
    "mask file": ([*INPAINT, "--mask", "no.png"], "no file no.png"),
    "mask text": ([*INPAINT, "--mask", "text.png"], "not an image"),
    "scale 0": ([*SR, "--scale", "0"], "--scale is at least 2, found 0"),
    "scale -2": ([*SR, "--scale", "-2"], "--scale is at least 2, found -2"),
    "scale 21": ([*SR, "--scale", "21"], "larger than the image"),
    "scale half": ([*SR, "--scale", "2.5"], "--scale expects a whole number, found 2.5"),
    "scale missing": (SR, "needs --scale"),
    "downsampling": ([*SR, "--scale", "2", "--downsampling", "bicubc"], "did you mean bicubic"),
    "task": (["restore", "inpant", "photo.png"], "no task called 'inpant'; did you mean inpaint"),
    "solver": ([*DENOISE, "--solver", "mmsp"], "no solver called 'mmsp'; did you mean mmps"),
    "prior": ([*DENOISE, "--prior", "phto"], "no prior called 'phto'; did you mean photo"),
    "prior file": ([*DENOISE, "--prior", "no.safetensors"], "no file no.safetensors"),
    "no prior": ([*DENOISE, "--prior", "weights.safetensors"], "claims a header of"),
    "kernel": ([*DEBLUR, "--kernel", "gausian:2"], "not a kernel and no file"),
    "kernel number": ([*DEBLUR, "--kernel", "gaussian:x"], "takes numbers"),
    "kernel width": ([*DEBLUR, "--kernel", "gaussian:-2"], "above 0"),
    "kernel text": ([*DEBLUR, "--kernel", "text.txt"], "rows of numbers"),
    "kernel no picture": ([*DEBLUR, "--kernel", "text.png"], "not a kernel"),
    "kernel zero": ([*DEBLUR, "--kernel", "zero.npy"], "sum to 0"),
    "kernel size": ([*DEBLUR, "--kernel", "gaussian:9"], "larger than the image"),
    "boundary": (
        [*DEBLUR, "--kernel", "gaussian:1", "--boundary", "wrap"],
        "is unknown, .*, found wrap",
    ),
    "noise -0.1": ([*DENOISE, "--noise", "-0.1"], "not negative, found -0.1"),
    "noise -1e-3": ([*DENOISE, "--noise", "-1e-3"], "not negative, found -1e-3"),
    "noise text": ([*DENOISE, "--noise", "much"], "--noise expects a number, as 0.1 or 25/255, or"),
    "level on 255": ([*DENOISE, "--noise", "25"], "give --noise 25/255, which is 0.098"),
    "noise on 255": ([*SR, "--scale", "2", "--noise", "12.75"], "give --noise 12.75/255, which"),
    "noise fraction": ([*DENOISE, "--noise", "300/255"], "more than the whole range"),
    "noise over 0": ([*DENOISE, "--noise", "25/0"], "--noise expects a number"),
    "degrade on 255": (["degrade", "denoise", *DEGRADE, "--noise", "25"], "give --noise 25/255"),
    "correlated mask": (
        [*INPAINT, "--mask", "white.png", "--noise", "correlated"],
        "give --noise with",
    ),
    "correlated small": ([*DENOISE, "--noise", "correlated"], "too few pixels"),
    "noise missing": (["restore", "denoise", "photo.png", *QUICK], "denoise needs --noise: level"),
    "noise": ([*SR, "--scale", "2", "--noise", "-1"], "not negative, found -1"),
    "option of another task": ([*DENOISE, "--scale", "2"], "--scale does not belong to denoise"),
    "samples 0": ([*DENOISE, "--samples", "0"], "--samples is at least 1, found 0"),
    "samples text": ([*DENOISE, "--samples", "a"], "--samples expects a whole number, found a"),
    "steps 0": ([*DENOISE, "--steps", "0"], "at least 1 step"),
    "steps 5000": ([*DENOISE, "--solver", "dps", "--steps", "5000"], "at most 1000"),
    "batch 0": ([*DENOISE, "--batch", "0"], "--batch is at least 1, found 0"),
    "unsolvable": ([*DENOISE, "--solver", "ddnm"], "ddnm cannot .* These can: .*ddnm\\+, ddrm"),
    "knob range": (
        [*DENOISE, "--solver", "dps", "--solver.zeta", "-1"],
        "zeta is at least 0, found -1",
    ),
    "knob type": ([*DENOISE, "--solver", "dps", "--solver.zeta", "a"], "expects a number, found a"),
    "knob choice": (
        [*DENOISE, "--solver", "dps", "--solver.loss", "l3"],
        "is l2, l2sq, .*, found l3",
    ),
    "knob name": ([*DENOISE, "--solver", "dps", "--solver.zta", "1"], "did you mean --solver.zeta"),
    "knob of none": ([*DENOISE, "--solver.zeta", "1"], "name it too, with --solver NAME"),
    "option": ([*DENOISE, "--stpes", "2"], "no option called '--stpes'; did you mean --steps"),
    "no value": ([*DENOISE, "--steps"], "--steps needs a value"),
    "value of a flag": ([*DENOISE, "--overwrite=yes"], "--overwrite takes no value"),
    "before": ([*P, "--task"], "--task of before is gone: invdiff restore TASK photo.png"),
    "precision": (
        [*DENOISE, "--precision", "float16"],
        "is auto, float32, blocks, mixed or bfloat16, found float16",
    ),
    "device": ([*DENOISE, "--device", "tpu"], "no device 'tpu'"),
    "out": ([*DENOISE, "--out", "."], "exists; choose another folder or allow --overwrite"),
    "out not ours": ([*DENOISE, "--out", "photo.png", "--overwrite"], "not overwritten"),
    "no checkpoint": ([*DENOISE, "--resume"], "no checkpoint restored-photo.checkpoint"),
    "from no run": (["restore", "--from", "photo.png"], "not the run.json"),
    "from nothing": (["restore", "--from", "no/run.json"], "give the folder of a saved run"),
    "from empty": (["restore", "--from", "run.json"], "no saved run"),
    "from and photo": ([*P, "--from", "run.json"], "leave FILE out"),
    "from and task": (["restore", "--from", "run.json", "--task", "x"], "leave --task out"),
    "from and steps": (["restore", "--from", "run.json", "--steps", "3"], "leave --steps out"),
    "config missing": ([*P, "--config", "no.yaml"], "no file no.yaml"),
    "config broken": ([*P, "--config", "bad.yaml"], "not a YAML file"),
    "config list": ([*P, "--config", "list.yaml"], "holds no options"),
    "degrade nothing": (["degrade"], "task is missing: invdiff degrade TASK FILE"),
    "degrade nowhere": (["degrade", "colorize", "photo.png"], "degrade colorize needs --out"),
    "degrade estimate": (
        ["degrade", "denoise", *DEGRADE, "--noise", "estimate"],
        "no noise to e",
    ),
    "degrade random": (["degrade", "inpaint", *DEGRADE, "--mask", "random:2"], "is not a mask"),
    "degrade box": (["degrade", "inpaint", *DEGRADE, "--mask", "box:1,2"], "not a mask"),
    "degrade nan": (["degrade", "colorize", "nan.npy", "--out", "out"], "NaN"),
    "command": (["resotre"], "no command called 'resotre'; did you mean restore"),
    "table task": (["solvers", "--task", "blur"], "no task called 'blur'"),
    "table option": (["tasks", "--all"], "no option called '--all'"),
    "train nothing": (["train"], "NAME, the recipe, is missing"),
    "train no data": (
        ["train", "photo", "--data", "no", "--out", "out"],
        "There is no no; give a folder",
    ),
    "train recipe": (["train", "x", "--data", ".", "--out", "out"], "no recipe called 'x'"),
    "train steps": (["train", "photo", "--data", ".", "--out", "o", "--steps", "0"], "above 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case: str, here: Path, capsys: pytest.CaptureFixture) -> None:
    """Exit code 2, one line on stderr, nothing on stdout, nothing written."""
    args, sentence = BAD[case]
    before = names(here)
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("invdiff: ") and err.count("\n") == 1, err
    assert re.search(sentence, err) and err.endswith((".\n", "?\n", ").\n")), err
    assert names(here) == before


def test_debug_shows_where(here: Path) -> None:
    with pytest.raises(Exception, match="no file"):
        main(["restore", "--debug", "colorize", "no.png"])


def test_unexpected_errors_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for error, text in [
        (RuntimeError("some\nbug"), "unexpected RuntimeError (some bug)"),
        (MemoryError(), "not enough memory"),
        (OSError(28, "No space left on device"), "No space left"),
    ]:

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(performing, "draw", fail)
        restore(code=1)
        assert text in capsys.readouterr().err


# -- what is good ---------------------------------------------------------------------------------


@pytest.mark.parametrize("task", OPTIONS)
def test_every_task(task: str, here: Path, capsys: pytest.CaptureFixture) -> None:
    """All files are there, the size is right, and the pictures are those of the saved samples."""
    restore("--out", "out", task=task)
    expected = ["estimate.png", "mean.png", "overview.png", "run.json", "run.safetensors"]
    assert names(here / "out") == [*expected, "sample-1.png", "sample-2.png", "uncertainty.png"]
    size = (40, 48, 3) if task == "super-resolution" else (*SIZE, 3)
    assert array(here / "out" / "mean.png").shape == size
    assert not np.array_equal(array(here / "out/sample-1.png"), array(here / "out/sample-2.png"))
    printed = capsys.readouterr().out
    solver = "spectral-ancestral, 2 steps (auto: "
    for word in ("photo.png (PNG, 24 x 20, colour)", task, solver, "evaluations for each sample"):
        assert word in printed
    assert ("luma is used" in printed) == (task == "colorize")
    assert ("rounding" in printed) == (task != "denoise")


NOT_HERE = {Need.NOISELESS, Need.AUTOENCODER}
NOISY = [n for n, cls in registry().items() if not NOT_HERE & cls.needs]
"""Solvers that take a photograph, whose noise is at least what rounding to 8 bits makes, with a
prior of images; those of latents are run in priors/test_pipelines.py."""


@pytest.mark.parametrize("solver", NOISY)
def test_every_solver_and_its_knobs(solver: str, here: Path, capsys: pytest.CaptureFixture) -> None:
    """Each solver is built from its short name, with its first knob that can be 0.25 or 1 set."""
    hints = get_type_hints(registry()[solver])
    free = [
        (f.name, value)
        for f in dataclasses.fields(registry()[solver])
        for kind, value in ((float, 0.25), (int, 1))
        if hints[f.name] is kind and (f.metadata["max"] or value) >= value >= f.metadata["min"]
    ]
    knob, value = free[0]
    value = {"kappa": 1.0}.get(knob, value)  # a narrower likelihood diverges in two steps
    restore("--solver", solver, f"--solver.{knob}", str(value), "--out", "out")
    saved = json.loads((here / "out/run.json").read_text())["solver"]
    assert saved["type"].endswith(registry()[solver].__name__) and saved["fields"][knob] == value
    assert f"{solver}, 2 steps (as asked)" in capsys.readouterr().out


def test_help_teaches_the_options_and_the_knobs(capsys: pytest.CaptureFixture) -> None:
    for task, cls in TASKS.items():
        assert main(["restore", task, "--help"]) == 0
        text = capsys.readouterr().out
        assert all(flag(name) in text for name in options(cls)) and "--solver TEXT" in text
    assert main(["restore", "--solver", "dps", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert re.search(r"guidance step size; 0 ignores y, at least 0; 1\.0 by default", text)
    assert "--solver.loss NAME" in text and ": l2, l2sq, gaussian," in text
    assert "--solver.schedule.spacing" in text
    assert main(["restore", "deblur", "--solver", "dps", "--help"]) == 0
    whole = capsys.readouterr().out
    assert "--kernel" in whole and "--solver.loss" in whole


def test_a_solver_within_a_solver(here: Path, capsys: pytest.CaptureFixture) -> None:
    """It is chosen by name and brings its own schedule, and run.json repeats the run."""
    base = ["--solver", "ccdf", "--solver.base", "ddrm"]
    restore(*base, "--solver.start", "0.5", "--solver.schedule.spacing", "trailing", "--out", "out")
    fields = json.loads((here / "out/run.json").read_text())["solver"]["fields"]
    assert fields["base"]["type"].endswith("DDRM") and fields["start"] == 0.5
    assert fields["schedule"] == fields["base"]["fields"]["schedule"]
    assert fields["schedule"]["fields"]["spacing"] == "trailing"
    assert "ccdf, 2 steps (as asked)" in capsys.readouterr().out
    again = ["restore", "--from", "out/run.json", "--out", "again", "--quiet"]
    assert main([*again, "--prior", "tiny.safetensors"]) == 0
    assert np.array_equal(array(here / "out/mean.png"), array(here / "again/mean.png"))
    assert main(["restore", *base, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "the solver that runs, one of annealed-langevin, cbg, csgm, daps, ddnm" in text
        and "; ddrm by default" in text
    )
    assert main(["restore", "--solver", "ccdf", "--solver.base", "replacement", "--help"]) == 0
    assert "--solver.schedule.sigma_max" in capsys.readouterr().out
    capsys.readouterr()
    restore("--solver", "ccdf", "--solver.base", "drdm", code=2)
    assert "no solver called 'drdm'; did you mean ddrm" in capsys.readouterr().err
    restore("--solver", "dps", "--solver.base", "ddrm", code=2)
    assert "--solver.base" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["solver: dps", "solver: {name: dps, zeta: 0.5}"])
def test_config_file(form: str, here: Path) -> None:
    text = f"file: photo.png\ntask: denoise\nnoise: 0.1\nsteps: 2\nsamples: 1\n{form}\n"
    (here / "c.yaml").write_text(text + "prior: tiny.safetensors\nquiet: true\nout: out\n")
    assert main(["restore", "--config", "c.yaml", "--samples", "2"]) == 0
    config = json.loads((here / "out/run.json").read_text())
    assert config["samples"] == 2 and config["solver"]["type"].endswith("DPS")
    assert config["solver"]["fields"]["zeta"] == (0.5 if "zeta" in form else 1.0)


def test_path_knobs(here: Path) -> None:
    restore("--solver", "diffpir", "--solver.schedule.spacing", "trailing")
    fields = json.loads((here / "restored-photo/run.json").read_text())["solver"]["fields"]
    assert fields["schedule"]["fields"]["spacing"] == "trailing"
    assert fields["schedule"]["fields"]["steps"] == 2


def test_grey_stays_grey(here: Path) -> None:
    restore(photo="grey.png")
    assert array(here / "restored-grey/mean.png").shape == SIZE
    restore(photo="grey.png", task="colorize", code=2)  # the folder exists
    restore("--out", "out", photo="grey.png", task="colorize")
    assert array(here / "out/mean.png").shape == (*SIZE, 3)


def test_alpha_is_copied(here: Path) -> None:
    restore(photo="alpha.png")
    result = array(here / "restored-alpha/sample-1.png")
    assert np.array_equal(result[..., 3], array(here / "alpha.png")[..., 3])
    restore("--out", "large", photo="alpha.png", task="super-resolution")
    assert array(here / "large/mean.png").shape == (40, 48, 4)


def test_orientation_is_kept_upright(here: Path) -> None:
    """A photo that is turned by its tag is restored as it is seen."""
    restore("--solver", "ddnm", "--noise", "0", photo="turned.jpg")  # a noiseless photo is kept
    seen = read_photo("turned.jpg").pixels.permute(1, 2, 0) * 255
    result = array(here / "restored-turned/mean.png")
    assert result.shape == (24, 20, 3) and np.abs(result - seen.numpy()).max() <= 1


def test_float_arrays_and_estimated_noise(here: Path, capsys: pytest.CaptureFixture) -> None:
    restore("--noise", "estimate", photo="float.npy")
    assert "estimated from the photo" in capsys.readouterr().out


def test_one_sample_has_no_uncertainty(
    here: Path, true_figures: None, capsys: pytest.CaptureFixture
) -> None:
    """With the true figures."""
    restore("--samples", "1", "--out", "one")
    assert "uncertainty.png" not in names(here / "one")
    assert "one sample shows no uncertainty" in capsys.readouterr().out
    assert np.array_equal(array(here / "one/mean.png"), array(here / "one/sample-1.png"))
    restore("--samples", "2", "--out", "two", task="inpaint")
    assert array(here / "two/overview.png").shape[1] > 600
    assert array(here / "two/uncertainty.png").size > 10_000


@pytest.mark.parametrize("photo", ["photo.png", "grey.png", "turned.jpg"])
def test_inpainting_leaves_known_pixels_as_they_are(photo: str, here: Path) -> None:
    """Whatever noise the file is supposed to have; where the user tells it, they are denoised."""
    size = SIZE if photo != "turned.jpg" else SIZE[::-1]
    mask = np.zeros(size, np.uint8)
    mask[3:8, 4:11] = 255
    Image.fromarray(mask).save(here / "hole.png")
    args = ["restore", "inpaint", photo, "--mask", "hole.png", *QUICK]
    assert main([*args, "--out", "kept"]) == 0
    assert main([*args, "--noise", "0.1", "--out", "told"]) == 0
    again = ["restore", "--from", "kept/run.json", "--prior", "tiny.safetensors"]
    assert main([*again, "--quiet", "--out", "again"]) == 0
    with Image.open(photo) as image:
        before = np.asarray(ImageOps.exif_transpose(image))
    for name in ("estimate.png", "sample-1.png", "mean.png"):
        kept, told = array(here / "kept" / name), array(here / "told" / name)
        assert np.array_equal(kept[mask == 0], before[mask == 0])
        assert not np.array_equal(kept[mask > 0], before[mask > 0])
        assert not np.array_equal(told[mask == 0], before[mask == 0])
        assert np.array_equal(kept, array(here / "again" / name))


def test_overwrite(here: Path) -> None:
    restore()
    restore(code=2)
    restore("--overwrite", "--samples", "1")
    assert "sample-2.png" not in names(here / "restored-photo")
    assert not [n for n in names(here) if n.endswith((".part", ".old", ".checkpoint"))]
    out = here / "restored-photo"
    (out / "mine.png").write_bytes((here / "photo.png").read_bytes())
    restore("--out", str(out), "--overwrite", photo=str(out / "mine.png"), code=2)
    assert (out / "mine.png").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a file system that takes no folders")
def test_a_place_that_takes_no_folder_is_told_before_the_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """/proc says that it is writable to the superuser, and is not."""
    monkeypatch.setattr(performing, "draw", lambda *_, **__: pytest.fail("it ran"))
    for out in ("/proc/x", "/proc/x/y"):
        restore("--out", out, code=2)
        assert "cannot be made, because /proc is not writable" in capsys.readouterr().err
    before = names(here)
    restore("--out", "missing/a", photo="no.png", code=2)
    assert names(here) == before


def test_a_failure_after_sampling_loses_nothing(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """There is no folder of results, and a checkpoint with the line that goes on from it."""
    restore("--out", "whole")
    capsys.readouterr()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(restored, "overview", fail)
        before = names(here)
        restore(code=1)
    assert set(names(here)) - set(before) == {"restored-photo.checkpoint"}
    err = capsys.readouterr().err
    assert err.startswith(
        "invdiff: [Errno 28] No space left on device; go on with: invdiff restore"
    )
    assert err.endswith(" --resume\n") and err.count("\n") == 1
    monkeypatch.setattr(PhotoPrior, "x0", lambda *_: pytest.fail("computed anew"))
    restore("--resume")
    assert same_pixels(here / "whole", here / "restored-photo")


# -- again ----------------------------------------------------------------------------------------


def same_pixels(a: Path, b: Path) -> bool:
    pictures = [n for n in names(a) if n.startswith(("sample", "mean"))]
    assert len(pictures) == 3
    return all((a / n).read_bytes() == (b / n).read_bytes() for n in pictures)


@pytest.mark.parametrize("photo", ["photo.png", "alpha.png", "grey.png"])
@pytest.mark.parametrize("task", ["inpaint", "super-resolution"])
def test_from_run_gives_the_same_pixels(photo: str, task: str, here: Path) -> None:
    restore("--out", "a", "--seed", "7", photo=photo, task=task)
    (here / photo).unlink()
    told = ["--quiet", "--prior", "tiny.safetensors"]
    assert main(["restore", "--from", "a/run.json", *told]) == 0
    assert same_pixels(here / "a", here / "a-again")
    assert main(["restore", "--from", "a-again", "--out", "b", *told]) == 0
    assert same_pixels(here / "a", here / "b")


def test_from_run_needs_the_same_weights(here: Path, capsys: pytest.CaptureFixture) -> None:
    restore("--out", "a")
    capsys.readouterr()
    again = ["restore", "--from", "a/run.json", "--prior", "other.safetensors"]
    assert main(again) == 2
    err = capsys.readouterr().err
    assert "give the same weights" in err and err.count("\n") == 1
    assert "a-again" not in names(here)


Solve = Callable[..., object]


def interrupted_after(steps: int) -> Solve:
    """`solve` that is interrupted when so many steps are done."""

    def solve(*args: object, **more: object) -> object:
        *rest, watch, start = args

        def stop(snapshot: Snapshot) -> None:
            watch(snapshot)  # type: ignore[operator]
            if snapshot.steps_done >= steps:
                raise KeyboardInterrupt

        return real_solve(*rest, stop, start, **more)  # type: ignore[arg-type]

    return solve


@pytest.mark.parametrize("steps", [[0], [1], [3], [4], [1, 3]])
def test_resume_gives_the_same_pixels(
    steps: list[int],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """Interrupted once or twice, in the first or the second batch, before and after the end."""
    args = ["--solver", "diffpir", "--solver.final", "denoised", "--batch", "1"]
    restore(*args, "--out", "whole", task="deblur")
    args += ["--out", "a"]
    for i, count in enumerate(steps):
        capsys.readouterr()
        monkeypatch.setattr(performing, "draw", interrupted_after(count))
        restore(*args, *(["--resume"] if i else []), task="deblur", code=130)
        err = capsys.readouterr().err
        assert f"interrupted after {count} of 4 steps" in err and err.count("\n") == 1
        assert err.endswith("--resume\n") and "a" not in names(here)
        assert "a.checkpoint" in names(here)
    monkeypatch.undo()
    monkeypatch.chdir(here)
    restore(*args, task="deblur", code=2)
    assert "give --resume to go on" in capsys.readouterr().err
    restore(*args, "--resume", "--seed", "1", task="deblur", code=2)
    assert "other options" in capsys.readouterr().err
    restore(*args, "--resume", task="deblur")
    assert same_pixels(here / "whole", here / "a")
    assert "a.checkpoint" not in names(here)
    a, whole = (json.loads((here / n / "run.json").read_text()) for n in ("a", "whole"))
    assert a["nfe"] == whole["nfe"] == 2


def test_interrupted_while_writing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples are not lost."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(restored, "overview", stop)
    restore(code=130)
    assert {"restored-photo.checkpoint"} == {n for n in names(here) if "restored" in n}


def test_termination_is_an_interrupt() -> None:
    import os
    import signal

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), restore_command.terminations_as_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert signal.getsignal(signal.SIGTERM) is before


def test_train_passes_options_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """To `fit`, which has its own tests; an interruption tells how to go on."""
    seen = []
    args = ["train", "photo", "--data", ".", "--out", "out", "--steps", "3", "--quiet"]

    def fit(recipe: object, data: Path, out: Path, **options: object) -> bool:
        seen.append((data, out, options))
        if len(seen) == 3:
            (out / "checkpoint.pt").touch()
            raise KeyboardInterrupt
        return len(seen) == 1

    monkeypatch.setattr("invdiff.commands.train.fit", fit)
    assert main(args) == 0 and "out/photo.safetensors" in capsys.readouterr().out
    data, out, options = seen[0]
    assert (data, out) == (Path("."), Path("out"))
    assert options["steps"] == 3 and options["mixed"] and not options["progress"]
    assert main([*args, "--minutes", "1"]) == 0 and "--resume" in capsys.readouterr().out
    (here / "out").mkdir()
    assert main(args) == 130 and capsys.readouterr().err.endswith("--quiet --resume\n")


# -- degrade, tables, help ------------------------------------------------------------------------


@pytest.mark.parametrize("task", OPTIONS)
def test_degrade_then_restore(task: str, here: Path, capsys: pytest.CaptureFixture) -> None:
    """The command that degrade tells restores its measurement."""
    noise = ["--noise", "0.02"] if task != "denoise" else []
    args = ["degrade", task, "photo.png", *OPTIONS[task], *noise, "--out", "d"]
    assert main(args) == 0
    about = json.loads((here / "d/degrade.json").read_text())
    assert about["restore"] in capsys.readouterr().out
    command = about["restore"].split()
    assert command[:4] == ["invdiff", "restore", task, "d/measurement.png"]
    assert main([*command[1:], *QUICK]) == 0
    assert ("0.0200" if task != "denoise" else "0.1000") in capsys.readouterr().out
    assert main([*args, "--overwrite"]) == 0  # replaced, with the same noise
    clipped = array(here / "d/measurement.png") / 255
    exact = np.load(here / "d/measurement.npy")
    assert np.abs(clipped - exact.clip(0, 1)).max() < 0.5 / 255 + 1e-6
    assert np.array_equal(array(here / "d/truth.png"), array(here / "photo.png"))


def test_degrade_is_seeded(here: Path) -> None:
    args = ["degrade", "inpaint", "photo.png", "--mask", "random:0.5", "--noise", "0.1"]
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main([*args, "--seed", seed, "--out", out]) == 0
    files = [[(here / d / n).read_bytes() for n in ("measurement.png", "mask.png")] for d in "abc"]
    assert files[0] == files[1] and files[0][0] != files[2][0] and files[0][1] != files[2][1]
    assert (array(here / "a/mask.png") == 255).sum() == 240
    assert main(["degrade", "inpaint", "photo.png", "--mask", "box:2,3,4,5",
                 "--out", "e"]) == 0  # fmt: skip
    box = array(here / "e/mask.png") == 255
    assert box.sum() == 20 and box[2:6, 3:8].all()


def test_degrade_cuts_to_the_scale(here: Path, capsys: pytest.CaptureFixture) -> None:
    args = ["degrade", "super-resolution", "photo.png", "--scale", "3", "--out", "d"]
    assert main(args) == 0
    assert "cut to 24 x 18" in capsys.readouterr().out
    assert array(here / "d/truth.png").shape == (18, 24, 3)
    assert array(here / "d/measurement.png").shape == (6, 8, 3)


def test_boundaries_of_a_blur(here: Path, capsys: pytest.CaptureFixture) -> None:
    """degrade reflects unless told, and says so; restore takes the boundary for unknown.

    A margin is cut off from all pictures, and again where a run is repeated.
    """
    args = ["degrade", "deblur", "photo.png", "--kernel", "gaussian:1.0"]
    assert main([*args, "--out", "d"]) == 0
    assert "--boundary reflect" in capsys.readouterr().out
    assert main([*args, "--boundary", "unknown", "--out", "u"]) == 0
    command = json.loads((here / "u/degrade.json").read_text())["restore"].split()
    assert "--boundary" not in command
    inner = array(here / "photo.png")[4:-4, 4:-4]
    assert np.array_equal(array(here / "u/truth.png"), inner)
    capsys.readouterr()
    assert main([*command[1:], *QUICK, "--out", "a"]) == 0
    assert "to 16 x 12 pixels" in capsys.readouterr().out
    again = ["restore", "--from", "a/run.json", "--prior", "tiny.safetensors", "--quiet"]
    assert main([*again, "--out", "b"]) == 0
    for name in ("mean.png", "sample-1.png"):
        assert array(here / "a" / name).shape == (12, 16, 3)
        assert (here / "a" / name).read_bytes() == (here / "b" / name).read_bytes()
    problem = Result.load("a").problem()
    assert problem.x_shape == (3, 20, 24) and problem.y.shape == (1, 3, 12, 16)


def test_tables(capsys: pytest.CaptureFixture) -> None:
    assert main(["solvers"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in [*registry(), *TASKS])
    assert re.search(r"^ddnm  +DDNM  +noiseless", text, re.MULTILINE)
    for task in TASKS:
        assert main(["solvers", "--task", task]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"{task}: ") and "auto takes" in text
        assert all(name in text for name in registry())
    assert main(["tasks"]) == 0
    text = capsys.readouterr().out
    assert all(flag(name) in text for t in TASKS.values() for name in options(t))
    assert main(["priors"]) == 0
    assert "photo" in capsys.readouterr().out


def test_help_and_version(capsys: pytest.CaptureFixture) -> None:
    for args in ([], ["--help"], ["-h"], ["help"]):
        assert main(args) == 0
        text = capsys.readouterr().out
        assert all(name in text for name in COMMANDS)
    assert main(["--version"]) == 0
    assert re.fullmatch(r"invdiff \d+\.\d+\.\d+\n", capsys.readouterr().out)
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"usage: invdiff {command}")


def test_help_is_light() -> None:
    """Neither version nor help, of any command, loads torch."""
    code = (
        "import sys; from invdiff.cli import COMMANDS, main; main(['--help']); main(['--version']);"
        "[main([name, '--help']) for name in COMMANDS]; main(['priors', 'measure', '--help']);"
        "bad = {'torch', 'numpy', 'yaml', 'matplotlib'} & set(sys.modules); assert not bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_restoration_goes_without_the_compiler(tmp_path: Path) -> None:
    """Of torch it loads what it needs: the compiler alone takes 2 s."""
    Image.fromarray(np.full((16, 16), 99, np.uint8)).save(tmp_path / "a.png")
    asked = "restore denoise a.png --noise 0.1 --steps 2 --samples 2 --quiet"
    code = (
        f"import sys; from invdiff.cli import main; assert main('{asked}'.split()) == 0;"
        "bad = {'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules); assert not bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)


def test_a_closed_pipe_is_no_error() -> None:
    shell = f"set -o pipefail; {sys.executable} -m invdiff --help | true"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.cuda.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory")],
)
def test_a_full_memory_is_one_sentence(error: Exception) -> None:
    """Of the host and of a device; another error of the same class is told as it is."""
    assert (
        explain(error) == (explain(MemoryError())[0], 1) and "smaller --batch" in explain(error)[0]
    )
    assert "unexpected RuntimeError (shapes)" in explain(RuntimeError("shapes"))[0]
