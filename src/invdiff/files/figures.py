"""Figures of a restoration: the uncertainty with its scale, and everything on one sheet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "inferno"


@dataclass(frozen=True)
class Scale:
    """What the pixels of a picture mean: values of black and of white, and their units.

    Without units, they are those of photographs, and no scale is drawn beside a picture.
    """

    low: float = 0.0
    high: float = 1.0
    units: str = ""

    @property
    def words(self) -> str:
        """The units, for the label of an uncertainty."""
        return self.units or "black 0, white 1"


PHOTOGRAPH = Scale()


def uncertainty_picture(
    std: Tensor, samples: int, path: Path, scale: Scale = PHOTOGRAPH, side: int = 1200
) -> None:
    """Write the standard deviation of every pixel as a picture with a colour scale.

    std: (C, H, W) in the units of the scale; channels are joined by their root mean square.
    samples: how many it was computed from. side: of the picture, in pixels, at most; a small one
    is enlarged to about half of that.
    """
    image = _shrunk(_joined(std), side)
    height, width = image.shape
    zoom = max(1, side // (2 * max(height, width)))
    w, h = width * zoom / 100, height * zoom / 100
    pad, room = 0.35, 1.1
    figure = new_figure(w + 2 * pad + room, max(h, 2.2) + 2 * pad)
    full_w, full_h = figure.get_size_inches()
    axes = figure.add_axes((pad / full_w, (full_h - h) / 2 / full_h, w / full_w, h / full_h))
    _heat(axes, image, scale)
    bar = figure.add_axes(
        ((w + 1.6 * pad) / full_w, pad / full_h, 0.18 / full_w, 1 - 2 * pad / full_h)
    )
    mappable = axes.get_images()[0]
    figure.colorbar(mappable, cax=bar, extend="max")
    bar.set_ylabel(f"std of {samples} samples ({scale.words})", fontsize=8)
    bar.tick_params(labelsize=8)
    figure.savefig(path)


def overview(
    panels: list[tuple[str, Tensor]],
    std: Tensor | None,
    path: Path,
    title: str = "",
    scale: Scale = PHOTOGRAPH,
) -> None:
    """Write one sheet of titled pictures, and of the uncertainty where std is given.

    panels: (title, pixels (1 or 3, H, W) on [0, 1]). std: as for uncertainty_picture. scale: of
    both; where it has units, it is drawn beside the last picture.
    """
    count = len(panels) + (std is not None)
    columns = count if count <= 4 else math.ceil(count / 2) if count <= 8 else 4
    rows = math.ceil(count / columns)
    height, width = panels[-1][1].shape[-2:]
    panel_h = 3.4 * min(max(height / width, 0.35), 2.0)
    figure = new_figure(3.4 * columns + 0.6, (panel_h + 0.4) * rows + 0.4)
    figure.set_layout_engine("constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (name, pixels) in zip(grid, panels, strict=False):
        _show(axes, _shrunk(pixels, 900), scale)
        axes.set_title(name, fontsize=10)
    if scale.units:
        _bar(figure, grid[len(panels) - 1], "both").set_xlabel(scale.units, fontsize=8)
    if std is not None:
        axes = grid[len(panels)]
        _heat(axes, _shrunk(_joined(std), 900), scale)
        axes.set_title(f"uncertainty: std ({scale.words})", fontsize=10)
        bar = _bar(figure, axes, "max")
        if scale.units:  # few ticks, for numbers may be long
            bar.set_xticks(bar.get_xticks()[::2])
    for axes in grid[count:]:
        axes.remove()
    figure.suptitle(title, fontsize=11)
    figure.savefig(path)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches, at 100 pixels per inch, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _joined(std: Tensor) -> Tensor:
    """Root mean square over the channels, (1, H, W)."""
    return std.detach().cpu().double().square().mean(0, keepdim=True).sqrt()


def _shrunk(x: Tensor, side: int) -> np.ndarray:
    """(C, H, W) averaged down to at most `side` pixels a side; (H, W) or (H, W, 3)."""
    x = x.detach().cpu().float()
    height, width = x.shape[-2:]
    factor = side / max(height, width)
    if factor < 1:
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        x = F.adaptive_avg_pool2d(x[None], size)[0]
    array: np.ndarray = x.permute(1, 2, 0).numpy()
    return array[..., 0] if array.shape[2] == 1 else array


def _bar(figure: Figure, axes: Axes, extend: str) -> Axes:
    """The scale of the picture in axes, below it."""
    image = axes.get_images()[0]
    bar = figure.colorbar(image, ax=axes, location="bottom", extend=extend, pad=0.02, aspect=30)
    bar.ax.tick_params(labelsize=8)
    return bar.ax


def _show(axes: Axes, image: np.ndarray, scale: Scale) -> None:
    image, grey = image.clip(0, 1), dict[str, Any]()
    if image.ndim == 2:
        image = scale.low + (scale.high - scale.low) * image
        grey = {"cmap": "gray", "vmin": scale.low, "vmax": scale.high}
    axes.imshow(image, interpolation=_interpolation(image), **grey)
    axes.set_axis_off()


def _heat(axes: Axes, image: np.ndarray, scale: Scale) -> None:
    """The uncertainty, from 0 to what 99.5 % of the pixels stay below."""
    top = max(float(np.quantile(image, 0.995)), 1e-6 * (scale.high - scale.low))
    axes.imshow(image, cmap=COLOURS, vmin=0, vmax=top, interpolation=_interpolation(image))
    axes.set_axis_off()


def _interpolation(image: np.ndarray) -> str:
    """Hard pixels where there are few of them."""
    return "nearest" if max(image.shape[:2]) < 200 else "antialiased"
