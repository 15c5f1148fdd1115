"""What to do with a file that holds no picture that is read here: one clause for each kind."""

from __future__ import annotations

from pathlib import Path

PNG = "save it as PNG or JPEG"

ENDINGS: dict[str, str] = {
    **dict.fromkeys(
        ("psd", "psb", "kra", "ora"),
        "open it in GIMP, Krita or Photoshop, flatten its layers, and export a PNG or TIFF",
    ),
    "xcf": "open it in GIMP, flatten its layers, and export a PNG or TIFF",
    **dict.fromkeys(
        ("svg", "svgz", "ai", "cdr", "wmf", "emf"),
        "it is a drawing and not pixels: export a PNG, as by `inkscape FILE -o x.png`",
    ),
    "pdf": "extract its pictures by `pdfimages -all FILE x`, or render it by `pdftoppm -png`",
    **dict.fromkeys(
        ("eps", "ps"), "render it by `gs -sDEVICE=png16m -r300 -o x.png FILE` (Ghostscript)"
    ),
    "jxl": "convert it by `djxl FILE x.png` (libjxl)",
    **dict.fromkeys(
        ("avif", "avifs"), "convert it by `avifdec FILE x.png` (libavif), or install a newer Pillow"
    ),
    **dict.fromkeys(("heic", "heif", "hif"), "pip install 'invdiff[photo]' reads HEIC"),
    **dict.fromkeys(
        ("exr", "hdr", "pic", "rgbe"),
        "it has linear light: tone-map it and save a 16-bit PNG, or save its numbers by numpy.save",
    ),
    **dict.fromkeys(
        ("mp4", "mov", "mkv", "avi", "webm", "m4v", "mpg", "mpeg"),
        "it is a video: --frame 0 takes one of its frames, invdiff batch all of them, or take them "
        "out by `ffmpeg -i FILE frame%04d.png`",
    ),
    **dict.fromkeys(
        ("zip", "gz", "tar", "7z", "rar", "bz2", "xz"), "it is an archive: unpack it first"
    ),
    **dict.fromkeys(
        ("docx", "pptx", "odt", "doc", "ppt"),
        "it is a document: save the picture in it as a file of its own",
    ),
    **dict.fromkeys(
        ("dcm", "dicom"),
        "it is a DICOM file, whose Hounsfield units a picture would lose: to take the noise of CT "
        "slices away, run invdiff restore low-dose-ct FILE",
    ),
    **dict.fromkeys(
        ("nii", "mha", "nrrd"),
        "it is a medical image: the tasks mri and ct read scans, and as a photograph it has to be "
        "exported as 16-bit PNG",
    ),
    **dict.fromkeys(
        ("fits", "fit", "mat", "h5", "hdf5", "csv", "txt", "json"),
        "it holds numbers: save the picture among them by numpy.save as .npy, black 0 and white 1",
    ),
    **dict.fromkeys(
        ("pt", "pth", "safetensors", "ckpt"), "it holds weights or tensors: save the picture as PNG"
    ),
    **dict.fromkeys(("html", "htm"), "it is a page of the web: save the picture itself"),
}
"""By the ending of a name, how to come to a picture."""

STARTS: tuple[tuple[bytes, int, str], ...] = (
    (b"8BPS", 0, "psd"),
    (b"gimp xcf", 0, "xcf"),
    (b"%PDF", 0, "pdf"),
    (b"%!PS", 0, "eps"),
    (b"\xc5\xd0\xd3\xc6", 0, "eps"),
    (b"\xff\x0a", 0, "jxl"),
    (b"\x00\x00\x00\x0cJXL ", 0, "jxl"),
    (b"\x76\x2f\x31\x01", 0, "exr"),
    (b"#?RADIANCE", 0, "hdr"),
    (b"#?RGBE", 0, "hdr"),
    (b"ftypavif", 4, "avif"),
    (b"ftypavis", 4, "avif"),
    (b"ftypheic", 4, "heic"),
    (b"ftypheix", 4, "heic"),
    (b"ftyphev", 4, "heic"),
    (b"ftypmif1", 4, "heic"),
    (b"ftypmsf1", 4, "heic"),
    (b"ftyp", 4, "mp4"),
    (b"\x1a\x45\xdf\xa3", 0, "mkv"),
    (b"PK\x03\x04", 0, "zip"),
    (b"\x1f\x8b", 0, "gz"),
    (b"Rar!", 0, "rar"),
    (b"7z\xbc\xaf", 0, "7z"),
    (b"DICM", 128, "dcm"),
    (b"SIMPLE  =", 0, "fits"),
    (b"\x89HDF", 0, "h5"),
    (b"MATLAB", 0, "mat"),
    (b"\x93NUMPY", 0, "npy"),
)
"""(bytes, where they stand, the ending of such files)."""
DOCUMENTS = (".docx", ".pptx", ".odt", ".ora", ".kra")
"""Endings of files that are zip archives within."""


def kind_of(path: Path) -> str:
    """The ending that fits what a file begins with, else that of its name, in small letters."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        head = b""
    for start, at, ending in STARTS:
        if head[at : at + len(start)] == start:
            if ending == "zip" and path.suffix.lower() in DOCUMENTS:
                break
            return ending
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")) and (b"<svg" in text or path.suffix == ".svg"):
        return "svg"
    if text.startswith((b"<!doctype html", b"<html")):
        return "html"
    return path.suffix.lower().removeprefix(".")


def how_to_convert(path: Path) -> str:
    """One clause that tells how to come from a file that is no picture here to one that is."""
    kind = kind_of(path)
    if kind == "npy":
        return "it is a numpy array: give its name the ending .npy"
    return ENDINGS.get(kind, PNG).replace("FILE", str(path))
