"""The photo prior: its network's algebra, any size, tiles, files, and the weights that are shipped.

Networks are tiny and every parameter is random: many layers start at zero, and what they do could
not be seen. Their outputs are of order 1, and float32 sums of a few hundred terms, in another
order, differ by about 1e-6: hence CLOSE.
"""

import json
import math
import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import invdiff.priors
from invdiff.core import InvdiffError, Level
from invdiff.priors.load import load_prior
from invdiff.priors.photo import PhotoPrior, _spans, load_embedded, load_weights, save_weights
from invdiff.priors.photo_net import PhotoNet, PhotoNetConfig
from invdiff.priors.precond import NetworkPrior, predicts_edm

TINY = PhotoNetConfig(widths=(8, 12, 16), blocks=(1, 1, 1), up_blocks=(1, 1), embedding=16)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
SIGMAS = (0.01, 0.5, 3.0, 100.0)


def network(seed: int = 0, config: PhotoNetConfig = TINY) -> PhotoNet:
    """A network whose every parameter is random, of a size that keeps activations near 1."""
    net = PhotoNet(config)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            fan_in = p[0].numel() if p.dim() > 1 else 4
            p.copy_(torch.randn(p.shape, generator=g) / math.sqrt(fan_in))
    return net


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inner(x: torch.Tensor, margin: int) -> torch.Tensor:
    """Without `margin` pixels on each side."""
    return x[..., margin:-margin, margin:-margin]


# The network


def test_a_shared_noise_level_is_folded_into_the_weights_and_changes_nothing() -> None:
    net, x, c = network(), images(3, 3, 16, 24), torch.tensor([-0.4])
    shared, each = net(x, c), net(x, c.expand(3))
    torch.testing.assert_close(shared, each, **CLOSE)
    assert (net(x, c + 0.5) - shared).abs().max() > 0.1, "the noise level must matter here"


def test_every_sample_has_its_own_noise_level() -> None:
    net, x, c = network(), images(3, 3, 16, 24), torch.tensor([-1.0, 0.1, 1.2])
    alone = [net(x[i : i + 1], c[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(net(x, c), torch.cat(alone), **CLOSE)


def test_gradients_do_not_change_the_result() -> None:
    """Activations are overwritten in place where no gradient is wanted."""
    net, x, c = network(), images(1, 3, 16, 16), torch.tensor([0.3])
    with torch.no_grad():
        without = net(x, c)
    assert torch.equal(without, net(x, c))


def test_reach_is_a_bound_and_within_one_stride_of_the_truth() -> None:
    """Measured by gradients; pixels at every offset to the grid of the coarsest level."""
    net = network().double()
    n, farthest = 3 * net.reach, 0
    x = images(1, 3, n, 8).double().requires_grad_()
    out = net(x, torch.zeros(1, dtype=torch.float64))
    for i in range(n // 2, n // 2 + net.stride):
        gradient = torch.autograd.grad(out[0, :, i].sum(), x, retain_graph=True)[0]
        rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
        farthest = max(farthest, i - int(rows[0]), int(rows[-1]) - i)
    assert net.reach - net.stride < farthest <= net.reach


# The preconditioning


@pytest.mark.parametrize("sigma", SIGMAS)
def test_denoise_is_the_edm_row(sigma: float) -> None:
    """By hand after Karras et al. 2022, table 1; and by the table of parametrisations."""
    d = 0.7
    net = network(config=replace(TINY, sigma_data=d))
    x = math.hypot(1, sigma) * images(2, 3, 16, 24)
    found = PhotoPrior(net).denoise(x, sigma)
    total = sigma**2 + d**2
    out = net(x / total**0.5, torch.full((2,), math.log(sigma) / 4))
    by_hand = d**2 / total * x + sigma * d / total**0.5 * out
    torch.testing.assert_close(found, by_hand, **CLOSE)
    torch.testing.assert_close(found, NetworkPrior(net, predicts_edm(d)).denoise(x, sigma), **CLOSE)


def test_no_noise_returns_the_image() -> None:
    prior, x = PhotoPrior(network()), images(1, 3, 9, 11)
    assert torch.equal(prior.denoise(x, 0.0), x)
    torch.testing.assert_close(prior.x0(0.8 * x, Level(0.8, 0.0)), x)


@pytest.mark.parametrize("sigma", [1e-6, 1e-4, 1e3, 1e6])
def test_beyond_the_trained_noise_levels_the_network_sees_the_nearest(sigma: float) -> None:
    """The coefficients stay those of sigma, so that D -> x below and D -> d F above."""
    net, d = network(), TINY.sigma_data
    prior, z = PhotoPrior(net), images(1, 3, 16, 16)
    x = math.hypot(1, sigma) * z
    nearest = min(max(sigma, prior.sigma_min), prior.sigma_max)
    out = net(x / math.hypot(sigma, d), torch.tensor([math.log(nearest) / 4]))
    found = prior.denoise(x, sigma)
    if sigma < 1:  # |D - x| = |(c_skip - 1) x + c_out F| <= (sigma / d)^2 |x| + sigma |F|
        bound = (sigma / d) ** 2 * x.abs().max() + sigma * out.abs().max()
        assert (found - x).abs().max() <= bound + 1e-6
    else:  # |D - d F| = |c_skip x + (c_out - d) F| <= (d / sigma)^2 (|x| + d |F|)
        bound = (d / sigma) ** 2 * (x.abs().max() + d * out.abs().max())
        assert (found - d * out).abs().max() <= bound + 1e-5


# Any size


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (7, 16), (17, 23), (1, 40), (9, 4)])
def test_any_size(size: tuple[int, int]) -> None:
    prior, x = PhotoPrior(network()), images(2, 3, *size)
    found = prior.denoise(x, 0.5)
    assert found.shape == x.shape and bool(found.isfinite().all())
    alone = [prior.denoise(row[None], 0.5) for row in x]
    torch.testing.assert_close(found, torch.cat(alone), **CLOSE)
    x0, pull = prior.x0_vjp(x, Level(0.8, 0.4))
    assert pull(x0).shape == x.shape


@pytest.mark.parametrize(
    ("size", "mode"), [((17, 23), "reflect"), ((5, 16), "reflect"), ((3, 5), "edge")]
)
def test_sizes_are_filled_up_at_the_bottom_and_the_right(size: tuple[int, int], mode: str) -> None:
    """By reflection, or by repetition where the image is too short to be reflected."""
    prior, x = PhotoPrior(network()), images(1, 3, *size)
    bottom, right = -size[0] % 8, -size[1] % 8
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, bottom), (0, right)), mode=mode)
    whole = prior.denoise(torch.from_numpy(padded), 0.5)
    expected = whole[..., : size[0], : size[1]]
    torch.testing.assert_close(prior.denoise(x, 0.5), expected, **CLOSE)


