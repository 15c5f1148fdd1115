"""LPIPS and FID with files of weights, for which small scripted networks of known features stand.

They are called as `vgg16.pt` and `inception-2015-12-05.pt` of StyleGAN's metrics, and refuse other
calls.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from torch import Tensor

from invdiff.bench import fid, perceptual
from invdiff.bench.frames import Framing
from invdiff.bench.scores import scores
from invdiff.cli import main
from invdiff.core import InvdiffError
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Identity
from invdiff.problem import Problem


class Eyes(torch.nn.Module):
    """The mean of each colour of images on [0, 255], three features."""

    def forward(self, x: Tensor, resize_images: bool = True, return_lpips: bool = False) -> Tensor:
        if resize_images or not return_lpips or x.dtype == torch.uint8:
            raise RuntimeError("called in another way")
        return x.mean((2, 3))


class Labels(torch.nn.Module):
    """The mean of each colour of pictures of 8 bits, three features."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        if not return_features or x.dtype != torch.uint8:
            raise RuntimeError("called in another way")
        return x.float().mean((2, 3))


class Whole(torch.nn.Module):
    """No features, but an image."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        return x.float()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A folder with the files of these networks."""
    where = tmp_path_factory.mktemp("weights")
    for name, net in (("vgg", Eyes()), ("inception", Labels()), ("whole", Whole())):
        torch.jit.script(net).save(str(where / f"{name}.pt"))
    torch.save({"weight": torch.zeros(3)}, where / "state.pt")
    (where / "text.pt").write_text("no weights")
    return where


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Four pictures of waves."""
    where = tmp_path_factory.mktemp("images")
    y, x = np.mgrid[:32, :32] / 9
    for k in range(4):
        waves = np.stack([np.sin(y + k), np.cos(x * k), np.sin(x + y)], -1) * 90 + 100 + 15 * k
        Image.fromarray(waves.astype("uint8")).save(where / f"{k}.png")
    return where


def test_lpips_is_the_squared_distance_of_features(weights):
    network = perceptual.load("lpips", weights / "vgg.pt", 32)
    truth = torch.zeros(1, 3, 32, 32)
    shifted = torch.cat([truth, truth + 0.1, truth - 0.2])
    found = perceptual.lpips(network, shifted, truth)
    assert found == pytest.approx([0, 3 * 12.75**2, 3 * 25.5**2], rel=1e-5)  # 0.1 is 12.75 of 255
    grey = perceptual.lpips(network, truth[:, :1] + 0.1, truth[:, :1])
    assert grey == pytest.approx([3 * 12.75**2], rel=1e-5)


def test_scores_have_lpips_of_samples_and_of_their_mean(weights):
    network = perceptual.load("lpips", weights / "vgg.pt", 32)
    truth = torch.zeros(1, 3, 32, 32)
    problem = Problem(truth, Identity(), GaussianNoise(0.05), (3, 32, 32))
    samples = torch.stack([truth - 0.1, truth + 0.3], 1)
    found = scores(problem, samples, truth, network=network)
    each, mean = 3 * (12.75**2 + 38.25**2) / 2, 3 * 12.75**2
    assert (found["lpips"], found["lpips_mean"]) == pytest.approx((each, mean), rel=1e-5)
    assert "lpips" not in scores(problem, samples, truth)
    beyond = scores(problem, truth[:, None] + 9, truth, network=network)
    assert beyond["lpips"] == pytest.approx(3 * 127.5**2, rel=1e-5)  # clipped first


def test_complex_images_are_compared_by_their_magnitude(weights):
    network = perceptual.load("lpips", weights / "vgg.pt", 32)
    truth = torch.zeros(1, 2, 32, 32)
    problem = Problem(truth, Identity(), GaussianNoise(0.05), (2, 32, 32))
    sample = torch.full_like(truth, 0.5 / 2**0.5)  # of magnitude 0.5, shown on [0, 1]
    found = scores(problem, sample[:, None], truth, Framing(2, True), network)
    assert found["lpips"] == pytest.approx(3 * 127.5**2, rel=1e-5)


def shaped(n: int, mean: np.ndarray, factor: np.ndarray, seed: int) -> np.ndarray:
    """Features (n, F) whose mean is exactly mean, and whose covariance is factor factor^T."""
    z = np.random.default_rng(seed).standard_normal((n, len(mean)))
    z -= z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T)).T)
    return mean + z @ factor.T


def test_fid_of_commuting_covariances_is_known():
    """|m - m'|^2 + sum (s - s')^2 of standard deviations along common axes."""
    axes = np.linalg.qr(np.random.default_rng(3).standard_normal((4, 4)))[0]
    s, t = np.array([1.0, 2.0, 0.5, 3.0]), np.array([2.0, 0.1, 0.5, 1.0])
    m = np.array([0.3, -1.0, 2.0, 0.0])
    one, other = shaped(50, np.zeros(4), axes * s, 0), shaped(9, m, axes * t, 1)
    wanted = float(m @ m + ((s - t) ** 2).sum())
    assert fid.frechet(one, other) == pytest.approx(wanted, rel=1e-9)
    assert fid.frechet(one, one) == pytest.approx(0, abs=1e-9)


def test_fid_of_others_is_that_of_the_matrix_root():
    rng = np.random.default_rng(0)
    one = shaped(40, rng.standard_normal(5), rng.standard_normal((5, 5)), 1)
    other = shaped(30, rng.standard_normal(5), rng.standard_normal((5, 5)), 2)
    S, T = np.cov(one.T), np.cov(other.T)
    root = scipy.linalg.sqrtm(S @ T).real
    moved = ((one.mean(0) - other.mean(0)) ** 2).sum()
    wanted = moved + np.trace(S + T - 2 * root)
    assert fid.frechet(one, other) == pytest.approx(wanted, rel=1e-8)


def test_fid_of_fewer_images_than_features():
    """Two of five each, along one axis: (s - t)^2; along two: s^2 + t^2."""
    one, along, across = (np.zeros((2, 5)) for _ in range(3))
    one[:, 0], along[:, 0], across[:, 1] = (-1, 1), (-3, 3), (-3, 3)
    s, t = math.sqrt(2), 3 * math.sqrt(2)
    assert fid.frechet(one, along) == pytest.approx((s - t) ** 2)
    assert fid.frechet(one, across) == pytest.approx(s**2 + t**2)


def bench(images: Path, out: Path, *args: str) -> list[str]:
    return [
        "bench", str(images), "--side", "32", "--solvers", "estimate,ddrm", "--samples", "2",
        "--steps", "2", "--out", str(out), "--quiet", *args,
    ]  # fmt: skip


def test_a_bench_has_lpips_and_fid(weights, images, tmp_path, capsys):
    out = tmp_path / "out"
    both = ["--lpips", str(weights / "vgg.pt"), "--fid", str(weights / "inception.pt")]
    assert main(bench(images, out, *both)) == 0
    head, *lines = map(json.loads, (out / "bench.jsonl").read_text().splitlines())
    assert len(head["bench"]["lpips"]) == len(head["bench"]["fid"]) == 16
    assert all(line["values"]["lpips"] >= 0 for line in lines if "values" in line)
    page = (out / "bench.md").read_text()
    assert "weights absent" not in page and "| LPIPS of one | of the mean | FID (images) |" in page
    assert " (4) |" in page and "no full rank" not in page  # 4 images, 3 features
    case = [line for line in lines if line["case"] == "half" and line["solver"] == "ddrm"]
    kept = [dict(np.load(out / "features" / line["features"])) for line in case]
    assert [k["samples"].shape for k in kept] == [(2, 3)] * 4
    truths = np.concatenate([k["truth"] for k in kept])
    samples = np.concatenate([k["samples"] for k in kept])
    seen = [np.asarray(Image.open(images / f"{k}.png")).mean((0, 1)) for k in range(4)]
    assert np.allclose(truths, seen, atol=1e-3)
    assert f"| {fid.frechet(truths, samples):.1f} (4) |" in page
    whole = (out / "bench.jsonl").read_text()
    assert main(bench(images, out, *both, "--resume")) == 0
    assert (out / "bench.jsonl").read_text() == whole and (out / "bench.md").read_text() == page
    capsys.readouterr()
    assert main(bench(images, out, "--resume")) == 2
    assert "other settings (fid, lpips)" in capsys.readouterr().err
    (out / "features" / case[0]["features"]).write_bytes(b"PK\x03\x04 damaged")
    assert main(["bench", "--page", "--out", str(out)]) == 0
    rows = (out / "bench.md").read_text().split("## half")[1].split("##")[0].splitlines()
    (row,) = [row for row in rows if row.startswith("| `ddrm`")]
    assert row.split(" | ")[-2] == "-"


@pytest.mark.parametrize(
    ("option", "file", "absent"),
    [
        ("--lpips", "vgg.pt", "FID is not computed: weights absent."),
        ("--fid", "inception.pt", "LPIPS is not computed: weights absent."),
        (None, None, "LPIPS and FID are not computed: weights absent."),
    ],
)
def test_what_is_absent_is_told(option, file, absent, weights, images, tmp_path):
    out = tmp_path / "out"
    assert main(bench(images, out, *([option, str(weights / file)] if option else []))) == 0
    page = (out / "bench.md").read_text()
    assert absent in page
    assert ("LPIPS of one" in page) == (option == "--lpips")
    assert ("FID (images)" in page) == (option == "--fid") == (out / "features").exists()


def test_few_images_are_told(weights, images, tmp_path):
    out = tmp_path / "out"
    args = ["--fid", str(weights / "inception.pt"), "--images"]
    assert main(bench(images, out, *args, "3")) == 0
    page = (out / "bench.md").read_text()
    assert "**FID here is of 3 images, too few for its 3 features**" in page and " (3) |" in page
    assert main(bench(images, tmp_path / "one", *args, "1")) == 0
    page = (tmp_path / "one" / "bench.md").read_text()
    assert "| - |" in page and "FID here is of" not in page


@pytest.mark.parametrize(
    ("option", "file", "said"),
    [
        ("--lpips", "none.pt", "There is no file"),
        ("--lpips", "text.pt", "is no TorchScript file; --lpips takes one, as vgg16.pt"),
        ("--fid", "state.pt", "is no TorchScript file; --fid takes one, as inception-2015-12-05"),
        ("--lpips", "inception.pt", "f(images, resize_images=False, return_lpips=True), which"),
        ("--fid", "vgg.pt", "f(images, return_features=True), which fails: Unknown keyword"),
        ("--fid", "whole.pt", "takes numbers for each image, found the shape (2, 3, 32, 32)"),
    ],
)
def test_a_file_that_will_not_do_is_one_sentence(
    option, file, said, weights, images, tmp_path, capsys
):
    out = tmp_path / "out"
    assert main(bench(images, out, option, str(weights / file))) == 2
    err = capsys.readouterr().err
    assert err.startswith("invdiff: ") and said in err and err.count("\n") == 1
    assert not out.exists()


def test_other_weights_are_other_settings(weights, tmp_path):
    first = perceptual.load("fid", weights / "inception.pt", 32).fingerprint
    (tmp_path / "renamed.pt").write_bytes((weights / "inception.pt").read_bytes())
    assert perceptual.load("fid", tmp_path / "renamed.pt", 32).fingerprint == first
    with pytest.raises(InvdiffError, match="as inception"):
        perceptual.load("fid", weights / "vgg.pt", 32)
