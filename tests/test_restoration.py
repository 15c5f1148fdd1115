"""`invdiff.restore` and what it gives: arrays in the units of the file, a figure, a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import invdiff
from invdiff import Restoration, restore
from invdiff.cli import main
from invdiff.core import InvdiffError
from invdiff.priors.load import load_prior
from invdiff.sampling.checks import check
from invdiff.sampling.pose import pose
from invdiff.solvers.ddrm import DDRM

PHOTO = Path(__file__).parents[1] / "examples" / "alpacas-small.png"
QUICK = {"samples": 2, "steps": 2, "progress": False}
SIZE = (24, 32)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    with Image.open(PHOTO) as image:
        return image.convert("RGB").crop((20, 20, 20 + SIZE[1], 20 + SIZE[0]))


@pytest.fixture(scope="module")
def done(picture: Image.Image) -> Restoration:
    return restore("denoise", picture, noise=0.1, seed=3, **QUICK)


def test_arrays_have_the_layout_of_the_file(done, picture):
    assert done.samples.shape == (2, *SIZE, 3) and done.estimate.shape == (*SIZE, 3)
    assert done.mean.shape == done.std.shape == (*SIZE, 3)
    np.testing.assert_allclose(done.mean, done.samples.mean(0), atol=1e-6)
    np.testing.assert_allclose(done.std, done.samples.std(0, ddof=1), atol=1e-6)
    assert np.abs(done.estimate - np.asarray(picture) / 255).mean() < 0.1
    assert done.cost["evaluations of a sample"] == 2 and done.cost["seconds"] > 0
    low, high = sorted(f"{m:.2f}" for m in done.result.check()["samples"].misfit)
    said = f", samples {low}" + (f" to {high}" if high != low else "")
    assert f"{said} times its noise from the measurement" in done.agreement
    grey = restore("denoise", picture.convert("L"), noise=0.1, **QUICK)
    assert grey.samples.shape == (2, *SIZE) and grey.std.shape == SIZE


def test_any_source_is_the_same_picture(done, picture, tmp_path):
    picture.save(tmp_path / "image.png")
    pixels = np.asarray(picture)
    for source in (tmp_path / "image.png", pixels, torch.from_numpy(pixels / 255).float()):
        again = restore("denoise", source, noise=0.1, seed=3, **QUICK)
        np.testing.assert_allclose(again.samples, done.samples, atol=1e-5)
    other = restore("denoise", picture, noise=0.1, seed=4, **QUICK)
    assert np.abs(other.samples - done.samples).max() > 0.05


def test_the_command_line_reads_the_same_job(done, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture.save("image.png")
    args = ["restore", "denoise", "image.png", "--noise", "0.1", "--seed", "3"]
    assert main([*args, "--samples", "2", "--steps", "2", "--quiet", "--out", "cli"]) == 0
    loaded = Restoration.load("cli")
    np.testing.assert_array_equal(loaded.samples, done.samples)
    np.testing.assert_array_equal(loaded.estimate, done.estimate)
    assert loaded.warnings == done.warnings and loaded.task == "denoise"


def test_a_saved_restoration_is_loaded_and_repeated(done, tmp_path, capsys):
    folder = done.save(tmp_path / "run")
    with pytest.raises(InvdiffError, match="overwrite"):
        done.save(folder)
    loaded = Restoration.load(folder)
    np.testing.assert_array_equal(loaded.samples, done.samples)
    assert repr(loaded) == repr(done) and "24x32, 2 samples" in repr(done)
    assert main(["restore", "--from", str(folder), "--quiet", "--out", str(tmp_path / "b")]) == 0
    with Image.open(tmp_path / "b/sample-2.png") as image, Image.open(folder / "sample-2.png") as a:
        assert np.array_equal(np.asarray(a), np.asarray(image))
    assert {p.name for p in folder.iterdir()} == {p.name for p in (tmp_path / "b").iterdir()}


def test_a_notebook_shows_the_sheet(done, true_figures):
    assert done._repr_png_().startswith(b"\x89PNG")
    assert done.figure().size[0] > 600


def test_masks_and_kernels_may_be_arrays(picture):
    mask = np.zeros(SIZE)
    mask[5:12, 6:14] = 1
    filled = restore("inpaint", picture, mask=mask, **QUICK)
    known = mask == 0
    np.testing.assert_allclose(
        filled.estimate[known], (np.asarray(picture) / 255)[known], atol=1e-6
    )
    kernel = np.ones((3, 3)) / 9
    sharp = restore("deblur", picture, kernel=kernel, want="estimate", progress=False)
    assert sharp.estimate.shape == (*SIZE, 3) and "hqs" in repr(sharp)
    with pytest.raises(InvdiffError, match="estimate alone"):
        _ = sharp.samples


def test_a_solver_and_a_prior_may_be_objects(picture):
    solver = DDRM().with_steps(2)
    prior = load_prior("photo")
    told = {"prior": prior, "solver": solver, "want": "samples", "samples": 1}
    found = restore("super-resolution", picture, scale=2, progress=False, **told)
    assert found.samples.shape == (1, 48, 64, 3) and found.result.solver() == solver
    for wrong in (lambda: found.estimate, lambda: found.std):
        with pytest.raises(InvdiffError):
            wrong()


def test_mr_images_are_complex(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    z = np.zeros((32, 32), np.complex64)
    z[8:24, 10:20] = 1 + 0.5j
    np.save("image.npy", z)
    assert main(["degrade", "mri", "image.npy", "--out", "scan", "--noise", "0.01"]) == 0
    kspace = np.load("scan/kspace.npy")
    found = restore("mri", kspace, mask="scan/mask.npy", noise=0.01, **QUICK)
    assert found.estimate.dtype.kind == "c" and found.estimate.shape == (32, 32)
    assert found.std.shape == (32, 32) and found.std.dtype.kind == "f"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda p: restore("deblurr", p), "did you mean deblur"),
        (lambda p: restore("deblur", p), "needs --kernel"),
        (lambda p: restore("denoise", p), "needs --noise"),
        (
            lambda p: restore("denoise", p, sigma=0.1),
            "belong to denoise, which takes --noise",
        ),
        (lambda p: restore("denoise", p, noise=25), "give --noise 25/255"),
        (lambda p: restore("colorize", p, scale=2), "does not belong to colorize"),
        (lambda p: restore("colorize", "no.png"), "no.png"),
        (lambda p: restore("colorize", p, samples=0), "at least 1"),
        (lambda p: restore("colorize", p, solver="nobody"), "nobody"),
        (lambda p: Restoration.load("nowhere"), "holds no saved run"),
    ],
)
def test_what_does_not_fit_is_one_sentence(call, sentence, picture):
    with pytest.raises(InvdiffError, match=sentence):
        call(picture)


def test_a_result_that_is_no_restoration_is_told_apart(tmp_path, done):
    result = invdiff.solve(done.problem, load_prior("photo"), DDRM().with_steps(2))
    result.save(tmp_path / "run")
    with pytest.raises(InvdiffError, match="not the folder of a restoration"):
        Restoration.load(tmp_path / "run")


def test_one_run_poses_whitens_and_checks_once(tmp_path, monkeypatch):
    """Of an estimate and samples of a photograph with correlated noise, from file to pictures."""
    from invdiff.problem import whiten
    from invdiff.sampling import needs, pose, stream

    counted = {"pose": 0, "whiten": 0, "check": 0}

    def counting(module, name):
        real = getattr(module, name)

        def call(*args, **kwargs):
            counted[name] += 1
            return real(*args, **kwargs)

        for other in list(sys.modules.values()):
            if getattr(other, "__name__", "").startswith("invdiff") and (
                getattr(other, name, None) is real
            ):
                monkeypatch.setattr(other, name, call)

    counting(pose, "pose")
    counting(whiten, "whiten")
    counting(needs, "check")
    assert stream.check is needs.check
    pixels = 0.5 + 0.05 * np.random.default_rng(0).standard_normal((64, 64, 3))
    invdiff.restore(
        "denoise", pixels, noise="correlated", solver="mmps", steps=1, samples=2, progress=False
    ).save(tmp_path / "out")
    assert counted == {"pose": 1, "whiten": 1, "check": 1}


@pytest.mark.parametrize("want", ["estimate", "samples", "both"])
def test_what_is_wanted_is_saved_and_repeated(picture, want, tmp_path):
    """By the command line: pictures, run.json, and the same again."""
    picture.save(tmp_path / "a.png")
    args = ["restore", "denoise", str(tmp_path / "a.png"), "--noise", "0.1", "--want", want]
    args += ["--steps", "1", "--samples", "2", "--quiet"]
    assert main([*args, "--out", str(tmp_path / "r")]) == 0
    assert (
        main(["restore", "--from", str(tmp_path / "r"), "--quiet", "--out", str(tmp_path / "s")])
        == 0
    )
    names = {p.name for p in (tmp_path / "r").glob("*.png")}
    assert ("estimate.png" in names) == (want != "samples")
    assert ("sample-2.png" in names) == (want != "estimate")
    for name in names - {"overview.png"}:
        assert (tmp_path / "r" / name).read_bytes() == (tmp_path / "s" / name).read_bytes()
    assert Restoration.load(tmp_path / "r").want == want


def test_what_is_checked_in_a_run_is_what_its_file_tells():
    """Of correlated noise too: roughness is compared with y as given, misfit with white noise."""
    noise = np.random.default_rng(0).standard_normal((64, 64, 3))
    noise = sum(np.roll(noise, (i, j), (0, 1)) for i in range(3) for j in range(3)) / 3
    pixels = 0.5 + 0.05 * noise
    done = restore("denoise", pixels, noise="correlated", solver="mmps", **QUICK)
    again = done.result.check(load_prior("photo"))
    assert done.result.config["checks"] == {name: c.as_dict() for name, c in again.items()}
    white = pose(done.problem, load_prior("photo")).white
    other = check(white, done.result.estimate[:, None], (-1.0, 1.0))
    assert again["estimate"].growth != pytest.approx(other.growth, rel=0.1)
