"""What is supposed of the noise of a photograph, by default."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from invdiff import fields
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.files.pictures import Photo, read_photo, save_picture
from invdiff.noise import GaussianNoise, StationaryGaussian
from invdiff.noise.bands import correlated_floors, noise_spectrum
from invdiff.operators import Bayer, CircularBlur, blur, gaussian_kernel
from invdiff.priors.base import Denoiser
from invdiff.problem.whiten import whiten
from invdiff.tasks import TASKS, Deblur, Kernel, Mask, Measured, PhotoTask
from invdiff.tasks.photo_noise import FLOAT, ROUNDING, SHARP, Supposed, noise_floor, supposed

EXAMPLE = Path(__file__).parents[1] / "examples" / "alpacas.webp"


def rounded(pixels: Tensor, bits: int = 8) -> Tensor:
    levels = 2**bits - 1
    return (pixels * levels).round().clamp(0, levels) / levels


def noisy(pixels: Tensor, sigma: float, seed: int = 1) -> Tensor:
    return rounded(GaussianNoise(sigma).sample(pixels[None], Rng.of(seed))[0])


def scene(side: int = 128) -> Tensor:
    """The middle of a photograph, (3, side, side)."""
    pixels = read_photo(EXAMPLE).pixels
    top, left = ((n - side) // 2 for n in pixels.shape[1:])
    return pixels[:, top : top + side, left : left + side]


def smooth(side: int = 128) -> Tensor:
    """A slow ramp in each colour, nowhere clipped."""
    y, x = torch.linspace(0.3, 0.5, side)[:, None], torch.linspace(0, 0.2, side)[None]
    return torch.stack([y + x, y + 0.1 - x / 2, 0.8 - y / 2 - 0.3 * x])


NEEDED = {"super-resolution": {"scale": 2}, "inpaint": {"mask": "box:0,0,1,1"}}
"""Options that a task needs, where they do not matter."""


def task(name: str, told: float | str | None = None, **options: object) -> PhotoTask:
    noise = {} if told is None else {"noise": told}
    found = fields.build(TASKS[name], {**NEEDED.get(name, {}), **noise, **options}, name)
    assert isinstance(found, PhotoTask)
    return found


def ask(pixels: Tensor, name: str, told: float | str | None = None, **options: object) -> Supposed:
    return supposed(Photo(pixels), pixels, task(name, told, **options))


def test_the_depth_is_read_off_the_values() -> None:
    """8 bits, 16 bits, or neither; also where a 16-bit file holds 8 bits only."""
    ramp = torch.linspace(0, 1, 3 * 40 * 40).reshape(3, 40, 40)
    for bits, level in ((8, ROUNDING), (16, ROUNDING / 257)):
        found = ask(rounded(ramp, bits), "super-resolution", scale=2)
        assert found.sigma == pytest.approx(level) and f"{bits} bits" in found.how
        error = rounded(ramp.double(), bits) - ramp.double()
        assert float(error.std()) == pytest.approx(level, rel=0.03)
    found = ask(ramp, "super-resolution", scale=2)
    assert found.sigma == FLOAT and "no rounding to 8 bits" in found.how


def test_a_clean_photograph_is_not_called_noisy() -> None:
    """Neither sharp, nor made small, nor through a mosaic does texture become noise."""
    small = torch.nn.functional.interpolate(
        scene(256)[None], scale_factor=0.5, mode="bicubic", antialias=True
    )[0]
    for pixels in (scene(), rounded(small), scene().mean(0, keepdim=True)):
        for name in ("super-resolution", "colorize"):
            assert ask(rounded(pixels), name).sigma < 0.006, name
    for pixels in (scene(), scene(256)):
        mosaic = Bayer("RGGB")(rounded(pixels)[None])[0]
        assert ask(mosaic, "demosaic").sigma < 0.006
    # taken for a grey picture, the colours of its pixels are detail
    assert ask(Bayer("RGGB")(rounded(smooth())[None])[0], "colorize").sigma > 0.03


@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.08])
@pytest.mark.parametrize("name", ["super-resolution", "colorize", "demosaic", "hdr"])
def test_noise_is_seen_by_every_task(name: str, sigma: float) -> None:
    """White noise of a picture with flat parts, within a fifth of its level."""
    clean = Bayer("RGGB")(smooth()[None])[0] if name == "demosaic" else smooth()
    found = ask(noisy(clean, sigma), name)
    assert found.sigma == pytest.approx(sigma, rel=0.2), found.how


@pytest.mark.parametrize("sigma", [0.01, 0.03])
def test_noise_of_a_photograph_is_seen(sigma: float) -> None:
    assert noise_floor(noisy(scene(), sigma)) == pytest.approx(sigma, rel=0.15)
    assert ask(noisy(scene(), sigma), "super-resolution").sigma == pytest.approx(sigma, rel=0.3)


def test_detail_counts_as_noise_where_the_kernel_left_no_texture() -> None:
    """The wider the kernel, the more of the detail is believed."""
    pixels = noisy(scene(), 0.02)
    wide, narrow = (ask(pixels, "deblur", kernel=k) for k in ("gaussian:2", "gaussian:0.2"))
    assert wide.sigma > 0.02 and "detail" in wide.how
    assert narrow.sigma == pytest.approx(0.02, rel=0.2) and "flattest" in narrow.how
    kernels = ("gaussian:0.01", "gaussian:0.5", "gaussian:1", "gaussian:2", "motion:9,0")
    gain = [Deblur(kernel=Kernel.parse(k)).texture((64, 64)) or 0 for k in kernels]
    assert gain[0] == pytest.approx(1) and gain[1:4] == sorted(gain[1:4], reverse=True)
    assert gain[3] * SHARP < 0.002 and gain[4] < 0.2


def test_deblurring_has_a_floor() -> None:
    pixels = rounded(smooth())
    found = ask(pixels, "deblur", kernel="gaussian:2")
    assert found.sigma == 0.003 and "deblur" in found.how and "rounding to 8 bits" in found.how
    assert ask(pixels, "deblur", 0.0005, kernel="gaussian:2").sigma == 0.0005
    assert ask(pixels, "deblur", "estimate", kernel="gaussian:2").sigma < 0.003


def test_masks_keep_what_is_known() -> None:
    """Known pixels stay as they are, noise included, unless an estimate is asked for."""
    known = torch.ones(1, 128, 128)
    known[..., 30:60, 40:50] = 0
    mask = Mask.of(known[0] == 0)
    pixels = noisy(smooth(), 0.05)
    assert ask(pixels, "inpaint", mask=mask).sigma == pytest.approx(ROUNDING)
    assert ask(pixels, "inpaint", "estimate", mask=mask).sigma == pytest.approx(0.05, rel=0.1)
    junk = torch.where(known.bool(), pixels, torch.tensor(0.1234567))
    assert ask(junk, "inpaint", mask=mask).sigma == pytest.approx(ROUNDING)


@pytest.mark.parametrize("told", [None, "estimate"])
def test_a_jpeg_tells_its_error(tmp_path: Path, told: str | None) -> None:
    save_picture(tmp_path / "a.png", scene())
    Image.open(tmp_path / "a.png").save(tmp_path / "a.jpg", quality=85)
    levels = {}
    for end in ("png", "jpg"):
        photo = read_photo(tmp_path / f"a.{end}")
        found = supposed(photo, photo.pixels, task("super-resolution", told))
        levels[end] = found
    assert 0.02 < levels["jpg"].sigma < 0.035 and "JPEG" in levels["jpg"].how
    assert "JPEG file" not in levels["png"].how
    assert (levels["png"].sigma < 0.005) == (told is None)
    photo = read_photo(tmp_path / "a.jpg")
    assert supposed(photo, photo.pixels, task("inpaint", 0.001)).sigma == 0.001


def test_small_and_flat_pictures_have_a_level() -> None:
    for pixels in (torch.zeros(3, 1, 1), torch.ones(1, 5, 7), rounded(smooth(12))):
        found = ask(pixels, "super-resolution")
        assert math.isfinite(found.sigma) and found.sigma == pytest.approx(ROUNDING)


def field(sigma: float, blur: float, side: int = 160) -> Tensor:
    """Noise of sigma that a Gaussian of `blur` pixels smoothed, (3, side, side)."""
    n = sigma * Rng.of(5).normal(torch.zeros(1, 3, side, side, dtype=torch.float64), "test")
    return (CircularBlur(gaussian_kernel(blur), (side, side))(n) if blur else n)[0].float()


def phone(pixels: Tensor, folder: Path) -> Tensor:
    """Photon and read noise, smoothed by 0.7 pixels, and a JPEG of quality 85."""
    rng = torch.Generator().manual_seed(0)
    counts = torch.poisson(100 * pixels, rng) + 3 * torch.randn(pixels.shape, generator=rng)
    smoothed = blur(gaussian_kernel(0.7), (pixels.shape[1], pixels.shape[2]))(counts[None] / 100)[0]
    save_picture(folder / "p.png", smoothed)
    Image.open(folder / "p.png").save(folder / "p.jpg", quality=85)
    return read_photo(folder / "p.jpg").pixels


def test_the_noise_of_a_phone_is_told(tmp_path: Path) -> None:
    """Its level at the second scale is several times that at the finest, and near the truth's."""
    pixels = phone(smooth(192), tmp_path)
    floors = correlated_floors(pixels)
    assert floors is not None and floors[1] > 3 * floors[0]
    for name in ("denoise", "super-resolution"):
        notes = ask(pixels, name, "estimate").notes
        assert len(notes) == 1 and "--noise correlated supposes" in notes[0]
    # deblurring by a known kernel leaves no texture, so that what is left is seen as well
    assert ask(pixels, "deblur", kernel="gaussian:2").notes
    assert not ask(pixels, "hdr").notes  # it cannot be treated there
    with pytest.raises(InvdiffError, match="takes no correlated noise"):
        ask(pixels, "hdr", "correlated")


