"""ISMRMRD raw data off the grid: trajectories in every unit, to an image by the command line."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scan_files import header, readout, rough, write_raw

from invdiff.cli import main
from invdiff.core import InvdiffError
from invdiff.operators import NonCartesian, ring_maps
from invdiff.operators.mri import as_channels
from invdiff.sampling.result import Result
from invdiff.scans import NonCartesianKSpace, is_noncartesian, read_kspace, read_noncartesian
from invdiff.scans.offgrid import noncartesian_problem

pytest.importorskip("finufft")
H, W = 32, 28
"""Of the image; the file's x is H. Pixels are 6.25 mm along x and 200 / 28 mm along y."""
XML = {"x": 2 * H, "y": W, "rx": H, "ry": W, "trajectory": "radial"}
EDGES = {
    "pixel": (0.5, 0.5),
    "fov": (H, W / 2),
    "recon-fov": (H / 2, W / 2),
    "radian": (math.pi, math.pi),
    "1/m": (1 / (2 * 0.00625), W / (2 * 0.2)),
    "rad/m": (math.pi / 0.00625, math.pi * W / 0.2),
}
"""Half a cycle per pixel along x and y, in every unit."""


def head() -> np.ndarray:
    """A complex image (H, W) without any symmetry, magnitude up to 60."""
    y, x = np.mgrid[:H, :W]
    blob = np.exp(-((y - 12) ** 2) / 40 - ((x - 17) ** 2) / 30) + 0.5 * np.exp(
        -((y - 21) ** 2) / 12 - ((x - 9) ** 2) / 9
    )
    return 60 * blob * np.exp(0.05j * (x - 2 * y))


def spokes(count: int = 48, samples: int = 64) -> np.ndarray:
    """Diameters (count, samples, 2), x first, in cycles per pixel."""
    angle = np.pi * np.arange(count)[:, None] / count
    r = np.arange(samples) / samples - 0.5
    return np.stack([r * np.cos(angle), r * np.sin(angle)], -1)