def test_what_lies_beyond_the_reach_does_not_matter() -> None:
    prior = PhotoPrior(network())
    reach, scene = prior.net.reach, images(1, 3, 168, 176)
    h, w = 2 * reach + 19, 2 * reach + 13
    part = scene[..., 16 : 16 + h, 24 : 24 + w]
    alone, within = prior.denoise(part, 0.5), prior.denoise(scene, 0.5)
    within = within[..., 16 : 16 + h, 24 : 24 + w]
    torch.testing.assert_close(inner(alone, reach), inner(within, reach), **CLOSE)
    assert (alone - within).abs().max() > 0.01, "near the border it does"


@pytest.mark.parametrize("channels", [1, 4])
def test_channels(channels: int) -> None:
    prior = PhotoPrior(network(config=replace(TINY, channels=channels)))
    assert prior.shape == (channels, None, None)
    x = images(1, channels, 10, 10)
    assert prior.denoise(x, 0.5).shape == x.shape


def test_float64_goes_in_and_comes_out() -> None:
    prior, x = PhotoPrior(network()), images(1, 3, 12, 12)
    found = prior.denoise(x.double(), 0.5)
    assert found.dtype == torch.float64
    assert torch.equal(found, prior.denoise(x, 0.5).double())
    x0, pull = prior.x0_vjp(x.double(), Level(1.0, 0.5))
    assert x0.dtype == pull(x0).dtype == torch.float64


# Tiles


@pytest.fixture(scope="module")
def tiled() -> tuple[PhotoPrior, PhotoPrior, torch.Tensor]:
    """A prior in one piece, the same in tiles that overlap by its reach, and an image."""
    net = network()
    return PhotoPrior(net), PhotoPrior(net, 64, net.reach), images(2, 3, 117, 150)


def test_tiles_with_the_reach_as_overlap_are_exact(
    tiled: tuple[PhotoPrior, PhotoPrior, torch.Tensor],
) -> None:
    whole, tiles, x = tiled
    torch.testing.assert_close(tiles.denoise(x, 0.5), whole.denoise(x, 0.5), **CLOSE)
    apart = PhotoPrior(whole.net, 64, 0).denoise(x, 0.5)
    assert (apart - whole.denoise(x, 0.5)).abs().max() > 0.01, "without an overlap they are not"


