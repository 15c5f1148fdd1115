"""The tasks that the command line knows by name: data, from which flags and tables are made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invdiff.core import InvdiffError, nearest
from invdiff.noise import Gaussian, Noise, Poisson, PoissonGaussian
from invdiff.operators.base import Identity, Operator
from invdiff.operators.bayer import Bayer
from invdiff.operators.blur import blur, margins, wrapped
from invdiff.operators.color import REC601, Grayscale
from invdiff.operators.downsample import AveragePool, Bicubic
from invdiff.operators.hdr import HDR
from invdiff.operators.inpaint import Inpaint

Size = tuple[int, int]
Options = Mapping[str, Any]
Range = tuple[float, float]
Margin = tuple[int, int, int, int]
"""Pixels above, below, left and right of a photograph."""


def _by_its_form(size: Size, options: Options) -> Operator:
    raise InvdiffError("The operator of this task comes with its measurement.")


def _gaussian(sigma: float, options: Options, value_range: Range, repeats: int = 1) -> Noise:
    """That of one pixel, spread over `repeats` equal channels."""
    return Gaussian.on_unit_range(sigma * math.sqrt(repeats), value_range)


def _photons(sigma: float, options: Options, value_range: Range, repeats: int = 1) -> Noise:
    """Equal channels share the photons and the variance of the read noise: each of `repeats` has
    that many times the variance of the pixel."""
    peak = options["peak"] / repeats
    if "readout" not in options:
        return Poisson(peak, *value_range)
    read_sigma = options["readout"] / math.sqrt(repeats)
    return PoissonGaussian(peak, *value_range, read_sigma=read_sigma)


@dataclass(frozen=True)
class Task:
    """One kind of measurement that the command line, the page and the benchmark know by name.

    name: as users type it. summary: one line. form: how its measurement is read, shown and made, a
    name in `invdiff.forms`. prior: what it takes without --prior.
    options: names and meanings of what `restore` must be told. defaults: of the options that may be
    left out; "" where nothing stands for them. making: the same for `degrade`, where it is told
    other things, with making_defaults.
    level: whether there is Gaussian noise whose level may be told. unit: whether that is on the
    scale where black is 0 and white is 1, so that none is above 1. least: the lowest level, on
    [0, 1], that is supposed where none is told. texture(options): how much of a sharp photograph's
    finest texture the measurement keeps, 1 for all; None where the detail of a photograph tells
    nothing about noise that is to be removed. stationary: whether noise that is correlated between
    pixels can be told, for which all of them are measured alike. stride: pixels of one colour are
    so many apart.
    For the form `photo`: operator(size, options) is A for images (H, W); image_size(y_size,
    options): size of the unknown image for a measurement of y_size, both without the margin;
    margin(options): pixels around the photograph that are restored with it, because the measurement
    depends on them, and are cut off at the end; channels: of the measurement;
    luma: whether it may be the luma of a picture in colour; centred: whether A knows images on
    [-1, 1] only, where it is not linear; noise(sigma on [0, 1], options, the
    prior's range, equal channels): what lies between A(x) and the measurement.
    """

    name: str
    summary: str
    operator: Callable[[Size, Options], Operator] = _by_its_form
    image_size: Callable[[Size, Options], Size] = lambda size, options: size
    margin: Callable[[Options], Margin] = lambda options: (0, 0, 0, 0)
    channels: int = 3
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    defaults: Options = dataclasses.field(default_factory=dict)
    form: str = "photo"
    prior: str = "photo"
    making: Mapping[str, str] | None = None
    making_defaults: Options = dataclasses.field(default_factory=dict)
    noise: Callable[[float, Options, Range, int], Noise] = _gaussian
    level: bool = True
    unit: bool = True
    least: float = 0.0
    texture: Callable[[Options], float | None] = lambda options: 1.0
    stationary: bool = False
    stride: int = 1
    luma: bool = True
    centred: bool = False

    def takes(self, making: bool = False) -> tuple[Mapping[str, str], Options]:
        """(options, defaults) of `restore`, or of `degrade`."""
        if making and self.making is not None:
            return self.making, self.making_defaults
        return self.options, self.defaults

    def told(self, name: str, making: bool = False) -> str:
        """What an option means, and its default."""
        options, defaults = self.takes(making)
        default = defaults.get(name, "")
        text = f"{default:g}" if isinstance(default, float) else str(default)
        return options[name] + (f"; {text} by default" if text else "")


def _inpaint(size: Size, options: Options) -> Operator:
    return Inpaint(options["mask"])


def _downsample(size: Size, options: Options) -> Operator:
    kinds = {"bicubic": Bicubic, "mean": AveragePool}
    kind = options.get("downsampling", "bicubic")
    if kind not in kinds:
        raise nearest(kind, kinds, "downsampling")
    return kinds[kind](options["scale"], size)


def _deblur(size: Size, options: Options) -> Operator:
    return blur(options["kernel"], size, options.get("boundary", "reflect"))


def _beyond_the_edge(options: Options) -> Margin:
    """What the kernel reads of an unknown boundary."""
    if options.get("boundary") not in ("unknown", "valid"):
        return 0, 0, 0, 0
    (above, below), (left, right) = margins(options["kernel"], options["boundary"])
    return above, below, left, right


def _left_by_blur(options: Options) -> float:
    """Gain of a kernel in the band of the finest diagonal Haar details, over photographs, whose
    power falls as 1 / f^2."""
    transfer = torch.fft.fft2(wrapped(options["kernel"], (64, 64))).abs().square()
    f = torch.fft.fftfreq(64, dtype=torch.float64)
    square = f[:, None] ** 2 + f[None, :] ** 2
    band = torch.outer(torch.sin(math.pi * f) ** 2, torch.sin(math.pi * f) ** 2)
    weight = torch.where(square > 0, band / square.clamp_min(1e-9), 0.0)
    return math.sqrt(float((weight * transfer).sum() / weight.sum()))


def with_margin(size: Size, margin: Margin) -> Size:
    """(height, width) of a photograph together with its margin."""
    above, below, left, right = margin
    return size[0] + above + below, size[1] + left + right


def without_margin(pixels: Tensor, margin: Margin) -> Tensor:
    """Pixels (..., H, W) with their margin cut off."""
    above, below, left, right = margin
    return pixels[..., above : pixels.shape[-2] - below, left : pixels.shape[-1] - right]


_DEBLUR = {
    "kernel": "gaussian:SIGMA, motion:LENGTH,DEGREES, or a file with the kernel",
    "boundary": "what lies beyond the edge: unknown (a margin is restored too, and cut off), "
    "reflect, mirror, replicate, zero or circular; valid is unknown with a margin of the kernel's "
    "whole size",
}
PHOTO_TASKS = (
    Task(
        "inpaint",
        "fill in pixels that are missing or unwanted",
        _inpaint,
        texture=lambda options: None,
        options={"mask": "a picture of the same size that marks the pixels to restore"},
    ),
    Task(
        "super-resolution",
        "enlarge a photograph by a whole factor",
        _downsample,
        lambda size, o: (size[0] * o["scale"], size[1] * o["scale"]),
        options={
            "scale": "enlargement factor, a whole number of 2 or more",
            "downsampling": "how the small picture came about: bicubic (antialiased) or mean",
        },
        defaults={"downsampling": "bicubic"},
        stationary=True,
    ),
    Task(
        "deblur",
        "undo a known blur",
        _deblur,
        margin=_beyond_the_edge,
        stationary=True,
        least=0.003,
        texture=_left_by_blur,
        options=_DEBLUR,
        defaults={"boundary": "unknown"},
        making=_DEBLUR,
        making_defaults={"boundary": "reflect"},
    ),
    Task(
        "denoise",
        "remove Gaussian noise",
        lambda size, o: Identity(),
        options={
            "sigma": "noise level where black is 0 and white is 1, as 0.1 or 25/255, "
            "or `estimate`, or `correlated`, which estimates its spectrum"
        },
        making={"sigma": "noise level where black is 0 and white is 1, as 0.1 or 25/255"},
        stationary=True,
    ),
    Task(
        "colorize",
        "give a grey photograph plausible colours",
        lambda size, o: Grayscale(REC601),
        channels=1,
        stationary=True,
    ),
    Task(
        "demosaic",
        "give every pixel of a raw colour sensor its three colours",
        lambda size, o: Bayer(o["pattern"]),
        channels=1,
        options={"pattern": "colours of the upper left 2 x 2 pixels: RGGB, BGGR, GRBG or GBRG"},
        defaults={"pattern": "RGGB"},
        luma=False,
        texture=lambda options: 2.0,
        stride=2,
    ),
    Task(
        "jpeg",
        "remove the artifacts of a JPEG file, which tells its own quantisation tables",
        form="jpeg",
        making={
            "quality": "of the JPEG, 1 to 95",
            "subsampling": "of its colours: 4:4:4, 4:2:2 or 4:2:0",
        },
        making_defaults={"subsampling": "4:2:0"},
        level=False,
    ),
    Task(
        "hdr",
        "restore what a sensor clipped in shadows and highlights",
        lambda size, o: HDR(o["gain"]),
        options={"gain": "contrast before clipping, about middle grey: 2 keeps half of the range"},
        defaults={"gain": 2.0},
        centred=True,
    ),
    Task(
        "low-light",
        "remove the photon noise of a dark photograph, and the read noise of its sensor",
        lambda size, o: Identity(),
        options={
            "peak": "photons in a white pixel",
            "readout": "standard deviation of the read noise in photons (electrons); none without",
        },
        defaults={"readout": ""},
        noise=_photons,
        level=False,
    ),
)
SCAN_TASKS = (
    Task(
        "phase-retrieval",
        "find a picture from the magnitudes of its Fourier transform (.npy)",
        form="phase",
        options={
            "masks": "file (.npy) of the complex masks that were in the beam, (masks, H, W)",
            "oversample": "without masks, by how much the picture was padded: 4 doubles each side",
        },
        defaults={"masks": "", "oversample": 4.0},
        making={
            "masks": "how many random masks are in the beam; with 0 the picture is padded",
            "oversample": "without masks, by how much the picture is padded: 4 doubles each side",
        },
        making_defaults={"masks": "2", "oversample": 4.0},
    ),
    Task(
        "compressed-sensing",
        "find a picture from few coefficients of it, or from readings of a single pixel",
        form="sensing",
        options={
            "kind": "hadamard, gaussian, dct, fourier or single-pixel",
            "size": "of the picture, WIDTHxHEIGHT",
            "order": "of Walsh-Hadamard patterns: sequency, natural or random",
            "pattern-seed": "of random patterns, that of `degrade`",
            "block": "side of the blocks of gaussian, in pixels; 32 unless told",
            "mask": "file (.npy) with 1 where a coefficient of dct or fourier was measured; "
            "without it, where it is not 0",
        },
        defaults=dict.fromkeys(("kind", "size", "order", "pattern-seed", "block", "mask"), ""),
        making={
            "kind": "hadamard, gaussian, dct, fourier or single-pixel",
            "ratio": "measured coefficients for each pixel",
            "order": "of Walsh-Hadamard patterns: sequency (coarse ones first), natural or random",
            "block": "side of the blocks of gaussian, in pixels",
        },
        making_defaults={"kind": "hadamard", "ratio": 0.25, "order": "sequency", "block": 32},
    ),
    Task(
        "mri",
        "reconstruct an image from k-space (.npy, .npz, .h5, .mrd, .cfl)",
        form="mri",
        unit=False,
        prior="brain",
        options={
            "mask": "file (.npy) with 1 where k-space was sampled; without it, where it is not 0",
            "coil-maps": "espirit, or a file (.npy) of sensitivities (coils, H, W)",
            "slice": "of a file of several, from 0; the middle one without it",
            "rows": "keep so many rows in the middle of k-space, and columns in proportion",
            "key": "name of the array in the file",
            "trajectory-unit": "of samples off the grid: pixel (cycles per pixel), fov (cycles per "
            "encoded field of view), recon-fov, radian, 1/m or rad/m; told by their reach without",
        },
        defaults={
            "coil-maps": "espirit",
            **dict.fromkeys(("mask", "slice", "rows", "key", "trajectory-unit"), ""),
        },
        making={
            "accel": "acceleration that is aimed at",
            "sampling": "gaussian, random or equispaced columns, or poisson points",
            "coils": "number of receive coils around the image",
        },
        making_defaults={"accel": 4.0, "sampling": "gaussian", "coils": 1},
    ),
    Task(
        "ct",
        "reconstruct a slice from a sinogram (.h5, .npz, .npy)",
        form="ct",
        unit=False,
        prior="ct",
        options={
            "geometry": "parallel or fan; without it as the file says, or else parallel",
            "source": "of a fan: distance from the source to the axis of rotation, in bins",
            "angles": "file (.npy), or START,STOP in degrees; without it, those of the file",
            "center": "where the axis of rotation is, in bins from the middle, or `estimate`",
            "views": "use so many of the views, in equal steps",
            "side": "of the square image, in pixels of one bin; the number of bins without it",
            "pixel": "width of a bin at the axis of rotation, in the unit of length (mm)",
            "water": "attenuation of water per unit of length: then results are in HU",
            "kind": "counts, transmission or integrals, where the file does not tell",
            "weights": "of rays: photons, or equal; photons where the file has counts and there is "
            "no --noise",
            "outliers": "keep, or replace: counts far above all neighbours; needs many views",
            "rings": "keep, or remove: what each bin adds in all views, as a bad flat field does",
            "drift": "keep, or remove: a line through the air beside the object, view by view",
            "join": "make one bin of so many neighbours",
            "slice": "detector row, from 0; the middle one without it",
            "key": "name of the array in the file",
        },
        defaults={
            "center": 0.0,
            **dict.fromkeys(("outliers", "rings", "drift"), "keep"),
            **dict.fromkeys(
                ("geometry", "source", "angles", "views", "side", "pixel", "water", "kind"), ""
            ),
            **dict.fromkeys(("join", "slice", "key", "weights"), ""),
        },
        making={
            "views": "how many there are",
            "angles": "START,STOP in degrees, in equal steps; STOP is not repeated; 0,180 by "
            "default, of a fan 0,360",
            "geometry": "parallel or fan",
            "source": "of a fan: distance from the source to the axis of rotation, in pixels",
            "photons": "in a ray that meets nothing",
            "pixel": "side of a pixel in mm; an image is 360 mm wide without it",
            "water": "attenuation of water per mm",
        },
        making_defaults={
            "views": 60,
            "angles": "",
            "geometry": "parallel",
            "source": "",
            "photons": 1e6,
            "pixel": "",
            "water": 0.02,
        },
    ),
)
"""Measurements that are no pictures."""
TASKS: dict[str, Task] = {t.name: t for t in (*PHOTO_TASKS, *SCAN_TASKS)}


def task(name: str) -> Task:
    """The task called name. Raises InvdiffError with the nearest names when there is none."""
    if name not in TASKS:
        raise nearest(name, TASKS, "task")
    return TASKS[name]


def check_level(kind: Task, sigma: float | str | None) -> None:
    """Raise InvdiffError when a noise level is told to a task that has none, or is on [0, 255]."""
    if sigma is not None and not kind.level:
        raise InvdiffError(f"{kind.name} has no Gaussian noise; leave --noise out.")
    if kind.unit and isinstance(sigma, int | float) and 1 < sigma < math.inf:
        flag = "--sigma" if "sigma" in kind.options else "--noise"
        raise InvdiffError(
            f"A noise level of {sigma:g} is more than the whole range from black, which is 0, to "
            f"white, which is 1; if it is on the scale from 0 to 255, give {flag} {sigma:g}/255, "
            f"which is {sigma / 255:.2g}."
        )


def check_options(kind: Task, given: Options, making: bool = False) -> dict[str, Any]:
    """All options of a task but `sigma`; those left out have their defaults, or are absent.

    making: those of `degrade`.
    Raises InvdiffError for an option of another task, one that is missing, and a bad scale.
    """
    known, defaults = kind.takes(making)
    takes = [f"--{name}" for name in known] or ["no options"]
    for name in given:
        if name not in known:
            raise InvdiffError(
                f"--{name} does not belong to {kind.name}, which takes {', '.join(takes)}."
            )
    options = {**{k: v for k, v in defaults.items() if v != ""}, **given}
    for name, meaning in known.items():
        if name not in options and name not in defaults and name != "sigma":
            raise InvdiffError(f"{kind.name} needs --{name}: {meaning}.")
    if "scale" in options and not (isinstance(options["scale"], int) and options["scale"] >= 2):
        raise InvdiffError(f"--scale is a whole number of 2 or more, found {options['scale']}.")
    return options