@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("name", ["photo", "small", "ramp", "grey"])
def test_white_noise_and_clean_pictures_are_not_called_correlated(name: str, sigma: float) -> None:
    whole = read_photo(EXAMPLE).pixels
    clean = {"photo": whole, "small": whole[:, ::2, ::2], "ramp": smooth(), "grey": whole[:1]}[name]
    assert correlated_floors(noisy(clean, sigma) if sigma else rounded(clean)) is None


@pytest.mark.parametrize("width", [0.0, 0.7])
def test_the_spectrum_is_that_of_the_noise(width: float) -> None:
    """sigma(f) = sigma exp(-2 pi^2 width^2 f^2), within a third: three broad bands tell it."""
    found = noise_spectrum(smooth(160) + field(0.03, width))
    assert found.frequencies == (0.125, 0.25, 0.5) and len(found.sigmas) == 2
    for row in found.sigmas:
        for f, sigma in zip(found.frequencies, row, strict=True):
            assert sigma == pytest.approx(
                0.03 * math.exp(-2 * (math.pi * width * f) ** 2), rel=0.33
            )
    one = noise_spectrum((smooth(160) + field(0.03, width))[:1])
    assert len(one.sigmas) == 1 and one.level == pytest.approx(0.03, rel=0.33)


def read(pixels: Tensor, folder: Path, task: PhotoTask) -> Measured:
    """The problem of numbers in a file, of a prior in colours on [-1, 1]."""
    np.save(folder / "photo.npy", pixels.permute(1, 2, 0).squeeze(2).numpy())
    prior = Denoiser(lambda x, sigma: x, (3, None, None), (-1.0, 1.0))
    return task.read(folder / "photo.npy", prior)


def test_the_level_that_noise_is_whitened_to_is_seen_by_the_task(tmp_path: Path) -> None:
    """In the prior's range, and three times in variance where a grey picture is repeated."""
    pixels = smooth(160) + field(0.03, 0.7)
    deblur = task("deblur", "correlated", kernel="gaussian:1")
    for planes, factor in ((pixels, 2.0), (pixels[:1], 2 * math.sqrt(3))):
        d = read(planes, tmp_path, deblur)
        noise = d.problem.noise
        assert isinstance(noise, StationaryGaussian) and "correlated" in d.noise
        assert noise.level == pytest.approx(factor * noise_spectrum(planes).level)
    white = whiten(read(pixels, tmp_path, task("denoise", "correlated")).problem)
    residual = white.y - white.A(2 * smooth(160)[None] - 1)
    # its spectrum is even now, within the third that is known
    power = torch.fft.fft2(residual, norm="ortho").abs().square()
    parts = [float(power[..., a:b, a:b].mean().sqrt()) for a, b in ((2, 20), (20, 40), (40, 70))]
    assert max(parts) < 1.8 * min(parts)
    with pytest.raises(InvdiffError, match="too few pixels"):
        noise_spectrum(smooth(16))
