"""enlarge-jpeg: its operator, the errors that it supposes, and that it beats ignoring the JPEG."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.pictures import read_photo, save_picture
from invdiff.operators.downsample import Bicubic
from invdiff.operators.jpeg import JPEG
from invdiff.operators.jpeg_cells import planes
from invdiff.priors.load import load_prior
from invdiff.problem.metrics import psnr
from invdiff.sampling.pose import pose
from invdiff.sampling.run import estimate
from invdiff.tasks import EnlargeJPEG, NoiseLevel, SuperResolution
from invdiff.tasks.auto import estimator
from invdiff.tasks.enlarge_jpeg import MakeSmallJPEG, SmallCoefficients, rounded_away
from invdiff.testing import check_operator, check_task

PHOTO = Path(__file__).parents[2] / "examples" / "alpacas-small.png"


def made(folder: Path, size: int, quality: int, subsampling: str = "4:2:0") -> tuple[Path, Tensor]:
    """A small JPEG of the photograph, and the truth (3, size, size) on [-1, 1]."""
    pixels = read_photo(PHOTO).pixels[:, 16 : 16 + size, 16 : 16 + size]
    save_picture(folder / "clean.png", pixels)
    how = MakeSmallJPEG(scale=2, quality=quality, subsampling=subsampling)  # type: ignore[arg-type]
    measurement = how.make(folder / "clean.png", folder, 0)
    measurement.write(folder)
    return folder / measurement.measurement, 2 * read_photo(folder / "truth.png").pixels - 1


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("size", [(32, 32), (36, 28)])
def test_the_operator_keeps_its_contract(size, subsampling):
    check_operator(SmallCoefficients(2, size, 3, JPEG(40, subsampling)), (3, *size))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_stored_coefficients_lie_in_their_cells_of_the_truth(tmp_path, subsampling):
    """y is A(truth) within half a step, and colours that were interpolated within a whole one."""
    file, truth = made(tmp_path, 64, 50, subsampling)
    task = EnlargeJPEG(scale=2)
    problem = task.read(file, load_prior("photo")).problem
    r = (problem.y - problem.A(truth[None]))[0]
    small = Bicubic(2, (64, 64))(truth[None])
    known = planes(JPEG.from_file(file), small)
    ends = torch.split(r, [p.index.numel() for p in known])
    for k, (part, plane) in enumerate(zip(ends, known, strict=True)):
        off = 127.5 * part.reshape(plane.index.shape) / plane.steps
        # rounding of the picture to 8 bits moves a coefficient by 8 / 2 grey levels at most
        slack = 4.0 / float(plane.steps.min())
        assert float(off.abs().max()) < (0.5 if k == 0 or subsampling == "4:4:4" else 1.0) + slack


def test_errors_at_zero_are_those_of_a_known_law():
    """Blocks of two scales, of Laplace: the mean square of what was rounded away, by block."""
    draw = torch.Generator().manual_seed(0)
    steps = torch.full((8, 8), 16.0, dtype=torch.float64)
    k = torch.arange(8, dtype=torch.float64)
    f = torch.hypot(k[:, None], k[None, :]).clamp_min(0.5)
    c = torch.where(torch.arange(4000) < 2000, 4.0, 60.0).double()[:, None, None]
    u = torch.rand(4000, 8, 8, generator=draw, dtype=torch.float64) - 0.5
    x = -(c / f) * u.sign() * torch.log1p(-2 * u.abs())
    index = (x / steps).round()
    found = rounded_away(index, steps)
    for part in (slice(0, 2000), slice(2000, 4000)):
        zero, want = index[part] == 0, x[part].square()
        true = (want * zero).sum(0) / zero.sum(0).clamp_min(1)
        told = (found[part] * zero).sum(0) / zero.sum(0).clamp_min(1)
        enough = (zero.sum(0) > 200) & (k[:, None] + k[None, :] > 0)
        ratio = (told / true.clamp_min(1e-2))[enough]
        assert 0.8 < float(ratio.median()) < 1.25
    assert float(found[:2000].mean()) < 0.5 * float(found[2000:].mean())  # not one law for all


def test_its_estimate_beats_what_takes_the_file_for_clean(tmp_path):
    file, truth = made(tmp_path, 64, 30)
    prior = load_prior("photo")

    def of(task):
        problem = task.read(file, prior).problem
        solver = estimator(task, pose(problem, prior).problem)
        return estimate(problem, prior, solver[0]).estimate

    ours, ignoring = (
        of(EnlargeJPEG(scale=2)),
        of(SuperResolution(scale=2, noise=NoiseLevel("0.0011"))),
    )
    with Image.open(file) as image:
        save_picture(tmp_path / "bicubic.png", _pixels(image.resize((64, 64), Image.BICUBIC)))
    bicubic = 2 * read_photo(tmp_path / "bicubic.png").pixels[None] - 1
    better = psnr(ours, truth[None], (-1.0, 1.0))
    assert float(better) > float(psnr(ignoring, truth[None], (-1.0, 1.0)))
    assert float(better) > float(psnr(bicubic, truth[None], (-1.0, 1.0)))


def _pixels(image: Image.Image) -> Tensor:
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return data.reshape(image.height, image.width, 3).permute(2, 0, 1).float() / 255


def test_it_is_a_task_as_others(tmp_path):
    file, _ = made(tmp_path, 64, 60)
    check_task(EnlargeJPEG(scale=3), file)
    with pytest.raises(InvdiffError, match="is not a JPEG file"):
        EnlargeJPEG(scale=2).read(PHOTO, load_prior("photo"))


def test_a_grey_file_stays_grey(tmp_path):
    with Image.open(PHOTO) as image:
        image.convert("L").crop((0, 0, 32, 32)).save(tmp_path / "g.jpg", quality=60)
    measured = EnlargeJPEG(scale=2).read(tmp_path / "g.jpg", load_prior("photo"))
    assert measured.problem.x_shape == (3, 64, 64)
    view = measured.view
    assert view.values(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)
    assert view.measurement(measured.problem)[0][1].shape == (1, 32, 32)
