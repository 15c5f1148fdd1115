"""Moving pictures with a prior of clips: windows, what is read, shown, repeated and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import invdiff
from invdiff.batch.items import ItemSource, seed_of
from invdiff.batch.recipe import BatchRecipe
from invdiff.cli import main
from invdiff.core import InvdiffError
from invdiff.files.animation import Pace, pace_of
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Identity
from invdiff.operators.inpaint import Inpaint
from invdiff.priors.base import Denoiser
from invdiff.priors.load import load_prior
from invdiff.priors.spectrum import isotropic
from invdiff.priors.windows import Cuts, Windows, for_clips, of_clips
from invdiff.problem import Problem
from invdiff.restoration.restored import Restoration
from invdiff.sampling.checks import check
from invdiff.solvers.ddrm import DDRM
from invdiff.tasks import Denoise, Inpainting, Mask, NoiseLevel, SuperResolution
from invdiff.tasks.clip import ClipView
from invdiff.tasks.pictures import PhotoView
from invdiff.tasks.validity import has_hole

MOVING = "moving-fashion"
FEW = ["--prior", MOVING, "--steps", "2", "--samples", "2", "--quiet"]


def bright(count: int = 11, side: int = 32, seed: int = 0) -> np.ndarray:
    """Grey frames of a square that moves, with noise, (count, side, side) bytes."""
    found = np.full((count, side, side), 60.0)
    for t in range(count):
        found[t, 4 : side // 2, 2 + t % 8 : 10 + t % 8] = 200
    noise = np.random.default_rng(seed).normal(0, 20, found.shape)
    return (found + noise).round().clip(1, 254).astype(np.uint8)


def film(path: Path, frames: np.ndarray) -> Path:
    images = [Image.fromarray(f) for f in frames]
    kind = {".gif": "GIF", ".webp": "WEBP", ".apng": "PNG"}[path.suffix]
    more = {"lossless": True} if kind == "WEBP" else {}
    images[0].save(
        path, kind, save_all=True, append_images=images[1:], loop=2,
        duration=[40 + 10 * (k % 3) for k in range(len(images))], **more,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def moving() -> invdiff.Prior:
    return load_prior(MOVING)


@pytest.mark.parametrize("overlap", [0, 1, 2, 4, 7])
@pytest.mark.parametrize("frames", [8, 9, 14, 15, 20, 33])
def test_windows_cover_all_frames_and_overlap(frames: int, overlap: int) -> None:
    """Weights of a frame add to 1; neighbours share what was asked for; no window too many."""
    cuts = Cuts(frames, 8, overlap)
    total = torch.zeros(frames, dtype=torch.float64)
    for start, w in zip(cuts.starts, cuts.weights, strict=True):
        assert bool((w > 0).all())
        total[start : start + 8] += w
    torch.testing.assert_close(total, torch.ones_like(total))
    assert cuts.starts[0] == 0 and cuts.starts[-1] == frames - 8
    steps = np.diff(cuts.starts)
    assert bool((steps <= 8 - overlap).all()) and (frames == 8 or bool((steps > 0).all()))
    assert len(cuts.starts) == 1 + -(-(frames - 8) // (8 - overlap))


def test_cuts_that_cannot_be() -> None:
    with pytest.raises(InvdiffError, match="overlap by 0 to 7, found 8"):
        Cuts(20, 8, 8)
    with pytest.raises(InvdiffError, match="5 frames is shorter than a window of 8"):
        Cuts(5, 8, 2)


def told(x: Tensor, sigma: float) -> Tensor:
    """x plus the number of each frame in its window: the weights show."""
    return x + torch.arange(4.0)[:, None, None]


def test_the_mean_of_windows_is_weighted() -> None:
    """In plain loops: 6 frames in windows of 4 that begin at 0 and 2."""
    prior = Windows(Denoiser(told, (1, 4, 2, 2)), 2)
    x = torch.randn(3, 1, 6, 2, 2)
    got = prior.denoise(x, 0.5) - x
    ramp = [1.0, 2, 2, 1]
    for t in range(6):
        at = [(ramp[t - s], t - s) for s in (0, 2) if 0 <= t - s < 4]
        expected = sum(w * k for w, k in at) / sum(w for w, _ in at)
        torch.testing.assert_close(got[:, :, t], torch.full((3, 1, 2, 2), expected))


def test_a_prior_of_frames_that_are_independent_needs_no_windows() -> None:
    """Then the windows are exact: a denoiser of each frame is that of the clip."""
    shrink = Denoiser(lambda x, sigma: x / (1 + sigma**2), (1, 4, 2, 2))
    x = torch.randn(2, 1, 9, 2, 2)
    torch.testing.assert_close(Windows(shrink, 1).denoise(x, 0.7), x / (1 + 0.49))


def test_gradients_pass_windows(moving: invdiff.Prior) -> None:
    """pull is the transposed derivative: <J u, v> = <u, J^T v>, by a difference."""
    prior, level = Windows(moving), invdiff.Level(1.0, 0.5)
    g = torch.Generator().manual_seed(0)
    x, u, v = (torch.randn(1, 1, 10, 32, 32, generator=g) for _ in range(3))
    x0, pull = prior.x0_vjp(x, level)
    h = 1e-2
    forward = (prior.x0(x + h * u, level) - prior.x0(x - h * u, level)) / (2 * h)
    a, b = float((forward * v).sum()), float((u * pull(v)).sum())
    assert a == pytest.approx(b, rel=0.02) and x0.shape == x.shape


def test_rows_are_the_same_alone(moving: invdiff.Prior) -> None:
    """Samples do not depend on how many are drawn together, nor on windows of other rows."""
    y = torch.from_numpy(bright(19)).float()[None, None] / 127.5 - 1
    problem = Problem(y, Identity(), GaussianNoise(0.2), (1, 19, 32, 32))
    prior, solver = Windows(moving), DDRM(schedule=invdiff.VE(2, 0.5, 0.1))
    together = invdiff.solve(problem, prior, solver, samples=3).samples
    alone = invdiff.solve(problem, prior, solver, samples=3, batch=1).samples
    assert torch.equal(together, alone)


def test_windows_of_what_is_no_clip() -> None:
    with pytest.raises(InvdiffError, match="not of clips"):
        Windows(Denoiser(lambda x, sigma: x, (1, 8, 8)))
    with pytest.raises(InvdiffError, match="overlap by 0 to 3, found 4"):
        Windows(Denoiser(told, (1, 4, 2, 2)), 4)


def test_a_prior_is_wrapped_where_it_must_be(moving: invdiff.Prior) -> None:
    assert for_clips(moving, (1, 8, 32, 32)) is moving
    longer = for_clips(moving, (1, 12, 32, 32))
    assert isinstance(longer, Windows) and longer.fingerprint != moving.fingerprint
    assert longer.fingerprint != Windows(moving, 3).fingerprint
    photo = load_prior("fashion28")
    assert for_clips(photo, (1, 28, 28)) is photo


def test_what_is_of_clips(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no weights")
    assert of_clips(MOVING) and not of_clips("photo")
    assert not of_clips("hf:some/model") and not of_clips(str(tmp_path / "x.safetensors"))


def test_a_spectrum_serves_longer_clips(moving: invdiff.Prior) -> None:
    """Frequencies along time are those of the nearest group; of its own length nothing changes."""
    spectrum = moving.spectrum
    assert spectrum is not None
    own = spectrum.diagonal(0.5, torch.zeros(1, 1, 8, 32, 32))
    longer = spectrum.diagonal(0.5, torch.zeros(1, 1, 16, 32, 32))
    assert torch.equal(longer[:, ::2], own) and torch.equal(longer[:, 1::2], own)
    flat = isotropic().diagonal(0.5, torch.zeros(1, 3, 40, 8, 8))
    assert flat.shape == (1, 120, 8, 8) and bool((flat == flat[0, 0, 0, 0]).all())


def test_holes_of_clips() -> None:
    """A hole in one frame counts; pixels that are missing one by one do not."""

    def of(mask: Tensor) -> Problem:
        return Problem(torch.zeros(1, 1, 4, 32, 32), Inpaint(mask), GaussianNoise(0.1),
                       (1, 4, 32, 32))  # fmt: skip

    few, hole = (torch.ones(1, 1, 4, 32, 32, dtype=torch.bool) for _ in range(2))
    few[:, :, :, ::4, ::4] = False
    hole[:, :, 2, 4:24, 4:24] = False
    assert not has_hole(of(few)) and has_hole(of(hole))


@pytest.mark.parametrize("ending", [".gif", ".webp", ".apng"])
def test_an_animation_is_read_as_one_measurement(
    ending: str, moving: invdiff.Prior, tmp_path: Path
) -> None:
    """All of its frames, on [-1, 1]; shown with its durations."""
    frames = bright(9)
    file = film(tmp_path / f"a{ending}", frames)
    m = Denoise(noise=NoiseLevel("0.1")).read(file, moving)
    expected = torch.from_numpy(frames).float()[None, None] / 127.5 - 1
    torch.testing.assert_close(m.problem.y, expected, atol=1e-6, rtol=0)
    assert m.problem.x_shape == (1, 9, 32, 32) and m.problem.sigma_y == pytest.approx(0.2)
    assert m.about.startswith("9 frames")
    assert isinstance(m.view, ClipView) and m.view.pace == pace_of(str(file))
    assert len(set(m.view.pace.durations)) == 3 and m.view.pace.loop == 2


def test_clips_in_colour(tmp_path: Path) -> None:
    """Frames of three channels, in their places, as arrays, as pictures and as files."""
    view = ClipView(PhotoView((0.0, 1.0)), Pace(".apng", (40,) * 5), 3)
    x = torch.arange(2 * 3 * 5 * 4 * 6).reshape(2, 3, 5, 4, 6) / (2 * 3 * 5 * 4 * 6)
    values = view.values(x)
    array, expected = view.array(values), x.permute(0, 2, 3, 4, 1).numpy()
    np.testing.assert_array_equal(array, expected)
    np.testing.assert_array_equal(view.deviation(values[0]), expected[0])
    assert torch.equal(view.picture(values[1]), x[1, :, 2])
    assert torch.equal(view.picture(x[1, :, 2]), x[1, :, 2])  # of one frame, itself
    np.testing.assert_array_equal(view.seen(array[0]), expected[0, 2])
    view.save(tmp_path, "one", values[0])
    last = np.asarray(Image.open(tmp_path / "one" / "frame-00004.png"))
    np.testing.assert_allclose(last, expected[0, 4] * 255, atol=0.51)


def test_a_black_frame_among_coloured_ones(tmp_path: Path) -> None:
    """It has colours too: noise of the level that was told, and results that are not grey."""
    frames = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
    frames[0] = 0
    film(tmp_path / "a.apng", frames)
    prior = Denoiser(lambda x, sigma: x / (1 + sigma**2), (3, 8, 32, 32))
    m = Denoise(noise=NoiseLevel("0.1")).read(tmp_path / "a.apng", prior)
    assert m.problem.sigma_y == pytest.approx(0.2)
    y = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 127.5 - 1
    torch.testing.assert_close(m.problem.y, y, atol=1e-6, rtol=0)
    assert isinstance(m.view, ClipView) and m.view.channels == 3
    np.testing.assert_allclose(m.view.array(m.view.values(y))[0] * 255, frames, atol=1e-3)
    task = Inpainting(mask=Mask("box:4,4,8,8"))
    shown = task.read(tmp_path / "a.apng", prior).view.values(torch.zeros_like(y))
    np.testing.assert_allclose(shown.reshape(8, 3, 32, 32)[:, :, 0, 0] * 255, frames[:, 0, 0],
                               atol=1e-3)  # fmt: skip


def test_lengths_that_do_not_fit_are_told_in_python(moving: invdiff.Prior) -> None:
    for count, said in ((5, "give a clip of 8 frames or more"), (12, r"invdiff\.Windows\(prior\)")):
        y = torch.zeros(1, 1, count, 32, 32)
        problem = Problem(y, Identity(), GaussianNoise(0.2), (1, count, 32, 32))
        with pytest.raises(InvdiffError, match=said):
            invdiff.solve(problem, moving, DDRM(schedule=invdiff.VE(2, 0.5, 0.1)))


def test_noise_is_one_level(moving: invdiff.Prior, tmp_path: Path) -> None:
    """The root mean square of what is found in each frame, told with its range."""
    file = film(tmp_path / "a.apng", bright(8))
    task = Denoise(noise=NoiseLevel("estimate"))
    m = task.read(file, moving)
    levels = [task.measured(one, moving).problem.sigma_y for one in split(file, tmp_path)]
    assert len(set(levels)) > 1
    assert m.problem.sigma_y == pytest.approx(float(np.sqrt(np.mean(np.square(levels)))))
    assert f"from {min(levels) / 2:.4f} to {max(levels) / 2:.4f} in 8 frames" in m.noise


def split(file: Path, folder: Path) -> list[Path]:
    found = []
    with Image.open(file) as image:
        for k in range(image.n_frames):
            image.seek(k)
            found.append(folder / f"{k}.png")
            image.convert("L").save(found[-1])
    return found


def test_transparent_pixels_are_not_measured(moving: invdiff.Prior, tmp_path: Path) -> None:
    """Where a mask can say so; super-resolution refuses them in a sentence."""
    frames = np.repeat(bright(8)[..., None], 4, -1)
    frames[..., 3] = 255
    frames[3, 5:9, 5:9, 3] = 0
    file = film(tmp_path / "a.apng", frames)
    A = Denoise(noise=NoiseLevel("0.1")).read(file, moving).problem.A
    assert isinstance(A, Inpaint) and A.mask.shape == (1, 1, 8, 32, 32)
    assert int((~A.mask.bool()).sum()) == 16 and not bool(A.mask[0, 0, 3, 5:9, 5:9].any())
    small = film(tmp_path / "b.apng", frames[:, :16, :16])
    with pytest.raises(InvdiffError, match="transparent"):
        SuperResolution(scale=2).read(small, moving)


def test_restore_and_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A moving picture and frames of every answer; run.json gives the same again."""
    monkeypatch.chdir(tmp_path)
    frames = bright(11)
    film(Path("a.apng"), frames)
    mask = np.zeros((32, 32), np.uint8)
    mask[8:14, 8:14] = 255
    Image.fromarray(mask).save("mask.png")
    words = ["restore", "inpaint", "a.apng", "--mask", "mask.png", "--want", "samples", *FEW]
    assert main([*words, "--out", "one"]) == 0
    said = capsys.readouterr().out
    assert "11 frames" in said and "2 windows of 8 frames, 2 or more shared" in said
    for name in ("mean", "sample-1", "sample-2"):
        with Image.open(f"one/{name}.apng") as image:
            assert image.n_frames == 11
            image.seek(5)
            shown = np.asarray(image.convert("L"))
        assert len(list(Path("one", name).iterdir())) == 11
        np.testing.assert_array_equal(shown, np.asarray(Image.open(f"one/{name}.png")))
        inner = np.asarray(Image.open(f"one/{name}/frame-00007.png"))
        np.testing.assert_array_equal(inner[mask == 0], frames[7][mask == 0])  # as measured
    done = Restoration.load("one")
    assert done.mean.shape == done.std.shape == (11, 32, 32)
    assert done.samples.shape == (2, 11, 32, 32)
    checks = json.loads(Path("one/run.json").read_text())["checks"]["samples"]
    assert len(checks["frames"]) == 11
    assert main(["restore", "--from", "one", "--out", "two", "--quiet"]) == 0
    assert "the same numbers as the run" in capsys.readouterr().out
    assert Path("two/sample-2.apng").read_bytes() == Path("one/sample-2.apng").read_bytes()
    assert main(["restore", "--from", "one", "--out", "two", "--quiet", "--overwrite"]) == 0


