"""The priors that come with invdiff, and those that `invdiff train` makes."""

from __future__ import annotations

import hashlib
import json
import math
import os
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import admitted_as
from invdiff.priors.base import Prior
from invdiff.priors.networked import Networked
from invdiff.priors.photo_net import PhotoNet, PhotoNetConfig, channels_last, coordinates
from invdiff.priors.precision import Precision
from invdiff.priors.precond import predicts_edm
from invdiff.priors.recompute import Checkpoint, again
from invdiff.priors.spectrum import beside, load


class PhotoPrior(Networked):
    """E[x0 | x0 + sigma eps] on [-1, 1], for photographs or whatever the network was trained on.

    shape: (C, H, W) of the images, with None for a free size, (C, None, None) unless given; or
    (C, T, H, W) for clips, whose C T frames are the channels of the network.
    tile: images with more than tile * tile pixels are denoised in tiles of about this side, which
    overlap by `overlap` pixels on each side; memory then depends on the tile and not on the image.
    With overlap = net.reach the result is the untiled one exactly. Gradients through a tiled image
    recompute each tile. precision: of the network (`priors.precision`); "blocks" and "mixed"
    are bfloat16 where the error spectrum allows it, several times faster on GPUs and on CPUs with
    AMX. checkpoint: as in `Networked`, also of each tile.
    """

    name = "photo"
    tile: int
    net: PhotoNet

    def __init__(
        self,
        net: PhotoNet,
        tile: int = 768,
        overlap: int = 64,
        precision: Precision = "float32",
        shape: tuple[int | None, ...] | None = None,
        checkpoint: Checkpoint = "auto",
    ) -> None:
        self.net = channels_last(net.eval().requires_grad_(False))
        self.shape = shape or (net.config.channels, None, None)
        self.precond = predicts_edm(net.config.sigma_data)
        self.precision = admitted_as(Precision, precision, "precision")
        if tile % net.stride or overlap % net.stride or tile <= 0 or overlap < 0:
            raise InvdiffError(
                f"Tiles of {tile} with an overlap of {overlap} do not fit this network; "
                f"give multiples of {net.stride}."
            )
        self.tile, self.overlap = tile, overlap
        self.sigma_min, self.sigma_max = 0.002, 160.0
        self.facts: dict[str, Any] = {}  # what its training recorded
        self._hash = ""
        self.set_checkpoint(checkpoint)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        if x.ndim == 5:
            return self.denoise(x.flatten(1, 2), sigma).reshape(x.shape)
        dtype = x.dtype
        sigma_in = min(max(sigma, self.sigma_min), self.sigma_max)
        h, w = x.shape[-2:]
        place = coordinates(h, w).to(x.device)[:, : 4 * self.net.config.located]
        if h * w <= self.tile**2:
            return self._denoise(x.float(), place, sigma, sigma_in).to(dtype)
        return self._tiled(x.float(), place, sigma, sigma_in).to(dtype)

    def _denoise(self, x: Tensor, place: Tensor, sigma: float, sigma_in: float) -> Tensor:
        """D = c_skip x + c_out F(c_in x, c_noise), padded by reflection to the net's stride.

        place: (1, 4 or 0, H, W), appended to the input of the network.
        """
        p, (h, w) = self.precond, x.shape[-2:]
        x_in = torch.cat([p.c_in(sigma) * x, place.expand(len(x), -1, -1, -1)], dim=1)
        x_in = _pad(x_in, self.net.stride)
        x_in = x_in.contiguous(memory_format=torch.channels_last)
        c_noise = torch.full((1,), p.c_noise(sigma_in), dtype=x.dtype, device=x.device)
        numbers = self._numbers(sigma)
        if x_in[0, 0].numel() <= self.net.stride**2 and numbers == "blocks":
            numbers = "float32"  # one number at the coarsest level rounds otherwise among others
        more = (True,) if numbers == "blocks" else ()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=numbers == "bfloat16"):
            out = self.evaluated(x_in, c_noise, *more)[..., :h, :w]
        return p.c_skip(sigma) * x + p.c_out(sigma) * out

    @property
    def bfloat16_from(self) -> float | None:
        """The noise level from which it may run in bfloat16, None where it was not measured."""
        return None if self.spectrum is None else self.spectrum.bfloat16_from

    @property
    def blocks_from(self) -> float | None:
        """The same of its blocks alone."""
        return None if self.spectrum is None else self.spectrum.blocks_from

    def _numbers(self, sigma: float) -> Literal["float32", "blocks", "bfloat16"]:
        """What the network runs in at a noise level."""
        if self.precision in ("float32", "bfloat16"):
            return self.precision
        if (least := self.bfloat16_from) is not None and sigma >= least:
            return "bfloat16"
        least = self.blocks_from if self.precision == "blocks" else None
        return "float32" if least is None or sigma < least else "blocks"

    def _tiled(self, x: Tensor, place: Tensor, sigma: float, sigma_in: float) -> Tensor:
        h, w = x.shape[-2:]
        rows, cols = _spans(h, self.tile, self.net.stride), _spans(w, self.tile, self.net.stride)
        out_rows = []
        for top, bottom in rows:
            pieces = []
            for left, right in cols:
                t, l_ = max(top - self.overlap, 0), max(left - self.overlap, 0)
                around = (..., slice(t, bottom + self.overlap), slice(l_, right + self.overlap))
                given = (x[around], place[around], sigma, sigma_in)
                if x.requires_grad:
                    done = again(self._denoise, *given)
                else:
                    done = self._denoise(*given)
                pieces.append(done[..., top - t : bottom - t, left - l_ : right - l_])
            out_rows.append(torch.cat(pieces, dim=-1))
        return torch.cat(out_rows, dim=-2)

    def psnr_by_sigma(self, images: Tensor, sigmas: tuple[float, ...]) -> dict[str, float]:
        """Mean PSNR in dB (peak 2) of denoised images, by sigma; the noise is always the same."""
        return psnr_by_sigma(self, images, sigmas)

    @property
    def fingerprint(self) -> str:
        """Hash of the configuration and the weights, and not of the file that held them."""
        if not self._hash:
            digest = hashlib.sha256(json.dumps(self.net.config.as_dict()).encode())
            for key, value in sorted(self.net.state_dict().items()):
                digest.update(key.encode() + value.cpu().contiguous().numpy().tobytes())
            self._hash = digest.hexdigest()[:16]
        return self._hash

    def to(self, device: torch.device | str) -> PhotoPrior:
        self.net.to(device)
        return self