def test_gradients_through_tiles_are_exact(
    tiled: tuple[PhotoPrior, PhotoPrior, torch.Tensor],
) -> None:
    whole, tiles, x = tiled
    level, v = Level(0.9, 0.45), images(*x.shape, seed=1)
    (x0, pull), (expected, expected_pull) = tiles.x0_vjp(x, level), whole.x0_vjp(x, level)
    torch.testing.assert_close(x0, expected, **CLOSE)
    first = pull(v)
    torch.testing.assert_close(first, expected_pull(v), **CLOSE)
    assert torch.equal(pull(v), first), "pull can be called again"


@pytest.mark.parametrize("tile", [8, 16, 64])
def test_spans_cover_the_side(tile: int) -> None:
    """Without gaps, none of them empty or longer than the tile, cut at multiples of the stride."""
    for n in range(1, 300):
        spans = _spans(n, tile, 8)
        assert [a for a, _ in spans] == [0, *(b for _, b in spans[:-1])] and spans[-1][1] == n
        assert all(0 < b - a <= tile and a % 8 == 0 for a, b in spans)
        assert len(spans) == math.ceil(n / tile)


@pytest.mark.parametrize(("tile", "overlap"), [(100, 64), (64, 60), (0, 64), (64, -8)])
def test_tiles_that_do_not_fit_are_refused(tile: int, overlap: int) -> None:
    with pytest.raises(InvdiffError, match=rf"Tiles of {tile} .* multiples of 8\.$"):
        PhotoPrior(network(), tile, overlap)


# Files


def test_weights_survive_a_file(tmp_path: Path) -> None:
    """Parameters are rounded to float16, once; the constants of the noise code are not."""
    net, path = network(), tmp_path / "some.safetensors"
    save_weights(net, path, {"recipe": {"name": "tiny"}})
    prior = load_weights(path)
    assert prior.name == "tiny" and prior.net.config == TINY
    for key, value in net.named_parameters():
        assert torch.equal(prior.net.get_parameter(key), value.half().float()), key
    for key, value in net.named_buffers():
        assert torch.equal(prior.net.get_buffer(key), value), key
    assert not any(p.requires_grad for p in prior.net.parameters())
    again = tmp_path / "again.safetensors"
    save_weights(prior.net, again, {})
    second = load_weights(again)
    assert second.name == "again"
    x = images(1, 3, 16, 16)
    assert torch.equal(second.denoise(x, 0.5), prior.denoise(x, 0.5))


