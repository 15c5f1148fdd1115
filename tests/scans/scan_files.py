"""Small files in the formats of scanners, written by the formats' own libraries."""

from __future__ import annotations

from pathlib import Path

import h5py
import ismrmrd
import numpy as np

XML = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz>
 </experimentalConditions>
 <encoding>
  <encodedSpace><matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>
   <fieldOfView_mm><x>400</x><y>200</y><z>5</z></fieldOfView_mm></encodedSpace>
  <reconSpace><matrixSize><x>{rx}</x><y>{ry}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>200</x><y>200</y><z>5</z></fieldOfView_mm></reconSpace>
  <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum>
   <center>{centre}</center></kspace_encoding_step_1></encodingLimits>
  <trajectory>{trajectory}</trajectory>
 </encoding>
</ismrmrdHeader>"""


def header(x, y, rx, ry, z=1, centre=None, trajectory="cartesian"):
    """XML of an encoding; the readout x may be oversampled."""
    values = {"x": x, "y": y, "z": z, "rx": rx, "ry": ry, "last": y - 1, "trajectory": trajectory}
    return XML.format(**values, centre=y // 2 if centre is None else centre).encode()


def rough(*shape: int, seed: int = 0) -> np.ndarray:
    """Complex64 normals."""
    rng = np.random.default_rng(seed)
    pairs = rng.standard_normal((*shape, 2)).astype(np.float32)
    return pairs.view(np.complex64)[..., 0]


def readout(data, step, flags=(), traj=None, **head):
    """One line of samples (coils, n), at places (n, axes), as an acquisition."""
    places = None if traj is None else np.ascontiguousarray(traj, np.float32)
    a = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data, np.complex64), places)
    a.center_sample = data.shape[1] // 2
    a.idx.kspace_encode_step_1 = step
    for name, value in head.items():
        setattr(a.idx if hasattr(a.idx, name) else a, name, value)
    for flag in flags:
        a.setFlag(flag)
    return a


def write_raw(path: Path, xml: bytes, readouts) -> None:
    """An ISMRMRD file."""
    with ismrmrd.Dataset(str(path), "dataset") as file:
        file.write_xml_header(xml)
        for a in readouts:
            file.append_acquisition(a)


def write_fastmri(path: Path, k: np.ndarray, mask=None, xml: bytes | None = None) -> None:
    """A file like those of fastMRI, with a target that is to be ignored."""
    with h5py.File(path, "w") as file:
        file["kspace"] = k
        file["reconstruction_rss"] = np.full((len(k), 4, 4), 7.0, np.float32)
        file.attrs["acquisition"] = "AXT2"
        if mask is not None:
            file["mask"] = mask
        if xml is not None:
            file["ismrmrd_header"] = xml


def write_exchange(path: Path, data, theta, white=None, dark=None, units=None) -> None:
    """A file of the data exchange layout."""
    with h5py.File(path, "w") as file:
        group = file.create_group("exchange")
        group["data"] = data
        for name, field in (("data_white", white), ("data_dark", dark)):
            if field is not None:
                group[name] = field
        if theta is not None:
            group["theta"] = theta
            if units is not None:
                group["theta"].attrs["units"] = units
