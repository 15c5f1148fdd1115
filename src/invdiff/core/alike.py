"""A row alone becomes the same bits as among others, in float32 on a CPU.

For one row of at most `FEW` numbers torch takes its own convolution in place of oneDNN's, which
rounds otherwise (`use_mkldnn` of aten/src/ATen/native/Convolution.cpp); and a product with one
vector rounds otherwise than one with a matrix. So a single row is calculated as one of two there.
What is doubled is small: the layers of a network that are large anyway are left alone.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

FEW = 20480
"""Numbers of a row up to which torch takes another convolution for it alone."""
CONVOLUTIONS = {
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
}


_ENTERED = threading.local()


class Alike(TorchFunctionMode):
    """Within it, convolutions see two equal rows where there is one; `linear`: so do linear layers.

    linear: for networks whose every array has a row for each image. Where something is shared by
    the rows, as one noise level is, its single row is one among others too.
    """

    def __init__(self, linear: bool = False) -> None:
        super().__init__()
        self.linear = linear
        self.doubled = CONVOLUTIONS | ({F.linear} if linear else set())

    def __enter__(self) -> Alike:
        _ENTERED.linear = (*_entered(), self.linear)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        _ENTERED.linear = _entered()[:-1]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if args and func in self.doubled and _alone(args[0]):
            return func(torch.cat([args[0], args[0]]), *args[1:], **kwargs)[:1]
        return func(*args, **kwargs)


def _alone(x: Any) -> bool:
    single = isinstance(x, Tensor) and x.ndim >= 2 and len(x) == 1 and x.device.type == "cpu"
    return bool(single and x.dtype == torch.float32 and x.numel() <= FEW)


def alike(
    rows: int, device: torch.device, linear: bool = False
) -> contextlib.AbstractContextManager[object]:
    """Where a row is the same alone as among others: needed for one row, on a CPU."""
    needed = rows == 1 and device.type == "cpu" and not torch.compiler.is_compiling()
    return Alike(linear) if needed else contextlib.nullcontext()


def _entered() -> tuple[bool, ...]:
    """`linear` of each that this thread is within."""
    return getattr(_ENTERED, "linear", ())


class AlikeAsNow:
    """Enters later, any number of times, what is entered when it is made: for what a backward pass
    calculates again, which torch runs outside of such modes."""

    def __init__(self) -> None:
        self.now, self.stack = _entered(), contextlib.ExitStack()

    def __enter__(self) -> None:
        for linear in self.now:
            self.stack.enter_context(Alike(linear))

    def __exit__(self, *error: Any) -> None:
        self.stack.close()


def irfft2(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """`torch.fft.irfft2` of (..., H, W // 2 + 1), a single one of which rounds as several do.

    MKL transforms one image in another way on some processors; so it is given two.
    """
    if spectrum.device.type != "cpu" or spectrum[..., 0, 0].numel() > 1:
        return torch.fft.irfft2(spectrum, s=size)
    two = spectrum.expand(2, *spectrum.shape).contiguous()
    return torch.fft.irfft2(two, s=size)[0]