def measured(cycles: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Samples (coils, ...) of the image: the sum over its pixels, written out."""
    k = cycles.reshape(-1, 2)
    down = np.exp(-2j * np.pi * np.outer(k[:, 0], np.arange(H) - H // 2))
    across = np.exp(-2j * np.pi * np.outer(k[:, 1], np.arange(W) - W // 2))
    y = np.einsum("mp,cpq,mq->cm", down, maps * head(), across) / math.sqrt(H * W)
    return y.reshape(len(maps), *cycles.shape[:-1])


def write_radial(
    path: Path, unit: str = "pixel", coils: int = 1, sigma: float = 0.0, **changes
) -> np.ndarray:
    """A file of spokes; the samples (coils, spokes, samples) that it holds."""
    cycles = spokes()
    maps = np.ones((1, H, W)) if coils == 1 else ring_maps(coils, (H, W))[0].numpy()
    y = measured(cycles, maps)
    y = y + sigma * rough(*y.shape)
    places = cycles * (2 * np.array(EDGES[unit]))
    lines = [readout(y[:, n], n, traj=places[n]) for n in range(len(places))]
    write_raw(path, header(**{**XML, **changes}), lines)
    return y


@pytest.mark.parametrize("unit", EDGES)
def test_the_unit_is_told_by_the_reach(tmp_path: Path, unit: str) -> None:
    """The operator of what was read explains the samples of the image, as it lies in the file."""
    y = write_radial(tmp_path / "r.h5", unit)
    assert is_noncartesian(tmp_path / "r.h5")
    k = read_noncartesian(tmp_path / "r.h5")
    assert k.size == (H, W) and k.data.shape == (1, 48 * 64)
    np.testing.assert_allclose(k.data.numpy(), y.reshape(1, -1), rtol=1e-6)
    assert f"so its unit is {unit}" in "; ".join(k.facts) and "radial, 48 readouts" in k.facts[-3]
    x = as_channels(torch.from_numpy(head())[None, None])
    A = NonCartesian(k.uv, k.size)
    size = k.data.abs().max()
    # places in float32, which the phase of up to 16 pixels turns into 2 pi 16 eps, and finufft
    assert (A(x.float())[0] - k.data).abs().max() < 1e-5 * size
    for wrong in (x.flip(-1), x.flip(-2)):
        assert (A(wrong.float())[0] - k.data).abs().max() > 0.1 * size
    asked = read_noncartesian(tmp_path / "r.h5", unit=unit)
    assert torch.equal(asked.uv, k.uv) and "as asked" in asked.facts[-1]


def test_another_resolution_on_the_screen(tmp_path: Path) -> None:
    """The image has the encoded pixels, whatever matrix the scanner interpolates to."""
    write_radial(tmp_path / "r.h5", rx=2 * H, ry=2 * W)
    k = read_noncartesian(tmp_path / "r.h5")
    assert k.size == (H, W) and 0.95 * H / 2 < float(k.uv[..., 1].abs().max()) <= H / 2


def test_samples_that_do_not_count(tmp_path: Path) -> None:
    """Discarded samples, other slices and contrasts; a third axis of zeros is none."""
    cycles, y = spokes(), rough(2, 48, 64)
    wide = np.concatenate([cycles, np.zeros((48, 64, 1))], -1)
    lines = [readout(y[:, n], n, traj=wide[n], discard_pre=3, discard_post=2) for n in range(48)]
    lines += [readout(9 * y[:, 0], 0, traj=wide[0], contrast=1)]
    lines += [readout(9 * y[:, n], n, traj=wide[n], slice=1) for n in range(2)]
    write_raw(tmp_path / "r.h5", header(**XML), lines)
    k = read_noncartesian(tmp_path / "r.h5", slice=0)
    np.testing.assert_array_equal(k.data.numpy(), y[:, :, 3:-2].reshape(2, -1))
    want = cycles[:, 3:-2].reshape(-1, 2)[:, ::-1] * (W, H)
    np.testing.assert_allclose(k.uv[0].numpy(), want, atol=1e-5)
    assert "slice 0 of 2" in k.facts and "contrast 0 of 2" in k.facts
    with pytest.raises(InvdiffError, match="discards all of its samples"):
        lines = [readout(y[:, 0], 0, traj=cycles[0], discard_pre=64)]
        write_raw(tmp_path / "d.h5", header(**XML), lines)
        read_noncartesian(tmp_path / "d.h5")


def one(places: np.ndarray | None, data: np.ndarray | None = None, **changes) -> tuple:
    """A header, and the only readout of a file."""
    return header(**{**XML, **changes}), rough(2, 64) if data is None else data, places


SPOKE = np.concatenate([spokes()[0, ::2], spokes()[24, ::2]])
"""Both axes, in one readout."""
NAN = np.where(np.arange(64)[:, None] == 5, np.nan, SPOKE)
WEIGHTED = np.concatenate([SPOKE, np.ones((64, 1))], -1)


@pytest.mark.parametrize(
    ("file", "unit", "reason"),
    [
        (one(None), None, "no trajectory of two dimensions .* .found 0"),
        (one(SPOKE[:, :1]), None, r"no trajectory of two dimensions .* .found 1"),
        (one(WEIGHTED), None, "third number for each sample"),
        (one(NAN), None, "NaN or infinite"),
        (one(SPOKE, np.zeros((2, 64))), None, "no sample that is not 0"),
        (one(0.8 * SPOKE), None, "reaches 0.4 and is in no unit .* one of pixel, fov"),
        (one(spokes()[0]), None, "reaches 0.5 and is in no unit"),
        (one(SPOKE), "fov", "0.0357 of what the encoded matrix resolves if its unit is fov"),
        (one(0 * SPOKE), None, "is in no unit that is known"),
        # cycles per pixel of a matrix of 6 reach 3 per field of view, and 3.14 radians
        (one(6.04 * SPOKE, x=6, y=6, rx=3, ry=6), None, "could be in fov or radian"),
        (one(SPOKE), "radians", "no unit of trajectories called 'radians'"),
        (one(40 * SPOKE), "radian", "6.37 of what the encoded matrix resolves if its unit is rad"),
        (one(SPOKE, z=4), None, "3-D measurement along a trajectory of kind radial"),
        (one(SPOKE, trajectory="cartesian"), None, "read_kspace reads"),
        (one(SPOKE, trajectory="epi"), None, "is epi; read_kspace"),
    ],
)
def test_trajectories_that_are_not_read(tmp_path: Path, file, unit, reason: str) -> None:
    xml, data, places = file
    write_raw(tmp_path / "r.h5", xml, [readout(data, 0, traj=places)])
    with pytest.raises(InvdiffError, match=reason) as error:
        read_noncartesian(tmp_path / "r.h5", unit=unit)
    text = str(error.value)
    assert ("r.h5" in text or unit == "radians") and "\n" not in text and text.endswith((".", "?"))


def test_files_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "no.h5").write_text("")
    np.save(tmp_path / "k.npy", rough(4, 4))
    write_raw(tmp_path / "c.h5", header(8, 4, 8, 4), [readout(rough(1, 8), 0)])
    assert not any(is_noncartesian(tmp_path / n) for n in ("k.npy", "c.h5", "absent.h5"))
    with pytest.raises(InvdiffError, match=r"no\.h5 is not"):
        is_noncartesian(tmp_path / "no.h5")
    write_radial(tmp_path / "r.h5")
    with pytest.raises(InvdiffError, match="radial; only cartesian .* read_noncartesian"):
        read_kspace(tmp_path / "r.h5")
    with pytest.raises(InvdiffError, match="no ISMRMRD raw data called other"):
        read_noncartesian(tmp_path / "r.h5", key="other")


@pytest.mark.parametrize("coils", [1, 4])
def test_a_problem_off_the_grid(tmp_path: Path, coils: int) -> None:
    """Explained by its truth, of norm 1; its image without a prior is the truth, in its units."""
    write_radial(tmp_path / "r.h5", coils=coils)
    k = read_noncartesian(tmp_path / "r.h5")
    maps = None if coils == 1 else ring_maps(coils, (H, W))[0]
    m = noncartesian_problem(k, maps, sigma=0.1)
    x = as_channels(torch.from_numpy(head())[None, None]).float() / m.scale
    A = m.problem.A
    assert isinstance(A, NonCartesian)
    size = float(m.problem.y.abs().max())
    assert m.problem.residual(x).abs().max() < 1e-4 * size
    assert m.problem.residual(x.flip(-1)).abs().max() > 0.1 * size
    assert 30 < m.scale < 60 and m.sigma == 0.1
    z = torch.randn(1, 2, H, W)
    for _ in range(40):
        z = A.adjoint(A(z / z.norm()))
    assert float(z.norm()) == pytest.approx(1, rel=0.05)
    unit = A.maps.abs() if maps is None else A.maps.abs() / maps.abs()
    assert m.problem.sigma_y * m.scale / 0.1 == pytest.approx(float(unit.mean()), rel=1e-4)
    gridded = A.gridded(m.problem.y)
    assert float((gridded - x).norm() / x.norm()) < 0.15


def test_sensitivities_are_estimated(tmp_path: Path) -> None:
    """ESPIRiT of the gridded middle explains the samples of four coils nearly as the truth does."""
    pytest.importorskip("sigpy")
    write_radial(tmp_path / "r.h5", coils=4)
    m = noncartesian_problem(read_noncartesian(tmp_path / "r.h5"), sigma=0.1)
    x = m.problem.linear.pinv(m.problem.y)
    y = m.problem.y
    assert float(m.problem.residual(x).abs().square().sum() / y.abs().square().sum()) < 1e-3


def test_the_noise_is_estimated_and_rows_are_kept(tmp_path: Path) -> None:
    write_radial(tmp_path / "r.h5", sigma=0.5)
    k = read_noncartesian(tmp_path / "r.h5")
    n = 2 * 48 * 64 / 20  # as for noise_from_kspace: the rim of this smooth image is dark
    assert abs(noncartesian_problem(k).sigma / 0.5 - 1) < 5 * 1.17 / math.sqrt(n)
    m = noncartesian_problem(k, rows=16)
    assert m.problem.x_shape == (2, 16, 14) and m.problem.y.shape[-1] < k.data.shape[1] * 0.6
    with pytest.raises(InvdiffError, match="from 1 to 32 of them"):
        noncartesian_problem(k, rows=33)
    with pytest.raises(InvdiffError, match=r"coil maps have shape \(2, 32, 28\)"):
        noncartesian_problem(k, ring_maps(2, (H, W))[0])
    empty = NonCartesianKSpace(k.data[:, :3], k.uv[:, :3], k.size)
    with pytest.raises(InvdiffError, match="No sample lies within"):
        noncartesian_problem(empty, sigma=1.0, rows=2)


def test_restore_reads_a_radial_file(tmp_path: Path, monkeypatch, capsys) -> None:
    """From the command line with the prior of brains, and again from what it wrote."""
    monkeypatch.chdir(tmp_path)
    write_radial(tmp_path / "r.h5", coils=2, sigma=0.2)
    np.save("maps.npy", ring_maps(2, (H, W))[0].numpy())
    args = ["restore", "mri", "r.h5", "--coil-maps", "maps.npy", "--steps", "8"]
    assert main([*args, "--samples", "1", "--quiet", "--out", "a"]) == 0
    assert "so its unit is pixel" in capsys.readouterr().out
    result = Result.load("a")
    unit = result.config["view"]["fields"]["unit"]
    mean = as_channels(torch.from_numpy(head())[None, None]) / unit
    assert float((result.samples[0].mean(0) - mean).norm() / mean.norm()) < 0.15
    assert main(["restore", "--from", "a/run.json", "--out", "b", "--quiet"]) == 0
    assert np.array_equal(np.load("a/sample-1.npy"), np.load("b/sample-1.npy"))
    capsys.readouterr()
    for extra, reason in (
        (["--mask", "maps.npy"], "has no mask"),
        (["--trajectory-unit", "fov"], "if its unit is fov"),
    ):
        assert main([*args, *extra, "--out", "c"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and reason in error and not Path("c").exists(), error