def test_the_file_is_readable_by_all_and_written_in_one_move(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        save_weights(network(), tmp_path / "some.safetensors", {})
    finally:
        os.umask(before)
    assert [p.name for p in tmp_path.iterdir()] == ["some.safetensors"]
    assert stat.S_IMODE((tmp_path / "some.safetensors").stat().st_mode) == 0o644


def test_fingerprint_tells_weights_apart(tmp_path: Path) -> None:
    """Those of the file, whatever else the file tells, and the configuration, too."""
    nets = [network(0), network(0), network(1), network(0, replace(TINY, sigma_data=0.4))]
    found = []
    for i, net in enumerate(nets):
        save_weights(net, tmp_path / f"{i}", {"hours": i})
        found.append(load_weights(tmp_path / f"{i}").fingerprint)
    assert found[0] == found[1] and len(set(found)) == 3
    assert all(len(f) == 16 and int(f, 16) >= 0 for f in found)
    rounded = load_weights(tmp_path / "0")
    assert PhotoPrior(rounded.net).fingerprint == found[0]
    assert rounded.to("cpu").fingerprint == found[0] != PhotoPrior(network(0)).fingerprint


def broken(kind: str, folder: Path) -> Path:
    """The path of a file that holds no prior."""
    path = folder / "weights.safetensors"
    save_weights(network(), path, {})
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}
    if kind == "missing":
        path.unlink()
    elif kind == "a folder":
        return folder
    elif kind == "text":
        path.write_text("no weights")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "no metadata":
        save_file(tensors, path)
    elif kind == "another configuration":
        config = {**json.loads(metadata["config"]), "heads": 4}
        save_file(tensors, path, metadata={**metadata, "config": json.dumps(config)})
    elif kind == "a missing tensor":
        del tensors["head.weight"]
        save_file(tensors, path, metadata=metadata)
    elif kind == "another width":
        tensors["head.weight"] = torch.zeros(4, 12, 3, 3)
        save_file(tensors, path, metadata=metadata)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "a folder",
        "text",
        "empty",
        "truncated",
        "no metadata",
        "another configuration",
        "a missing tensor",
        "another width",
    ],
)
def test_a_file_that_is_no_prior_is_one_sentence(kind: str, tmp_path: Path) -> None:
    path = broken(kind, tmp_path)
    with pytest.raises(InvdiffError) as caught:
        load_weights(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text and text.endswith(".")


def test_psnr_by_sigma() -> None:
    """A denoiser that does nothing has the noise's PSNR, up to the noise's own spread.

    Of n squared normals the mean has a standard deviation of sqrt(2 / n): 4 of them, in dB.
    """

    class Idle(PhotoPrior):
        def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
            return x

    shown = images(2, 3, 32, 32).tanh()
    found = Idle(network()).psnr_by_sigma(shown, (0.05, 0.5))
    spread = 4 * 10 / math.log(10) * math.sqrt(2 / (3 * 32 * 32))
    for key, sigma in (("0.05", 0.05), ("0.5", 0.5)):
        assert abs(found[key] - 20 * math.log10(2 / sigma)) < spread
    prior = PhotoPrior(network())
    assert prior.psnr_by_sigma(shown, (0.5,)) == prior.psnr_by_sigma(shown, (0.5,))


# The weights that are shipped

WEIGHTS = Path(invdiff.priors.__file__).parent / "weights" / "photo.safetensors"
DATA = sorted((Path(__file__).parents[2] / "benchmarks" / "data").glob("*.webp"))
shipped = pytest.mark.skipif(not WEIGHTS.exists(), reason=f"there is no {WEIGHTS.name} yet")


def crop(path: Path, side: int) -> torch.Tensor:
    """Centre crop (1, 3, side, side) of an image file, on [-1, 1]."""
    pixels = np.array(Image.open(path).convert("RGB"))
    top, left = ((s - side) // 2 for s in pixels.shape[:2])
    pixels = pixels[top : top + side, left : left + side]
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


def noisy(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return x + sigma * images(*x.shape, seed=7)


def psnr(x: torch.Tensor, truth: torch.Tensor) -> float:
    return float(-10 * torch.log10((x - truth).square().mean() / 4))


def blurred(x: torch.Tensor, width: float) -> torch.Tensor:
    """Gaussian blur of standard deviation `width` pixels, reflected at the borders."""
    reach = math.ceil(4 * width)
    taps = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * width**2))
    taps = (taps / taps.sum()).expand(3, 1, 1, -1)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="reflect"), taps, groups=3)
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="reflect"), taps.mT, groups=3)


@pytest.fixture(scope="module")
def photo() -> PhotoPrior:
    return load_embedded("photo")


@shipped
def test_shipped_weights_load(photo: PhotoPrior) -> None:
    assert WEIGHTS.stat().st_size < 20e6
    assert photo.name == "photo" and photo.shape == (3, None, None)
    assert load_weights(WEIGHTS).fingerprint == photo.fingerprint != ""
    assert load_prior("photo").fingerprint == photo.fingerprint


@shipped
@pytest.mark.parametrize("sigma", [0.1, 0.5])
@pytest.mark.parametrize("path", DATA[::4], ids=lambda p: p.stem)
def test_shipped_weights_beat_the_best_blur(photo: PhotoPrior, path: Path, sigma: float) -> None:
    """A photograph's own best Gaussian blur, found by comparing with the truth, is the floor.

    That blur is the best that one can do with smoothness alone; width 0, the noisy image itself,
    is among the widths. Who has learnt what edges look like beats it on every photograph.
    """
    truth = crop(path, 128)
    y = noisy(truth, sigma)
    blurs = [psnr(y, truth), *(psnr(blurred(y, 0.3 * 1.2**k), truth) for k in range(18))]
    best = max(range(len(blurs)), key=blurs.__getitem__)
    assert 0 < best < len(blurs) - 1, "the best width must lie inside the range"
    assert psnr(photo.denoise(y, sigma), truth) > blurs[best]


@shipped
@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_shipped_weights_are_as_good_as_their_card_says(photo: PhotoPrior, sigma: float) -> None:
    """The card's mean is over 12 other crops, so the means differ by chance.

    With s the standard deviation from photograph to photograph, the difference of two means of 12
    has s sqrt(2 / 12); Student's t with 11 degrees of freedom is below -4.02 once in 1000 times.
    """
    with safe_open(WEIGHTS, framework="pt") as file:
        card = json.loads(file.metadata()["facts"])["psnr"]
    truths = torch.cat([crop(path, 96) for path in DATA])
    found = photo.denoise(noisy(truths, sigma), sigma)
    each = np.array([psnr(a, b) for a, b in zip(found, truths, strict=True)])
    assert each.mean() > card[f"{sigma:g}"] - 4.02 * each.std(ddof=1) * math.sqrt(2 / len(each))
