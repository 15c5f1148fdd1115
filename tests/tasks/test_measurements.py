"""Measurements that are no plain photographs, end to end: degrade, restore, repeat, resume."""

import dataclasses
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from helpers import array, names, tiny
from invdiff.cli import main
from invdiff.files.pictures import read_photo
from invdiff.noise import DiagonalGaussian, GaussianNoise, Poisson, PoissonGaussian
from invdiff.operators.mri import as_channels
from invdiff.operators.radon import Radon
from invdiff.priors.units import hu_to_x
from invdiff.restoration import perform as performing
from invdiff.sampling.result import Result
from invdiff.sampling.run import Snapshot
from invdiff.sampling.run import draw as real_solve
from invdiff.scans.drift import without_drift, without_rings
from invdiff.scans.sinogram import Sinogram

SIZE = (21, 27)  # no multiple of 8
QUICK = ["--steps", "2", "--samples", "2", "--quiet"]
SAMPLES = ["--want", "samples"]
"""Without the estimate, which takes most of the time where what is asked is how a file was read."""
SENSING = ["compressed-sensing", "--kind"]
CASES = {
    "jpeg": ["jpeg", "--quality", "10"],
    "jpeg-444": ["jpeg", "--quality", "30", "--subsampling", "4:4:4"],
    "demosaic": ["demosaic", "--pattern", "GBRG"],
    "hdr": ["hdr", "--gain", "3"],
    "low-light": ["low-light", "--peak", "30"],
    "read-noise": ["low-light", "--peak", "60", "--readout", "3"],
    "coded": ["phase-retrieval", "--masks", "1", "--noise", "0.01"],
    "padded": ["phase-retrieval", "--masks", "0", "--oversample", "2"],
    "hadamard": [*SENSING, "hadamard", "--ratio", "0.5", "--order", "random", "--noise", "0.01"],
    "blocks": [*SENSING, "gaussian", "--block", "5", "--noise", "0.02"],
    "dct": [*SENSING, "dct", "--noise", "0"],
    "fourier": [*SENSING, "fourier", "--ratio", "0.4", "--noise", "0.01"],
    "single-pixel": [*SENSING, "single-pixel", "--noise", "0.001"],
    "mri": ["mri", "--noise", "0.01"],
    "coils": ["mri", "--coils", "3", "--sampling", "poisson", "--accel", "2", "--noise", "0.01"],
    "ct": ["ct", "--views", "12", "--photons", "1e7"],
    "fan": ["ct", "--views", "24", "--photons", "1e7", "--geometry", "fan", "--source", "80"],
}


