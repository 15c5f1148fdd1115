"""Raw data: what a readout's head says of it decides whether, and where, it counts."""

from __future__ import annotations

from pathlib import Path

import ismrmrd
import numpy as np
import pytest
from scan_files import header, readout, rough, write_raw

from invdiff import read_kspace
from invdiff.core import InvdiffError

X, Y = 16, 8
FULL = rough(2, X, Y)
SQUARE = header(X, Y, X, Y).replace(b"<x>400</x>", b"<x>200</x>")
"""No oversampling: the fields of view are equal."""
CALIBRATION, BOTH = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, 21


def lines(**head) -> list[ismrmrd.Acquisition]:
    """All lines of the image."""
    return [readout(FULL[:, :, step], step, **head) for step in range(Y)]


def read(path: Path, xml: bytes, readouts, **options):
    path.unlink(missing_ok=True)
    write_raw(path, xml, readouts)
    return read_kspace(path, **options)


def told(k) -> str:
    return "; ".join(k.facts)


def two_encodings() -> bytes:
    """A header whose second encoding is another grid."""
    start, end = SQUARE.index(b" <encoding>"), SQUARE.index(b"</encoding>") + len(b"</encoding>")
    other = SQUARE[start:end].replace(b"<y>200</y>", b"<y>100</y>")
    return SQUARE[:end] + other + SQUARE[end:]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"encoding_space_ref": 1}, "of other encodings"),
        ({"flags": [57]}, "with user flags"),
        ({"sample_time_us": 9.0}, "of another dwell time"),
        ({"kspace_encode_step_2": 3}, "of another partition"),
        ({"read_dir": (0.0, 1.0, 0.0)}, "of another orientation"),
    ],
)
def test_lines_of_another_image_do_not_count(tmp_path: Path, change, reason: str) -> None:
    """Without the field the same lines are averaged in: the negative twin."""
    usual = {"sample_time_us": 5.0, "read_dir": (1.0, 0.0, 0.0)}
    mine = lines(**usual)
    other = [readout(9 * rough(2, X, seed=s), s, **(usual | change)) for s in (2, 5)]
    k = read(tmp_path / "r.h5", SQUARE, [*other, *mine])
    np.testing.assert_array_equal(k.data.numpy(), FULL)
    assert f"2 readouts {reason}" in told(k) and "averaged" not in told(k)
    twin = [readout(9 * rough(2, X, seed=s), s, **usual) for s in (2, 5)]
    mixed = read(tmp_path / "r.h5", SQUARE, [*twin, *mine])
    assert abs(mixed.data.numpy() - FULL).max() > 1 and "up to 2 times" in told(mixed)


