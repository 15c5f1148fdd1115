"""The priors that come with invdiff: each loads, has its card, keeps to its shape, and denoises."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from test_photo import TINY, images, network
from torch import Tensor

import invdiff.priors
from invdiff.core import InvdiffError, Level
from invdiff.noise import GaussianNoise
from invdiff.operators import Identity
from invdiff.priors.load import BUILT_IN, load_prior
from invdiff.priors.photo import PhotoPrior, load_weights, save_weights
from invdiff.priors.photo_net import coordinates
from invdiff.priors.units import HU_WINDOW, hu_to_x, x_to_hu
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError, check
from invdiff.solvers.unconditional import Unconditional
from invdiff.train.become import moving_clips, random_phase
from invdiff.train.recipes import RECIPES

WEIGHTS = Path(invdiff.priors.__file__).parent / "weights"
MEGABYTES = {
    "photo": 20, "brain": 8, "brain-magnitude": 7, "ct": 4, "faces64": 20, "fashion28": 2,
    "moving-fashion": 10, "multiscale": 6,
}  # fmt: skip
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
every_prior = pytest.mark.parametrize("name", BUILT_IN)


def loaded(name: str) -> PhotoPrior:
    """The prior called name, typed as what it is."""
    prior = load_prior(name)
    assert isinstance(prior, PhotoPrior)
    return prior


def size_of(prior: PhotoPrior, free: int = 32) -> tuple[int, ...]:
    """A shape that prior takes."""
    assert prior.shape is not None
    return tuple(n or free for n in prior.shape)


# Any embedded prior


@every_prior
def test_it_is_what_its_file_and_its_recipe_say(name: str) -> None:
    prior, path = loaded(name), WEIGHTS / f"{name}.safetensors"
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
    assert path.stat().st_size <= MEGABYTES[name] * 1e6
    assert prior.name == facts["recipe"]["name"] == name
    assert prior.net.config == RECIPES[name].net
    assert prior.shape == (RECIPES[name].shape or (prior.net.config.channels, None, None))
    assert prior.value_range == (-1.0, 1.0)
    assert load_prior(name).fingerprint == prior.fingerprint


@pytest.mark.parametrize(
    "processor", [{"ATEN_CPU_CAPABILITY": "default"}, {"MKL_CBWR": "COMPATIBLE"}, {}]
)
def test_fingerprints_are_the_same_on_another_processor(processor: dict[str, str]) -> None:
    """The last bits of torch.exp and torch.linspace are not: a spectrum was refused for them."""
    code = f"import invdiff; print(*[invdiff.load_prior(n).fingerprint for n in {list(RECIPES)}])"
    told = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | processor, capture_output=True, text=True
    )
    assert told.stdout.split() == [loaded(name).fingerprint for name in RECIPES], told.stderr


@every_prior
def test_it_has_its_card(name: str) -> None:
    """The card names the prior and tells the figures and the licences that are in the file."""
    card = (WEIGHTS / f"{name}.md").read_text()
    with safe_open(WEIGHTS / f"{name}.safetensors", framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
    assert card.startswith(f"# Prior `{name}`\n")
    assert f"{facts['training_images']} training images" in card
    for psnr in facts["psnr"].values():
        assert f"{psnr:.2f}" in card
    assert facts["recipe"]["attribution"].split(". ")[0] in card


@every_prior
def test_gradients_pass(name: str) -> None:
    """With d the derivative along v, <pull(d), v> is <d, d>; d by a central difference.

    Relative errors: of the difference about (h / sigma)^2 = 1e-3, and of round-off in float32,
    1e-6 / h, averaged over all pixels. Another direction must not fit.
    """
    prior, h, sigma = loaded(name), 0.02, 0.7
    x, v, other = (images(1, *size_of(prior, 16), seed=k) for k in range(3))
    x0, pull = prior.x0_vjp(x, Level(1.0, sigma))
    assert x0.shape == x.shape
    with torch.no_grad():
        ahead, behind = (prior.denoise(x + s * h * v, sigma) for s in (1, -1))
    d = (ahead - behind) / (2 * h)
    found, square = pull(d), float(d.square().sum())
    assert float((found * v).sum()) == pytest.approx(square, rel=1e-3)
    assert float((found * other).sum()) != pytest.approx(square, rel=0.1)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("brain", (1, 128, 128), "2 x any x any .channels x height x width., but .* 1 x 128 x 128"),
        ("ct", (3, 64, 64), "1 x any x any"),
        ("fashion28", (1, 32, 32), "1 x 28 x 28"),
        ("moving-fashion", (1, 6, 32, 32), "1 x 8 x 32 x 32 .channels x frames x height x width."),
        ("moving-fashion", (8, 32, 32), "1 x 8 x 32 x 32"),
        ("multiscale", (1, 64, 64), "3 x any x any"),
    ],
)
def test_other_shapes_are_refused(name: str, shape: tuple[int, ...], words: str) -> None:
    """In one sentence, before anything is computed; the right shape is accepted."""
    prior = loaded(name)

    def problem(of: tuple[int, ...]) -> Problem:
        return Problem(torch.zeros(1, *of), Identity(), GaussianNoise(0.1), of)

    with pytest.raises(IncompatibleError, match=f"The prior {name} makes .*{words}") as caught:
        check(Unconditional(), problem(shape), prior)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    check(Unconditional(), problem(size_of(prior)), prior)


# What each has learnt: images that are like those of its set, made by hand


def shirt() -> Tensor:
    """A grey shirt, (1, 1, 28, 28): a body, two sleeves, a neck."""
    x = torch.full((1, 1, 28, 28), -1.0)
    x[..., 4:25, 9:19] = 0.3
    x[..., 4:14, 4:9] = x[..., 4:14, 19:24] = 0.2
    x[..., 4:6, 12:16] = -1
    return x


def ellipse(side: int, height: float, width: float) -> Tensor:
    """Which pixels (side, side) are in an ellipse of these half-axes, in shares of the side."""
    at = (torch.arange(side) + 0.5) / side - 0.5
    return (at[:, None] / height) ** 2 + (at[None] / width) ** 2 < 1


def head(side: int = 128) -> Tensor:
    """A complex head, (1, 2, side, side): scalp, skull, brain and ventricles, with a phase."""
    m = torch.zeros(side, side)
    for height, width, value in ((0.45, 0.36, 0.6), (0.42, 0.33, 0.08), (0.39, 0.3, 0.35)):
        m[ellipse(side, height, width)] = value
    m[ellipse(side, 0.12, 0.06)] = 0.1
    return random_phase(2 * m[None, None] - 1, torch.Generator().manual_seed(0))


def chest(side: int = 128) -> Tensor:
    """A chest in Hounsfield units as x, (1, 1, side, side): air, soft tissue, lungs, spine."""
    hu = torch.full((side, side), -1000.0)
    hu[ellipse(side, 0.3, 0.42)] = 40.0
    for shift in (-0.18, 0.18):
        hu[ellipse(side, 0.2, 0.13).roll(round(shift * side), 1)] = -850.0
    hu[ellipse(side, 0.05, 0.05).roll(round(0.2 * side), 0)] = 400.0
    return hu_to_x(hu)[None, None]


def portrait(side: int) -> Tensor:
    """A face before a wall, (1, 3, side, side): head, hair, shoulders."""
    x = torch.full((3, 64, 64), 0.2)
    colours = {(0.2, 0.5): ((-0.7, -0.7, -0.5), 28), (0.34, 0.24): ((-0.6, -0.7, -0.8), -4)}
    for (height, width), (colour, down) in colours.items():
        x[:, ellipse(64, height, width).roll(down, 0)] = torch.tensor(colour)[:, None]
    x[:, ellipse(64, 0.28, 0.19)] = torch.tensor([0.6, 0.3, 0.1])[:, None]
    return torch.nn.functional.avg_pool2d(x[None], 64 // side)


def clip() -> Tensor:
    """One or two shirts that move, (1, 1, 8, 32, 32)."""
    items = torch.cat([shirt(), shirt()])
    return moving_clips(items, torch.Generator().manual_seed(1))[:, None]


SCENES = {
    "photo": lambda: portrait(64),
    "brain": head,
    "brain-magnitude": lambda: 2 * head().square().sum(1, keepdim=True).sqrt() - 1,
    "ct": chest,
    "fashion28": shirt,
    "moving-fashion": clip,
    "faces64": lambda: portrait(64),
    "multiscale": lambda: portrait(64),
}


@every_prior
@pytest.mark.parametrize("sigma", [0.1, 0.3, 1.0])
def test_it_removes_most_of_the_noise(name: str, sigma: float) -> None:
    """At most a quarter of the noise's power is left; doing nothing leaves all of it, sigma^2."""
    truth = SCENES[name]()
    found = loaded(name).denoise(truth + sigma * images(*truth.shape, seed=5), sigma)
    assert float((found - truth).square().mean()) < sigma**2 / 4