def smooth(channels: int) -> np.ndarray:
    """A picture without edges, (H, W, channels) uint8, from 20 to 220."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    waves = [np.sin(x / 5 + c) * np.cos(y / 4 - c) for c in range(channels)]
    return np.round(120 + 100 * np.stack(waves, 2)).astype(np.uint8)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and priors that the tests read."""
    folder = tmp_path_factory.mktemp("inputs")
    for channels in (1, 2, 3):
        tiny(folder / f"tiny{channels}.safetensors", channels)
    colours = smooth(3)
    Image.fromarray(colours).save(folder / "photo.png")
    Image.fromarray(colours[..., 0]).save(folder / "grey.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colours).save(folder / "plain.jpg", quality=20)
    Image.fromarray(colours).save(folder / "turned.jpg", quality=20, exif=exif)
    Image.fromarray(colours[..., 0]).save(folder / "grey.jpg", quality=20)
    sensed = {"kind": "hadamard", "size": (16, 16), "noise": 0.1, "order": "random", "seed": 3}
    np.savez(folder / "sensed.npz", y=np.ones((3, 64), np.float32), **sensed)
    np.savez(folder / "cut.npz", y=np.ones((3, 64), np.float32), ratio=0.5, **sensed)
    np.savez(folder / "kind.npz", y=np.ones((3, 64)), kind=7)
    np.savez(folder / "large.npz", y=np.ones((3, 64)), kind="hadamard", size=(4, 4), noise=0.1)
    np.save(folder / "blocks.npy", np.ones((3, 5, 2, 2)))
    np.save(folder / "few.npy", np.ones((2, 64)))
    np.save(folder / "real.npy", np.zeros((8, 8)))
    np.save(folder / "negative.npy", -np.ones((8, 8)))
    np.save(folder / "number.npy", np.array(3.0))
    np.savez(folder / "arrays.npz", counts=np.ones((5, 9)), theta=np.ones(5))
    k = np.random.default_rng(0).normal(size=(2, 8, 8, 2)).astype(np.float32)
    np.save(folder / "k.npy", k.view(np.complex64)[..., 0])
    np.save(folder / "coil.npy", k.view(np.complex64)[0, ..., 0])
    np.save(folder / "mask.npy", np.ones((8, 9)))
    np.save(folder / "sino.npy", np.ones((5, 9), np.float32))
    np.save(folder / "cube.npy", np.ones((2, 2, 2, 9, 9)))
    (folder / "broken.npy").write_bytes(b"\x93NUMPY")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with links to the inputs."""
    for path in inputs.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def prior(task: str) -> list[str]:
    channels = {"mri": 2, "ct": 1}.get(task, 3)
    return ["--prior", f"tiny{channels}.safetensors"]


def degraded(case: str, photo: str = "photo.png") -> list[str]:
    """The arguments that undo a case, as `degrade` tells them."""
    assert main(["degrade", *CASES[case], photo, "--out", "d"]) == 0
    words = shlex.split(json.loads(Path("d/degrade.json").read_text())["restore"])
    assert words[:2] == ["invdiff", "restore"]
    return [*words[1:], *prior(CASES[case][0]), *QUICK]


def truth(task: str, problem_scale: float) -> Tensor:
    """The truth that degrade wrote, as the prior sees it."""
    if task == "mri":
        z = torch.from_numpy(np.load("d/truth.npy"))[None, None]
        return as_channels(z) / problem_scale
    if task == "ct":
        return hu_to_x(torch.from_numpy(np.load("d/truth.npy"))[None, None])
    return 2 * read_photo("d/truth.png").pixels[None] - 1


def allowed(case: str, result: Result) -> float:
    """Root mean square of y - A(truth) that noise and rounding explain, with a tenth to spare."""
    problem, rounding = result.problem(), 2 / 255 / 12**0.5
    if case in ("low-light", "read-noise"):
        noise = problem.noise
        assert isinstance(noise, Poisson)
        rate = noise.rate(problem.A(truth("low-light", 1)))
        if case == "read-noise":
            assert isinstance(noise, PoissonGaussian) and noise.read_sigma == 3
            rate = rate + 9
        return 1.1 * float((rate.mean() / noise.gain**2).sqrt())
    if case in ("demosaic", "hdr"):
        return 1.1 * rounding
    if case in ("ct", "fan"):  # rays of the measurement go through pixels of half the size
        return 0.02 * float(problem.y.square().mean().sqrt())
    level = problem.sigma_y * (2**0.5 if problem.y.is_complex() else 1)
    return 1.1 * level + 1e-5


@pytest.mark.parametrize("case", CASES)
def test_the_measurement_is_that_of_the_truth(
    case: str, here: Path, capsys: pytest.CaptureFixture
) -> None:
    """What restore reads is explained by the truth, and not by its mirror image; repeats agree."""
    task = CASES[case][0]
    args = degraded(case)
    assert main([*args, "--out", "a"]) == 0
    assert task in capsys.readouterr().out
    result = Result.load("a")
    problem, view = result.problem(), result.config["view"]["fields"]
    x = truth(task, view.get("unit", 1.0))
    sampled = problem.A.restrict(torch.ones_like(problem.y)).abs() > 0
    miss, wrong = (
        float(problem.residual(t)[sampled].abs().square().mean().sqrt()) for t in (x, x.flip(-1))
    )
    assert miss < allowed(case, result), (miss, wrong)
    assert wrong > 2 * allowed(case, result)
    again = ["restore", "--from", "a/run.json", "--out", "b", "--quiet"]
    assert main(again) == 2  # a prior that is not part of invdiff is opened where it is named
    assert "is not opened because a file says so" in capsys.readouterr().err
    assert main([*again, *prior(task)]) == 0
    shown = [n for n in names(here / "a") if n.endswith((".png", ".npy", ".tif"))]
    assert len(shown) >= 4 and names(here / "a") == names(here / "b")
    assert all((here / "a" / n).read_bytes() == (here / "b" / n).read_bytes() for n in shown)
    assert not torch.equal(result.samples[:, 0], result.samples[:, 1])


def test_a_scan_without_noise_is_restored_by_the_command_that_is_told(here: Path) -> None:
    """An estimate would take the outermost signal for noise."""
    for coils in ("1", "3"):
        options = ["--coils", coils, "--out", coils]
        assert main(["degrade", "mri", "photo.png", *options]) == 0
        words = shlex.split(json.loads(Path(coils, "degrade.json").read_text())["restore"])
        assert main([*words[1:], *prior("mri"), *QUICK, "--out", f"r{coils}"]) == 0
        assert Result.load(f"r{coils}").problem().sigma_y == 0


def test_units_are_those_of_the_data(here: Path) -> None:
    """Complex numbers times the scale of k-space; Hounsfield units."""
    assert main([*degraded("coils"), "--out", "a"]) == 0
    result = Result.load("a")
    unit = result.config["view"]["fields"]["unit"]
    z = np.load("a/sample-1.npy")
    x = result.samples[0, 0] * unit
    assert z.shape == SIZE and z.dtype == np.complex64
    assert np.allclose(z.real, x[0]) and np.allclose(z.imag, x[1])
    phase = array(here / "a/sample-1-phase.png") / 255 * 2 * np.pi - np.pi
    assert np.abs(phase - np.angle(z)).max() < np.pi / 255 + 1e-3
    tifffile = pytest.importorskip("tifffile")
    (here / "d").rename(here / "d-mri")
    assert main([*degraded("ct"), "--out", "c"]) == 0
    hu, x = tifffile.imread("c/sample-1.tif"), Result.load("c").samples[0, 0]
    assert hu.dtype == np.float32 and np.allclose(hu_to_x(torch.from_numpy(hu)), x, atol=1e-5)


def test_without_tifffile_there_are_arrays(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("invdiff.tasks.ct_view.find_spec", lambda name: None)
    assert main([*degraded("ct"), "--out", "a"]) == 0
    assert "sample-1.npy" in names(here / "a") and "sample-1.tif" not in names(here / "a")
    assert "pip install 'invdiff[io]'" in capsys.readouterr().out


def test_true_figures(here: Path, true_figures: None) -> None:
    """With scales and units; phase retrieval shows no mean and no uncertainty."""
    for case in ("coils", "ct", "coded"):
        assert main([*degraded(case), *(SAMPLES if case == "ct" else []), "--out", case]) == 0
        (here / "d").rename(here / f"d-{case}")
        assert array(here / case / "overview.png").shape[1] > 600
        assert ("uncertainty.png" in names(here / case)) == (case != "coded")
        assert ("mean.png" in names(here / case)) == (case != "coded")
    best = (here / "coded/best.png").read_bytes()
    result = Result.load("coded")
    misfits = [float(result.problem().residual(s[None]).norm()) for s in result.samples[0]]
    chosen = 1 + int(np.argmin(misfits))
    assert best == (here / f"coded/sample-{chosen}.png").read_bytes()


def test_resume_gives_the_same_image(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = degraded("coils")
    assert main([*args, "--out", "whole"]) == 0

    def interrupted(*given: object, **more: object) -> object:
        *rest, watch, start = given

        def stop(snapshot: Snapshot) -> None:
            watch(snapshot)  # type: ignore[operator]
            raise KeyboardInterrupt

        return real_solve(*rest, stop, start, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(performing, "draw", interrupted)
    assert main([*args, "--out", "a"]) == 130
    monkeypatch.setattr(performing, "draw", real_solve)
    assert main([*args, "--out", "a", "--resume"]) == 0
    assert np.array_equal(np.load("a/sample-2.npy"), np.load("whole/sample-2.npy"))
    assert main([*args, "--out", "a"]) == 2
    assert main([*args, "--out", "a", "--overwrite", "--samples", "1"]) == 0
    assert "sample-2.npy" not in names(here / "a")


def test_a_jpeg_is_restored_as_it_is_stored(here: Path) -> None:
    """The blocks belong to the stored pixels: the turned file gives the plain one's result."""
    for name in ("plain", "turned"):
        args = ["restore", "jpeg", f"{name}.jpg", *prior("jpeg"), *QUICK]
        assert main([*args, "--out", name]) == 0
    plain, turned = (array(here / n / "mean.png") for n in ("plain", "turned"))
    assert np.array_equal(turned, np.rot90(plain, -1))
    seen = read_photo("turned.jpg").pixels.permute(1, 2, 0).numpy() * 255
    assert turned.shape == seen.shape == (27, 21, 3)


def test_a_grey_jpeg(here: Path, capsys: pytest.CaptureFixture) -> None:
    """With a colour prior and with a grey one; a colour file needs a colour prior."""
    for channels in ("1", "3"):
        args = ["jpeg", "--prior", f"tiny{channels}.safetensors", *QUICK]
        assert main(["restore", *args, "grey.jpg", "--out", channels]) == 0
        assert array(here / channels / "mean.png").shape == SIZE
    capsys.readouterr()
    args = ["jpeg", "--prior", "tiny1.safetensors"]
    assert main(["restore", *args, "plain.jpg"]) == 2
    assert "the prior is of grey pictures" in capsys.readouterr().err


def test_other_solvers(here: Path) -> None:
    args = ["restore", "jpeg", "plain.jpg", "--solver", "pigdm", *prior("jpeg"), *QUICK]
    assert main([*args, "--out", "p"]) == 0
    assert main([*degraded("ct"), "--solver", "score-medical", "--out", "s"]) == 0


def test_a_folder_may_be_called_as_a_prior(here: Path) -> None:
    """The prior of a task is found by its name, whatever lies in the working folder."""
    (here / "brain").mkdir()
    args = degraded("mri")
    at = args.index("--prior")
    assert main([*args[:at], *args[at + 2 :], "--out", "a"]) == 0
    assert Result.load("a").config["prior_spec"] == "brain"


def test_geometries(here: Path, capsys: pytest.CaptureFixture) -> None:
    """A fan, angles from a file, an axis that is found, and some of the views."""
    inside = np.zeros((16, 16), np.float32)
    inside[5:11, 3:12] = 0.05
    angles = tuple(360.0 * k / 24 for k in range(24))
    np.save("angles.npy", np.array(angles))
    A = Radon(angles, (16, 16), 25, shift=1.0, source=60.0)
    np.save("fan.npy", A(torch.from_numpy(inside)[None, None])[0, 0].numpy())
    args = ["ct", *prior("ct"), *QUICK, *SAMPLES, "--angles", "angles.npy", "--side", "16"]
    fan = ["--geometry", "fan", "--source", "60", "--center", "1"]
    assert main(["restore", *args, "fan.npy", *fan, "--out", "fan"]) == 0
    problem = Result.load("fan").problem()
    found = problem.A
    assert isinstance(found, Radon) and (found.source, found.shift) == (60.0, 1.0)
    assert np.allclose(found.angles, angles)
    np.save("parallel.npy", dataclasses.replace(A, source=None)(
        torch.from_numpy(inside)[None, None])[0, 0].numpy())  # fmt: skip
    some = ["--center", "estimate", "--views", "8"]
    capsys.readouterr()
    assert main(["restore", *args, "parallel.npy", *some, "--out", "p"]) == 0
    found = Result.load("p").problem().A
    assert isinstance(found, Radon) and len(found.angles) == 8
    assert abs(found.shift - 1) < 0.05
    printed = capsys.readouterr().out
    assert "found from the views" in printed and "8 of 24 views are used" in printed


def test_a_file_tells_of_its_fan(here: Path, capsys: pytest.CaptureFixture) -> None:
    """A full circle of bins that see all of the image; options override the file."""
    args = [*degraded("fan"), *SAMPLES]
    assert "--source" not in args and "--geometry" not in args
    assert main([*args, "--out", "a"]) == 0
    assert "a fan, its source 80 bins from the axis of rotation, as the file" in (
        capsys.readouterr().out
    )
    found = Result.load("a").problem().A
    assert isinstance(found, Radon) and found.source == 80 and found.angles[12] == 180
    corner = dataclasses.replace(found, angles=(45.0,))
    image = torch.zeros(1, 1, *found.size)
    image[..., 0, -1] = image[..., -1, 0] = 1
    seen = corner(image)[0, 0, 0]
    assert seen[0] == seen[-1] == 0 and seen[:4].sum() > 0 and seen[-4:].sum() > 0
    near = ["--source", "70", "--center", "0.5"]
    assert main([*args, *near, "--out", "b"]) == 0
    found = Result.load("b").problem().A
    assert isinstance(found, Radon) and (found.source, found.shift) == (70.0, 0.5)
    assert main([*args, "--geometry", "parallel", "--out", "c"]) == 0
    found = Result.load("c").problem().A
    assert isinstance(found, Radon) and found.source is None
    capsys.readouterr()
    assert main([*args, "--center", "estimate", "--out", "e"]) == 0
    found = Result.load("e").problem().A
    assert isinstance(found, Radon) and abs(found.shift) < 0.25  # of 24 views


def test_the_noise_of_rays(here: Path, capsys: pytest.CaptureFixture) -> None:
    """That of the photons of each ray by default, of all on average, or a level that is told."""
    args = [*degraded("ct"), *SAMPLES]
    told = {
        "rays": ([], DiagonalGaussian, "each ray its own, "),
        "equal": (["--weights", "equal"], GaussianNoise, "of the photons, on average"),
        "level": (["--noise", "0.1"], GaussianNoise, "0.1 of the line integrals: as given"),
    }
    levels = {}
    for name, (options, law, words) in told.items():
        capsys.readouterr()
        assert main([*args, *options, "--out", name]) == 0
        assert words in capsys.readouterr().out
        noise = Result.load(name).problem().noise
        assert isinstance(noise, law)
        levels[name] = noise.sigmas if isinstance(noise, DiagonalGaussian) else noise.sigma_y
    with np.load("d/sinogram.npz") as file:
        counts = torch.from_numpy(file["counts"])[None, None]
    sigmas = levels["rays"]
    assert isinstance(sigmas, Tensor)
    ratio = sigmas * counts.sqrt()
    assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-3)
    assert levels["equal"] == pytest.approx(float(sigmas.square().mean().sqrt()), rel=1e-3)


