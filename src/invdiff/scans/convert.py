"""How files of other programs become what is read, in one clause each."""

from __future__ import annotations

from pathlib import Path

CONVERTERS = {
    ".dat": "Siemens raw data (.dat): siemens_to_ismrmrd -f FILE.dat -o FILE.h5",
    ".7": "GE raw data (P files, .7): pfile_to_ismrmrd or ge_to_ismrmrd, to .h5",
    ".raw": "Philips raw data (.raw with .lab): philips_to_ismrmrd -f FILE -o FILE.h5",
    ".lab": "Philips raw data (.raw with .lab): philips_to_ismrmrd -f FILE -o FILE.h5",
    ".list": "Philips raw data (.data with .list): philips_to_ismrmrd, or read it in Python and "
    "save a complex array with numpy.save",
    ".data": "Philips raw data (.data with .list): philips_to_ismrmrd, or read it in Python and "
    "save a complex array with numpy.save",
    ".nii": "NIfTI holds images, not k-space: give the raw data of the scanner, or simulate "
    "k-space of a complex image (.npy) with invdiff degrade mri",
    ".dcm": "DICOM holds images, not k-space: give the raw data of the scanner",
    ".fid": "Varian or Agilent raw data (fid): read it with nmrglue and save a complex array "
    "(coils, H, W) with numpy.save",
    ".ra": "RawArray: read it in Python and save it with numpy.save",
    ".seq": "a Pulseq file holds a sequence and no samples: give the raw data of the scanner",
}
"""By ending; what is named as Bruker's files is told by its name."""
BRUKER = {"fid", "ser", "rawdata.job0", "2dseq"}


def how_to_convert(path: Path) -> str:
    """; and how to convert the file, behind a list of endings that are read."""
    ending = path.suffix.lower()
    if path.name.lower().endswith(".nii.gz"):
        ending = ".nii"
    if path.name.lower() in BRUKER:
        return (
            f"; Bruker or Varian raw data ({path.name}): bruker_to_ismrmrd, or read it in Python "
            "(brukerapi, nmrglue) and save a complex array (coils, H, W) with numpy.save"
        )
    if ending in CONVERTERS:
        return f"; {CONVERTERS[ending]}"
    if ending in (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"):
        return "; a picture holds no k-space: invdiff degrade mri makes k-space of one, for trying"
    return "; save a complex array (coils, H, W) with numpy.save, or convert raw data to ISMRMRD"
