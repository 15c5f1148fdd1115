"""Networks of a user's own files that compare images as people do: LPIPS, and features for FID.

No weights come with invdiff, and none are downloaded. The files are TorchScript: they hold the
network with its weights, and need no other package. Those that are meant are `vgg16.pt` and
`inception-2015-12-05.pt` of the metrics of NVlabs/stylegan2-ada-pytorch, under NVIDIA's licence.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invdiff.core import InvdiffError, undisturbed

LPIPS: dict[str, Any] = {"resize_images": False, "return_lpips": True}
"""How `vgg16.pt` is called (metrics/perceptual_path_length.py and projector.py of
NVlabs/stylegan2-ada-pytorch): images on [0, 255] to features, whose squared distance is LPIPS."""
FID: dict[str, Any] = {"return_features": True}
"""How `inception-2015-12-05.pt` is called (metrics/frechet_inception_distance.py of
NVlabs/stylegan2-ada-pytorch): images of 8 bits, which it resizes, to 2048 features."""
FILES = {"lpips": ("vgg16.pt", LPIPS), "fid": ("inception-2015-12-05.pt", FID)}
"""Option to the file that is meant, and how it is called."""


@dataclass(frozen=True)
class Network:
    """A TorchScript network, images to features. how: its keywords. fingerprint: of its file.

    bits: whether it takes images of 8 bits, else numbers that are not rounded.
    """

    module: Any = field(repr=False)
    how: dict[str, Any]
    fingerprint: str
    bits: bool

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B, F), float32, of images (B, C, H, W) on [-1, 1]; one channel is grey."""
        x = (images.expand(-1, 3, -1, -1) + 1) * (255 / 2)
        with undisturbed(images.device):
            found: Tensor = self.module(
                x.round().clamp(0, 255).to(torch.uint8) if self.bits else x, **self.how
            )
        return found.float()


def load(option: str, path: Path, side: int) -> Network:
    """The network of a file, for images of side x side pixels. option: lpips or fid.

    Raises InvdiffError for a file that is missing, no TorchScript, or called in another way.
    """
    meant, how = FILES[option]
    if not path.is_file():
        raise InvdiffError(f"There is no file {path}; --{option} takes a TorchScript file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript by torch 2.13
            module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise InvdiffError(
            f"{path} is no TorchScript file; --{option} takes one, as {meant} of StyleGAN's "
            "metrics."
        ) from error
    network = Network(module, how, sha256(path.read_bytes()).hexdigest()[:16], option == "fid")
    called = ", ".join(f"{key}={value}" for key, value in how.items())
    wrong = f"--{option} calls {path} as {meant} of StyleGAN's metrics, f(images, {called})"
    try:
        found = network(torch.zeros(2, 3, side, side))
    except Exception as error:  # TorchScript raises what it likes
        said = " ".join(str(error).split())[:200]
        raise InvdiffError(f"{wrong}, which fails: {said}") from error
    if found.ndim != 2 or len(found) != 2 or not bool(found.isfinite().all()):
        raise InvdiffError(
            f"{wrong}, and takes numbers for each image, found the shape {tuple(found.shape)}."
        )
    return network


def lpips(network: Network, images: Tensor, truth: Tensor) -> list[float]:
    """LPIPS of images (K, C, H, W) and a truth (1, C, H, W), all on [-1, 1].

    Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric",
    arXiv 1801.03924, of the network VGG: the squared distance of features. Images are neither
    rounded nor resized.
    """
    found = network(torch.cat([truth, images]))
    return [float(d) for d in (found[1:] - found[:1]).double().square().sum(1)]