@pytest.mark.parametrize("solver", ["dps", "mcg", "dds", "pigdm", "score-medical"])
def test_solvers_of_ct_take_the_noise_of_rays(solver: str, here: Path) -> None:
    assert main([*degraded("ct"), *SAMPLES, "--solver", solver, "--out", "a"]) == 0
    assert isinstance(Result.load("a").problem().noise, DiagonalGaussian)


def test_rings_and_drift_are_removed_on_demand(here: Path, capsys: pytest.CaptureFixture) -> None:
    """The flags pose the problem of a file that was corrected before: a bin that adds 0.02 in all
    views, and every other view lying 0.02 higher, are gone."""
    angles, bins = torch.arange(12)[:, None] * 15.0, torch.arange(64)
    far = bins - 31.5 - 4 * angles.deg2rad().cos()
    clean = (1 - (far / 12).square()).clamp_min(0).sqrt()
    spoiled = clean + 0.02 * (bins == 20) + 0.02 * (torch.arange(12) % 2)[:, None]
    degrees = tuple(angles.flatten().tolist())
    s = Sinogram(spoiled, degrees, None, torch.ones_like(spoiled, dtype=torch.bool))
    found = without_drift(without_rings(s)).integrals
    assert float((found - clean).abs().max()) < 0.015 < float((spoiled - clean).abs().max())
    told = {}
    for name, z, options in (
        ("flags", spoiled, ["--rings", "remove", "--drift", "remove"]),
        ("before", found, []),
    ):
        np.savez(f"{name}.npz", sinogram=z.numpy(), angles=np.array(degrees))
        args = ["restore", "ct", f"{name}.npz", "--kind", "integrals", *prior("ct")]
        capsys.readouterr()
        assert main([*args, *QUICK, *SAMPLES, "--noise", "0.01", *options, "--out", name]) == 0
        told[name] = capsys.readouterr().out
    assert "rings of" in told["flags"] and "beam drift of" in told["flags"]
    assert "rings of" not in told["before"] and "beam drift of" not in told["before"]
    a, b = (Result.load(name).problem().y for name in ("flags", "before"))
    torch.testing.assert_close(a, b)


