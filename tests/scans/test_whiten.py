"""Noise scans are used: one noisy coil costs no more than if it had been whitened beforehand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scan_files import header, readout, rough, write_raw
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import CorrelatedGaussian, noise_from_scan
from invdiff.operators import Sense, fft2c, ring_maps
from invdiff.operators.mri import as_complex
from invdiff.scans import KSpace
from invdiff.scans.cfl import write_cfl
from invdiff.scans.kspace_problem import mri_problem
from invdiff.scans.whiten import NoiseWhitening, with_noise_scan

SIZE, COILS = (48, 40), 8


def covariance() -> Tensor:
    """Seven coils of noise 1 and one of 15, correlated by 0.3."""
    level = torch.tensor([1.0] * (COILS - 1) + [15.0])
    mix = 0.3 + 0.7 * torch.eye(COILS)
    return (level[:, None] * mix * level).to(torch.complex64)


def head() -> Tensor:
    y, x = (torch.linspace(-1, 1, n) for n in SIZE)
    inside = ((y[:, None] / 0.8) ** 2 + (x / 0.7) ** 2 < 1).float()
    return torch.polar(40 * inside * (1 + 0.3 * torch.sin(6 * y[:, None] * x)), x.expand(SIZE))


def scanned(seed: int = 0) -> KSpace:
    """Every second column and 24 in the middle, with that noise."""
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[:, ::2] = mask[:, 8:32] = True
    clean = fft2c(ring_maps(COILS, SIZE)[0].to(torch.complex64) * head())[None]
    y = CorrelatedGaussian(covariance()).sample(clean, Rng.of(seed))[0]
    return KSpace(y * mask, mask)


def noise_alone(n: int = 4000) -> Tensor:
    zero = torch.zeros(1, COILS, n, dtype=torch.complex64)
    return CorrelatedGaussian(covariance()).sample(zero, Rng.of(1))[0]


def sense(k: KSpace, **options) -> Tensor:
    """The image (H, W) that a ridge of the noise's size gives, in the units of k-space."""
    m = mri_problem(k, **options)
    A = m.problem.linear
    return as_complex(A.solve(A.adjoint(m.problem.y), m.problem.sigma_y**2 + 1e-3))[0, 0] * m.scale