def test_readouts_of_other_coils_and_other_spans_do_not_count(tmp_path: Path) -> None:
    body = readout(9 * rough(1, X), 3)
    low = readout(9 * rough(2, X // 2), 4)  # centred, so that it reaches neither end of the others
    low.center_sample = X // 4
    k = read(tmp_path / "r.h5", SQUARE, [body, low, *lines()])
    np.testing.assert_array_equal(k.data.numpy(), FULL)
    assert "1 readouts of other coils" in told(k) and "contradict the encoding" in told(k)


def test_one_encoding_at_a_time(tmp_path: Path) -> None:
    other = [readout(3 * FULL[:, :, s], s, encoding_space_ref=1) for s in range(Y)]
    path = tmp_path / "r.h5"
    k = read(path, two_encodings(), [*other, *lines()])
    np.testing.assert_array_equal(k.data.numpy(), FULL)
    assert "encoding 0 of 2" in told(k)
    second = read_kspace(path, encoding=1)
    np.testing.assert_array_equal(second.data.numpy(), 3 * FULL)
    with pytest.raises(InvdiffError, match="2 encodings, counted from 0; there is no encoding 2"):
        read_kspace(path, encoding=2)
    path.unlink()
    write_raw(path, two_encodings(), other)
    with pytest.raises(InvdiffError, match="no readout of an image of its encoding 0.*encoding 1"):
        read_kspace(path)


def test_counters_choose_an_image(tmp_path: Path) -> None:
    found = [readout((1 + e + 10 * t) * FULL[:, :, s], s, contrast=e, repetition=t)
             for t in range(3) for e in range(2) for s in range(Y)]  # fmt: skip
    k = read(tmp_path / "r.h5", SQUARE, found, echo=1, time=2)
    np.testing.assert_array_equal(k.data.numpy(), (22 * FULL).astype(np.complex64))
    assert k.counts == {
        "slice": (0,),
        "echo": (0, 1),
        "time": (0, 1, 2),
        "phase": (0,),
        "set": (0,),
    }
    with pytest.raises(InvdiffError, match="there is no time 3"):
        read_kspace(tmp_path / "r.h5", time=3)


def test_calibration_lines_that_belong_to_the_image_fill_its_gaps(tmp_path: Path) -> None:
    """Lines 3 to 5 are full: 3 and 5 are flagged 20, 4 both."""
    image = [readout(FULL[:, :, s], s) for s in (0, 2, 6)]
    both = readout(FULL[:, :, 4], 4, [BOTH])
    between = [readout(FULL[:, :, s], s, [CALIBRATION]) for s in (3, 5)]
    k = read(tmp_path / "r.h5", SQUARE, [*image, both, *between])
    assert np.flatnonzero(k.mask[0].numpy()).tolist() == [0, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(k.data[:, :, [3, 5]].numpy(), FULL[:, :, [3, 5]])
    assert k.calibration is None and "fill gaps of the image" in told(k)


def test_a_scan_for_calibration_is_for_the_maps_alone(tmp_path: Path) -> None:
    """It measured a line of the image again, of another contrast; so the image is untouched."""
    image = [readout(FULL[:, :, s], s) for s in (0, 2, 4, 6)]
    scan = [readout(7 * FULL[:, :, s], s, [CALIBRATION]) for s in (3, 4, 5)]
    k = read(tmp_path / "r.h5", SQUARE, [*image, *scan])
    assert np.flatnonzero(k.mask[0].numpy()).tolist() == [0, 2, 4, 6]
    assert k.calibration is not None
    want = np.zeros_like(FULL)
    want[:, :, 3:6] = 7 * FULL[:, :, 3:6]
    np.testing.assert_allclose(k.calibration.numpy(), want, rtol=1e-6)
    embedded = SQUARE.replace(
        b"</encoding>",
        b"<parallelImaging><accelerationFactor><kspace_encoding_step_1>2</kspace_encoding_step_1>"
        b"<kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor>"
        b"<calibrationMode>embedded</calibrationMode></parallelImaging></encoding>",
    )
    own = [readout(FULL[:, :, s], s, [CALIBRATION]) for s in (3, 4, 5)]
    k = read(tmp_path / "r.h5", embedded, [*image, *own])
    assert np.flatnonzero(k.mask[0].numpy()).tolist() == [0, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("shown", [8, 12, 24])
def test_fields_of_view_decide_what_is_cropped(tmp_path: Path, shown: int) -> None:
    """400 mm encoded, 200 mm shown: half of the rows, whatever the matrix that is shown."""
    k = read(tmp_path / "r.h5", header(X, Y, shown, Y), lines())
    assert k.data.shape == (2, 8, 8) and k.recon == (8, 8)


def test_samples_of_twice_the_encoded_matrix(tmp_path: Path) -> None:
    """Denser samples are of a larger field of view; where the pixels that are shown are those of
    all samples, the matrix alone was wrong."""
    image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(FULL, axes=1), axis=1), axes=1)
    half = SQUARE.replace(b"<x>16</x>", b"<x>8</x>")
    k = read(tmp_path / "r.h5", half, lines())
    assert k.data.shape == (2, 8, 8)
    mine = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(k.data, axes=1), axis=1), axes=1)
    np.testing.assert_allclose(mine * 8**0.5 / 16**0.5, image[:, 4:12] * 1, atol=1e-6)
    wrong = header(8, Y, 8, Y)  # 400 mm encoded and 200 shown: 16 samples make 25 mm pixels
    assert read(tmp_path / "r.h5", wrong, lines()).data.shape == (2, 8, 8)


def test_phase_oversampling_is_told(tmp_path: Path) -> None:
    head, tail = SQUARE.split(b"<reconSpace>")
    xml = head + b"<reconSpace>" + tail.replace(b"<y>200</y>", b"<y>100</y>", 1)
    k = read(tmp_path / "r.h5", xml, lines())
    assert k.data.shape == (2, X, Y) and k.recon == (X, Y // 2)


def test_noise_scans_are_scaled_by_their_dwell_time(tmp_path: Path) -> None:
    """Twice the dwell time is half the bandwidth, and half the power; averages halve it again."""
    noise = [readout(rough(2, 4000, seed=k), 0, [19], sample_time_us=2.5) for k in (1, 2)]
    mine = lines(sample_time_us=5.0)
    k = read(tmp_path / "r.h5", SQUARE, [*noise, *mine])
    assert k.noise is not None and k.noise_level
    n = 8000
    assert float((k.noise - 0.5 * np.eye(2)).abs().max()) < 5 * 0.5 / n**0.5
    again = read(tmp_path / "r.h5", SQUARE, [*noise, *mine, *lines(sample_time_us=5.0, average=1)])
    assert again.noise is not None
    np.testing.assert_allclose(again.noise.numpy(), k.noise.numpy() / 2, rtol=1e-5)
    unknown = read(tmp_path / "r.h5", SQUARE, [*noise, *lines()])
    assert not unknown.noise_level and "dwell times not told" in told(unknown)