def test_small_angles_stay_degrees(here: Path) -> None:
    """A file without units would be read as radians."""
    angles = ["--views", "3", "--angles", "-3,3"]
    assert main(["degrade", "ct", "photo.png", *angles, "--out", "d"]) == 0
    words = shlex.split(json.loads(Path("d/degrade.json").read_text())["restore"])
    assert main([*words[1:], *prior("ct"), *QUICK, "--out", "a"]) == 0
    found = Result.load("a").problem().A
    assert isinstance(found, Radon) and np.allclose(found.angles, (-3, -1, 1))


def test_what_a_file_of_coefficients_tells_may_be_told(here: Path) -> None:
    """An .npy with options poses the problem of the .npz that describes itself."""
    told = {
        "hadamard": ["--size", "16x16", "--order", "random", "--pattern-seed", "0"],
        "blocks": ["--block", "5", "--pattern-seed", "0"],
        "dct": ["--mask", "m.npy"],
        "fourier": [],
        "single-pixel": ["--size", "16x16"],
    }
    for case, options in told.items():
        args = degraded(case)
        assert main([*args, "--out", "a"]) == 0
        with np.load("d/measurement.npz") as file:
            np.save("y.npy", file["y"])
            np.save("m.npy", file.get("mask", np.zeros(1)))
            options = [*options, "--kind", str(file["kind"]), "--noise", str(float(file["noise"]))]
        args[args.index("d/measurement.npz")] = "y.npy"
        assert main([*args, *options, "--out", "b"]) == 0
        a, b = (Result.load(name) for name in "ab")
        assert torch.equal(a.problem().y, b.problem().y)
        assert torch.equal(a.samples, b.samples)
        for name in "dab":
            (here / name).rename(here / f"{case}-{name}")