def test_multiscale_knows_every_scale() -> None:
    """The same portrait at 64, 32 and 16 pixels."""
    prior = loaded("multiscale")
    for side in (64, 32, 16):
        truth = portrait(side)
        found = prior.denoise(truth + 0.3 * images(*truth.shape, seed=5), 0.3)
        assert float((found - truth).square().mean()) < 0.3**2 / 4, side


# Coordinates


def test_a_place_has_the_same_coordinates_at_every_scale() -> None:
    """A coarse pixel's centre is the mean of the fine ones' within it, and so are its angles."""
    fine, coarse = (
        torch.atan2(c[:, 1::2], c[:, ::2]) for c in (coordinates(24, 40), coordinates(6, 10))
    )
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(fine, 4), coarse, **CLOSE)
    rows = math.pi * (torch.arange(6) + 0.5) / 6
    torch.testing.assert_close(coarse[0, 0, :, 3], rows, **CLOSE)
    assert coordinates(6, 10).shape == (1, 4, 6, 10)
    assert not torch.allclose(coarse[0, 0], coarse[0, 1]), "rows and columns differ"


def test_a_located_network_sees_places_and_others_do_not() -> None:
    """A periodic image, far from its borders, is answered periodically only without places."""
    x = images(1, 3, 8, 8).tile(1, 1, 18, 18)
    for located in (False, True):
        net = network(config=replace(TINY, located=located))
        found = PhotoPrior(net).denoise(x, 0.5)[..., 64:80, 64:80]
        same = torch.allclose(found[..., :8, :8], found[..., 8:, 8:], **CLOSE)
        assert same != located


