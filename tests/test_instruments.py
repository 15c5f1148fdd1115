"""Masks and kernels: one reader, which takes all that their files say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from invdiff.core import InvdiffError
from invdiff.files.kernels import centre_of_mass, centre_words, read_kernel
from invdiff.files.masks import grown, read_marked
from invdiff.operators.blur import blur
from invdiff.priors.base import Denoiser, Prior
from invdiff.tasks import Deblur, Inpainting, Kernel, Mask

SIZE = (24, 32)
DRAWN = np.zeros(SIZE, np.uint8)
DRAWN[5:10, 6:15] = 255
HOLE = DRAWN > 0
LINE = np.zeros((9, 9))
LINE[4, 2:7] = 1


def prior() -> Prior:
    """A prior that is asked for nothing but its shape and range."""
    return Denoiser(lambda x, sigma: x, (3, None, None), (-1.0, 1.0))


def mask(path: Path, image: Image.Image | np.ndarray, **options: object) -> Path:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)
    return path


def restored(path: Path, **options: object) -> np.ndarray:
    return ~read_marked(path, SIZE, **options).known[0, 0].numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["8 bits", "16 bits", "1 bit", "palette", "float", "exif"])
def test_masks_of_every_kind(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    images = {
        "8 bits": (DRAWN, {}),
        "16 bits": (DRAWN.astype(np.uint16) * 257, {}),
        "1 bit": (HOLE, {}),
        "palette": (Image.fromarray(DRAWN).convert("P"), {}),
        "float": (DRAWN.astype(np.float32), {}),
        "exif": (np.rot90(DRAWN).copy(), {"exif": exif}),
    }
    image, options = images[kind]
    path = mask(tmp_path / ("a.tif" if kind == "float" else "a.png"), image, **options)
    assert np.array_equal(restored(path), HOLE)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.csv"])
def test_masks_of_numbers(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for array in (HOLE, DRAWN, HOLE * 1.0, DRAWN * 1.0):
        if name == "a.csv":
            np.savetxt(path, array, delimiter=",")
        else:
            (np.save if name == "a.npy" else np.savez)(path, array)
        assert np.array_equal(restored(path), HOLE)
    np.savez(tmp_path / "two.npz", a=HOLE, b=HOLE)
    np.save(tmp_path / "nan.npy", np.where(HOLE, np.nan, 0))
    np.save(tmp_path / "three.npy", np.ones((*SIZE, 3)))
    for wrong, said in (("two", "holds 2 arrays"), ("nan", "NaN"), ("three", "a mask is")):
        file = next(tmp_path.glob(f"{wrong}.*"))
        with pytest.raises(InvdiffError, match=said):
            read_marked(file, SIZE)


@pytest.mark.parametrize("colour", [(255, 0, 0), (255, 255, 255), (0, 0, 0), (9, 9, 200)])
@pytest.mark.parametrize("hidden", [0, 255])
def test_a_painted_layer(tmp_path: Path, colour: tuple[int, int, int], hidden: int) -> None:
    """Paint of one colour restores where it lies, whatever the colour and what is hidden below;
    black on hidden white may be either, and is asked for."""
    layer = np.full((*SIZE, 4), hidden, np.uint8)
    layer[..., 3] = 0
    layer[HOLE] = (*colour, 255)
    path = mask(tmp_path / "a.png", layer)
    if colour == (0, 0, 0) and hidden:
        with pytest.raises(InvdiffError, match="either may be meant"):
            read_marked(path, SIZE)
    else:
        assert np.array_equal(restored(path), HOLE)


def test_a_soft_brush_restores_all_that_it_touched(tmp_path: Path) -> None:
    soft = Image.fromarray(DRAWN).filter(ImageFilter.GaussianBlur(1.2))
    touched = np.asarray(soft) > 0
    layer = np.zeros((*SIZE, 4), np.uint8)
    layer[..., :3], layer[..., 3] = (200, 30, 30), np.asarray(soft)
    np.save(tmp_path / "a.npy", np.asarray(soft) / 255)
    mask(tmp_path / "a.png", soft)
    mask(tmp_path / "b.png", layer)
    for name in ("a.png", "b.png", "a.npy"):
        found = read_marked(tmp_path / name, SIZE)
        assert np.array_equal(~found.known[0, 0].numpy(), touched), name
        assert found.soft == int((touched & (np.asarray(soft) < 255)).sum()) > 40
        assert f"{found.soft} of them for intermediate values" in found.words(0)
    assert read_marked(mask(tmp_path / "c.png", DRAWN), SIZE).soft == 0
    for given in (soft, np.asarray(soft) / 255):
        assert torch.equal(Mask.of(given).at(SIZE)[0, 0], torch.from_numpy(~touched))


def test_grow_widens_a_mask(tmp_path: Path) -> None:
    mask(tmp_path / "m.png", DRAWN)
    Image.new("RGB", SIZE[::-1], (1, 2, 3)).save(tmp_path / "a.png")
    kept, counts = Mask(str(tmp_path / "m.png")), []
    for grow, count in ((0, 5 * 9), (1, 7 * 11), (2, 9 * 13), (6, 16 * 21)):
        m = Inpainting(mask=kept, grow=grow).read(tmp_path / "a.png", prior())
        counts.append(int((m.problem.A.mask == 0).sum()))  # type: ignore[attr-defined]
        assert counts[-1] == count
        assert any(note.startswith(f"{count} of 768 pixels are restored") for note in m.notes)
    with pytest.raises(InvdiffError, match="give a smaller --grow"):
        grown(kept.at(SIZE), 40)
    with pytest.raises(InvdiffError, match="--grow"):
        Inpainting(mask=kept, grow=-1)


def test_a_mask_drawn_dark_on_white_is_asked_for(tmp_path: Path) -> None:
    path = mask(tmp_path / "m.png", 255 - DRAWN)
    Image.new("RGB", SIZE[::-1], (1, 2, 3)).save(tmp_path / "a.png")
    with pytest.raises(InvdiffError, match="give --white restore.*give --white keep"):
        Inpainting(mask=Mask(str(path))).read(tmp_path / "a.png", prior())
    for white, count in (("keep", 45), ("restore", 768 - 45)):
        m = Inpainting(mask=Mask(str(path)), white=white).read(tmp_path / "a.png", prior())  # type: ignore[arg-type]
        assert int((m.problem.A.mask == 0).sum()) == count  # type: ignore[attr-defined]


def test_kernels_of_every_kind(tmp_path: Path) -> None:
    layer = np.zeros((9, 9, 4), np.uint8)
    layer[..., 3] = LINE * 255
    exif = Image.Exif()
    exif[0x0112] = 6
    np.save(tmp_path / "a.npy", LINE)
    np.savez(tmp_path / "a.npz", LINE)
    mask(tmp_path / "a.png", (LINE * 65535).astype(np.uint16))
    mask(tmp_path / "layer.png", layer)  # black paint on a transparent layer
    mask(tmp_path / "turned.png", (np.rot90(LINE) * 255).astype(np.uint8), exif=exif)
    mask(tmp_path / "a.tif", (LINE * 40).astype(np.float32))
    for path in sorted(tmp_path.iterdir()):
        kernel = read_kernel(str(path), SIZE)
        assert torch.allclose(kernel, torch.from_numpy(LINE / 5), atol=1e-4), path.name


def test_a_kernel_drawn_dark_on_white_is_refused(tmp_path: Path) -> None:
    path = mask(tmp_path / "k.png", (255 - 255 * LINE).astype(np.uint8))
    with pytest.raises(InvdiffError, match="dark on white; invert it"):
        read_kernel(str(path), SIZE)
    box = mask(tmp_path / "box.png", np.full((3, 3), 255, np.uint8))  # no drawing: all is white
    assert torch.allclose(read_kernel(str(box), SIZE), torch.full((3, 3), 1 / 9).double())


def test_the_centre_of_a_kernel_is_told(tmp_path: Path) -> None:
    """An off-centre kernel moves what it blurs by as much as its centre of mass lies off."""
    kernel = torch.zeros(9, 9, dtype=torch.float64)
    kernel[6, 5] = 1
    assert centre_of_mass(kernel) == (2.0, 1.0)
    dot = torch.zeros(1, 1, 24, 32, dtype=torch.float64)
    dot[..., 10, 10] = 1
    at = blur(kernel, SIZE, "circular")(dot)[0, 0].flatten().argmax()
    assert (int(at) // 32, int(at) % 32) == (12, 11)
    assert "+1.0 pixels across and +2.0 down" in centre_words(kernel)
    assert centre_words(kernel).startswith("warning: ")
    assert "on its middle tap" in centre_words(torch.from_numpy(LINE))
    np.save(tmp_path / "k.npy", kernel)
    Image.new("RGB", SIZE[::-1], (1, 2, 3)).save(tmp_path / "a.png")
    task = Deblur(kernel=Kernel(str(tmp_path / "k.npy")), boundary="reflect")
    notes = task.read(tmp_path / "a.png", prior()).notes
    assert any("+1.0 pixels across and +2.0 down" in note for note in notes)
    words = Deblur(kernel=Kernel("gaussian:1"), boundary="reflect")
    assert not any("taps" in note for note in words.read(tmp_path / "a.png", prior()).notes)