def test_a_grey_picture_has_one_channel_of_coefficients(here: Path) -> None:
    """It is repeated in those of a colour prior, whose noise is that of three equal readings."""
    for channels in (1, 3):
        args = degraded("hadamard", "grey.png")
        args[args.index("--prior") + 1] = f"tiny{channels}.safetensors"
        assert main([*args, "--out", f"{channels}"]) == 0
        assert array(here / f"{channels}/mean.png").shape == (16, 16)
        problem = Result.load(f"{channels}").problem()
        assert problem.sigma_y == pytest.approx(0.02 * channels**0.5)
        assert problem.y.shape == (1, channels, 128)
        (here / "d").rename(here / f"d{channels}")


@pytest.mark.parametrize("readout", [[], ["--readout", "3"]])
def test_a_grey_picture_in_little_light(
    readout: list[str], here: Path, capsys: pytest.CaptureFixture
) -> None:
    """Three equal channels count as one: each has three times the variance of the pixel."""
    args = ["degrade", "low-light", "grey.png", "--peak", "20", *readout, "--out", "d"]
    assert main(args) == 0
    words = shlex.split(json.loads(Path("d/degrade.json").read_text())["restore"])
    variances = []
    for channels in ("1", "3"):
        args = [*words[1:], "--prior", f"tiny{channels}.safetensors", *QUICK, "--out", channels]
        assert main(args) == 0
        noise = Result.load(channels).problem().noise
        assert isinstance(noise, Poisson)
        z = torch.linspace(-0.9, 1, 5)
        read = noise.read_sigma if isinstance(noise, PoissonGaussian) else 0.0
        variances.append((noise.rate(z) + read**2) / noise.gain**2)
    assert torch.allclose(3 * variances[0], variances[1])
    assert ("read noise of 3 photons" in capsys.readouterr().out) == bool(readout)
    assert (float(np.load("d/measurement.npy").min()) < 0) == bool(readout)


