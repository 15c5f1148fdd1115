"""`invdiff bench`: its suites, its figures, and a run that is stopped and goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invdiff.bench import grid, report
from invdiff.bench.frames import Framing
from invdiff.bench.kernels import kernel_files
from invdiff.bench.scores import covered, residual, scores
from invdiff.bench.suites import SUITES, with_kernels
from invdiff.cli import main
from invdiff.core import InvdiffError
from invdiff.noise import NOISELESS, GaussianNoise
from invdiff.operators.algebra import Identity
from invdiff.operators.hdr import HDR
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.mri import Fourier
from invdiff.operators.phase import PhaseRetrieval
from invdiff.priors.base import Denoiser
from invdiff.problem import Problem
from invdiff.sampling.checks import MISFIT
from invdiff.tasks import TASKS

CASES = [(name, case) for name, suite in SUITES.items() for case in suite.cases]
SIGMAS = {
    "dps": {0.05},
    "daps": {0.05},
    "diffpir": {0.0, 2 * 12.75 / 255},
    "ddrm": {0.0, 2 * 0.05},
}
"""Of the authors' codes, on [-1, 1]: those that add noise to images on [0, 1] are doubled."""
SHARES = {"dps": (0.3, 0.7), "daps": (0.7, 0.71), "small": (0.5, 0.5), "diffpir": (0.5, 0.5)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A picture of waves, a smaller one, and a text."""
    where = tmp_path_factory.mktemp("images")
    y, x = np.mgrid[:40, :48] / 9
    waves = np.stack([np.sin(y), np.cos(x), np.sin(x + y)], -1) * 100 + 128
    Image.fromarray(waves.astype("uint8")).save(where / "waves.png")
    Image.fromarray(waves[:20].astype("uint8")).save(where / "small.png")
    (where / "notes.txt").write_text("no image")
    return where


@pytest.mark.parametrize(("suite", "case"), CASES, ids=lambda v: getattr(v, "name", v))
def test_a_measurement_is_that_of_its_seed(suite, case):
    channels = SUITES[suite].channels[0]
    truth = torch.linspace(-0.9, 0.9, channels * 64 * 64).reshape(1, channels, 64, 64)
    problem, again, other = (grid.measurement(case, truth, seed) for seed in (3, 3, 4))
    assert case.task in TASKS and torch.equal(problem.y, again.y)
    assert case.sigma == 0 or not torch.equal(problem.y, other.y)
    assert problem.sigma_y == case.sigma
    if isinstance(problem.A, Inpaint):
        gone = [1 - float(p.A.mask.float().mean()) for p in (problem, other)]
        low, high = SHARES[suite] if case.name != "box" else (0.25, 0.25)
        assert all(low - 1e-3 <= share <= high + 1e-3 for share in gone)
        assert not torch.equal(problem.A.mask, other.A.mask)


def test_noise_is_that_of_the_codes():
    for name, sigmas in SIGMAS.items():
        assert {case.sigma for case in SUITES[name].cases} == sigmas, name


def test_a_box_keeps_its_margin():
    (case,) = (c for c in SUITES["dps"].cases if c.name == "box")
    for seed in range(40):
        rows, columns = (~case.operator((256, 256), seed).mask[0, 0].bool()).nonzero().T
        assert (len(rows.unique()), len(columns.unique())) == (128, 128)
        assert min(int(rows.min()), int(columns.min())) >= 16
        assert max(int(rows.max()), int(columns.max())) <= 255 - 16


def _case(suite, name):
    (found,) = (case for case in SUITES[suite].cases if case.name == name)
    return found


TAPS = {
    "uniform": ([1.0] * 9, [1.0] * 9),
    "gaussian": ([math.exp(-((k / 10) ** 2) / 2) for k in range(-2, 3)],) * 2,
    "anisotropic": (
        [math.exp(-(k**2) / 2) for k in range(-4, 5)],
        [math.exp(-((k / 20) ** 2) / 2) for k in range(-4, 5)],
    ),
}
"""Of DDRM's blurs, along the height and the width, before they are divided by their sum."""


@pytest.mark.parametrize("name", TAPS)
def test_the_blurs_of_ddrm_are_those_of_the_formula(name):
    """In plain loops: nothing lies beyond the edge."""
    A = _case("ddrm", name).operator((33, 34), 0)
    rows, columns = (torch.tensor(taps, dtype=torch.float64) for taps in TAPS[name])
    kernel = torch.outer(rows / rows.sum(), columns / columns.sum())
    x = torch.randn(1, 1, 33, 34, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for i, j in ((0, 0), (16, 17), (32, 20)):
        total = sum(
            float(kernel[u, v] * x[0, 0, i + u - len(rows) // 2, j + v - len(columns) // 2])
            for u in range(len(rows))
            for v in range(len(columns))
            if 0 <= i + u - len(rows) // 2 < 33 and 0 <= j + v - len(columns) // 2 < 34
        )
        assert float(A(x)[0, 0, i, j]) == pytest.approx(total, abs=1e-12)


def test_the_color_of_ddrm_is_the_mean():
    A, x = _case("ddrm", "color").operator((32, 32), 0), torch.eye(3)[..., None, None]
    assert A(x.double()).flatten().tolist() == [0.3333, 0.3334, 0.3333]


def test_the_edges_are_those_of_the_codes():
    """DPS and DAPS mirror without repeating the edge; DiffPIR goes round."""
    line = torch.zeros(1, 1, 32, 32)
    line[..., 1, :] = 1
    for suite, share in (("dps", 2.0), ("daps", 2.0)):
        seen = _case(suite, "gaussian").operator((32, 32), 0)(line)[0, 0, :, 16]
        assert float(seen[0] / seen[1]) == pytest.approx(
            share * math.exp(-1 / 18) / (1 + math.exp(-4 / 18)), rel=1e-5
        )  # the line is seen again at row -1
    for case in ("gaussian", "motion"):
        A = _case("diffpir", case).operator((32, 32), 5)
        turned = A(line.roll(7, -2)), A(line).roll(7, -2)
        assert torch.allclose(*turned, atol=1e-6)


@pytest.mark.parametrize(("side", "taps"), [(32, 31), (48, 47), (64, 61), (96, 61)])
def test_motion_has_the_published_side_where_it_fits(side, taps):
    point = torch.zeros(1, 1, side, side)
    point[..., side // 2, side // 2] = 1
    kernels = [_case("diffpir", "motion").operator((side, side), seed) for seed in (1, 1, 2)]
    seen = [A(point)[0, 0] for A in kernels]
    assert torch.equal(seen[0], seen[1]) and not torch.allclose(seen[0], seen[2], atol=1e-3)
    for one in seen:
        assert float(one.sum()) == pytest.approx(1, abs=1e-5) and float(one.min()) > -1e-6
        far = (one > 1e-4).nonzero() - side // 2
        reach = float(far.double().norm(dim=1).max())
        assert taps // 2 / 2 <= reach <= taps // 2 * 2**0.5
    assert _case("dps", "motion").operator((side, side), 1).kernel.shape == (taps, taps)


def test_kernels_of_a_folder_are_taken(folder, tmp_path, capsys):
    where = tmp_path / "kernels"
    where.mkdir()
    np.save(where / "shift.npy", np.array([[0.0, 0.0, 2.0]]))
    (where / "read.me").write_text("no kernel")
    files = kernel_files(where, 32)
    assert [p.name for p in files] == ["shift.npy"]
    cases = with_kernels(SUITES["diffpir"], files).cases
    (moved,) = (case for case in cases if case.name == "motion")
    x = torch.rand(1, 3, 32, 32)
    assert torch.allclose(moved.operator((32, 32), 7)(x), x.roll(1, -1), atol=1e-5)
    same = [a == b for a, b in zip(cases, SUITES["diffpir"].cases, strict=True)]
    assert same.count(False) == 1
    out = tmp_path / "out"
    args = ["bench", str(folder), "--side", "32", "--suite", "diffpir", "--solvers", "estimate"]
    args += ["--kernels", str(where), "--steps", "1", "--out", str(out), "--quiet"]
    assert main(args) == 0
    assert "kernels of --kernels: shift.npy." in (out / "bench.md").read_text()
    np.save(where / "shift.npy", np.array([[0.0, 1.0, 2.0]]))
    assert main([*args, "--resume"]) == 2
    assert "other settings (kernels)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "suite", "said"),
    [
        (None, "dps", "holds no kernel"),
        (np.zeros((3, 3)), "dps", "sum to 0"),
        (np.ones((40, 40)), "dps", "larger than the image"),
        (np.ones((3, 3)), "ddrm", "no motion blur"),
        ("missing", "dps", "There is no file or folder"),
    ],
    ids=str,
)
def test_kernels_that_do_not_fit_are_one_sentence(content, suite, said, folder, tmp_path, capsys):
    where = tmp_path / "kernels"
    if not isinstance(content, str):
        where.mkdir()
    if isinstance(content, np.ndarray):
        np.save(where / "kernel.npy", content)
    args = ["bench", str(folder), "--side", "32", "--suite", suite, "--kernels", str(where)]
    assert main([*args, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 2 and not (tmp_path / "out").exists()


def test_figures_of_samples_whose_errors_are_known():
    truth = torch.zeros(1, 3, 16, 16)
    problem = Problem(truth + 0.1, Identity(), GaussianNoise(0.05), (3, 16, 16))
    found = scores(problem, torch.stack([truth - 0.2, truth + 0.2], 1), truth)
    assert found["psnr"] == pytest.approx(20.0, abs=1e-3) and found["psnr_mean"] is None  # exact
    assert found["misfit"] == pytest.approx(math.sqrt((0.3**2 + 0.1**2) / 2) / 0.05, abs=1e-3)
    assert found["coverage"] == 1.0
    beside = scores(problem, torch.stack([truth + 0.1, truth + 0.2], 1), truth)
    assert beside["coverage"] == 0.0 and beside["psnr_mean"] == pytest.approx(22.4988, abs=1e-3)
    assert scores(problem, truth[:, None] + 0.1, truth)["coverage"] is None


def test_the_sign_of_phase_retrieval_is_undone():
    truth = torch.linspace(-0.9, 0.8, 3 * 16 * 16).reshape(1, 3, 16, 16)
    A = PhaseRetrieval(2.0)
    problem = Problem(A(truth), A, GaussianNoise(0.05), (3, 16, 16))
    assert scores(problem, 0.1 - truth[:, None], truth)["psnr"] == pytest.approx(26.0, abs=0.1)


def test_an_interval_is_that_of_student():
    assert report.interval([1.0, 3.0]) == "2.00 ± 12.71"
    assert report.interval([2.0]) == "2.00" and report.interval([1.0, None]) == "-"


def test_a_bench_is_written_and_goes_on(folder, tmp_path, capsys):
    out = tmp_path / "out"
    args = ["bench", str(folder), "--side", "32", "--solvers", "estimate,pocs", "--samples", "2"]
    args += ["--steps", "2", "--out", str(out), "--quiet"]
    assert main(args) == 0
    told = capsys.readouterr()
    assert "bench.md" in told.out and "small.png has 48 x 20 pixels" in told.err
    file = out / "bench.jsonl"
    whole = file.read_text()
    head, *lines = map(json.loads, whole.splitlines())
    assert head["bench"]["images"] == ["waves.png"] and len(lines) == 6
    by = {line["item"]: line for line in lines}
    best = by["denoise/photo/estimate/waves.png"]["values"]
    assert best["psnr"] > 20 * math.log10(2 / 0.2) + 1  # the noisy picture has 20 dB
    assert "values" in by["half/photo/estimate/waves.png"]
    assert "cannot solve Identity" in by["denoise/photo/pocs/waves.png"]["error"]
    page = (out / "bench.md").read_text()
    missed = [v["values"]["misfit"] for v in lines if "values" in v]
    assert 0 < sum(m > MISFIT for m in missed) < len(missed)  # two steps are few
    assert page.count("| **") == sum(m > MISFIT for m in missed)
    assert "## super-resolution, prior photo" in page and "| `estimate` | 2 |" in page
    file.write_text("".join(whole.splitlines(keepends=True)[:4]) + '{"item": "half')
    assert main(args) == 2 and "--resume goes on with it" in capsys.readouterr().err
    assert main([*args, "--resume"]) == 0
    again = {line["item"]: line for line in map(json.loads, file.read_text().splitlines()[1:])}
    assert {k: v.get("values") for k, v in again.items()} == {
        k: v.get("values") for k, v in by.items()
    }
    assert main([*args, "--resume", "--seed", "1"]) == 2
    assert "other settings (seed)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--suite", "dpz"], "dps"),
        (["--solvers", "drm"], "ddrm"),
        (["--solvers", "dps@hole"], "official configuration"),
        (["--solvers", ","], "one at least"),
        (["--prior", "brain"], "priors of colour images; brain is one of 2 x any x any"),
        (["--side", "64"], "no image that can be measured"),
        (["--side", "8"], "32"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence(args, said, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["bench", str(folder), "--side", "32", "--out", str(out), *args]) == 2
    err = capsys.readouterr().err
    assert said in err and err.startswith("invdiff: ") and not out.exists()


def test_there_is_no_folder(tmp_path, capsys):
    for path in (str(tmp_path / "none"), "/dev/null"):
        assert main(["bench", path]) == 2
        assert f"There is no file or folder {path}" in capsys.readouterr().err
    assert main(["bench", str(tmp_path), "more"]) == 2
    assert "one folder of images" in capsys.readouterr().err


def _columns_of_the_paper(width, kept):
    """get_cartesian_mask of yang-song/score_inverse_problems, in plain loops from its formula."""
    middle = round(width * kept / 1000)
    first = (width - middle + 1) // 2
    faster = width / kept
    distance = faster * (middle - width) / (middle * faster - width)
    places, found = round(distance) // 2, set(range(first, first + middle))
    while places < width - 1:
        found.add(round(places))
        places += distance
    return found


@pytest.mark.parametrize(("side", "acceleration"), [(240, 4), (240, 8), (240, 24), (48, 8)])
def test_the_columns_are_those_of_the_paper(side, acceleration):
    case = _case("medical-mri", f"mri-{acceleration}")
    real, phased = (make((side, side), 0) for make in (case.operator, case.of_complex))
    assert torch.equal(real.mask, phased.mask) and bool((real.mask == real.mask[..., :1, :]).all())
    found = set(real.mask[0, 0, 0].nonzero().flatten().tolist())
    assert found == _columns_of_the_paper(side, round(side / acceleration))


def test_the_views_are_those_of_the_paper():
    A = _case("medical-ct", "ct-23").operator((48, 48), 0)
    rows = np.round(np.linspace(0, 47, 23))
    assert A.angles == pytest.approx(180 * rows / 48)
    assert float(A.norm((1, 48, 48))) == pytest.approx(1, abs=1e-3)


SCORED = {"medical-ct": ("ct", 1), "medical-mri": ("brain-magnitude", 3)}
"""Suite to its prior and its measurements."""


@pytest.mark.parametrize("suite", SCORED)
def test_a_medical_suite_runs(suite, tmp_path, capsys):
    y, x = np.mgrid[:36, :40]
    disc = (np.hypot(y - 18, x - 20) < 14) * (0.5 + 0.2 * np.sin(x / 3))
    where = tmp_path / "scans"
    where.mkdir()
    np.save(where / "a.npy", disc.astype("float32"))
    Image.fromarray((disc * 255).astype("uint8")).save(where / "b.png")
    np.savez(where / "c.npz", hu=(disc * 1000 - 1000).astype("int16"))
    out, args = tmp_path / "out", ["--side", "32", "--samples", "2", "--steps", "2", "--quiet"]
    solvers = ["--solvers", "auto,score-medical@mri-brats"]
    args = ["bench", str(where), "--suite", suite, *solvers, *args]
    assert main([*args, "--out", str(out), "--images", "3" if suite == "medical-ct" else "2"]) == 0
    head, *lines = map(json.loads, (out / "bench.jsonl").read_text().splitlines())
    prior, count = SCORED[suite]
    assert list(head["bench"]["priors"]) == [prior]
    assert len(lines) == count * 2 * len(head["bench"]["images"])
    assert all("error" not in line and line["values"]["misfit"] is None for line in lines)
    assert all(line["values"]["psnr"] > 3 and line["values"]["counted"] == 1 for line in lines)
    page = (out / "bench.md").read_text()
    assert f"prior {prior}" in page and "coverage of 90 % (exact 0.33)" in page


def test_complex_images_are_scored_by_their_magnitude(tmp_path):
    pixels = np.linspace(0, 1, 32 * 32, dtype="float32").reshape(32, 32)
    np.save(tmp_path / "a.npy", pixels)
    frame = Framing(2, True)
    truth = frame.truth(tmp_path / "a.npy", 32)
    assert truth.shape == (1, 2, 32, 32) and not bool(truth[:, 1].any())
    assert torch.allclose(frame.shown(truth)[0, 0], 2 * torch.from_numpy(pixels) - 1, atol=1e-6)
    case = _case("medical-mri", "mri-4")
    problem = grid.measurement(case, truth, 0)
    assert isinstance(problem.A, Fourier)
    turned = torch.cat([-truth[:, 1:], truth[:, :1]], 1)  # by i
    assert scores(problem, turned[:, None], truth, frame)["psnr"] is None  # exact
    assert scores(problem, turned[:, None] * 0.9, truth, frame)["psnr"] == pytest.approx(
        -10 * math.log10(float(np.mean((0.1 * pixels) ** 2))), abs=1e-3
    )


def test_hounsfield_units_are_those_of_the_prior(tmp_path):
    hu = np.full((40, 33), -1000, "int16")
    hu[:, 16], hu[:, 17] = 3000, 238
    np.savez(tmp_path / "slice.npz", hu=hu)
    seen = Framing(1, True).truth(tmp_path / "slice.npz", 33)[0, 0]
    assert float(seen[5, 16]) == 1 and float(seen[5, 17]) == pytest.approx(0, abs=1e-6)
    assert float(seen[5, 5]) == pytest.approx(2 * 24 / 2524 - 1, abs=1e-6)
    with pytest.raises(InvdiffError, match="33 x 33 pixels, and 40 x 40 are cut"):
        Framing(1, True).truth(tmp_path / "slice.npz", 40)


@pytest.mark.parametrize(
    ("A", "y", "share"),
    [
        (Inpaint.box((16, 16), 4, 4, 8, 8), 0.0, 0.25),
        (HDR(2.0), 0.95, 1.0),
        (HDR(2.0), 0.85, 0.0),
        (Identity(), 0.0, 1.0),
    ],
    ids=["box", "saturated", "seen", "noise"],
)
def test_coverage_counts_what_y_leaves_uncertain(A, y, share):
    truth = torch.zeros(1, 3, 16, 16)
    problem = Problem(truth + y, A, GaussianNoise(0.05), (3, 16, 16))
    apart = torch.stack([truth - 0.1, truth + 0.1], 1)
    apart[..., :4, :] += 0.5  # known pixels of the box, which are missed
    found = scores(problem, apart, truth)
    assert found["counted"] == share
    expected = {0.25: 1.0, 1.0: 0.75, 0.0: None}[share]
    assert found["coverage"] == expected


def test_exact_samples_have_their_share_with_and_without_ties():
    draw = torch.Generator().manual_seed(1)
    values = torch.randn(5, 20_000, generator=draw)
    for clipped in (values, values.clamp(min=0), torch.zeros(5, 20_000)):
        share = covered(clipped[0], clipped[1:])
        assert share == pytest.approx(0.6, abs=4 * math.sqrt(0.6 * 0.4 / 20_000))
    assert covered(values[0] + 3, values[1:]) < 0.1  # samples that miss
    assert covered(values[0], values[1:2]) is None


def test_a_prior_on_another_range_is_taken(monkeypatch, tmp_path):
    """Weights of Song et al. are of images on [0, 1]."""
    unit = Denoiser(lambda x, sigma: x.clamp(0, 1), (1, None, None), (0.0, 1.0), "unit")
    monkeypatch.setattr(grid, "load_prior", lambda spec: unit)
    np.save(tmp_path / "a.npy", np.linspace(0, 1, 32 * 32, dtype="float32").reshape(32, 32))
    suite = SUITES["medical-ct"]
    cells = grid.Grid((tmp_path / "a.npy",), suite, ("score-medical",), ("unit",), 32, 2, steps=2)
    (line,) = cells.lines(set())
    assert cells.prior("unit").value_range == (-1.0, 1.0) and line["values"]["psnr"] > 10


def test_the_residual_without_noise_is_that_of_what_was_measured():
    A = Inpaint.box((16, 16), 0, 0, 8, 16)
    truth = torch.zeros(1, 3, 16, 16)
    found = scores(Problem(A(truth), A, NOISELESS, (3, 16, 16)), truth[:, None] + 0.25, truth)
    assert found["misfit"] is None and found["residual"] == pytest.approx(0.25)
    phased = Fourier(torch.ones(1, 1, 16, 16))
    image = torch.zeros(1, 2, 16, 16)
    told = Problem(phased(image), phased, NOISELESS, (2, 16, 16))
    assert residual(told, image + 0.25) == pytest.approx(0.25 * 2**0.5)


def test_files_that_tell_nothing_are_named(folder, tmp_path, capsys):
    where = tmp_path / "scans"
    where.mkdir()
    np.save(where / "all.npy", np.full((40, 40), np.nan))
    np.save(where / "some.npy", np.where(np.eye(40) > 0, np.nan, 0.5))
    Image.fromarray(np.zeros((40, 40, 4), "uint8")).save(where / "clear.png")
    args = ["--suite", "medical-ct", "--side", "32", "--out", str(tmp_path / "out")]
    for name in ("all.npy", "some.npy", "clear.png"):
        assert main(["bench", str(where / name), *args]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and f"scans/{name}" in err
    assert main(["bench", str(where), *args]) == 2 and not (tmp_path / "out").exists()


def test_results_go_into_a_folder(folder, tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    args = ["bench", str(folder), "--side", "32", "--out", str(taken), "--solvers", "estimate"]
    assert main(args) == 2
    assert "cannot be a folder for results (File exists)" in capsys.readouterr().err
    assert taken.read_text() == "a file"