def psnr_by_sigma(prior: Prior, images: Tensor, sigmas: tuple[float, ...]) -> dict[str, float]:
    """Mean PSNR in dB (peak 2) of denoised images, by sigma; the noise is always the same."""
    result = {}
    with torch.no_grad():
        for i, sigma in enumerate(sigmas):
            generator = torch.Generator().manual_seed(1000 + i)
            total = 0.0
            for image in images:
                z = torch.randn(image.shape, generator=generator).to(image)
                done = prior.denoise((image + sigma * z)[None], sigma)[0]
                total += float(-10 * torch.log10((done - image).square().mean() / 4))
            result[f"{sigma:g}"] = round(total / len(images), 3)
    return result


def _pad(x: Tensor, stride: int) -> Tensor:
    """Pad bottom and right to multiples of stride: by reflection, or by repetition where short."""
    h, w = x.shape[-2:]
    bottom, right = -h % stride, -w % stride
    if not (bottom or right):
        return x
    mode = "reflect" if bottom < h and right < w else "replicate"
    return F.pad(x, (0, right, 0, bottom), mode=mode)


def _spans(n: int, tile: int, stride: int) -> list[tuple[int, int]]:
    """Cut 0..n into near-equal spans of at most tile, at multiples of stride."""
    count, cells = math.ceil(n / tile), math.ceil(n / stride)
    cuts = [i * cells // count * stride for i in range(count)] + [n]
    return list(zip(cuts[:-1], cuts[1:], strict=True))


def save_weights(net: PhotoNet, path: Path, facts: dict[str, Any]) -> None:
    """Write float16 weights with the network's configuration and facts as metadata, in one move."""
    tensors = {k: v.detach().cpu().half().contiguous() for k, v in net.state_dict().items()}
    metadata = {"config": json.dumps(net.config.as_dict()), "facts": json.dumps(facts)}
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata=metadata)
    part.chmod(0o644)
    os.replace(part, path)


def load_weights(path: Path) -> PhotoPrior:
    """The prior of a file written by save_weights. Raises InvdiffError when it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            config = json.loads(file.metadata()["config"])
            facts = json.loads(file.metadata().get("facts", "{}"))
            tensors = {k: file.get_tensor(k).float() for k in file.keys()}
        config = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
        net = PhotoNet(PhotoNetConfig(**config))
        net.load_state_dict(tensors | dict(net.named_buffers()))  # buffers are constants
    except FileNotFoundError:
        raise InvdiffError(f"There is no file {path}; give the path of trained weights.") from None
    except Exception as error:
        raise InvdiffError(
            f"{path} is not a prior trained by invdiff ({type(error).__name__}); "
            "give a .safetensors file that `invdiff train` wrote."
        ) from error
    recipe = facts.get("recipe", {})
    prior = PhotoPrior(net, shape=tuple(recipe.get("shape") or ()))
    prior.name = recipe.get("name", path.stem)
    prior.facts = facts
    prior.spectrum = load(beside(path), prior.fingerprint)
    return prior


def load_embedded(name: str) -> PhotoPrior:
    """The prior called name that comes with the package."""
    weights = resources.files("invdiff.priors") / "weights" / f"{name}.safetensors"
    with resources.as_file(weights) as path:
        return load_weights(path)