def test_the_dark_current_of_a_single_pixel_does_not_count(here: Path) -> None:
    """It is the same through a pattern and its complement; but more light is more light."""
    args = degraded("single-pixel")
    problems = []
    for name, dark, gain in (("a", 0, 1), ("b", 5, 1), ("c", 0, 1.5)):
        with np.load("d/measurement.npz") as file:
            arrays = dict(file)
        np.savez("dark.npz", **{**arrays, "y": gain * arrays["y"] + dark})
        args[2] = "dark.npz"
        assert main([*args, "--out", name]) == 0
        problems.append(Result.load(name).problem().y)
    assert torch.allclose(problems[0], problems[1], atol=1e-3)
    assert not torch.allclose(problems[0], problems[2], atol=1e-1)


J = ["restore", "jpeg", "plain.jpg", *prior("jpeg"), *QUICK]
PHASE = ["phase-retrieval", *prior("phase"), *QUICK]
MRI = ["mri", *prior("mri"), *QUICK]
READ = ["restore", "low-light", "negative.npy", "--peak", "9", "--readout", "2"]
READ += [*prior(""), *QUICK]
CS = ["compressed-sensing", *prior("")]
HADAMARD = [*CS, "--kind", "hadamard", "--noise", "0.1"]
CT = ["restore", "ct", "sino.npy", *prior("ct"), *QUICK]
TURN = [*CT, "--angles", "0,180"]
FAN = ["ct", "--geometry", "fan", "--out", "o"]
BAD = {
    "no jpeg": (["restore", "jpeg", "photo.png", *J[3:]], "photo.png is not a JPEG file"),
    "jpeg noise": (
        [*J, "--noise", "0.1"],
        "not belong to jpeg, which takes no options",
    ),
    "jpeg solver": ([*J, "--solver", "ddrm"], "ddrm cannot .* These can: .*ddrm-jpeg"),
    "jpeg quality": ([*J, "--quality", "10"], "no option called '--quality'"),
    "quality": (["degrade", "jpeg", "photo.png", "--quality", "99", "--out", "o"], "95"),
    "no quality": (["degrade", "jpeg", "photo.png", "--out", "o"], "needs --quality"),
    "raw colours": (["restore", "demosaic", "photo.png", *prior("")], "has colours"),
    "pattern": (
        ["restore", "demosaic", "grey.png", "--pattern", "RGBG", *prior("")],
        "RGGB, BGGR, GRBG or GBRG, found RGBG",
    ),
    "grey prior": (["restore", "demosaic", "grey.png", *prior("ct")], "shape .3, height"),
    "gain": (["restore", "hdr", "photo.png", "--gain", "-2", *prior("")], "above 0"),
    "no peak": (["restore", "low-light", "photo.png", *prior("")], "needs --peak"),
    "peak": (["restore", "low-light", "photo.png", "--peak", "0", *prior("")], "above 0"),
    "readout": (
        [
            "restore",
            "low-light",
            "photo.png",
            "--peak",
            "9",
            "--readout",
            "0",
            *prior(""),
        ],
        "read noise, in counts, is a finite number above 0",
    ),
    "negative light": (
        ["restore", "low-light", "negative.npy", "--peak", "30", *prior("")],
        "nothing tells whether black and white are -1 to 1 or 0 to 1; give --range",
    ),
    "read noise": (
        [*READ, "--solver", "dps", "--solver.loss", "poisson_diag"],
        "needs Poisson noise and the noise is PoissonGaussian. These can: .*dps.*score-prior",
    ),
    "magnitudes": (["restore", *PHASE, "k.npy"], "k.npy holds complex64"),
    "magnitude axes": (["restore", *PHASE, "cube.npy"], "has shape"),
    "oversample": (["restore", *PHASE, "sino.npy", "--oversample", "8"], "No image has magnit"),
    "masks": (["restore", *PHASE, "real.npy", "--masks", "k.npy"], "has shape"),
    "phase estimate": (["restore", *PHASE, "real.npy", "--noise", "estimate"], "not estimated"),
    "no array": (["restore", *PHASE, "photo.png"], "not a numpy array .*numpy.save"),
    "negative": (["restore", *PHASE, "negative.npy"], "large negative values"),
    "complex prior": (["restore", "hdr", "photo.png", *prior("mri")], "has 2 channels"),
    "complex jpeg": (["restore", "jpeg", "grey.jpg", *prior("mri")], "has 2 channels"),
    "complex phase": (["restore", "phase-retrieval", "real.npy", *prior("mri")], "has 2 channels"),
    "grey mosaic": (
        ["degrade", "demosaic", "grey.png", "--out", "o"],
        "shape .3, height",
    ),
    "box": (
        ["degrade", "inpaint", "photo.png", "--mask", "box:1.5,0,inf,3", "--out", "o"],
        "not a mask; give random:SHARE, box",
    ),
    "bright": (
        ["degrade", "low-light", "photo.png", "--peak", "1e30", "--out", "o"],
        "--peak is too large a number, found 1e30",
    ),
    "no kind": (["restore", *CS, "few.npy"], "does not tell its kind; give --kind"),
    "sensed kind": (
        ["restore", *CS, "few.npy", "--kind", "fourer"],
        "fourer; did you mean fourier",
    ),
    "kind twice": (["restore", *CS, "sensed.npz", "--kind", "dct"], "kind, hadamard; leave --kind"),
    "size twice": (["restore", *CS, "sensed.npz", "--size", "8x32"], "size, 16 x 16; leave --size"),
    "kind of a number": (["restore", *CS, "kind.npz"], "kind in kind.npz is not a text"),
    "cut short": (["restore", *CS, "cut.npz"], "said to measure 0.5 .* holds 0.25"),
    "too many": (["restore", *CS, "large.npz"], "from 1 to 16, found 64"),
    "no size": (["restore", *HADAMARD, "few.npy"], "size of its picture; give --size"),
    "size text": (["restore", *HADAMARD, "few.npy", "--size", "16"], "WIDTHxHEIGHT"),
    "no power": (["restore", *HADAMARD, "few.npy", "--size", "16x24"], "powers of two"),
    "channels": (["restore", *HADAMARD, "few.npy", "--size", "16x16"], "2 channels, but .* has 3"),
    "no pattern seed": (
        ["restore", *HADAMARD, "few.npy", "--size", "16x16", "--order", "random"],
        "give --pattern-seed",
    ),
    "order": (["restore", *HADAMARD, "few.npy", "--size", "16x16", "--order", "paley"], "natural"),
    "sensed axes": (["restore", *CS, "k.npy", "--kind", "dct"], "complex64 .* of dct are"),
    "sensed mask": (
        ["restore", *CS, "k.npy", "--kind", "fourier", "--mask", "mask.npy"],
        "mask is for 9 x 8 coefficients, but k.npy holds 8 x 8",
    ),
    "nothing sensed": (["restore", *CS, "real.npy", "--kind", "dct"], "nothing was measured"),
    "sensed picture": (["restore", *CS, "photo.png"], "none of the endings of compressed"),
    "sensed estimate": (["restore", *CS, "sensed.npz", "--noise", "estimate"], "not estimated"),
    "ratio": (
        ["degrade", *SENSING, "dct", "photo.png", "--ratio", "2", "--out", "o"],
        "above 0 to 1, found 2",
    ),
    "block": (
        ["degrade", *SENSING, "gaussian", "photo.png", "--out", "o"],
        "smaller side of the picture, 21, found 32",
    ),
    "large block": (
        ["restore", *CS, "blocks.npy", "--kind", "gaussian", "--block", "999"],
        "from 1 to 64 pixels, found 999",
    ),
    "block of no kind": (
        ["restore", *CS, "sensed.npz", "--block", "8"],
        "does not belong to hadamard, but to gaussian",
    ),
    "order of no kind": (
        ["degrade", *SENSING, "dct", "photo.png", "--order", "random", "--out", "o"],
        "does not belong to dct, but to hadamard and single-pixel",
    ),
    "made kind": (
        ["degrade", *SENSING, "dc", "photo.png", "--out", "o"],
        "dc; did you mean dct",
    ),
    "k-space": (["restore", *MRI, "photo.png"], "none of the endings of k-space"),
    "real k-space": (["restore", *MRI, "real.npy"], "not complex"),
    "broken k-space": (["restore", *MRI, "broken.npy"], "broken.npy"),
    "no k-space": (["restore", *MRI, "no.npy"], "no file no.npy"),
    "mask size": (["restore", *MRI, "k.npy", "--mask", "mask.npy"], "has shape"),
    "maps": (["restore", *MRI, "k.npy", "--coil-maps", "real.npy"], "not finite complex"),
    "no maps": (["restore", *MRI, "k.npy", "--coil-maps", "no.npy"], "no file no.npy"),
    "one slice": (["restore", *MRI, "k.npy", "--slice", "4"], "has 1 slice, .* no slice 4"),
    "no names": (["restore", *MRI, "k.npy", "--key", "kspace"], "leave the key out"),
    "no name": ([*TURN, "--key", "data"], "leave the key out"),
    "rows": (["restore", *MRI, "k.npy", "--noise", "1", "--rows", "9"], "8 rows; from 1 to 8"),
    "few samples": (["restore", *MRI, "coil.npy"], "too few to estimate the noise .* give --noise"),
    "mri prior": (
        ["restore", "mri", "k.npy", "--noise", "1", *prior("ct"), *QUICK],
        "tiny1|channel",
    ),
    "coils": (["degrade", "mri", "photo.png", "--coils", "0", "--out", "o"], "1 to 1000"),
    "sampling": (
        ["degrade", "mri", "photo.png", "--sampling", "spiral", "--out", "o"],
        "--sampling is gaussian, .* or poisson, found spiral",
    ),
    "no angles": (CT, "holds no angles"),
    "a number": (["restore", "ct", "number.npy", *TURN[3:]], r"number.npy has shape \(\)"),
    "no sinogram": (["restore", "ct", "photo.png", *TURN[3:]], "none of the endings of sinograms"),
    "side": ([*TURN, "--side", "1000000"], "megapixels"),
    "far center": ([*TURN, "--center", "5"], "beyond the detector of 9 bins"),
    "center of a fan": (
        [*TURN, "--geometry", "fan", "--source", "60", "--center", "estimate"],
        "give --center as a number",
    ),
    "scan noise": (
        ["degrade", "ct", "photo.png", "--noise", "1", "--out", "o"],
        "photons",
    ),
    "no slice": (["degrade", "ct", "arrays.npz", "--out", "o"], "no array called hu"),
    "angles": ([*CT, "--angles", "0"], "no file and no START,STOP"),
    "complex angles": ([*CT, "--angles", "k.npy"], "k.npy holds complex64"),
    "complex mask": (["restore", *MRI, "k.npy", "--mask", "k.npy"], "k.npy holds complex64"),
    "complex slice": (["degrade", "ct", "k.npy", "--out", "o"], "k.npy holds complex64"),
    "three slices": (["degrade", "ct", "cube.npy", "--out", "o"], "not one slice"),
    "same angles": ([*CT, "--angles", "5,5"], "two different numbers"),
    "geometry": ([*TURN, "--geometry", "cone"], "parallel or fan, found cone"),
    "fan": ([*TURN, "--geometry", "fan"], "needs --source"),
    "no fan": ([*TURN, "--source", "60"], "parallel rays have none"),
    "no distance": ([*TURN, "--geometry", "fan", "--source", "-60"], "above 0, found -60"),
    "made fan": (["degrade", *FAN[:1], "photo.png", *FAN[1:]], "A fan needs --source"),
    "near fan": (
        ["degrade", *FAN[:1], "photo.png", *FAN[1:], "--source", "15"],
        "near .* at least 17",
    ),
    "made source": (
        ["degrade", *FAN[:1], "photo.png", "--source", "60", "--out", "o"],
        "parallel rays have none",
    ),
    "center": ([*TURN, "--center", "left"], "--center expects a number or `estimate`"),
    "views": ([*TURN, "--views", "9"], "5 views; from 1 to 5"),
    "water": ([*TURN, "--water", "-1"], "water is a number above 0"),
    "kind": ([*TURN, "--kind", "photons"], "counts, transmission, percent or integrals"),
    "outliers": ([*TURN, "--outliers", "maybe"], "keep or replace"),
    "rings": ([*TURN, "--rings", "replace"], "--rings is keep or remove, found replace"),
    "drift": ([*TURN, "--drift", "yes"], "--drift is keep or remove, found yes"),
    "no air": ([*TURN, "--drift", "remove"], "air on both sides"),
    "weights": ([*TURN, "--weights", "counts"], "photons or equal, found counts"),
    "weights and noise": (
        [*TURN, "--weights", "photons", "--noise", "0.1"],
        "leave it or --weights photons out",
    ),
    "weights of no counts": ([*TURN, "--weights", "photons"], "has no counts"),
    "no noise": (["restore", *HADAMARD[:-2], "few.npy", "--size", "16x16"], "tell its noise; give"),
    "other task": ([*TURN, "--gain", "2"], "--gain does not belong to ct"),
    "photons": (
        ["degrade", "ct", "photo.png", "--photons", "0", "--out", "o"],
        "photons is a number above 0",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case: str, here: Path, capsys: pytest.CaptureFixture) -> None:
    """Exit code 2, one line on stderr, nothing on stdout, nothing written."""
    args, sentence = BAD[case]
    before = names(here)
    code = main(args)
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.startswith("invdiff: ") and err.count("\n") == 1, err
    assert re.search(sentence, err) and err.endswith((".\n", "?\n", ").\n")), err
    assert names(here) == before