def test_videos_are_the_same_bytes(tmp_path: Path) -> None:
    """A batch tells results by the hashes of their files."""
    pytest.importorskip("av")
    from fractions import Fraction

    from invdiff.files import video

    pictures = []
    for k, frame in enumerate(bright(20)):
        pictures.append(tmp_path / f"{k}.png")
        Image.fromarray(frame).save(pictures[-1])
    for ending in (".mp4", ".webm", ".mkv", ".avi"):
        files = [tmp_path / f"{k}{ending}" for k in range(3)]
        for file in files:
            video.write(file, Fraction(12), pictures)
        assert len({file.read_bytes() for file in files}) == 1, ending


def test_a_batch_has_the_bytes_of_each_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole moving picture is an item; what fits is put together, in any order."""
    monkeypatch.chdir(tmp_path)
    for k, count in enumerate((8, 11, 8)):
        film(Path(f"{k}.gif"), bright(count, seed=k))
    words = ["batch", "denoise", "*.gif", "--noise", "0.1", "--workers", "0", *FEW]
    assert main([*words, "--out", "one"]) == 0
    assert main([*words, "--out", "two", "--batch", "1", "--shard-size", "1"]) == 0
    assert sorted(p.name for p in Path("one/items").iterdir()) == ["0.gif", "1.gif", "2.gif"]
    for name in ("0.gif", "1.gif", "2.gif"):
        seed = str(seed_of(0, name))
        alone = ["restore", "denoise", name, "--noise", "0.1", "--seed", seed, *FEW]
        assert main([*alone, "--out", f"alone-{name}"]) == 0
        for file in ("estimate.gif", "sample-1.gif", "sample-2/frame-00003.png"):
            found = {Path(f, file).read_bytes() for f in
                     (f"one/items/{name}", f"two/items/{name}", f"alone-{name}")}  # fmt: skip
            assert len(found) == 1, (name, file)


def test_frames_are_items_of_other_priors_alone() -> None:
    assert BatchRecipe("denoise", {"noise": "0.1"}).pictures
    assert not BatchRecipe("denoise", {"noise": "0.1"}, prior=MOVING).pictures
    assert not BatchRecipe("mri").pictures and not ItemSource(("a",)).pages


@pytest.mark.parametrize(
    ("file", "options", "said"),
    [
        ("short.gif", [], "short.gif has 5 frames, but the prior moving-fashion is of clips of 8"),
        ("one.png", [], "one.png is one picture, but the prior moving-fashion is of clips of 8"),
        ("wide.gif", [], "wide.gif would become frames of 40 x 40 pixels, but the prior"),
        ("right.gif", ["--frame", "2"], "leave --frame out"),
    ],
)
def test_what_does_not_fit(
    file: str, options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    film(Path("short.gif"), bright(5))
    film(Path("wide.gif"), bright(8, 40))
    film(Path("right.gif"), bright(8))
    Image.fromarray(bright(1)[0]).save("one.png")
    assert main(["restore", "denoise", file, "--noise", "0.1", *options, *FEW]) == 2
    assert said in capsys.readouterr().err
    assert not list(Path().glob("restored*"))


def test_a_frame_that_misses_is_told() -> None:
    """Where the whole clip does not; and nothing is told of frames with few numbers."""
    x = torch.zeros(1, 1, 1, 10, 16, 16)
    noise = 0.1 * torch.randn(1, 1, 10, 16, 16, generator=torch.Generator().manual_seed(0))
    problem = Problem(noise, Identity(), GaussianNoise(0.1), (1, 10, 16, 16))
    right = check(problem, x, (-1, 1))
    assert right.frames is not None and right.warnings == ()
    assert right.frames == pytest.approx([1.0] * 10, abs=0.2)
    y = noise.clone()
    y[:, :, 4] *= 2.5
    wrong = check(Problem(y, Identity(), GaussianNoise(0.1), (1, 10, 16, 16)), x, (-1, 1))
    assert wrong.misfit is not None and wrong.misfit[0] < 1.5
    worst = f"in frame 4 by {2.5 * right.frames[4]:.1f} times its noise"
    assert len(wrong.warnings) == 1 and worst in wrong.warnings[0]
    mask = torch.ones(1, 1, 10, 16, 16, dtype=torch.bool)
    mask[:, :, 4, :14] = False
    part = check(Problem(y, Inpaint(mask), GaussianNoise(0.1), (1, 10, 16, 16)), x, (-1, 1))
    assert part.frames is not None and part.frames[4] == 0 and part.warnings == ()
