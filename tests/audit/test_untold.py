"""`invdiff audit --problem`: what is said of a run whose truth nobody knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from invdiff.audit.learned import truths
from invdiff.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of an image that `fashion28` drew itself, of which a half is not seen; its folder."""
    folder = tmp_path_factory.mktemp("untold")
    for name, x in enumerate(truths(30, 20)):
        pixels = ((x[0] + 1) * 127.5).round().clamp(0, 255).byte().numpy()
        Image.fromarray(pixels).save(folder / f"{name:02d}.png")
    mask = Image.new("L", (28, 28))
    mask.paste(255, (0, 0, 14, 28))
    (folder / "mask").mkdir()
    mask.save(folder / "mask/mask.png")
    args = ["inpaint", str(folder / "00.png"), "--mask", str(folder / "mask/mask.png")]
    args += ["--prior", "fashion28", "--noise", "0.05", "--samples", "8", "--want", "samples"]
    assert main(["restore", *args, "--quiet", "--out", str(folder / "run")]) == 0
    return folder


def audit(run: Path, *args: str) -> int:
    return main(["audit", "--problem", str(run / "run/run.json"), "--truths", "8", *args])


def test_a_run_is_told_of(run, capsys):
    assert audit(run) == 0
    told = capsys.readouterr().out
    for words in (
        "spectral-ancestral on ", "8 samples\n", "weights   the solver gives", "misfit    rms 0.",
        "stein     score at 0.1: ", "blind to modes", "8 truths drawn by the prior, 7 samples",
        "rank tarp", "90 % intervals hold 0.", "exact ones 0.750",
    ):  # fmt: skip
        assert words in told, words


def test_intervals_are_widened_by_calibration_images_of_any_size(run, capsys):
    """Larger ones are cut; what is smaller, or no image, is left out and told."""
    folder = run / "alike"
    folder.mkdir()
    for file in run.glob("*.png"):
        wide = Image.new("L", (40, 30))
        wide.paste(Image.open(file), (6, 1))
        wide.save(folder / file.name)
    Image.new("L", (20, 30), 9).save(folder / "small.png")
    (folder / "broken.png").write_bytes(b"no image")
    assert audit(run, "--calibration", str(folder)) == 0
    told = capsys.readouterr().out
    assert "left out: an image of 20 x 30 pixels, less than 28 x 28 of the run" in told
    assert "broken.png cannot be read as an image" in told
    assert "30 calibration images: mean ± " in told and "with confidence 0.9" in told


def test_a_folder_without_images_like_the_run_is_refused_before_it_is_measured(run, capsys):
    for images in (0, 1):
        folder = run / f"none-{images}"
        folder.mkdir()
        if images:
            Image.new("L", (20, 30), 9).save(folder / "small.png")
        assert audit(run, "--calibration", str(folder)) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and "holds no image like those of the run" in err
