"""The published nonlinear blur: a trained network that blurs an image as a code tells it to."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.operators.algebra import Operator
from invdiff.operators.sizes import checked_size, whole

STRIDE = 128
"""Pixels of an image for each entry of the code: two halvings of the features, five of the net."""
UNUSED = "kernel_extractor."
"""Weights of the part that reads a code off a sharp and a blurred image; no blurring needs it."""


@dataclass(frozen=True, eq=False)
class KernelNetworkBlur(Operator):
    """y = x + G(x, code) on [0, 1]: the generator of Tran et al. 2021, with weights from a file.

    Tran, Tran, Phung, Hoai 2021, "Explore Image Deblurring via Encoded Blur Kernel Space", arXiv
    2104.00317; the nonlinear deblurring task of Chung et al. 2023 (DPS, arXiv 2209.14687) with the
    published file GOPRO_wVAE.pth. It is not shipped: `NonlinearBlur` stands in where there is none.
    `KernelNetworkBlur.load(path, size)` reads the file and draws one code, which all calls share.

    weights: name to tensor, as in the authors' state dict; the sizes of the network (width, numbers
    of blocks, channels) are read off it. code: (M or 1, c, H / 128, W / 128); N(0, 1.2^2) in DPS.
    Images (B, C, H, W) on [-1, 1], C and c those of the weights (3 and 512), H and W multiples of
    128, to y of the same shape. clamp: cut y to [-1, 1] as DPS does; no gradient passes there.
    Known deviation: DPS draws a new code at each call, so that y and the guidance differ.
    Raises InvdiffError for weights in another layout, and for images of another size.
    """

    weights: Mapping[str, Tensor]
    code: Tensor
    clamp: bool = False

    batched: ClassVar[tuple[str, ...]] = ("code",)

    def __post_init__(self) -> None:
        used = {k: v for k, v in self.weights.items() if not k.startswith(UNUSED)}
        layout = expected(used)
        for name, shape in layout.items():
            if name not in used:
                raise InvdiffError(f"The weights lack {name}; this is no network of that kind.")
            if tuple(used[name].shape) != shape:
                raise InvdiffError(
                    f"{name} has shape {tuple(used[name].shape)}, but the other weights ask for "
                    f"{shape}."
                )
        extra = sorted(set(used) - set(layout))
        if extra:
            raise InvdiffError(
                f"The weights hold {extra[0]} and {len(extra) - 1} more that this network has no "
                "place for."
            )
        if not all(v.is_floating_point() and bool(torch.isfinite(v).all()) for v in used.values()):
            raise InvdiffError("The weights hold numbers that are not real and finite.")
        code = self.code
        channels = 8 * _width(used)
        if code.ndim != 4 or 0 in code.shape or code.shape[1] != channels:
            raise InvdiffError(
                f"A code has shape (batch or 1, {channels}, height / {STRIDE}, width / {STRIDE}), "
                f"found {tuple(code.shape)}."
            )
        object.__setattr__(self, "weights", used)

    @classmethod
    def load(
        cls,
        path: str | Path,
        size: tuple[int, int],
        seed: int = 0,
        scale: float = 1.2,
        clamp: bool = False,
    ) -> KernelNetworkBlur:
        """The network of a state dict (.pth or .safetensors), and one code for images of `size`.

        seed, scale: the code is scale times white noise of this seed. Pickled files are read
        without running any code. Raises InvdiffError for whatever is missing, broken or different.
        """
        size = checked_size(size)
        if any(n % STRIDE for n in size):
            raise InvdiffError(
                f"The network takes sides that are multiples of {STRIDE} pixels, found {size[0]} x "
                f"{size[1]}; crop or pad the image."
            )
        if not 0 <= scale < float("inf"):
            raise InvdiffError(f"The scale of a code is a number of 0 or more, found {scale}.")
        weights = read_weights(Path(path))
        like = torch.empty(1, 8 * _width(weights), *(n // STRIDE for n in size))
        return cls(weights, scale * Rng.of(seed).normal(like, "code"), clamp)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        moved = super().to(device, dtype)
        return dataclasses.replace(
            moved, weights={k: v.to(device, dtype) for k, v in self.weights.items()}
        )

    def _conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        """Convolution with zeros around the image: by 3 x 3 taps, or by 4 x 4 that halve it."""
        w, b = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        return F.conv2d(x, w.to(x), None if b is None else b.to(x), stride, padding=1)

    def _residual(self, name: str, x: Tensor) -> Tensor:
        return x + self._conv(f"{name}.conv2", F.relu(self._conv(f"{name}.conv1", x)))

    def _adapted(self, x: Tensor, code: Tensor, name: str, depth: int) -> Tensor:
        """One level of the U-net: halved, the levels below, doubled."""
        first = depth == 0
        inner = x if first else F.leaky_relu(x, 0.2)
        inner = self._conv(f"{name}.down.{0 if first else 1}", inner, stride=2)
        if depth == 4:
            inner = torch.cat([inner, code], dim=1)
        else:
            inner = self._adapted(inner, code, f"{name}.submodule", depth + 1)
        w, b = self.weights[f"{name}.up.1.weight"], self.weights.get(f"{name}.up.1.bias")
        up = F.conv_transpose2d(
            F.relu(inner), w.to(x), None if b is None else b.to(x), stride=2, padding=1
        )
        return torch.tanh(up) if first else torch.cat([up, x], dim=1)

    def __call__(self, x: Tensor) -> Tensor:
        base = (x + 1) / 2
        h = base
        for i, stride in ((0, 1), (2, 2), (4, 2)):
            h = F.leaky_relu(self._conv(f"feature_extractor.{i}", h, stride), 0.1)
        for i in range(_blocks(self.weights, "feature_extractor")):
            h = self._residual(f"feature_extractor.{6 + i}", h)
        code = self.code.to(x).expand(len(x), -1, -1, -1)
        h = self._adapted(h, code, "adapter.model", 0)
        back = _blocks(self.weights, "recon_trunk")
        for i in range(back):
            h = self._residual(f"recon_trunk.{i}", h)
        for i in (back, back + 3):
            h = F.leaky_relu(F.pixel_shuffle(self._conv(f"recon_trunk.{i}", h), 2), 0.1)
        h = F.leaky_relu(self._conv(f"recon_trunk.{back + 6}", h), 0.1)
        y = 2 * (self._conv(f"recon_trunk.{back + 8}", h) + base) - 1
        return y.clamp(-1, 1) if self.clamp else y

    def guess(self, y: Tensor, x_shape: tuple[int, ...]) -> Tensor:
        """A(y), the measurement blurred once more: where the code of RED-diff starts."""
        return self(y)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        channels = self.weights["feature_extractor.0.weight"].shape[1]
        rows, columns = (n * STRIDE for n in self.code.shape[-2:])
        if tuple(x_shape) != (channels, rows, columns):
            raise InvdiffError(
                f"This network and code blur images of ({channels}, {rows}, {columns}), found "
                f"images of shape {tuple(x_shape)}."
            )
        return tuple(x_shape)


def _width(weights: Mapping[str, Tensor]) -> int:
    """Channels of the features."""
    first = weights.get("feature_extractor.0.weight")
    if first is None or first.ndim != 4 or not whole(first.shape[0]):
        raise InvdiffError(
            "These are no weights of the kernel network of Tran et al. 2021: they lack "
            "feature_extractor.0.weight."
        )
    return int(first.shape[0])


def _blocks(weights: Mapping[str, Tensor], part: str) -> int:
    """How many residual blocks a part has."""
    return sum(re.fullmatch(rf"{part}\.\d+\.conv1\.weight", name) is not None for name in weights)


def expected(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Name to shape of all weights that blurring needs, for a network as wide and deep as these."""
    n, channels = _width(weights), int(weights["feature_extractor.0.weight"].shape[1])
    found: dict[str, tuple[int, ...]] = {}

    def conv(name: str, outputs: int, inputs: int, bias: bool = True, taps: int = 3) -> None:
        found[f"{name}.weight"] = (outputs, inputs, taps, taps)
        if bias:
            found[f"{name}.bias"] = (outputs,)

    for i, inputs in ((0, channels), (2, n), (4, n)):
        conv(f"feature_extractor.{i}", n, inputs)
    back = _blocks(weights, "recon_trunk")
    for part, first, count in (
        ("feature_extractor", 6, _blocks(weights, "feature_extractor")),
        ("recon_trunk", 0, back),
    ):
        for i in range(first, first + count):
            conv(f"{part}.{i}.conv1", n, n)
            conv(f"{part}.{i}.conv2", n, n)
    name, outer, inner = "adapter.model", (n, n, 2 * n, 4 * n, 8 * n), (n, 2 * n, 4 * n, 8 * n)
    for depth, (o, i) in enumerate(zip(outer, (*inner, 8 * n), strict=True)):
        conv(f"{name}.down.{min(depth, 1)}", i, o, bias=False, taps=4)
        found[f"{name}.up.1.weight"] = (2 * i, o, 4, 4)  # inputs first: it is transposed
        if depth == 0:
            found[f"{name}.up.1.bias"] = (o,)
        name = f"{name}.submodule"
    conv(f"recon_trunk.{back}", 4 * n, n)
    conv(f"recon_trunk.{back + 3}", 256, n)  # these widths do not follow n in the published code
    conv(f"recon_trunk.{back + 6}", 64, 64)
    conv(f"recon_trunk.{back + 8}", channels, 64)
    return found


def read_weights(path: Path) -> dict[str, Tensor]:
    """Name to tensor of a state dict. Raises InvdiffError unless it holds nothing else."""
    if not path.is_file():
        raise InvdiffError(f"There is no file {path}.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # readers of damaged files raise whatever they stumble over
        raise InvdiffError(
            f"{path} is no file of weights alone (.pth or .safetensors), or it is damaged; nothing "
            "in it was run."
        ) from error
    fine = isinstance(found, dict) and all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()
    )
    if not fine:
        raise InvdiffError(f"{path} holds no state dict: names with tensors and nothing else.")
    return dict(found)