def test_tiles_know_their_place() -> None:
    net = network(config=replace(TINY, located=True))
    x = images(1, 3, 117, 150)
    whole, tiles = PhotoPrior(net), PhotoPrior(net, 64, net.reach)
    torch.testing.assert_close(tiles.denoise(x, 0.5), whole.denoise(x, 0.5), **CLOSE)


def test_the_flag_is_kept_in_the_file_and_in_the_hash(tmp_path: Path) -> None:
    save_weights(network(config=replace(TINY, located=True)), tmp_path / "a.safetensors", {})
    prior = load_weights(tmp_path / "a.safetensors")
    assert prior.net.config.located and prior.denoise(images(1, 3, 9, 7), 0.5).shape[-1] == 7
    assert "located" not in TINY.as_dict(), "the hash of older weights stays what it was"


# Clips


def test_frames_are_channels_of_the_network() -> None:
    net = network(config=replace(TINY, channels=8))
    prior = PhotoPrior(net, shape=(1, 8, None, None))
    x = images(2, 1, 8, 16, 24)
    found = prior.denoise(x, 0.5)
    assert found.shape == x.shape
    assert torch.equal(found[:, 0], PhotoPrior(net).denoise(x[:, 0], 0.5))
    pairs = images(2, 2, 4, 16, 24)
    assert torch.equal(prior.denoise(pairs, 0.5).flatten(1, 2),
                       PhotoPrior(net).denoise(pairs.flatten(1, 2), 0.5))  # fmt: skip


# Units


def test_hounsfield_units_and_back() -> None:
    """Ends of the window, water, and beyond it: linear, and inverse to each other."""
    hu = torch.tensor([HU_WINDOW[0], 0.0, HU_WINDOW[1], 3000.0], dtype=torch.float64)
    x = hu_to_x(hu)
    assert x[[0, 2]].tolist() == [-1.0, 1.0] and float(x[3]) > 1
    assert float(x[1]) == pytest.approx(2 * 1024 / 2524 - 1, abs=1e-12)
    torch.testing.assert_close(x_to_hu(x), hu)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvdiffError, match="fashion28"):
        load_prior("fashion82")