def psnr(image: Tensor) -> float:
    """Of magnitudes, after a smooth fit of intensity, which maps of whitened coils do not keep."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    basis = torch.stack([x**i * y**j for i in range(5) for j in range(5 - i)], -1).reshape(-1, 15)
    a, b = image.abs().flatten(), head().abs().flatten()
    fit = a * (basis @ torch.linalg.lstsq(basis * a[:, None], b[:, None]).solution)[:, 0]
    return float(20 * torch.log10(b.max() / (fit - b).square().mean().sqrt()))


def test_a_noisy_coil_costs_no_more_than_whitened_beforehand() -> None:
    """Within 0.5 dB; without the scan it costs many, and intensities stay those of the coils."""
    k = scanned()
    scan = with_noise_scan(k, Path("scan"), noise_alone().numpy())
    assert scan.noise is not None
    white = NoiseWhitening.of(covariance())
    before = psnr(sense(KSpace(white.white(k.data), k.mask), sigma=1.0))
    used, never = psnr(sense(scan)), psnr(sense(scan, whiten=False))
    assert abs(used - before) < 0.5 and used > never + 3
    m = mri_problem(scan)
    assert "whitened" in m.notes[0] and "noise scan" in m.how
    inside = head().abs() > 0
    ratio = sense(scan).abs()[inside].mean() / head().abs()[inside].mean()
    assert float(ratio) == pytest.approx(1, abs=0.05)


def test_the_problem_is_that_of_the_whitened_coils() -> None:
    """Noise of level sigma in y, an operator of norm at most 1, and the truth explains y."""
    k = dataclasses.replace(scanned(), noise=covariance())
    maps = ring_maps(COILS, SIZE)[0].to(torch.complex64)
    m = mri_problem(k, maps)
    A = m.problem.A
    assert isinstance(A, Sense) and float(A.power.amax()) == pytest.approx(1, abs=1e-4)
    x = torch.stack([head().real, head().imag])[None] / m.scale
    left = m.problem.residual(x)[:, :, k.mask]
    n = 2 * left.numel()
    square = float(torch.view_as_real(left).square().mean()) / m.problem.sigma_y**2
    assert abs(square - 1) < 5 * (2 / n) ** 0.5
    plain = dataclasses.replace(m.problem, A=Sense(A.maps.roll(1, 1), A.mask))
    wrong = torch.view_as_real(plain.residual(x)[:, :, k.mask]).square().mean()
    assert float(wrong) / m.problem.sigma_y**2 > 2
    half = mri_problem(k, maps, sigma=covariance().diagonal().real.mean().sqrt().item() / 2)
    assert half.problem.sigma_y == pytest.approx(m.problem.sigma_y / 2, rel=1e-4)


def test_a_level_that_is_not_told_is_estimated() -> None:
    """From above, from k-space; and a scan whose level k-space contradicts is doubted."""
    k = dataclasses.replace(scanned(), noise=covariance() * 100, noise_level=False)
    maps = ring_maps(COILS, SIZE)[0].to(torch.complex64)
    right = mri_problem(dataclasses.replace(k, noise=covariance()), maps)
    found = mri_problem(k, maps)
    assert 0.9 < found.problem.sigma_y * found.scale / (right.problem.sigma_y * right.scale) < 1.5
    doubted = mri_problem(dataclasses.replace(k, noise_level=True), maps)
    assert any(note.startswith("warning: the outermost samples show") for note in doubted.notes)
    assert not any(note.startswith("warning") for note in right.notes)


def test_noise_scans_of_other_files(tmp_path: Path) -> None:
    n = noise_alone()
    want = noise_from_scan(n).value
    assert isinstance(want, Tensor)
    np.save(tmp_path / "n.npy", n.numpy())
    np.save(tmp_path / "t.npy", n.numpy().T)
    write_cfl(tmp_path / "n", n.numpy().T.reshape(200, 20, 1, COILS))
    xml = header(400, 10, 400, 10)
    scans = [readout(n[:, 400 * j : 400 * j + 400].numpy(), 0, [19], sample_time_us=5.0)
             for j in range(10)]  # fmt: skip
    write_raw(tmp_path / "n.h5", xml, scans)
    k = scanned()
    for name in ("n.npy", "t.npy", "n.cfl", "n.h5"):
        found = with_noise_scan(k, tmp_path / name).noise
        torch.testing.assert_close(found, want.to(torch.complex64), rtol=1e-4, atol=1e-4)
    timed = with_noise_scan(dataclasses.replace(k, dwell=10.0), tmp_path / "n.h5")
    torch.testing.assert_close(timed.noise, want.to(torch.complex64) / 2, rtol=1e-4, atol=1e-4)
    assert timed.noise_level and not with_noise_scan(k, tmp_path / "n.h5").noise_level
    np.save(tmp_path / "few.npy", rough(3, 100))
    np.save(tmp_path / "two.npy", rough(8, 8))
    (tmp_path / "x.txt").write_text("x")
    for name, reason in (("few.npy", "of 8 coils are needed"), ("two.npy", "more than one axis"),
                         ("x.txt", "none of the files of noise scans")):  # fmt: skip
        with pytest.raises(InvdiffError, match=reason):
            with_noise_scan(k, tmp_path / name)


def test_a_dead_coil_is_said() -> None:
    dead = covariance()
    dead[3] = dead[:, 3] = 0
    with pytest.raises(InvdiffError, match="singular.*--whiten never"):
        mri_problem(dataclasses.replace(scanned(), noise=dead))
