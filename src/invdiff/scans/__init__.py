"""Measurements of scanners in their own files: k-space, sinograms, DICOM slices, float images."""

from invdiff.scans.centre import centre_of_rotation
from invdiff.scans.dicom import Slices, read_dicom
from invdiff.scans.drift import excess, without_drift, without_rings
from invdiff.scans.kspace import KSpace
from invdiff.scans.kspace_files import read_kspace
from invdiff.scans.noncartesian import NonCartesianKSpace, is_noncartesian, read_noncartesian
from invdiff.scans.redundancy import noise_from_coils
from invdiff.scans.sinogram import Sinogram
from invdiff.scans.sinogram_files import read_sinogram
from invdiff.scans.tiff import read_tiff, write_tiff

__all__ = [
    "KSpace",
    "NonCartesianKSpace",
    "Sinogram",
    "Slices",
    "centre_of_rotation",
    "excess",
    "is_noncartesian",
    "noise_from_coils",
    "read_dicom",
    "read_kspace",
    "read_noncartesian",
    "read_sinogram",
    "read_tiff",
    "without_drift",
    "without_rings",
    "write_tiff",
]
